"""jobs.retry: when a failed attempt gets another try."""

import random

import pytest

from jobs import Retry


@pytest.mark.rows("E-27")
@pytest.mark.parametrize(
    ("retry", "retries", "expected"),
    [
        (Retry(jitter=False), 0, 10),
        (Retry(jitter=False), 1, 20),
        (Retry(jitter=False), 2, 40),
        (Retry(jitter=False), 3, None),
        (Retry(jitter=False), 4, None),
        (Retry(max_retries=0), 0, None),
        (Retry(max_retries=1, delay=0, jitter=False), 0, 0),
        (Retry(max_retries=20, jitter=False), 19, 3600),
        (Retry(max_retries=10**6, jitter=False), 10**5, 3600),
        (Retry(max_retries=9, factor=1, jitter=False), 8, 10),
        (Retry(max_retries=9, delay=100, max_delay=50, jitter=False), 0, 50),
    ],
)
def test_wait_grows_to_its_limit_and_ends(retry: Retry, retries: int, expected: float | None) -> None:
    """The wait before retry n is delay * factor ** (n - 1), at most max_delay, and None when the retries are used."""
    assert retry.wait(retries) == expected


@pytest.mark.rows("E-27")
@pytest.mark.parametrize(("dice", "expected"), [(0.0, 5), (0.5, 7.5), (1.0, 10)])
def test_dice_spread_the_wait_from_half_to_whole(dice: float, expected: float) -> None:
    """Jitter multiplies the wait by 0.5 to 1."""
    assert Retry().wait(0, dice=dice) == expected


def test_jitter_without_dice_stays_in_range() -> None:
    """Random waits differ and stay between half and the whole."""
    random.seed(1)
    waits = {Retry().wait(0) for _ in range(50)}
    assert len(waits) > 40
    assert all(wait is not None and 5 <= wait <= 10 for wait in waits)


@pytest.mark.parametrize("wrong", [{"max_retries": -1}, {"delay": -1}, {"max_delay": -1}, {"factor": 0.5}])
def test_wrong_numbers_are_refused(wrong: dict[str, float]) -> None:
    """A number out of range is a ValueError that names it."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retry(**wrong)  # type: ignore[arg-type]  # that is the point
