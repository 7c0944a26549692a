"""What a process does to show its pauses in Prefect when no server answers: nothing, quickly, and without complaint."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.declarations.client import Client
from flows.events import PAUSED, ClientEvent
from flows.notices.notifier import Notifier
from flows.orchestration.work_queues.updater import reconcile_if_reachable, reconcile_within, updating_work_queues
from jobs import JobStore
from tests.support.prefect_project import ROOT, free_port

PETSTORE = Client("petstore", connect=lambda _: None)  # type: ignore[arg-type, return-value]


def dead() -> str:
    """Return the URL of a server that is not there."""
    return f"http://127.0.0.1:{free_port()}/api"


@pytest.fixture
def _no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no server be configured."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))


@pytest.mark.usefixtures("_no_server")
def test_without_a_server_there_is_nothing_to_watch(store: JobStore) -> None:
    """Where none is configured nobody listens, and a pause is a row as always."""
    with updating_work_queues(store, {"petstore": PETSTORE}) as updater:
        assert updater is None
    assert reconcile_if_reachable(store, {"petstore": PETSTORE}) is None


def test_a_dead_server_holds_nobody_up(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are told, the thread finds nobody there, and the block ends at once though it would try again later."""
    monkeypatch.setattr("flows.orchestration.work_queues.updater.RETRY_SECONDS", 600.0)
    with updating_work_queues(store, {"petstore": PETSTORE}, url=dead()), Notifier(store, clients=[PETSTORE]) as notifier:
        for _ in range(20):
            held = store.pauses.open("petstore", 60, cause="person", reason="", set_by="anna")
            assert held is not None
            notifier.paused(PETSTORE, held)
        notifier.resumed(PETSTORE, by="anna")
        notifier.close()
        assert any(thread.name == "syncs-work-queues" for thread in threading.enumerate())
        began = time.monotonic()
    # Far below the minutes until it would try again.
    assert time.monotonic() - began < 60
    assert not any(thread.name == "syncs-work-queues" for thread in threading.enumerate())
    assert store.pauses.current("petstore") is not None


def test_a_pause_of_nobody_we_know_is_not_looked_at(store: JobStore) -> None:
    """A run of one client does not touch the others' work queues."""
    with updating_work_queues(store, {"petstore": PETSTORE}, url=dead(), reconcile_first=False) as updater:
        assert updater is not None
        stranger = Client("stranger", connect=lambda _: None)  # type: ignore[arg-type, return-value]
        updater.on_event(ClientEvent(PAUSED, stranger))
        assert not any(thread.name == "syncs-work-queues" for thread in threading.enumerate())


def test_look_soon_waits_no_longer_than_it_says(store: JobStore) -> None:
    """A server that takes the connection and is silent costs the caller what it allows."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        began = time.monotonic()
        assert reconcile_within(0.3, store, {"petstore": PETSTORE}, url=url) is None
        assert time.monotonic() - began < 15


def test_watching_imports_no_prefect() -> None:
    """A worker pays for Prefect when it has something to show there, not before: it is 84 MB and a second."""
    code = (
        "import sys, flows.orchestration.work_queues.updater, flows.cli.client_commands.pauses; "
        "sys.exit(', '.join(name for name in sys.modules if name == 'prefect' or name.startswith('prefect.')) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
