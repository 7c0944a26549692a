"""What the tests of the Prefect half share: an API on loopback, a project, and one real server and worker from `syncs up`."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.prefect_project import ALLOWED, HANG, ApiServer, Project, make_project


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """Serve the API on loopback."""
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def api_url(api_server: ApiServer) -> str:
    """Return the address of the API."""
    return api_server.url


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process wait for a server that is only busy; what it does about a silent one is tested elsewhere."""
    for module, names in (
        ("work_queues.updater", ("_HEALTH_TIMEOUT", "_REQUEST_TIMEOUT")),
        ("notices.prefect_carrier", ("_HEALTH_TIMEOUT", "REQUEST_TIMEOUT")),
    ):
        for name in names:
            monkeypatch.setattr(f"flows.orchestration.{module}.{name}", 60.0)


@pytest.fixture(scope="session")
def _both_ups(tmp_path_factory: pytest.TempPathFactory, api_url: str) -> Iterator[tuple[Project, list[dict[str, Any]]]]:
    """Start `syncs up` twice at the same moment; yield what both said, and stop everything in the end."""
    project = make_project(tmp_path_factory.mktemp("project"), api_url)
    project.environment["SYNCS_ALLOWED_HOSTS"] = ALLOWED
    ups = [project.start("up", "--port", str(project.port), "--json") for _ in range(2)]
    try:
        said = [up.communicate(timeout=HANG) for up in ups]
        assert [up.returncode for up in ups] == [0, 0], said
        project.hold_schedules()
        yield project, [json.loads(out) for out, _ in said]
    finally:
        project.start("down").communicate(timeout=HANG)


@pytest.fixture(scope="session")
def both_ups(_both_ups: tuple[Project, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what two `syncs up` at the same moment said."""
    return _both_ups[1]


@pytest.fixture(scope="session")
def project(_both_ups: tuple[Project, list[dict[str, Any]]]) -> Project:
    """Return a project whose server and worker run."""
    return _both_ups[0]
