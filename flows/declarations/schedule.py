"""`Cron` and `Every`: when a sync runs by itself, as `Sync(schedule=…)` says it."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from flows.declarations.validation import check_zone, is_duration
from flows.errors import DeclarationError

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
"""From which the runs of `Every` are counted."""

_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_ITEM = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?", re.ASCII)


@dataclass(frozen=True)
class Cron:
    """A schedule by the calendar.

    Args:
        text: minute, hour, day of the month, month, day of the week: `"0 3 * * *"` is each day at three. Also `@hourly`,
            `@daily`, `@weekly`, `@monthly`, `@yearly`.
        zone: the time zone that the text is about, such as `Europe/Berlin`. In summer and winter, three is three there.

    Raises:
        DeclarationError: the text is no such line, or there is no such zone.
    """

    text: str
    zone: str = field(default="UTC", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DeclarationError(f'Cron must be text such as "0 3 * * *", got {self.text!r}')
        check_zone("Cron", self.zone)
        given = " ".join(self.text.split()).lower()
        parts = (text := _SHORT.get(given, given)).split()
        if len(parts) != len(_FIELDS):
            raise DeclarationError(f'Cron must be five fields such as "0 3 * * *", got {self.text!r}')
        for part, (name, low, high, names) in zip(parts, _FIELDS, strict=True):
            if not all(_is_item(item, low, high, names) for item in part.split(",")):
                raise DeclarationError(f"Cron {self.text!r}: {part!r} is no {name} ({low} to {high}, ranges, lists, * and */n)")
        object.__setattr__(self, "text", text)

    def __str__(self) -> str:
        return f"{self.text} {self.zone}"


@dataclass(frozen=True)
class Every:
    """A schedule by the clock: a run each so many seconds, whatever the calendar says.

    Args:
        seconds: between the beginnings of two runs, at least 1. A run that takes longer is not joined by a second one.

    Raises:
        DeclarationError: it is no such number.
    """

    seconds: float

    def next_after(self, moment: datetime) -> datetime:
        """Return when the next run is due: runs are counted from `ANCHOR`, so that a deploy does not move them."""
        done = (moment - ANCHOR) // (step := timedelta(seconds=self.seconds))
        return ANCHOR + (done + 1) * step

    def __post_init__(self) -> None:
        if not is_duration(self.seconds) or self.seconds < 1:
            raise DeclarationError(f"Every must be a number of seconds, at least 1, got {self.seconds!r}")

    def __str__(self) -> str:
        return f"every {self.seconds:g} s"


def as_schedule(what: str, value: object) -> Cron | Every | None:
    """Return a schedule; cron text is in UTC.

    Args:
        what: begins the message.
        value: of the argument `schedule`.

    Raises:
        DeclarationError: it is none of what a schedule may be.
    """
    if value is None or isinstance(value, Cron | Every):
        return value
    if isinstance(value, str):
        try:
            return Cron(value)
        except DeclarationError as error:
            raise DeclarationError(f"{what}: {error}") from None
    raise DeclarationError(f"{what}: schedule must be cron text, Cron(…) or Every(seconds), got {value!r}")


def _is_item(item: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    # The last day of a month, and the nth or last of a weekday in it.
    if (high == 31 and item == "l") or (high == 7 and re.fullmatch(r"[0-7]#[1-5]|l[0-6]", item)):
        return True
    found = _ITEM.fullmatch(item)
    if found is None:
        return False
    if found["step"] is not None and not 0 < int(found["step"]) <= high + 1:
        return False
    if found["first"] == "*":
        return found["last"] is None
    first = _number(found["first"], low, names)
    last = first if found["last"] is None else _number(found["last"], low, names)
    return first is not None and last is not None and low <= first <= high and low <= last <= high


def _number(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text in names:
        return names.index(text) + low
    return int(text) if text.isdecimal() else None
