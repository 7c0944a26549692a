"""Deployments that an earlier release stored: their entrypoints in `flows/orchestration/holds.py` still load and run."""

from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint

from flows.orchestration import pause_flows
from flows.orchestration.prefect_client import open_client
from flows.orchestration.server_names import POOL
from tests import ROOT
from tests.support.prefect_project import Project, until

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@pytest.mark.parametrize("name", ["pause", "resume", "pauses"])
def test_old_entrypoint_loads_the_flow_and_warns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect loads the old path, gets the flow of today with its parameters, and the warning names the new path."""
    monkeypatch.chdir(ROOT)
    with pytest.warns(DeprecationWarning, match="deploys flows/orchestration/pause_flows.py"):
        loaded = load_flow_from_entrypoint(f"flows/orchestration/holds.py:{name}")
    assert loaded is getattr(pause_flows, name)
    assert loaded.name == name


def _ended(project: Project, run_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        run = project.run(run_id)
        return run if run["state_type"] in FINAL else None

    found: dict[str, Any] = until(ended, seconds=300)
    return found


@pytest.mark.slow
def test_stored_deployments_with_old_entrypoints_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs what is stored on the server under the old path, with the parameters of then."""
    monkeypatch.setenv("PREFECT_HOME", str(project.home))  # where this process finds the auth string
    said = {}
    for name, parameters in (
        ("pause", {"client": "tiny", "seconds": 600, "reason": "they move house"}),
        ("resume", {"client": "tiny"}),
        ("pauses", {}),
    ):
        with open_client(project.url) as client:
            deployment = client.create_deployment(
                client.create_flow_from_name(name),
                f"{name}-of-an-earlier-release",
                work_pool_name=POOL,
                path=str(ROOT),
                entrypoint=f"flows/orchestration/holds.py:{name}",
            )
            run_id = str(client.create_flow_run_from_deployment(deployment, parameters=parameters).id)
        run = _ended(project, run_id)
        said[name] = (run["state_name"], run["state"]["message"])
    assert said["resume"] == ("Completed", "tiny goes on")
    assert said["pause"][0] == "Completed"
    assert said["pause"][1].startswith("tiny is paused until ")
    assert said["pauses"][0] == "Completed"
