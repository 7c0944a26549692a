"""OAuth 2 against real token endpoints: one renewal for many, credentials where they belong, no token spent twice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from clients import (
    AuthRefusedError,
    FileTokens,
    HttpClient,
    Listing,
    MemoryTokens,
    OAuth2ClientCredentials,
    OAuth2RefreshToken,
    PageNumber,
    RateLimitedError,
    ServerError,
    TimedOutError,
    Token,
)
from clients.token_store import TokenLostError

Serve = Callable[..., Any]


class Issuer:
    """A token endpoint: rotating refresh tokens, each good once; access tokens that can be made void."""

    def __init__(self, serve: Serve, *, life: Any = 3600, rotates: bool = True, basic: bool = False) -> None:
        self.good: set[str] = set()
        self.refresh = "r0"
        self.issued = 0
        self.reused = 0
        self.life, self.rotates, self.basic = life, rotates, basic
        self.forms: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self.server = serve(self.respond)
        self.api = serve(self.answer)

    def respond(self, seen: Any) -> tuple[int, dict[str, str], Any]:
        """Issue a token, as RFC 6749 says."""
        with self._lock:
            form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
            self.forms.append(form)
            by_header = seen.headers.get("authorization") == "Basic bWU6czNjcmV0"
            by_form = (form.get("client_id"), form.get("client_secret")) == ("me", "s3cret")
            if not (by_header if self.basic else by_form):
                return 401, {}, {"error": "invalid_client"}
            if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh:
                self.reused += 1
                return 400, {}, {"error": "invalid_grant", "error_description": "s3cret"}
            time.sleep(0.05)
            self.issued += 1
            token = f"s3cret-{self.issued}"
            self.good.add(token)
            if self.rotates:
                self.refresh = f"r{self.issued}"
            rotated = {"refresh_token": self.refresh} if form["grant_type"] == "refresh_token" and self.rotates else {}
            return 200, {}, {"access_token": token, "token_type": "bearer", "expires_in": self.life, **rotated}

    def answer(self, seen: Any) -> tuple[int, dict[str, str], Any]:
        """Answer as the API does."""
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        return (200, {}, {"token": token}) if token in self.good else (401, {}, {})


@pytest.fixture
def issuer(serve: Serve) -> Issuer:
    """A token endpoint and an API, on two origins."""
    return Issuer(serve)


def signed_in(issuer: Issuer, **more: Any) -> OAuth2ClientCredentials:
    """The sign-in of most tests."""
    return OAuth2ClientCredentials(issuer.server.url + "/token", "me", SecretStr("s3cret"), **more)


def test_a_token_is_fetched_when_it_is_needed(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """Declaring asks nobody; two requests share one token; secrets go to the token endpoint only, and into no log or repr."""
    auth = signed_in(issuer, scope="read write")

    assert issuer.issued == 0

    with caplog.at_level(logging.DEBUG), HttpClient(issuer.api.url, auth=auth) as http:
        assert [http.get_json("a")["token"], http.get_json("a")["token"]] == ["s3cret-1"] * 2

    assert issuer.forms == [
        {"grant_type": "client_credentials", "scope": "read write", "client_id": "me", "client_secret": "s3cret"}
    ]

    assert "client_secret" not in repr(issuer.api.seen)

    assert "s3cret" not in f"{caplog.text}{auth!r}{http!r}{auth.credentials()!r}{Token('s3cret', None, 's3cret')!r}"


def test_basic_auth_where_the_form_is_refused(serve: Serve) -> None:
    """An endpoint that takes the client's credentials in a header only gets them there."""
    issuer = Issuer(serve, basic=True)
    with HttpClient(issuer.api.url, auth=signed_in(issuer)) as http:
        http.get_json("a")

    assert [form.get("client_secret") for form in issuer.forms] == ["s3cret", None]


@pytest.mark.parametrize("life", [1, "1", 0.2])
def test_a_token_is_renewed_before_it_ends(life: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is replaced when nine tenths of its life are over, without a refusal by the API."""
    issuer = Issuer(serve, life=life)
    now = [1_900_000_000.0]
    monkeypatch.setattr("clients.oauth.time", SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic))
    with HttpClient(issuer.api.url, auth=signed_in(issuer)) as http:
        http.get_json("a")
        now[0] += 0.8 * float(life)
        http.get_json("a")

        assert issuer.issued == 1

        now[0] += 0.11 * float(life)
        http.get_json("a")

    assert issuer.issued == 2

    assert len(issuer.api.seen) == 3


def test_expiry_in_the_middle_of_a_listing_is_one_renewal(issuer: Issuer) -> None:
    """A 401 on page 3 costs one renewal and one repeated request; all rows come."""
    rows = [{"id": n} for n in range(50)]
    voided: list[int] = []

    def answer(seen: Any) -> Any:
        if seen.query["page"] == "3" and not voided:
            voided.append(1)
            issuer.good.clear()
        status, headers, body = issuer.answer(seen)
        start = (int(seen.query["page"]) - 1) * 10
        return status, headers, rows[start : start + 10] if status == 200 else body

    issuer.api.respond = answer
    with HttpClient(issuer.api.url, auth=signed_in(issuer)) as http:
        keys = [entity.key for page in Listing("pets", PageNumber(), recheck=0)(http) for entity in page.items]

    assert keys == [str(row["id"]) for row in rows]

    assert (issuer.issued, len(issuer.api.seen)) == (2, 7 + 1)


def test_eight_threads_make_one_renewal(issuer: Issuer) -> None:
    """Eight threads that are refused at once spend one refresh token, and all get their answers."""
    auth = OAuth2RefreshToken(issuer.server.url, "me", "s3cret", "r0")
    failed: list[Exception] = []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            for _ in range(3):
                start.wait()
                http.get_json("a")
                if start.wait() == 0:
                    issuer.good.clear()
        except Exception as error:  # noqa: BLE001  # carried out of the thread
            failed.append(error)
            start.abort()

    with HttpClient(issuer.api.url, auth=auth) as http:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failed == []

    assert (issuer.issued, issuer.reused) == (3, 0)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_workers_that_share_a_store_spend_no_token_twice(kind: str, issuer: Issuer, tmp_path: Path) -> None:
    """Workers, each with a sign-in of its own, rotate one refresh token through the store they share (airbyte#82783)."""
    shared = MemoryTokens()
    failed: list[Exception] = []

    def work() -> None:
        store = shared if kind == "memory" else FileTokens(tmp_path / "token.json")
        auth = OAuth2RefreshToken(issuer.server.url, "me", "s3cret", "r0", store=store)
        try:
            with HttpClient(issuer.api.url, auth=auth) as http:
                for _ in range(5):
                    http.get_json("a")
                    issuer.good.clear()
        except Exception as error:  # noqa: BLE001  # carried out of the thread
            # Another one may take the token away between renewal and repetition.
            if not isinstance(error, AuthRefusedError) or "token endpoint" in str(error):
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []

    assert issuer.reused == 0

    assert issuer.issued >= 2

    if kind == "file":
        assert (tmp_path / "token.json").stat().st_mode & 0o077 == 0


def test_a_store_survives_and_a_new_sign_in_makes_it_worthless(issuer: Issuer, tmp_path: Path) -> None:
    """The next process goes on with the rotated token; another declared refresh token starts from that one."""

    def one(refresh: str) -> str:
        auth = OAuth2RefreshToken(issuer.server.url, "me", "s3cret", refresh, store=FileTokens(tmp_path / "token.json"))
        with HttpClient(issuer.api.url, auth=auth) as http:
            return str(http.get_json("a")["token"])

    assert [one("r0"), one("r0")] == ["s3cret-1", "s3cret-1"]

    issuer.refresh = "again"

    assert one("again") == "s3cret-2"

    assert issuer.reused == 0


def test_401_for_ever_is_one_renewal(issuer: Issuer) -> None:
    """An API that refuses the renewed token, too, is an auth error, and the next requests do not ask for more tokens."""
    issuer.api.respond = lambda seen: (401, {}, {})
    with HttpClient(issuer.api.url, auth=signed_in(issuer)) as http:
        for _ in range(3):
            with pytest.raises(AuthRefusedError) as caught:
                http.get_json("a")

    assert caught.value.status == 401

    assert issuer.issued == 2


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (400, {}, {"error": "invalid_grant"}, AuthRefusedError),
        (401, {}, {"error": "invalid_client"}, AuthRefusedError),
        (403, {}, b"<html>s3cret", AuthRefusedError),
        (404, {}, {}, AuthRefusedError),
        (200, {}, {"token": "s3cret"}, TokenLostError),
        (200, {}, b"<html>s3cret", TokenLostError),
        (500, {}, {}, ServerError),
        (502, {}, {}, ServerError),
        (429, {"Retry-After": "9"}, {}, RateLimitedError),
    ],
)
def test_token_endpoint_errors(status: int, headers: Any, body: Any, kind: type[Exception], serve: Serve) -> None:
    """A refusal pauses for sign-in, trouble is tried again; neither is taken for the API's word on the entity."""
    endpoint, api = serve(lambda seen: (status, headers, body)), serve()
    auth = OAuth2RefreshToken(endpoint.url, "me", "s3cret", "s3cret-r")
    with HttpClient(api.url, auth=auth) as http, pytest.raises(kind) as caught:
        http.get_json("a")

    assert type(caught.value) is kind

    assert api.seen == []

    assert "s3cret" not in f"{caught.value}{caught.value!r}{vars(caught.value)}"


def test_a_token_endpoint_that_hangs(serve_raw: Serve, serve: Serve) -> None:
    """A token endpoint that never answers is trouble in time."""
    auth = OAuth2ClientCredentials(serve_raw(None).url, "me", "s3cret", timeout=0.2)
    with HttpClient(serve().url, auth=auth) as http, pytest.raises(TimedOutError):
        http.get_json("a")


def test_a_token_endpoint_that_redirects(serve: Serve) -> None:
    """The client's credentials follow no redirect."""
    other = serve()
    endpoint = serve(lambda seen: (307, {"Location": f"{other.url}/token"}, {}))
    auth = OAuth2ClientCredentials(endpoint.url, "me", "s3cret")
    with HttpClient(serve().url, auth=auth) as http, pytest.raises(Exception, match="send the request again"):
        http.get_json("a")

    assert other.seen == []


def test_swap_compares(tmp_path: Path) -> None:
    """A store takes a new token only in the place of the one that is there; a broken file is no token."""
    for store in (MemoryTokens(), FileTokens(tmp_path / "t")):
        assert store.load() is None

        assert store.swap(None, Token("a"))

        assert not store.swap(None, Token("b"))

        assert not store.swap(Token("x"), Token("b"))

        assert store.swap(Token("a"), Token("b", 5.0, "r", "o"))

        assert store.load() == Token("b", 5.0, "r", "o")
    (tmp_path / "t").write_text("{")

    assert FileTokens(tmp_path / "t").load() is None
