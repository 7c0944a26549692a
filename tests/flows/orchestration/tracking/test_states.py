"""The final state of a flow run says what it came to."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.orchestration.tracking.states import flow_run_state
from flows.run_result import RunResult


def _result(state: str, **values: Any) -> RunResult:
    return RunResult("a.b", "a", state, **values)


@pytest.mark.parametrize(
    ("result", "type", "name", "message"),
    [
        (_result("success", succeeded=7910), "COMPLETED", "Completed", "7910 succeeded"),
        (_result("success", unchanged=7910, deleted=2), "COMPLETED", "Completed", "7910 unchanged, 2 deleted"),
        (_result("success"), "COMPLETED", "Completed", "nothing to do"),
        (_result("partial", succeeded=7898, failed=12), "COMPLETED", "Completed", "12 of 7910 failed"),
        (_result("failed", succeeded=1, failed=2), "FAILED", "Failed", "2 of 3 failed"),
        (_result("failed", message="listing: 500"), "FAILED", "Failed", "listing: 500"),
        (
            _result("paused", paused_until=datetime(2026, 1, 1, 14, 5, tzinfo=UTC), message="401 twice"),
            "COMPLETED",
            "Paused",
            "Paused until 2026-01-01 14:05 UTC: 401 twice",
        ),
        (_result("paused"), "COMPLETED", "Paused", "Paused until a person resumes it"),
        (_result("paused", message="Paused until 14:05 UTC: 401"), "COMPLETED", "Paused", "Paused until 14:05 UTC: 401"),
        (_result("skipped"), "COMPLETED", "Skipped", "Another process runs this sync"),
    ],
)
def test_state_of_result(result: RunResult, type: str, name: str, message: str) -> None:
    """Type, name and message by what the engine returned; the data is the JSON document."""
    state = flow_run_state(result)
    assert (state.type.value, state.name, state.message) == (type, name, message)
    assert state.data == result.as_json()


def test_stopped_run_is_cancelled() -> None:
    """Somebody's wish is neither a success nor a failure; what failed as a whole stays failed."""
    state = flow_run_state(_result("success", succeeded=3, pending=7), stopped=True)
    assert (state.type.value, state.message) == (
        "CANCELLED",
        "Stopped by hand: 3 succeeded, 7 left for later; the next run goes on from here",
    )
    assert flow_run_state(_result("failed"), stopped=True).type.value == "FAILED"


def test_message_is_one_short_line() -> None:
    """A remote side's page of HTML does not become the state."""
    message = flow_run_state(_result("failed", message="<html>\n" * 1000)).message
    assert message is not None
    assert len(message) == 500
    assert "\n" not in message
