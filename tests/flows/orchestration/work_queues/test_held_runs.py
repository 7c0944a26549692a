"""Which flow runs of a paused work queue are deleted before it is resumed."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import AwaitingRetry, Late, Scheduled, State
from pytest_httpserver import HTTPServer

from flows.orchestration.prefect_client import open_client
from flows.orchestration.work_queues.held_runs import delete_surplus_runs, surplus_runs


def test_surplus_is_all_but_the_newest_of_a_kind() -> None:
    """Of the runs that schedules made, one of each deployment and set of parameters stays, and all that others started."""
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
    assert surplus_runs([newest, kept[0], second, *kept[1:], third, run(other, auto=False)]) == [second.id, third.id]


def test_an_older_server_lets_its_queue_go_all_the_same(httpserver: HTTPServer) -> None:
    """Where runs cannot be deleted in bulk they all run; that the queue goes on matters more. Trouble is no such thing."""
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
    with open_client(httpserver.url_for("/api")) as api:
        assert delete_surplus_runs(api, uuid4(), now=now) == 0
        httpserver.expect_request("/api/flow_runs/bulk_delete").respond_with_data("no", status=422)
        with pytest.raises(PrefectHTTPStatusError):
            delete_surplus_runs(api, uuid4(), now=now)
    asked = [json.loads(one.data) for one, _ in httpserver.log if one.path.endswith("/filter")]
    # Not the time of this machine: what is yet to come would be taken for overdue.
    befores = [one["flow_runs"]["expected_start_time"]["before_"] for one in asked]
    assert [datetime.fromisoformat(one) for one in befores] == [now, now]
