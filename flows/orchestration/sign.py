"""What a client's work queue shows of its pause, and what is to be done where queue and table differ. Pure; knows no server.

The sign is the first line of the queue's description. It names the pause, so that it is also what Prefect was last told: a queue
that is paused without a sign was paused by a person, and one that has a sign and is not paused was let go by a person. Queue and
sign are written in one request; nothing of ours ever leaves either of these behind.
"""

import re
from datetime import UTC, datetime
from enum import Enum

from jobs.pause import Pausing, Standing

_SIGN = re.compile(r"Paused by sync-clients until [^\n]*?\(#(\d+)\):?")
_REASON = 200


class Step(Enum):
    """What to do next for one queue. `ADOPT` and `OBEY` change the table, the others the queue."""

    #: They agree.
    NOTHING = "nothing"
    #: Pause the queue and put the sign up.
    PAUSE = "pause"
    #: The queue is paused, but its sign says something else, or there is none.
    SIGN = "sign"
    #: Let the queue go, and take the sign down.
    RELEASE = "release"
    #: Nobody is paused; take an old sign down.
    CLEAN = "clean"
    #: A person paused the queue: pause the client.
    ADOPT = "adopt"
    #: A person let the queue go: resume the client.
    OBEY = "obey"


def next_step(*, paused: bool, description: str | None, standing: Standing) -> Step:
    """Compare a queue with its client, and say what brings them together.

    A pause that has run out holds no queue: what was held goes, and is the probe or waits for it.

    Args:
        paused: whether the work queue is.
        description: the queue's.
        standing: the client's, read after the queue.
    """
    signed, pausing = read_sign(description), standing.pausing
    open_pause = pausing or standing.reopening
    if signed is not None and not paused and open_pause is not None and signed == open_pause.id:
        return Step.OBEY
    if pausing is None:
        if paused:
            return Step.ADOPT if signed is None else Step.RELEASE
        return Step.NOTHING if signed is None else Step.CLEAN
    if not paused:
        return Step.PAUSE
    return Step.NOTHING if description == with_sign(description, pausing) else Step.SIGN


def read_sign(description: str | None) -> int | None:
    """Return the id of the pause that the description names, `None` without a sign."""
    found = _SIGN.match(description or "")
    return None if found is None else int(found[1])


def with_sign(description: str | None, pausing: Pausing) -> str:
    """Return the description with the sign of this pause in place of another; what else it says stays."""
    own = without_sign(description)
    sign = f"Paused by sync-clients until {until_text(pausing)} (#{pausing.id}): {_one_line(pausing.reason) or pausing.cause}"
    return f"{sign}\n\n{own}" if own else sign


def without_sign(description: str | None) -> str:
    """Return what the description says besides."""
    if read_sign(description) is None:
        return description or ""
    return (description or "").partition("\n")[2].removeprefix("\n")


def until_text(pausing: Pausing) -> str:
    """Return the end of a pause as people read it: `14:05 UTC`, with its day unless that is the day it began, or `resumed`."""
    if pausing.until is None:
        return "resumed"
    start, end = _utc(pausing.started_at), _utc(pausing.until)
    return f"{end:%H:%M} UTC" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M} UTC"


def _utc(when: datetime) -> datetime:
    return when.astimezone(UTC)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON else line[: _REASON - 1] + "…"
