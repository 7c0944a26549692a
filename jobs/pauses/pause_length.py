"""Counts generic errors, and chooses the length of a pause by the error level. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Generic errors in a row, and the error level: how many pauses they have led to since the last success."""

    errors: int
    level: int


def after_answers(error_count: ErrorCount, troubles: Sequence[bool], *, after: int) -> tuple[ErrorCount, bool]:
    """Count the errors of a batch of answers.

    Args:
        error_count: before them.
        troubles: one for each answer, in order: whether it was generic trouble.
        after: so many errors in a row pause the client.

    Returns:
        The count afterwards, and whether to pause now.
    """
    errors, level, pausing = error_count.errors, error_count.level, False
    for trouble in troubles:
        if trouble:
            errors += 1
            pausing = pausing or errors >= after
        else:
            errors, level, pausing = 0, 0, False
    return ErrorCount(0 if pausing else errors, level), pausing


def pause_seconds(durations: Sequence[float], level: int) -> float:
    """Return the seconds of a pause at an error level, counted from 0; the last duration serves all higher ones."""
    return durations[min(level, len(durations) - 1)]
