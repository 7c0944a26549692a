"""`recorded`: real exchanges replayed without a socket, and no secret in the file."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from clients import ApiKey, Basic, Bearer, Cursor, HttpClient, Listing, OAuth2RefreshToken
from syncs_testing import Reply, Seen, Server, UnrecordedError, recorded, serving
from tests import ROOT

SECRETS = {
    "bearer": "b3arer-t0ken-value",
    "query": "qu3ry-key/with+signs",
    "header": "h3ader-key-value",
    "password": "passw0rd-of-mine",
    "client": "cl1ent-secret-value",
    "refresh": "r3fresh-token-value",
    "access": "acc3ss-token-value",
    "cookie": "c00kie-session-value",
    "path": "p4th-token-value",
    "unnamed": "unn4med-value",
}


class Settings(BaseSettings):
    """The settings of a client; the replay has others."""

    url: str
    secret: SecretStr


class Api:
    """An API that repeats what it is told, secrets too."""

    def __init__(self) -> None:
        self.server: Server
        self.packed = False

    def respond(self, seen: Seen) -> Reply:
        """Answer: tokens, pages, or an echo."""
        headers = {"Set-Cookie": f"sid={SECRETS['cookie']}; Path=/", "X-Total-Pages": "2", "X-Auth-Token": SECRETS["header"]}
        if seen.path.endswith("/token"):
            return Reply(
                {
                    "access_token": SECRETS["access"],
                    "refresh_token": SECRETS["refresh"] + "-2",
                    "expires_in": 3600,
                    "token_type": "bearer",
                },
                headers=headers,
            )
        if seen.path.endswith("/pets"):
            first = "cursor" not in seen.query
            body: Any = {"data": [{"id": 1 if first else 2, "author": "Ann"}], "next_cursor": "c2" if first else None}
        else:
            echo = {name: value for name, value in seen.headers.items() if name in ("authorization", "x-api-key", "x-custom")}
            body = {"you said": echo, "target": seen.target, "body": seen.body.decode(), "cookie": SECRETS["cookie"]}
        if self.packed:
            return Reply(gzip.compress(json.dumps(body).encode()), headers={**headers, "Content-Encoding": "gzip"})
        return Reply(body, headers=headers)


@pytest.fixture
def api() -> Iterator[Api]:
    """An API on loopback."""
    api = Api()
    with serving(api.respond) as api.server:
        yield api


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let nobody open a connection from now on."""

    def close() -> None:
        def refuse(*_: Any) -> None:
            raise AssertionError("a socket was opened")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "create_connection", refuse)

    return close


def assert_clean(path: Path) -> str:
    """Return the file, which holds no secret in any form."""
    text = path.read_text()
    flat = text.replace("\\\n", "").replace("\n", "").replace(" ", "")
    for name, secret in SECRETS.items():
        basic = base64.b64encode(f"me:{secret}".encode()).decode()
        for form in (secret, secret.replace("/", "%2F").replace("+", "%2B"), basic, base64.b64encode(secret.encode()).decode()):
            assert form not in text, f"{name} is in the file"
            assert form.replace(" ", "") not in flat, f"{name} is in the file"
    return text


LISTING = Listing("pets", Cursor("next_cursor"), items="data")


def keys(http: HttpClient) -> list[str]:
    """List everything."""
    return [entity.key for page in LISTING(http) for entity in page.items]


def test_a_listing_is_recorded_once_and_replayed_offline(api: Api, offline: Callable[[], None], tmp_path: Path) -> None:
    """The second run says the same without a connection, with other secrets, and the data is as it was."""
    path = tmp_path / "deep" / "pets.yaml"

    def run(token: str) -> list[Any]:
        with recorded(path), HttpClient(api.server.url, auth=Bearer(token)) as http:
            return [entity.data for page in LISTING(http) for entity in page.items]

    first = run(SECRETS["bearer"])
    assert first == [{"id": 1, "author": "Ann"}, {"id": 2, "author": "Ann"}]
    assert len(api.server.seen) == 2
    assert "Ann" in assert_clean(path)
    offline()
    assert [run("another-token"), run("another-token")] == [first, first]
    assert len(api.server.seen) == 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("auth", "more"),
    [
        (Bearer(SECRETS["bearer"]), {}),
        (Basic("me", SECRETS["password"]), {}),
        (ApiKey(SECRETS["header"]), {}),
        (ApiKey(SECRETS["query"], query="api_key"), {}),
        # A name that nobody would take for a secret: it is one because the client adds it by itself.
        (ApiKey(SECRETS["query"], query="zone"), {}),
        (None, {"headers": {"X-Custom": SECRETS["header"], "Cookie": f"sid={SECRETS['cookie']}"}}),
    ],
    ids=["bearer", "basic", "header", "query", "unnamed query", "custom"],
)
def test_no_way_to_sign_in_leaves_its_secret(
    api: Api, offline: Callable[[], None], tmp_path: Path, auth: Any, more: dict[str, Any], packed: bool
) -> None:
    """Not in the request, not where the answer repeats it, not packed; and the replay still finds it."""
    api.packed = packed
    path = tmp_path / "echo.yaml"
    # A header of a name that says nothing has to be named.
    secrets = [SECRETS["header"]] if "headers" in more else []

    def run() -> Any:
        with recorded(path, secrets=secrets), HttpClient(api.server.url, auth=auth, **more) as http:
            return http.get_json("echo", {"page": 1})

    real = run()
    assert any(secret in json.dumps(real) for secret in SECRETS.values())
    assert_clean(path)
    offline()
    assert run()["target"].startswith("/echo?page=1")


def test_a_sign_in_leaves_no_token(api: Api, offline: Callable[[], None], tmp_path: Path) -> None:
    """The form of a renewal, its answer, and the answers that repeat the token."""
    path = tmp_path / "oauth.yaml"

    def run(client: str, refresh: str) -> Any:
        auth = OAuth2RefreshToken(f"{api.server.url}/oauth/token", "me", client, refresh)
        with recorded(path), HttpClient(api.server.url, auth=auth) as http:
            return http.get_json("echo")

    assert SECRETS["access"] in json.dumps(run(SECRETS["client"], SECRETS["refresh"]))
    text = assert_clean(path)
    assert "expires_in" in text
    assert "grant_type=refresh_token" in text
    offline()
    assert run("x", "y")["target"] == "/echo"


def test_what_the_settings_hide_is_hidden_everywhere(api: Api, offline: Callable[[], None], tmp_path: Path) -> None:
    """In paths, in bodies, and base64 with a user; the replay has a secret of its own."""
    path = tmp_path / "settings.yaml"

    def run(secret: str) -> Any:
        settings = Settings(url=api.server.url, secret=SecretStr(secret))
        with recorded(path, settings=settings, secrets=[SecretStr(SECRETS["unnamed"])]), HttpClient(settings.url) as http:
            return http.post_json(f"bot{secret}/send", {"note": f"by {secret} and {SECRETS['unnamed']}"})

    run(SECRETS["path"])
    assert "by *** and ***" in assert_clean(path)
    offline()
    assert run("test")["target"] == "/bot***/send"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"user": "me", "password": SECRETS["password"], "deep": [{"apiKey": SECRETS["header"]}]}, "json"),
        (f"user=me&password={SECRETS['password']}&x=1", "form"),
        (f'<a xmlns:w="w"><w:Password Type="T">{SECRETS["password"]}</w:Password></a>', "xml"),
    ],
)
def test_bodies_are_looked_through(api: Api, tmp_path: Path, content: Any, kind: str) -> None:
    """Fields that sound like secrets are hidden in JSON, forms and XML; the others stay."""
    path = tmp_path / "body.yaml"
    with recorded(path), HttpClient(api.server.url) as http:
        if kind == "json":
            http.post_json("echo", content)
        else:
            http.request("POST", "echo", content=content, headers={"Content-Type": f"application/{kind}"})
    assert_clean(path)
    # What went out was as it was.
    assert SECRETS["password"] in api.server.seen[0].body.decode()


def test_what_was_not_recorded_fails_and_says_so(api: Api, offline: Callable[[], None], tmp_path: Path) -> None:
    """Another path, another page, one time too many: an error in one line, without the key, also where code swallows it."""
    path = tmp_path / "pets.yaml"

    def client() -> HttpClient:
        return HttpClient(api.server.url, auth=ApiKey(SECRETS["query"], query="api_key"))

    with recorded(path), client() as http:
        http.get_json("pets")
    offline()
    for asked, said in (
        ("owners", "/owners?api_key=*** was not recorded:"),
        ("pets?page=2", "page=2&api_key=*** was not recorded:"),
    ):
        with pytest.raises(UnrecordedError) as raised, recorded(path), client() as http:
            http.get_json(asked)
        assert said in str(raised.value)
        assert f"{path} has 1 exchanges" in str(raised.value)
        assert SECRETS["query"] not in repr(raised.value)
    with pytest.raises(UnrecordedError, match="not recorded so often"), recorded(path), client() as http:
        [http.get_json(path) for path in ("pets", "pets")]
    # As the engine does with one entity's error.
    with pytest.raises(UnrecordedError), recorded(path), client() as http, suppress(Exception):
        http.get_json("owners")


def test_a_block_that_fails_records_nothing(api: Api, tmp_path: Path) -> None:
    """Half a recording would be replayed as if it were all."""
    path = tmp_path / "pets.yaml"
    with pytest.raises(ZeroDivisionError), recorded(path), HttpClient(api.server.url) as http:
        print(len(keys(http)) / 0)
    assert not path.exists()


def test_recording_may_be_asked_for_or_ruled_out(api: Api, tmp_path: Path) -> None:
    """`record=True` asks the remote system again, `record=False` never."""
    path = tmp_path / "pets.yaml"
    with pytest.raises(UnrecordedError), recorded(path, record=False), HttpClient(api.server.url) as http:
        keys(http)
    for _ in range(2):
        with recorded(path, record=True), HttpClient(api.server.url) as http:
            assert keys(http) == ["1", "2"]
    assert len(api.server.seen) == 4
    assert path.read_text().count("uri:") == 2


def test_other_clients_and_logs_keep_secrets_too(api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A request of plain httpx is recorded likewise, and neither side writes a key into the log."""
    path = tmp_path / "httpx.yaml"
    with caplog.at_level(logging.DEBUG, logger="vcr"), recorded(path), httpx.Client() as client:
        client.get(
            f"{api.server.url}/echo", params={"access_key": SECRETS["unnamed"]}, headers={"Authorization": SECRETS["bearer"]}
        )
    assert_clean(path)
    assert SECRETS["unnamed"] not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("vcr"))


def test_paging_tokens_are_no_secrets(api: Api, tmp_path: Path) -> None:
    """The pages of a listing stay apart although a parameter is called `pageToken`."""
    path = tmp_path / "pages.yaml"
    with recorded(path), HttpClient(api.server.url) as http:
        http.get_json("echo", {"pageToken": "first-page-of-all"})
    assert "pageToken=first-page-of-all" in path.read_text()
    with pytest.raises(UnrecordedError), recorded(path), HttpClient(api.server.url) as http:
        http.get_json("echo", {"pageToken": "second"})


def test_the_fixture_names_the_file_after_the_test(tmp_path: Path) -> None:
    """`recording` keeps the cassette beside the test, and needs no import."""
    (tmp_path / "test_pets.py").write_text(
        "import pytest\nfrom clients import HttpClient\nfrom syncs_testing import Reply, serving\n\n"
        "@pytest.mark.parametrize('path', ['a/b'])\n"
        "def test_pets(recording, path):\n"
        "    with serving(lambda seen: Reply([1])) as server:\n"
        "        with recording(), HttpClient(server.url) as http:\n"
        "            assert http.get_json(path) == [1]\n"
        "    with recording(), HttpClient(server.url) as http:\n"
        "        assert http.get_json(path) == [1]\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_pets.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "cassettes" / "test_pets" / "test_pets[a_b].yaml").is_file()
