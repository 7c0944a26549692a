"""`stored_tokens`: one sign-in for many real processes, tokens that the database does not give away, none spent twice."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from clients import AuthRefusedError, ConnectFailedError, HttpClient, OAuth2ClientCredentials, OAuth2RefreshToken, Token
from flows import stored_tokens
from flows.enqueue import using
from jobs import JobStore
from jobs.db.job_session import as_current_unit
from jobs.job import Lane
from jobs.oauth_tokens import Tokens
from syncs_testing import Reply, Seen, Server, serving

SECRET = "cl1ent-s3cret"
#: A worker of its own: signs in through the shared store and asks the API so many times, then says what it got.
WORKER = """
import json, sys
from clients import AuthRefusedError, ClientError, HttpClient, OAuth2RefreshToken
from flows import stored_tokens
import logging
logging.basicConfig(level=logging.DEBUG)
issuer, api, first, times, secret = sys.argv[1:]
auth = OAuth2RefreshToken(issuer, "me", secret, first, store=stored_tokens("petstore", secret), timeout=10)
good = refused = 0
with HttpClient(api, auth=auth) as http:
    for _ in range(int(times)):
        try:
            http.get_json("a")
            good += 1
        except AuthRefusedError as error:
            if "token" in error.message:
                print(json.dumps({"good": good, "error": error.message}))
                sys.exit(1)
            refused += 1
print(json.dumps({"good": good, "refused": refused}))
"""


class Issuer:
    """A token endpoint whose refresh tokens are good once, and an API whose access tokens are good for three requests."""

    def __init__(self) -> None:
        self.refresh = "refr3sh-0"
        self.rotates = True
        self.issued = 0
        #: Refresh tokens that came, in order.
        self.spent: list[str] = []
        self.uses: dict[str, int] = {}
        #: Called between issuing and answering.
        self.before_answer: Callable[[], None] = lambda: None
        self.before_issue: Callable[[], Reply | None] = lambda: None
        self.token_server: Server
        self.api_server: Server

    @property
    def reused(self) -> int:
        """How often a spent refresh token came."""
        return len(self.spent) - len(set(self.spent))

    def token(self, seen: Seen) -> Reply:
        """Issue a token, as RFC 6749 says."""
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        if form.get("client_secret") != SECRET:
            return Reply({"error": "invalid_client"}, 401)
        early = self.before_issue()
        if early is not None:
            return early
        if form["grant_type"] == "refresh_token":
            self.spent.append(form["refresh_token"])
            if form["refresh_token"] != self.refresh:
                return Reply({"error": "invalid_grant"}, 400)
        self.issued += 1
        if self.rotates:
            self.refresh = f"refr3sh-{self.issued}"
        self.uses[f"acc3ss-{self.issued}"] = 0
        self.before_answer()
        return Reply({"access_token": f"acc3ss-{self.issued}", "expires_in": 3600, "refresh_token": self.refresh})

    def answer(self, seen: Seen) -> Reply:
        """Answer as the API does."""
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if self.uses.get(token, 99) >= 3:
            return Reply({}, 401)
        self.uses[token] += 1
        return Reply({"token": token})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """A token endpoint and an API, on two origins."""
    found = Issuer()
    with serving(found.token) as found.token_server, serving(found.answer) as found.api_server:
        yield found


class Workers:
    """Processes that share a sign-in."""

    def __init__(self, issuer: Issuer, url: str) -> None:
        self.issuer = issuer
        self.environment = {**os.environ, "SYNCS_DATABASE_URL": url}
        self.said: list[str] = []

    def start(self, *, times: int = 12, first: str = "refr3sh-0", secret: str = SECRET) -> subprocess.Popen[str]:
        """Start one."""
        words = [self.issuer.token_server.url, self.issuer.api_server.url, first, str(times), secret]
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, *words],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for one, and return what it came to."""
        out, err = process.communicate(timeout=60)
        self.said += [out, err]
        assert out, err
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def workers(issuer: Issuer, database_url: str) -> Workers:
    """Processes on a fresh database."""
    return Workers(issuer, database_url)


@pytest.fixture
def here(store: JobStore) -> Iterator[JobStore]:
    """Let this process keep its tokens in the test's database."""
    with using(store):
        yield store


def auth_of(issuer: Issuer, *, first: str = "refr3sh-0", timeout: float = 60, **more: Any) -> OAuth2RefreshToken:
    """The sign-in of a process of this project."""
    store = stored_tokens("petstore", SecretStr(SECRET), **more)
    return OAuth2RefreshToken(issuer.token_server.url, "me", SECRET, first, store=store, timeout=timeout)


@contextmanager
def losing_answers(issuer: Issuer) -> Iterator[None]:
    """Let the token endpoint do what it is asked, and say nothing until the block has ended."""
    asked, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        is_over.wait(60)

    issuer.before_answer = hold
    try:
        with pytest.raises(Exception, match="no answer in time"):
            yield
        assert asked.wait(60)
    finally:
        issuer.before_answer = lambda: None
        is_over.set()


def ask(issuer: Issuer, auth: Any) -> str:
    """Ask the API once, over a client of its own; return the access token that was used."""
    with HttpClient(issuer.api_server.url, auth=auth) as http:
        return str(http.get_json("a")["token"])


def dump(store: JobStore) -> str:
    """Everything that the tables of tokens and locks hold."""
    with store.db.read() as connection:
        return repr([connection.execute(text(f'SELECT * FROM "{name}"')).all() for name in ("token", "lock")])


def test_processes_spend_no_refresh_token_twice(issuer: Issuer, workers: Workers, store: JobStore) -> None:
    """Three processes that renew every few requests: each refresh token comes once, all get answers, and no secret is kept."""
    processes = [workers.start() for _ in range(3)]
    found = [workers.end(process) for process in processes]
    assert sum(one["good"] for one in found) >= 12
    assert issuer.reused == 0
    assert issuer.issued >= 3
    kept = dump(store)
    assert "petstore" in kept
    for secret in (SECRET, "acc3ss-", "refr3sh-"):
        assert secret not in kept
        assert secret not in "".join(workers.said)


def test_a_process_killed_before_it_sends_leaves_a_good_token(issuer: Issuer, workers: Workers, here: JobStore) -> None:
    """Killed inside the lease before anything was sent, it costs nothing: the next process renews."""
    script = (
        "import os, sys, time\nfrom flows import stored_tokens\n"
        "with stored_tokens('petstore', sys.argv[1]).lease():\n    print('in', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, SECRET], env=workers.environment, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"in\n"
    waiting = workers.start(times=2)
    time.sleep(0.5)
    assert issuer.issued == 0
    holder.kill()
    holder.communicate()
    assert workers.end(waiting) == {"good": 2, "refused": 0}
    assert (issuer.spent, issuer.reused) == (["refr3sh-0"], 0)


@pytest.mark.slow
def test_a_process_killed_while_it_sends_spends_nothing_twice(issuer: Issuer, workers: Workers, here: JobStore) -> None:
    """Killed between the token endpoint's deed and its answer, its refresh token is not sent again; a new sign-in goes on."""
    assert workers.end(workers.start(times=1))["good"] == 1
    issuer.uses.clear()
    process = workers.start(times=5)
    issuer.before_answer = lambda: os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    issuer.before_answer = lambda: None
    assert issuer.spent == ["refr3sh-0", "refr3sh-1"]
    for _ in range(2):
        error = workers.end(workers.start(times=1))["error"]
        assert "'petstore'" in error
        assert "may be spent; sign in anew" in error
    assert issuer.spent == ["refr3sh-0", "refr3sh-1"]
    issuer.refresh = "refr3sh-new"
    assert workers.end(workers.start(times=1, first="refr3sh-new"))["good"] == 1
    assert issuer.reused == 0


@pytest.mark.slow
def test_many_kills_spend_nothing_twice(issuer: Issuer, workers: Workers) -> None:
    """Two processes at a time, one of them killed at a moment of chance, again and again: no refresh token comes twice."""
    first = "refr3sh-0"
    for number in range(4):
        one, other = (workers.start(times=30, first=first) for _ in range(2))
        time.sleep(0.45 + 0.06 * number)
        one.kill()
        one.communicate()
        said = workers.end(other)
        if "error" in said:
            issuer.refresh = first = f"refr3sh-again-{number}"
    assert issuer.reused == 0
    assert issuer.issued >= 4


def test_an_answer_that_is_lost_is_not_asked_for_again(issuer: Issuer, here: JobStore) -> None:
    """A timeout at the token endpoint leaves the doubt, a refusal or a connection that failed does not."""
    issuer.before_issue = lambda: Reply({}, 503)
    for _ in range(2):
        with pytest.raises(Exception, match="503"):
            ask(issuer, auth_of(issuer))
    issuer.before_issue = lambda: Reply({"error": "invalid_grant"}, 400)
    with pytest.raises(AuthRefusedError, match="400 invalid_grant"):
        ask(issuer, auth_of(issuer))
    issuer.before_issue = lambda: None
    with losing_answers(issuer):
        ask(issuer, auth_of(issuer, timeout=1))
    with pytest.raises(AuthRefusedError, match="the answer was lost"):
        ask(issuer, auth_of(issuer))
    assert issuer.spent == ["refr3sh-0"]
    # Only who says so spends it again.
    with pytest.raises(AuthRefusedError, match="invalid_grant"):
        ask(issuer, auth_of(issuer, repeat=True))
    assert issuer.spent == ["refr3sh-0"] * 2


def test_an_answer_without_a_token_is_not_asked_for_again(issuer: Issuer, here: JobStore) -> None:
    """An answer that breaks off, or has no token, came after the refresh token was taken: a second use could end the sign-in."""
    issued = issuer.token
    issuer.token_server.respond = lambda seen: Reply(b'{"access_token": "abc", "ref') if issued(seen).status == 200 else Reply({})
    with pytest.raises(AuthRefusedError, match="no access_token"):
        ask(issuer, auth_of(issuer))
    issuer.token_server.respond = issued
    with pytest.raises(AuthRefusedError, match="the answer was lost"):
        ask(issuer, auth_of(issuer))
    assert (issuer.spent, issuer.reused) == (["refr3sh-0"], 0)


def test_refresh_tokens_that_stay_are_sent_again(issuer: Issuer, here: JobStore) -> None:
    """Where a renewal brought the same refresh token back, a lost answer is no doubt: the next one renews."""
    issuer.rotates = False
    assert ask(issuer, auth_of(issuer)) == "acc3ss-1"
    issuer.uses.clear()
    with losing_answers(issuer):
        ask(issuer, auth_of(issuer, timeout=1))
    assert ask(issuer, auth_of(issuer)) == "acc3ss-3"


def test_another_client_secret_makes_it_worthless(issuer: Issuer, here: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """What was sealed with another secret counts as none, is said once, and is replaced."""
    old, new = stored_tokens("petstore", "an older secret"), stored_tokens("petstore", SECRET)
    with old.lease():
        assert old.swap(None, Token("acc3ss", 1.5, "refr3sh", "o"))
    assert old.load() == Token("acc3ss", 1.5, "refr3sh")
    # Nor is a row of use under another name.
    sealed = Tokens(here.db).get("petstore")
    assert sealed is not None
    assert Tokens(here.db).put("another", sealed.text, version=0)
    assert stored_tokens("another", "an older secret").load() is None
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert [new.load(), new.load()] == [None, None]
    assert [record.message.count("another client secret") for record in caplog.records] == [1]
    assert "acc3ss" not in f"{caplog.text}{new!r}"
    assert ask(issuer, auth_of(issuer)) == "acc3ss-1"
    assert old.load() is None


def test_swap_compares(here: JobStore) -> None:
    """A token is replaced only by who knows it: access token, end and refresh token; its origin is kept."""
    store, other = stored_tokens("a", SECRET), stored_tokens("a", SECRET)
    first, second = Token("x", 1.25, "r", "origin"), Token("y", None, None, "else")
    assert store.load() is None
    assert not store.swap(second, first)
    assert store.swap(None, first)
    assert not other.swap(None, second)
    for wrong in (Token("z", 1.25, "r"), Token("x", 1.5, "r"), Token("x", 1.25, "s")):
        assert not other.swap(wrong, second)
    loaded = other.load()
    assert loaded is not None
    assert (loaded, loaded.origin) == (first, "origin")
    assert other.swap(loaded, second)
    assert store.load() == second


def test_one_lease_over_all(here: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second waits, and is told so when that takes too long; another name is another lease."""
    monkeypatch.setattr("flows.database_token_store.LEASE_TIMEOUT", 0.2)
    with stored_tokens("a", SECRET).lease(), stored_tokens("b", SECRET).lease():
        failed: list[BaseException] = []

        def second() -> None:
            try:
                with stored_tokens("a", SECRET).lease():
                    pass
            except TimeoutError as error:
                failed.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "token/a" in str(failed[0])
    with stored_tokens("a", SECRET).lease():
        pass


def test_versions_are_compared_in_the_table(store: JobStore) -> None:
    """Of two that replace one version, one is told no."""
    tokens = Tokens(store.db)
    assert tokens.get("a") is None
    assert [tokens.put("a", text, version=version) for text, version in (("x", 0), ("y", 0), ("y", 2), ("z", 1), ("z", 1))] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert tokens.get("a") == ("z", 2)


def test_a_job_that_holds_the_writer_is_not_kept_waiting(issuer: Issuer, here: JobStore, dialect: str) -> None:
    """On SQLite a renewal inside a job's open transaction would wait for itself: it fails at once, and nothing is spent."""
    from jobs.enqueueing.duplicates import NewJob

    here.enqueue([NewJob(Lane("q", "c", "t"), None)])
    (job,) = here.claim([Lane("q", "c", "t")], 1, worker="elsewhere:1:1:1", lease=60)
    unit = here.checkpoints.unit_of_work(job)
    with as_current_unit(unit):
        unit.session.execute(text("UPDATE maintenance SET name = name"))
        if dialect == "sqlite":
            with pytest.raises(ConnectFailedError, match="ask first, write last"):
                ask(issuer, auth_of(issuer))
            assert issuer.spent == []
        else:
            assert ask(issuer, auth_of(issuer)) == "acc3ss-1"
        unit.session.rollback()
    assert ask(issuer, auth_of(issuer)) == "acc3ss-1"


def test_client_credentials_are_shared_too(issuer: Issuer, here: JobStore) -> None:
    """A second process takes the first one's token in place of fetching its own; a lost answer is no doubt there."""

    def auth(timeout: float = 60) -> OAuth2ClientCredentials:
        kept = stored_tokens("petstore", SECRET)
        return OAuth2ClientCredentials(issuer.token_server.url, "me", SECRET, store=kept, timeout=timeout)

    issuer.rotates = False
    with losing_answers(issuer):
        ask(issuer, auth(timeout=1))
    assert [ask(issuer, auth()), ask(issuer, auth())] == ["acc3ss-2", "acc3ss-2"]


@pytest.mark.parametrize(("name", "secret"), [("", "s"), ("a", ""), ("a", SecretStr(""))])
def test_a_name_and_a_secret_are_needed(name: str, secret: Any) -> None:
    """Without either there is nothing to keep it under, or to seal it with."""
    with pytest.raises(ValueError, match="stored_tokens"):
        stored_tokens(name, secret)
