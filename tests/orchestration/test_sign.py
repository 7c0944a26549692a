"""What a work queue shows of a pause, and which step follows from a queue and a client that differ. No server."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from flows.orchestration.sign import Step, next_step, read_sign, until_text, with_sign, without_sign
from jobs.pause import Pausing, Standing

START = datetime(2026, 11, 9, 13, 5, tzinfo=UTC)


def pausing(number: int = 17, *, minutes: float | None = 60, reason: str = "401 Unauthorized") -> Pausing:
    """Return a pause that began at five past one."""
    until = None if minutes is None else START + timedelta(minutes=minutes)
    return Pausing("petstore", until, "enforced", reason, 1, START, number)


OPEN = Standing(0)
HELD = Standing(1, pausing=pausing(17))
HELD_ANEW = Standing(2, pausing=pausing(18))
REOPENING = Standing(1, reopening=pausing(17))
SIGN_17, SIGN_16 = with_sign("", pausing(17)), with_sign("", pausing(16))


@pytest.mark.parametrize(
    ("paused", "description", "standing", "step"),
    [
        # They agree.
        (False, None, OPEN, Step.NOTHING),
        (False, "the pets", REOPENING, Step.NOTHING),
        (True, SIGN_17, HELD, Step.NOTHING),
        (True, with_sign("the pets", pausing(17)), HELD, Step.NOTHING),
        # The table has changed.
        (False, None, HELD, Step.PAUSE),
        (False, "the pets", HELD, Step.PAUSE),
        (True, SIGN_16, HELD, Step.SIGN),
        (True, with_sign("", pausing(17, minutes=5)), HELD, Step.SIGN),
        (True, SIGN_17, OPEN, Step.RELEASE),
        (True, SIGN_17, REOPENING, Step.RELEASE),
        (True, SIGN_16, REOPENING, Step.RELEASE),
        # A person has done something in Prefect.
        (True, None, OPEN, Step.ADOPT),
        (True, "the pets", OPEN, Step.ADOPT),
        (True, None, REOPENING, Step.ADOPT),
        (False, SIGN_17, HELD, Step.OBEY),
        (False, SIGN_17, REOPENING, Step.OBEY),
        (False, SIGN_17, OPEN, Step.CLEAN),
        # Both have; what a person let go is another pause than the present one.
        (True, None, HELD, Step.SIGN),
        (False, SIGN_17, HELD_ANEW, Step.PAUSE),
        (False, SIGN_16, REOPENING, Step.CLEAN),
    ],
)
def test_each_difference_has_its_step(paused: bool, description: str | None, standing: Standing, step: Step) -> None:
    """What the queue shows and what the table says decide, and nothing else."""
    assert next_step(paused=paused, description=description, standing=standing) is step


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("description", [None, "the pets", SIGN_16, SIGN_17, with_sign("the pets", pausing(18))])
@pytest.mark.parametrize("standing", [OPEN, HELD, HELD_ANEW, REOPENING])
def test_every_start_comes_to_rest(paused: bool, description: str | None, standing: Standing) -> None:
    """From wherever they are, a few steps bring them to agree, the client is changed once at most, and nothing is undone."""
    steps = []
    numbers = itertools.count(100)
    while (step := next_step(paused=paused, description=description, standing=standing)) is not Step.NOTHING:
        steps.append(step)
        assert len(steps) <= 3, steps
        match step:
            case Step.PAUSE | Step.SIGN:
                assert standing.pausing is not None
                paused, description = True, with_sign(description, standing.pausing)
            case Step.RELEASE | Step.CLEAN:
                paused, description = False, without_sign(description)
            case Step.ADOPT:
                standing = Standing(5, pausing=pausing(next(numbers), minutes=None))
            case Step.OBEY:
                standing = Standing(5)
    assert paused is (standing.pausing is not None)
    assert (read_sign(description) is not None) is paused
    assert len(steps) == len(set(steps))
    assert not {Step.ADOPT, Step.OBEY} <= set(steps)


def test_sign_names_the_end_the_number_and_the_reason() -> None:
    """A person reads until when and why; we read the number."""
    assert with_sign(None, pausing()) == "Paused by sync-clients until 14:05 UTC (#17): 401 Unauthorized"
    assert read_sign(with_sign(None, pausing())) == 17
    assert read_sign("Paused by hand (#17)") is None
    assert read_sign(None) is None


def test_description_of_a_persons_own_survives() -> None:
    """It stands below the sign while the client is paused, through any number of pauses, and alone afterwards."""
    own = "Runs of the pets.\n\nAsk Anna."
    first = with_sign(own, pausing(17))
    assert first.endswith(f"\n\n{own}")
    second = with_sign(first, pausing(18, minutes=None))
    assert (read_sign(second), without_sign(second)) == (18, own)
    assert without_sign(own) == own
    assert without_sign(with_sign(None, pausing())) == ""


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(60, "14:05 UTC"), (24 * 60, "2026-11-10 13:05 UTC"), (11 * 60, "2026-11-10 00:05 UTC"), (None, "resumed")],
)
def test_end_has_its_day_unless_it_is_the_first(minutes: float | None, text: str) -> None:
    """An hour alone is enough on the day on which the pause began."""
    assert until_text(pausing(minutes=minutes)) == text


def test_a_reason_of_any_form_is_one_short_line() -> None:
    """What an API answers may have lines of its own, look like a sign, and never end."""
    sign = with_sign(None, pausing(reason="no\n\nsuch (#99): thing " + "x" * 1000))
    assert "\n" not in sign
    assert len(sign) < 300
    assert read_sign(sign) == 17
