"""Times and numbers as remote sides write them: comparing them, and writing another one the same way. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from math import floor, isfinite
from typing import Any, Self

_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}(?=[T ]))(?:(?P<between>[T ])(?P<time>\d\d:?\d\d(?::?\d\d)?)"
    r"(?:(?P<point>[.,])(?P<fraction>\d+))?(?P<zone>Z|z|[+-]\d\d(?::?\d\d)?)?)?"
)
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,9})?")

EPOCHS = ((1.0, 1e9, 4.2e9), (1e3, 1e12, 4.2e12), (1e6, 1e15, 4.2e15))
"""Units per second, and from where to where a number is taken for an epoch time: 2001 to 2103. To take another number for one
does no harm: more is asked for than needed."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A value that can be put in order.

    Attributes:
        value: as the remote side wrote it.
        kind: only values of one kind can be compared: `number` (a JSON number), `digits` (one in a text), `time` (ISO 8601 with
            a zone), `local` (without), `date`.
        order: what to compare.
    """

    value: Any
    kind: str
    order: Any

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """Read a value; `None` where it is neither a time nor a number."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls(value, "number", value) if isfinite(value) else None
        if not isinstance(value, str):
            return None
        if _NUMBER.fullmatch(value):
            return cls(value, "digits", Decimal(value))
        found = _ISO.fullmatch(value)
        if found is None:
            return None
        try:
            order = datetime.fromisoformat(value.upper().replace(",", "."))
        except ValueError:
            return None
        if found["time"] is None:
            return cls(value, "date", order)
        return cls(value, "local" if order.tzinfo is None else "time", order)

    @property
    def epoch(self) -> float:
        """Units per second, where a number is as large as an epoch time; else 0."""
        if self.kind not in ("number", "digits"):
            return 0.0
        return next((unit for unit, least, most in EPOCHS if least <= self.order < most), 0.0)

    @property
    def is_time(self) -> bool:
        """Whether a clock has a say in it."""
        return self.kind not in ("number", "digits") or self.epoch > 0

    def before(self, overlap: float) -> Any:
        """Return the value that lies `overlap` before: in seconds for times, in its own unit for other numbers."""
        if not overlap:
            return self.value
        if self.kind in ("number", "digits"):
            return self._number(Decimal(self.order) - Decimal(overlap) * Decimal(self.epoch or 1))
        try:
            return self._text(self.order - timedelta(seconds=overlap))
        except OverflowError:
            return self._text(self.order.replace(year=1, month=1, day=2))

    def at(self, when: datetime) -> "Moment":
        """Return this very moment of the clock, written as this value is."""
        if self.epoch:
            value = self._number(Decimal(when.timestamp()) * Decimal(self.epoch))
        else:
            value = self._text(when.astimezone(self.order.tzinfo or UTC))
        found = Moment.of(value)
        assert found is not None
        return found

    def _number(self, number: Decimal) -> Any:
        """Write a number as ours is written; it is never rounded up."""
        if isinstance(self.value, int):
            return floor(number)
        if isinstance(self.value, float):
            return float(number)
        return str(number.quantize(Decimal(1).scaleb(-len(self.value.partition(".")[2])), ROUND_FLOOR))

    def _text(self, when: datetime) -> str:
        """Write a time as ours is written: the same separators, digits and zone."""
        found = _ISO.fullmatch(self.value)
        assert found is not None
        dash, date = "-" if "-" in found["date"] else "", when.date()
        text = f"{date.year:04}{dash}{date.month:02}{dash}{date.day:02}"
        if found["time"] is None:
            return text
        colon = ":" if ":" in found["time"] else ""
        text += f"{found['between']}{when.hour:02}{colon}{when.minute:02}"
        if len(found["time"].replace(":", "")) == 6:
            text += f"{colon}{when.second:02}"
        if found["fraction"]:
            digits = len(found["fraction"])
            text += found["point"] + f"{when.microsecond:06}".ljust(digits, "0")[:digits]
        return text + (found["zone"] or "")
