"""The demo: its API server, how it starts and ends, and the sync that lists it."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from clients import Entity, HttpClient, Listing
from tests import ROOT

FOLDER = ROOT / "syncs"
API = FOLDER / "_languages_api.py"


def _load(name: str) -> ModuleType:
    """Import languages.py as the registry does: by its path, under a name of no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / "languages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The declarations."""
    return _load("some_generated_name")


@pytest.fixture(scope="module")
def http(demo: ModuleType) -> Iterator[HttpClient]:
    """A connection as the engine opens it, with a server of its own."""
    with demo.api.connect(demo.Settings(base_url="")) as client:
        yield client


def _gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_every_language_is_listed_once(demo: ModuleType, http: HttpClient) -> None:
    """The listing is 80 pages of 100 at most, and announces how many languages there are."""
    pages = list(demo.languages.listing(http))
    keys = [entity.key for page in pages for entity in page.items]
    assert len(pages) == 80
    assert {len(page.items) for page in pages[:-1]} == {100}
    assert len(keys) == len(set(keys)) == pages[0].total == 7_910
    assert keys == sorted(keys)


def test_a_detail_is_the_listed_language(demo: ModuleType, http: HttpClient) -> None:
    """What is fetched has the key, the name and the version that were listed, and more."""
    first = next(iter(demo.languages.listing(http)))
    for entity in first.items[:20]:
        record = demo.languages.fetch(http, entity)
        assert entity.data.items() <= record.items()
        assert (record["alpha_3"], record["rev"]) == (entity.key, entity.version)
    assert demo.languages.fetch(http, Entity("deu"))["name"] == "German"


def test_versions_are_the_same_in_every_process(demo: ModuleType, http: HttpClient) -> None:
    """A second run finds everything unchanged, although its server is another one."""
    with demo.api.connect(demo.Settings(base_url="")) as other:
        one, two = (next(iter(demo.languages.listing(client))) for client in (http, other))
    assert [(entity.key, entity.version) for entity in one.items] == [(entity.key, entity.version) for entity in two.items]


def test_a_stored_cursor_works_on_another_port(demo: ModuleType, http: HttpClient) -> None:
    """An interrupted listing goes on although the next server listens elsewhere."""
    listing: Listing = demo.languages.listing
    pages = listing.pages(http)
    next(pages)
    cursor = next(pages).cursor
    with demo.api.connect(demo.Settings(base_url="")) as other:
        assert next(listing.pages(other, cursor=cursor)).items == next(pages).items


@pytest.mark.parametrize(
    ("target", "status"),
    [("/languages/xxx", 404), ("/", 404), ("/languages?page=0", 400), ("/languages?page=x", 400), ("/languages?page=9999", 200)],
)
def test_what_does_not_exist(demo: ModuleType, target: str, status: int) -> None:
    """The API answers what it does not have with a status and JSON, as real ones do."""
    with subprocess.Popen([sys.executable, str(API)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            with urllib.request.urlopen(url + target, timeout=60) as answer:
                found, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            found, body = error.code, error.read()
    assert found == status
    assert body.startswith(b"{")


def test_several_requests_in_one_packet(http: HttpClient) -> None:
    """Requests that come together or in pieces are each answered, and another method is refused."""
    import socket

    port = int(str(http).rpartition(":")[2].strip("')/"))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"GET /languages/deu HTTP/1.1\r\nHost: x\r\n\r\nGET /languages/fra HTTP/1.1\r\nHo")
        time.sleep(0.05)
        one.sendall(b"st: x\r\n\r\nPOST /languages HTTP/1.1\r\n\r\n")
        received = b"".join(iter(lambda: one.recv(65_536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert b'"German"' in received
    assert b'"French"' in received
    assert b"HTTP/1.1 405" in received


def test_the_server_ends_with_the_connection(demo: ModuleType) -> None:
    """Closing the connection ends its server."""
    before = {child.pid for child in psutil.Process().children()}
    with demo.api.connect(demo.Settings(base_url="")) as client:
        [server] = {child.pid for child in psutil.Process().children()} - before
        client.get_json("languages")
    assert _gone_within(server, 50)


def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the process that syncs leaves no server behind."""
    program = (
        "import sys, time, importlib.util as u\n"
        "spec = u.spec_from_file_location('any', sys.argv[1])\n"
        "demo = u.module_from_spec(spec); spec.loader.exec_module(demo)\n"
        "with demo.connect(demo.Settings(base_url='')):\n"
        "    print('open', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(FOLDER / "languages.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "open\n"
        [server] = [child.pid for child in psutil.Process(parent.pid).children()]
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
        assert _gone_within(server, 50)


def test_a_server_that_is_named_is_used(demo: ModuleType, http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """LANGUAGES_BASE_URL names the server, and none is started."""
    monkeypatch.setenv("LANGUAGES_BASE_URL", "http://127.0.0.1:9/api")
    before = len(psutil.Process().children())
    settings: Any = demo.Settings()
    with demo.api.connect(settings) as client:
        assert "127.0.0.1:9/api" in repr(client)
        assert len(psutil.Process().children()) == before


def test_importing_has_no_effect() -> None:
    """The file can be imported without pycountry, without a process and without HTTP."""
    program = (
        "import sys, os; sys.modules['pycountry'] = None\n"
        "from pathlib import Path; from flows.project import registry\n"
        "found = registry.load([Path(sys.argv[1])])\n"
        "assert not found.broken, found.broken\n"
        "assert list(found.syncs) == ['languages'] == list(found.clients)\n"
        "print(sorted({'httpx', 'prefect', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, str(FOLDER)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(FOLDER.parent)}, check=True
    )
    assert done.stdout == "[]\n"
