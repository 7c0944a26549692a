"""What a process does to show its pauses in Prefect when no server answers: nothing, quickly, and without complaint."""

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from flows import told
from flows.declaration import Client
from flows.orchestration.watch import look, look_soon, mirrored
from flows.told import Told
from jobs import JobStore

from .conftest import ROOT, free_port

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
    with mirrored(store, {"petstore": PETSTORE}) as watch:
        assert watch is None
    assert look(store, {"petstore": PETSTORE}) is None


def test_a_dead_server_holds_nobody_up(store: JobStore) -> None:
    """Pauses are told, the thread finds nobody there, and the block ends at once though it would try again later."""
    with mirrored(store, {"petstore": PETSTORE}, url=dead()), Told(store, clients=[PETSTORE]) as teller:
        for _ in range(20):
            held = store.pause("petstore", 60, cause="person", reason="", set_by="anna")
            assert held is not None
            teller.paused(PETSTORE, held)
        teller.resumed(PETSTORE, by="anna")
        teller.close()
        assert any(thread.name == "syncs-mirror" for thread in threading.enumerate())
        began = time.monotonic()
    # Far below the seconds until it would try again.
    assert time.monotonic() - began < 10
    assert not any(thread.name == "syncs-mirror" for thread in threading.enumerate())
    assert store.paused("petstore") is not None


def test_a_pause_of_nobody_we_know_is_not_looked_at(store: JobStore) -> None:
    """A run of one client does not touch the others' work queues."""
    with mirrored(store, {"petstore": PETSTORE}, url=dead(), begin=False) as watch:
        assert watch is not None
        stranger = Client("stranger", connect=lambda _: None)  # type: ignore[arg-type, return-value]
        watch.hear(told.Tidings(told.PAUSED, stranger))
        assert not any(thread.name == "syncs-mirror" for thread in threading.enumerate())


def test_look_soon_waits_no_longer_than_it_says(store: JobStore) -> None:
    """A server that takes the connection and is silent costs the caller what it allows."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        began = time.monotonic()
        assert look_soon(store, {"petstore": PETSTORE}, url=url, within=0.3) is None
        assert time.monotonic() - began < 1.9


def test_watching_imports_no_prefect() -> None:
    """A worker pays for Prefect when it has something to show there, not before: it is 84 MB and a second."""
    code = (
        "import sys, flows.orchestration.watch, flows.cli.pauses; "
        "sys.exit(', '.join(name for name in sys.modules if name == 'prefect' or name.startswith('prefect.')) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_surplus_is_all_but_the_newest_of_a_kind() -> None:
    """Of the runs that schedules made, one of each deployment and set of parameters stays, and all that others started."""
    from uuid import UUID, uuid4

    from prefect.client.schemas.objects import FlowRun
    from prefect.states import AwaitingRetry, Late, Scheduled, State

    from flows.orchestration.backlog import surplus_of

    hourly, other, flow = uuid4(), uuid4(), uuid4()

    def run(deployment: UUID | None, *, auto: bool = True, state: State[object] | None = None, **parameters: object) -> FlowRun:
        state = state or Late(scheduled_time=datetime.now(UTC))
        return FlowRun(
            flow_id=flow, deployment_id=deployment, auto_scheduled=auto, state=state, state_name=state.name, parameters=parameters
        )

    newest, second, third = run(hourly), run(hourly), run(hourly, state=Scheduled())
    kept = [
        run(hourly, full=True), run(other), run(hourly, auto=False), run(hourly, auto=False),
        run(hourly, state=AwaitingRetry(scheduled_time=datetime.now(UTC))), run(None),
    ]  # fmt: skip
    assert surplus_of([newest, kept[0], second, *kept[1:], third, run(other, auto=False)]) == [second.id, third.id]


def test_an_older_server_lets_its_queue_go_all_the_same(httpserver: HTTPServer) -> None:
    """Where runs cannot be deleted in bulk they all run; that the queue goes on matters more. Trouble is no such thing."""
    from uuid import uuid4

    from prefect.exceptions import PrefectHTTPStatusError

    from flows.orchestration.backlog import thin_out
    from flows.orchestration.mirror import hasty_client

    deployment, flow, now = str(uuid4()), str(uuid4()), datetime.now(UTC) - timedelta(hours=1)
    held = [
        {
            "id": str(uuid4()), "flow_id": flow, "deployment_id": deployment, "auto_scheduled": True, "state_name": "Late",
            "state_type": "SCHEDULED", "parameters": {},
        }
        for _ in range(3)
    ]  # fmt: skip
    httpserver.expect_request("/api/csrf-token").respond_with_data("no such thing", status=404)
    httpserver.expect_request("/api/flow_runs/filter").respond_with_json(held)
    httpserver.expect_oneshot_request("/api/flow_runs/bulk_delete").respond_with_data("no such thing", status=404)
    with hasty_client(httpserver.url_for("/api")) as api:
        assert thin_out(api, uuid4(), now=now) == 0
        httpserver.expect_request("/api/flow_runs/bulk_delete").respond_with_data("no", status=422)
        with pytest.raises(PrefectHTTPStatusError):
            thin_out(api, uuid4(), now=now)
    asked = [json.loads(one.data) for one, _ in httpserver.log if one.path.endswith("/filter")]
    # Not the time of this machine: what is yet to come would be taken for overdue.
    befores = [one["flow_runs"]["expected_start_time"]["before_"] for one in asked]
    assert [datetime.fromisoformat(one) for one in befores] == [now, now]
