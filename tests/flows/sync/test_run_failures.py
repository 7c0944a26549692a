"""Runs of the engine against an API in trouble: failures, retries, pauses, and listings that break."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clients import Entity, HttpClient, Page, PageNumber
from clients import Listing as HttpListing
from flows import PausePolicy
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import Failure, JobStore, Pause, Retry, Snooze
from tests.support.fake_things_api import CLIENT, SYNC, Fault, Remote, change, declare, live, query, serving, states

NEVER = Retry(max_retries=0)
LATER = Retry(max_retries=3, delay=3600, jitter=False)
PATIENT = PausePolicy(after=1000)
CHECKED = {"check": lambda http: http.get_json("things/k0")}


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found


def run(store: JobStore, remote: Remote, *, options: dict[str, Any] | None = None, **fields: Any) -> RunResult:
    """Run the sync of this remote; `options` are the run's."""
    return engine.run(declare(remote.url, **fields), store, **(options or {}))


def counts(result: RunResult, names: str) -> tuple[Any, ...]:
    """Return several fields at once."""
    return tuple(getattr(result, name) for name in names.split())


def job(store: JobStore, key: str) -> dict[str, Any]:
    """Return the newest job of an entity."""
    return query(store, "SELECT * FROM job WHERE key = :key ORDER BY id DESC", key=key)[0]


# -- entities that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(422), "422"),
        (Fault(400), "400"),
        (Fault(302, headers={"Location": "ftp://x"}), "302"),
    ],
    ids=["422", "400", "redirect"],
)
def test_failed_entity_is_recorded_and_the_others_go_on(store: JobStore, remote: Remote, fault: Fault, said: str) -> None:
    """One entity that fails stands on its job with its message; everything else arrives, and the run is partial."""
    remote.fill(30)
    remote.faults["k3"] = fault
    result = run(store, remote)
    assert counts(result, "state exit_code succeeded failed message") == ("partial", 1, 29, 1, "1 of 30 failed")
    assert said in dict(result.failures)["k3"]
    assert live(store) == set(remote.things) - {"k3"}
    found = job(store, "k3")
    assert (found["state"], found["attempts"], remote.details["k3"]) == ("failure", 1, 1)
    assert said in found["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"<html>busy</html>", "not JSON"), (b"", "no body"), (b'{"id": "k3", "na', "not JSON"), (b"\0\0\0", "not JSON")],
    ids=["html", "empty", "half", "binary"],
)
def test_a_broken_body_uses_the_retries_of_its_entity(store: JobStore, remote: Remote, body: bytes, said: str) -> None:
    """What comes with 200 and is not the thing is tried again, like a 500; nothing of it is stored, and the rest arrives."""
    remote.fill(30)
    remote.faults["k3"] = Fault(200, body)
    result = run(store, remote, retry=LATER)
    assert counts(result, "state succeeded failed pending") == ("success", 29, 0, 1)
    found = job(store, "k3")
    assert (found["state"], found["attempts"], found["retries"]) == ("queued", 1, 1)
    assert said in found["message"]
    assert live(store) == set(remote.things) - {"k3"}


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("bad", "fetched"),
    [
        (Entity("bad", "1", {"a": "\ud800"}), False),
        (Entity("bad", "\ud800", {}), True),
        (Entity("bad", "1", ENDLESS), True),
        (Entity("", "1", {}), False),
        (Entity(None, "1", {}), False),  # type: ignore[arg-type]
    ],
    ids=["surrogate", "version", "endless", "no key", "None"],
)
def test_one_item_that_cannot_be_stored(store: JobStore, remote: Remote, bad: Entity, fetched: bool) -> None:
    """It is one failed item, which the result names; the others are stored, in a dry run counted, and nothing is deleted."""
    shown = [Entity("a", "1", {"n": 1}), Entity("gone", "1", {"n": 2})]
    fetch = {"fetch": (lambda http, entity: {"key": entity.key}) if fetched else None}

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        yield Page(shown)
        yield Page([Entity(f"z{n}", "1", {"n": n}) for n in range(10)])

    assert counts(run(store, remote, listing=listing, delete_missing=True, **fetch), "state succeeded") == ("success", 12)
    shown[1:] = [bad, Entity("b", "1", {"n": 4})]
    options: dict[str, Any] = {"listing": listing, "delete_missing": True, "max_delete_share": 1.0, **fetch}
    dry = run(store, remote, options={"dry_run": True}, **options)
    result = run(store, remote, **options)
    assert (dry.listed, dry.flawed) == (12, 1)
    assert counts(result, "state stopped listed flawed deleted") == ("partial", "end", 12, 1, 0)
    assert any("cannot be stored: not JSON" in text or "no key" in text for _, text in result.failures)
    assert live(store) == {"a", "b", "gone", *(f"z{n}" for n in range(10))}


def test_an_answer_that_is_not_ready_is_asked_for_again(store: JobStore, remote: Remote) -> None:
    """202 stores nothing and uses no attempt: the job goes back for as long as the answer says."""
    remote.fill(3)
    remote.faults["k1"] = Fault(202, b"{}", headers={"Retry-After": "3600"})
    result = run(store, remote, retry=NEVER)
    assert counts(result, "state succeeded failed pending") == ("success", 2, 0, 1)
    found = job(store, "k1")
    assert (found["state"], found["attempts"], found["snoozes"]) == ("queued", 0, 1)
    assert "not ready" in found["message"]
    assert live(store) == {"k0", "k2"}


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_answer_that_is_not_ready_is_no_record_however_it_was_asked_for(store: JobStore, remote: Remote, method: str) -> None:
    """A `fetch` may read by `request` and by POST; one that starts something (202) and then reads has its record."""
    remote.fill(3)
    remote.faults["k1"] = Fault(202, b'{"status": "pending"}', headers={"Retry-After": "3600"})

    def fetch(http: Any, entity: Any) -> Any:
        if entity.key == "k2":
            http.request(method, "things/k1")
            method_now = "GET"
        else:
            method_now = method
        return http.request(method_now, f"things/{entity.key}").json()

    result = run(store, remote, retry=NEVER, fetch=fetch)
    assert counts(result, "state succeeded failed snoozed pending") == ("success", 2, 0, 1, 1)
    found = job(store, "k1")
    assert (found["state"], found["attempts"], found["snoozes"]) == ("queued", 0, 1)
    assert "202 Accepted, not ready yet" in found["message"]
    assert live(store) == {"k0", "k2"}


def test_a_job_whose_answer_is_never_ready_fails(store: JobStore, remote: Remote) -> None:
    """Its claim knows how often it has been put back."""
    remote.fill(1)
    remote.faults["k0"] = Fault(202, b"{}", headers={"Retry-After": "3600"})
    run(store, remote)
    change(store, "UPDATE job SET snoozes = 500, available_at = created_at")
    result = run(store, remote)
    assert result.failed == 1
    assert "it has been put back 500 times" in dict(result.failures)["k0"]


def test_a_page_that_is_not_ready_ends_nothing(store: JobStore, remote: Remote) -> None:
    """202 in place of a page is neither a page nor the end, however many rows it has: the listing goes on there."""
    remote.fill(30)
    run(store, remote, delete_missing=True)
    remote.page_faults[20] = Fault(202, b'{"data": []}', headers={"Retry-After": "3600"})
    result = run(store, remote, delete_missing=True)
    assert (result.stopped, result.deleted, len(live(store))) == ("error", 0, 30)
    assert "not ready" in result.message
    assert query(store, "SELECT id FROM pause") == []
    remote.page_faults.clear()
    assert counts(run(store, remote, delete_missing=True), "state stopped deleted pages") == ("success", "end", 0, 1)


def test_a_page_that_is_not_ready_is_waited_for(store: JobStore, remote: Remote) -> None:
    """A run that waits asks for the page again after as long as the answer says, and the listing goes on there."""
    remote.fill(30)
    remote.page_faults[20] = Fault(202, b"{}", headers={"Retry-After": "0"}, times=1)
    result = run(store, remote, options={"wait": 5.0})
    assert counts(result, "state stopped pages succeeded") == ("success", "end", 3, 30)
    assert dict(remote.pages) == {0: 1, 10: 1, 20: 2}


def test_broken_bodies_in_a_row_pause_the_client(store: JobStore, remote: Remote) -> None:
    """A system that shows a page in HTML for everything, with 200, is in trouble: nothing fails for good."""
    remote.fill(30)
    remote.faults.update(dict.fromkeys(remote.things, Fault(200, b"<html>maintenance</html>")))
    result = run(store, remote, concurrency=1, retry=LATER)
    assert counts(result, "state failed") == ("paused", 0)
    assert sum(remote.details.values()) == 3


def test_failed_entity_is_tried_again_by_the_next_run(store: JobStore, remote: Remote) -> None:
    """What failed is not in sync, so the next listing asks for it again."""
    remote.fill(30)
    remote.faults["k3"] = Fault(422)
    run(store, remote)
    remote.faults.clear()
    assert counts(run(store, remote), "state queued succeeded unchanged") == ("success", 1, 1, 29)


def test_ledger_keeps_error_beside_the_last_good_data(store: JobStore, remote: Remote) -> None:
    """A record whose update failed keeps its data and version, and says what went wrong; a success takes that away."""
    remote.fill(5)
    run(store, remote)
    remote.change("k3")
    remote.faults["k3"] = Fault(422)
    run(store, remote)
    (found,) = query(store, "SELECT * FROM record WHERE key = 'k3'")
    assert found["version"] == "1"
    assert "422" in found["last_error"]
    remote.faults.clear()
    run(store, remote)
    (found,) = query(store, "SELECT * FROM record WHERE key = 'k3'")
    assert (found["version"], found["last_error"]) == ("2", None)


def test_more_than_a_tenth_fails_the_run(store: JobStore, remote: Remote) -> None:
    """When more than a tenth of the entities fail, the run has failed, and says how many did."""
    remote.fill(30)
    remote.faults = {f"k{number}": Fault(422) for number in range(4)}
    result = run(store, remote)
    assert counts(result, "state exit_code succeeded failed") == ("failed", 1, 26, 4)
    assert "4 of 30 failed" in result.message


def test_fetch_that_exhausts_nothing_else(store: JobStore, remote: Remote) -> None:
    """Whatever a fetch raises, also out of a generator or a deep recursion, is its own entity's failure."""
    remote.fill(30)

    def odd(http: HttpClient, entity: Entity) -> Any:
        def deep() -> None:
            deep()

        match entity.key:
            case "k1":
                deep()
            case "k2":
                next(iter(()))
            case "k3":
                raise MemoryError
        return http.get_json(f"things/{entity.key}")

    result = run(store, remote, fetch=odd)
    assert counts(result, "state succeeded failed") == ("partial", 27, 3)
    assert {key for key, _ in result.failures} == {"k1", "k2", "k3"}


# -- retries --------------------------------------------------------------------------------------------


def test_retry_inside_a_run(store: JobStore, remote: Remote) -> None:
    """A 500 that passes is tried again in the same run where the retry has no delay."""
    remote.fill(30)
    remote.faults["k3"] = Fault(500, times=2)
    result = run(store, remote, pause=PATIENT)
    assert counts(result, "state succeeded failed pending") == ("success", 30, 0, 0)
    assert remote.details["k3"] == 3
    assert (job(store, "k3")["attempts"], job(store, "k3")["retries"]) == (3, 2)


def test_retries_end(store: JobStore, remote: Remote) -> None:
    """A 500 that stays fails its entity after one try and the declared retries."""
    remote.fill(30)
    remote.faults["k3"] = Fault(500)
    result = run(store, remote, pause=PATIENT)
    assert counts(result, "state failed") == ("partial", 1)
    assert remote.details["k3"] == 4


def test_delayed_retry_stays_pending(store: JobStore, remote: Remote) -> None:
    """With a delay the job waits: the run ends without it, and the next run before its time leaves it alone."""
    remote.fill(30)
    remote.faults["k3"] = Fault(500, times=1)
    result = run(store, remote, retry=LATER)
    assert counts(result, "state succeeded failed pending") == ("success", 29, 0, 1)
    result = run(store, remote, retry=LATER)
    assert counts(result, "pending") == (1,)
    assert remote.details["k3"] == 1
    change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE state = 'queued'")
    assert counts(run(store, remote, retry=LATER), "state pending") == ("success", 0)
    assert live(store) == set(remote.things)


def test_snooze(store: JobStore, remote: Remote) -> None:
    """A job that snoozes itself waits without using an attempt."""
    remote.fill(5)
    odd = {"fetch": lambda http, entity: Snooze(600, "not yet") if entity.key == "k3" else {"id": entity.key}}
    result = run(store, remote, **odd)
    assert counts(result, "state succeeded snoozed pending") == ("success", 4, 1, 1)
    assert (job(store, "k3")["attempts"], job(store, "k3")["message"]) == (0, "not yet")


def _never(http: Any, entity: Any) -> Snooze:
    return Snooze(600, "not yet")


@pytest.mark.parametrize("kind", ["202", "snooze", "202 at once"])
def test_nothing_stored_is_no_success(store: JobStore, remote: Remote, kind: str) -> None:
    """Where every entity is put off, the run has failed and says so; so has the next one, which finds them waiting."""
    remote.fill(5)
    remote.faults["*"] = Fault(202, b"{}", headers={"Retry-After": "0" if kind == "202 at once" else "3600"})
    odd: dict[str, Any] = {"fetch": _never} if kind == "snooze" else {}
    for _ in range(2):
        result = run(store, remote, **odd)
        assert counts(result, "state succeeded failed pending") == ("failed", 0, 0, 5)
        assert result.message == "none of 5 entities was stored; 5 were put off"
    if kind == "202":
        remote.faults.clear()
        change(store, "UPDATE job SET available_at = created_at")
        # A job in hand while the page is listed gets a follow-up, so that more than five may succeed.
        assert counts(run(store, remote), "state message pending") == ("success", "", 0)
        assert live(store) == set(remote.things)


def test_failure_by_value_that_is_no_text(store: JobStore, remote: Remote) -> None:
    """A fetch that returns an exception as its message fails its entity, and no other."""
    from pydantic import SecretStr
    from pydantic_settings import BaseSettings

    class Settings(BaseSettings):
        token: SecretStr = SecretStr("t0p-secret")

    remote.fill(20)
    said: Any = ValueError("no t0p-secret here")
    odd = {"fetch": lambda http, entity: Failure(said, retry=False) if entity.key == "k3" else {"id": entity.key}}
    result = run(store, remote, client={"settings": Settings}, **odd)
    assert counts(result, "state failures") == ("partial", (("k3", "no *** here"),))


def test_failure_by_value(store: JobStore, remote: Remote) -> None:
    """A fetch may return its outcome in place of a record."""
    remote.fill(20)
    odd = {"fetch": lambda http, entity: Failure("no good", retry=False) if entity.key == "k3" else {"id": entity.key}}
    result = run(store, remote, **odd)
    assert counts(result, "state failed") == ("partial", 1)
    assert result.failures == (("k3", "no good"),)


# -- pauses ---------------------------------------------------------------------------------------------


def test_401_pauses_at_once(store: JobStore, remote: Remote) -> None:
    """A refused sign-in pauses the client at once: no batch goes on, no attempt is used, nothing fails."""
    remote.fill(100)
    remote.page_size = 100
    remote.faults["*"] = Fault(401)
    result = run(store, remote, client=CHECKED)
    assert counts(result, "state exit_code failed succeeded pending") == ("paused", 0, 0, 0, 100)
    assert result.paused_until is not None
    assert timedelta(seconds=840) < result.paused_until - datetime.now(UTC) <= timedelta(seconds=900)
    assert result.message.startswith("Paused until")
    # Only what was on its way already, and the client's own test of each that was refused before the first test had ended.
    assert remote.details.total() <= 4 + 4
    assert query(store, "SELECT DISTINCT state, attempts FROM job") == [{"state": "queued", "attempts": 0}]


def test_paused_client_is_left_alone_until_it_is_resumed(store: JobStore, remote: Remote) -> None:
    """The next run of a paused client sends no request; a resume by hand frees every job."""
    remote.fill(20)
    remote.faults["*"] = Fault(403)
    run(store, remote, client=CHECKED)
    remote.forget()
    result = run(store, remote)
    assert counts(result, "state pending exit_code requests") == ("paused", 20, 0, 0)
    assert "403" in result.message
    assert remote.requests == 0
    remote.faults.clear()
    assert store.pauses.resume(CLIENT, by="me")
    assert counts(run(store, remote), "state pending") == ("success", 0)
    assert live(store) == set(remote.things)
    assert query(store, "SELECT DISTINCT attempts FROM job") == [{"attempts": 1}]


def test_pause_until_a_person_resumes(store: JobStore, remote: Remote) -> None:
    """An enforced pause without an end exits 1 and says so."""
    remote.fill(5)
    remote.faults["*"] = Fault(401)
    result = run(store, remote, pause=PausePolicy(enforced={401: None}), client=CHECKED)
    assert counts(result, "state exit_code paused_until") == ("paused", 1, None)
    assert result.message.startswith("Paused until a person resumes it")


@pytest.mark.rows("E-27")
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_pauses_exactly_that_long(store: JobStore, remote: Remote, status: int) -> None:
    """429 and 503 with Retry-After pause the client for exactly those seconds; the job keeps its attempts."""
    remote.fill(30)
    remote.faults["k3"] = Fault(status, headers={"Retry-After": "123"})
    result = run(store, remote)
    assert counts(result, "state failed") == ("paused", 0)
    (found,) = query(store, "SELECT * FROM pause")
    started, until = (datetime.fromisoformat(str(found[name])) for name in ("started_at", "until"))
    assert abs((until - started).total_seconds() - 123) < 0.5
    assert found["cause"] == "asked"
    assert job(store, "k3")["attempts"] == 0


def test_short_retry_after(store: JobStore, remote: Remote) -> None:
    """A pause that is over when the run ends has ended it all the same; the next run completes."""
    remote.fill(30)
    remote.faults["k3"] = Fault(429, headers={"Retry-After": "0"}, times=1)
    result = run(store, remote)
    if result.pending:
        assert result.state == "paused"
    while store.pauses.current(CLIENT) is not None:
        time.sleep(0.05)
    assert run(store, remote).state == "success"
    assert live(store) == set(remote.things)


def test_three_errors_in_a_row_pause(store: JobStore, remote: Remote) -> None:
    """Three 500s in a row pause for the first duration; no whole batch is sent to a system that is down."""
    remote.fill(100)
    remote.page_size = 100
    remote.faults["*"] = Fault(500)
    result = run(store, remote, retry=LATER)
    assert counts(result, "state succeeded failed pending") == ("paused", 0, 0, 100)
    assert result.paused_until is not None
    assert timedelta(seconds=0) < result.paused_until - datetime.now(UTC) <= timedelta(seconds=60)
    assert remote.details.total() <= 3 + 4
    (found,) = query(store, "SELECT * FROM pause")
    assert (found["cause"], found["level"]) == ("level", 1)
    assert "500" in found["reason"]


def test_levels_rise_and_a_success_resets_them(store: JobStore, remote: Remote) -> None:
    """Each pause in a row is longer; a success forgets them all, also one of a later process."""
    remote.fill(20)

    def pass_time() -> None:
        change(store, "UPDATE pause SET until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL")
        change(store, "UPDATE job SET available_at = '2000-01-01 00:00:00.000000+00' WHERE state = 'queued'")

    def seconds() -> int:
        found = query(store, "SELECT started_at, until FROM pause ORDER BY id DESC")[0]
        return round(
            (datetime.fromisoformat(str(found["until"])) - datetime.fromisoformat(str(found["started_at"]))).total_seconds()
        )

    for expected in (60, 300, 1800):
        remote.faults["*"] = Fault(500)
        assert run(store, remote, retry=LATER).state == "paused"
        assert seconds() == expected
        pass_time()
    remote.faults.clear()
    assert run(store, remote, retry=LATER).state == "success"
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]
    remote.faults["*"] = Fault(500)
    for key in remote.things:
        remote.change(key)
    assert run(store, remote, retry=LATER).state == "paused"
    assert seconds() == 60


def test_errors_that_are_not_in_a_row(store: JobStore, remote: Remote) -> None:
    """Errors with successes between them pause nobody, also over several runs."""
    remote.fill(40)
    for number in range(5):
        for key in remote.things:
            remote.change(key)
        remote.faults = {f"k{number}": Fault(500, times=1)}
        result = run(store, remote, concurrency=1, pause=PausePolicy(after=2))
        assert result.state == "success", number


def test_rejections_are_no_trouble(store: JobStore, remote: Remote) -> None:
    """An API that rejects everything is up: it is not paused."""
    remote.fill(20)
    remote.faults["*"] = Fault(422)
    result = run(store, remote)
    assert counts(result, "state failed paused_until") == ("failed", 20, None)


def test_unreachable_pauses(store: JobStore, remote: Remote) -> None:
    """A system that is not there fails the listing, and pauses after the third run."""
    nowhere = {"client": {"connect": lambda _: HttpClient("http://127.0.0.1:9/")}}
    results = [run(store, remote, pause=PausePolicy(after=2), **nowhere) for _ in range(2)]
    assert [result.state for result in results] == ["failed", "paused"]
    assert results[0].message
    assert results[0].stopped == "error"


def test_pause_by_value(store: JobStore, remote: Remote) -> None:
    """A fetch may return a pause."""
    remote.fill(20)
    odd = {"fetch": lambda http, entity: Pause(60, "nightly import") if entity.key == "k0" else {"id": entity.key}}
    result = run(store, remote, concurrency=1, **odd)
    assert counts(result, "state succeeded") == ("paused", 0)
    assert "nightly import" in result.message


def test_pause_of_another_process_stops_the_listing(store: JobStore, remote: Remote) -> None:
    """A pause that somebody else sets reaches a running listing with its next page."""
    remote.fill(200)
    remote.on_page = lambda asked: (
        store.pauses.open(CLIENT, 600, cause="person", reason="stop it", set_by="me") if asked == 4 else None
    )
    result = run(store, remote)
    assert result.state == "paused"
    assert remote.pages.total() == 4
    store.pauses.resume(CLIENT, by="me")
    assert run(store, remote).state == "success"
    assert set(remote.pages.values()) == set(remote.details.values()) == {1}


# -- listings that break --------------------------------------------------------------------------------


def test_page_that_is_not_json(store: JobStore, remote: Remote) -> None:
    """A page that is not JSON fails the run with its message; what came before is kept and worked; the next run goes on there."""
    remote.fill(30)
    remote.page_faults[10] = Fault(200, b"<html>maintenance</html>")
    result = run(store, remote)
    assert counts(result, "state exit_code stopped pages succeeded") == ("failed", 1, "error", 1, 10)
    assert "not JSON" in result.message
    assert "maintenance" not in result.message
    remote.page_faults.clear()
    remote.forget()
    result = run(store, remote)
    assert counts(result, "state pages succeeded unchanged") == ("success", 2, 20, 0)
    assert remote.pages == {10: 1, 20: 1}


def test_page_that_fails_once(store: JobStore, remote: Remote) -> None:
    """A page that answers 500 fails the run; the next one goes on at that page."""
    remote.fill(30)
    remote.page_faults[10] = Fault(500, times=1)
    assert counts(run(store, remote), "state stopped succeeded") == ("failed", "error", 10)
    result = run(store, remote)
    assert counts(result, "state stopped succeeded") == ("success", "end", 20)
    assert remote.pages == {0: 1, 10: 2, 20: 1}


def test_page_that_pauses(store: JobStore, remote: Remote) -> None:
    """A listing that is told to wait pauses the client; the run after the pause goes on at that page."""
    remote.fill(30)
    remote.page_faults[10] = Fault(429, headers={"Retry-After": "77"}, times=1)
    result = run(store, remote)
    assert counts(result, "state stopped exit_code") == ("paused", "paused", 0)
    store.pauses.resume(CLIENT, by="me")
    assert run(store, remote).state == "success"
    assert remote.pages == {0: 1, 10: 2, 20: 1}
    assert live(store) == set(remote.things)


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_stored_cursor_that_expired(store: JobStore, remote: Remote, status: int) -> None:
    """A stored cursor that the API no longer takes starts the listing over, once, in the same run."""
    remote.fill(30)
    remote.page_faults[20] = Fault(500, times=1)
    run(store, remote)
    remote.page_faults[20] = Fault(status, times=1)
    result = run(store, remote)
    assert counts(result, "state stopped") == ("success", "end")
    assert remote.pages == {0: 2, 10: 2, 20: 3}
    assert live(store) == set(remote.things)
    assert set(remote.details.values()) == {1}


def test_listing_that_is_gone(store: JobStore, remote: Remote) -> None:
    """A listing that answers 404 fails the run; it is not an empty listing."""
    remote.fill(5)
    remote.page_faults[0] = Fault(404)
    result = run(store, remote, delete_missing=True)
    assert counts(result, "state stopped deleted") == ("failed", "error", 0)
    assert "404" in result.message


@pytest.mark.rows("E-70")
def test_loop(store: JobStore, remote: Remote) -> None:
    """A listing that leads back to a page it had stops there, is no complete listing, and fails the run."""
    remote.fill(30)
    remote.loop_at = 20
    result = run(store, remote, delete_missing=True)
    assert counts(result, "state stopped pages succeeded") == ("failed", "loop", 3, 30)
    assert result.message
    assert remote.pages == {0: 1, 10: 1, 20: 1}
    remote.loop_at = None
    assert counts(run(store, remote), "state stopped") == ("success", "end")


def test_items_without_key(store: JobStore, remote: Remote) -> None:
    """An item without its key is counted and named; its neighbours arrive."""
    remote.fill(30)
    remote.extra = {0: [{"v": 1}], 10: [{"id": None}, "text"]}
    result = run(store, remote)
    assert counts(result, "state listed succeeded failed") == ("partial", 30, 30, 3)
    assert {where for where, _ in result.failures} == {"page 1", "page 2"}
    assert "no key at 'id'" in result.failures[0][1]


def test_items_that_are_no_list(store: JobStore, remote: Remote) -> None:
    """A declared path that leads elsewhere fails the run and says where the lists are."""
    remote.fill(5)
    result = run(store, remote, listing=HttpListing("things", PageNumber(), items="next || @"))
    assert counts(result, "state stopped") == ("failed", "error")
    assert "'data'" in result.message


BAD_LISTINGS: dict[str, Callable[[Any, Any], Any]] = {
    "raises at once": lambda conn, since: 1 / 0,
    "raises later": lambda conn, since: (1 / 0 for _ in [0]),
    "no iterator": lambda conn, since: 7,
    "no pages": lambda conn, since: iter([["k1"]]),
    "no entities": lambda conn, since: iter([Page([{"id": "k1"}])]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
@pytest.mark.parametrize("kind", list(BAD_LISTINGS))
def test_listing_function_that_is_wrong(store: JobStore, remote: Remote, kind: str, dry: bool) -> None:
    """A listing of one's own that does what it should not fails the run with a message, and nothing hangs."""
    result = run(store, remote, fetch=None, listing=BAD_LISTINGS[kind], options={"dry_run": dry})
    assert counts(result, "state stopped exit_code") == ("failed", "error", 1)
    assert result.message.startswith("listing: ")
    assert states(store) == {}


def test_connect_that_raises(store: JobStore, remote: Remote) -> None:
    """A client that cannot connect fails the run with a message."""

    def connect(_: Any) -> Any:
        raise ValueError("base_url is not absolute")

    result = run(store, remote, client={"connect": connect})
    assert counts(result, "state stopped") == ("failed", "error")
    assert "base_url is not absolute" in result.message


def test_connect_that_fails_later(store: JobStore, remote: Remote) -> None:
    """An adapter that cannot be opened for each thread fails the entities, and the run ends."""
    remote.fill(10)
    main: list[int] = []

    class Once:
        def __enter__(self) -> HttpClient:
            if main:
                raise ConnectionRefusedError("no more sessions")
            main.append(1)
            return http

        def __exit__(self, *_: object) -> None:
            http.close()

    class NotShared(HttpClient):
        thread_safe = False

    http = NotShared(remote.url)

    result = run(store, remote, client={"connect": lambda _: Once()}, retry=NEVER, pause=PATIENT, concurrency=2)
    assert counts(result, "state failed") == ("failed", 10)
    assert "no more sessions" in result.failures[0][1]


def test_slow_entity_holds_up_nobody(store: JobStore, remote: Remote) -> None:
    """While one entity is slow, all others are done, those of its own batch too."""
    remote.fill(60)
    done: list[str] = []
    others_done = threading.Event()

    def fetch(http: HttpClient, entity: Entity) -> Any:
        found = http.get_json(f"things/{entity.key}")
        if entity.key == "k0":
            assert others_done.wait(30), f"waited in vain: {len(done)} of 59 are done"
        done.append(entity.key)
        if len(done) == 59:
            others_done.set()
        return found

    result = run(store, remote, fetch=fetch, batch=10, retry=NEVER)
    assert result.state == "success", result.failures
    assert done[-1] == "k0"


def test_other_clients_go_on(store: JobStore, remote: Remote) -> None:
    """A pause is the client's own: a sync of another one runs."""
    remote.fill(5)
    store.pauses.open("other", None, cause="person", reason="", set_by="me")
    assert run(store, remote).state == "success"
    assert query(store, "SELECT sync FROM listing") == [{"sync": SYNC}]
