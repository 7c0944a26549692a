"""What a run came to."""

import json
from datetime import UTC, datetime

import pytest

from flows.run_result import RunResult

SOON = datetime(2030, 1, 1, 14, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "until", "code"),
    [
        ("success", None, 0),
        ("skipped", None, 0),
        ("paused", SOON, 0),
        ("paused", None, 1),
        ("partial", None, 1),
        ("failed", None, 1),
    ],
)
def test_exit_code(state: str, until: datetime | None, code: int) -> None:
    """A pause that lifts itself exits 0; one that waits for a person, partial and failed exit 1."""
    assert RunResult("s", "c", state, paused_until=until).exit_code == code


def test_json() -> None:
    """The document has every key of the contract, in plain JSON."""
    keys = (
        "sync client state pages listed queued succeeded unchanged gone failed snoozed pending deleted requests seconds stopped"
        " paused_until message"
    )
    found = RunResult("s", "c", "paused", seconds=1.23456, paused_until=SOON, failures=(("k", "no"),)).as_json()
    assert set(keys.split()) <= set(found)
    assert json.loads(json.dumps(found)) == found
    assert (found["seconds"], found["paused_until"]) == (1.235, "2030-01-01T14:05:00+00:00")
    assert found["failures"] == [{"key": "k", "message": "no"}]
