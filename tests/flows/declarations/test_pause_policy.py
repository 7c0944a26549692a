"""The small declarations: pause policy."""

from typing import Any

import pytest

from flows import DeclarationError, PausePolicy
from jobs.pauses.pause_length import pause_seconds


@pytest.mark.parametrize(("level", "seconds"), [(0, 60), (1, 300), (2, 1800), (3, 7200), (4, 7200), (99, 7200)])
def test_duration(level: int, seconds: float) -> None:
    """Each level has its duration, the last one serves all higher ones."""
    assert pause_seconds(PausePolicy().durations, level) == seconds


@pytest.mark.parametrize("fields", [{"after": 0}, {"after": -1}, {"durations": ()}, {"durations": (60, 0)}, {"durations": (-1,)}])
def test_bad_policy(fields: dict[str, Any]) -> None:
    """Numbers that make no pause are refused."""
    with pytest.raises(DeclarationError, match="PausePolicy"):
        PausePolicy(**fields)


def test_defaults_are_nobodys_to_change() -> None:
    """The enforced pauses that all policies share cannot be changed through one of them."""
    with pytest.raises(TypeError):
        PausePolicy().enforced[401] = None  # type: ignore[index]
