"""Writes the pause of a client into the description of its work queue, and reads it from there. Pure functions.

The pause is the first line of the description; what a person wrote stands below it. The line holds the id of the pause, so it
also records what Prefect was last told. A queue that is paused without this line was paused by a person. A queue that has the
line and is not paused was resumed by a person. Our own updates change queue and line in one request and leave neither behind.
"""

import re

from flows.project.redaction import printable_line
from flows.time_text import clock_text
from jobs.pauses.pause import OpenPause

_PAUSE_LINE = re.compile(r"Paused by sync-clients until [^\n]*?\(#(\d+)\):?")
_REASON_LENGTH = 200


def pause_id_in(description: str | None) -> int | None:
    """Return the id of the pause that the description names, `None` if it names none."""
    found = _PAUSE_LINE.match(description or "")
    return None if found is None else int(found[1])


def with_pause(description: str | None, pause: OpenPause) -> str:
    """Return the description with this pause in its first line, in place of another pause; the rest stays."""
    rest = without_pause(description)
    reason = printable_line(pause.reason, limit=_REASON_LENGTH) or pause.cause
    line = f"Paused by sync-clients until {until_text(pause)} (#{pause.id}): {reason}"
    return f"{line}\n\n{rest}" if rest else line


def without_pause(description: str | None) -> str:
    """Return the description without its line about a pause."""
    if pause_id_in(description) is None:
        return description or ""
    return (description or "").partition("\n")[2].removeprefix("\n")


def until_text(pause: OpenPause) -> str:
    """Return the end of a pause as `14:05 UTC`, with the date unless it ends on the day it began; `resumed` without an end."""
    if pause.until is None:
        return "resumed"
    return clock_text(pause.until, now=pause.started_at)
