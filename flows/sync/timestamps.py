"""Times and numbers as remote sides write them: puts them in order, and writes another one in the same spelling."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from math import floor, isfinite
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pendulum import DateTime

_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}(?=[T ]))(?:(?P<between>[T ])(?P<time>\d\d:?\d\d(?::?\d\d)?)"
    r"(?:(?P<point>[.,])(?P<fraction>\d+))?(?P<zone>Z|z|[+-]\d\d(?::?\d\d)?)?)?"
)
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,9})?")

EPOCHS = ((1.0, 1e9, 4.2e9), (1e3, 1e12, 4.2e12), (1e6, 1e15, 4.2e15))
"""Units per second, and the range in which a number counts as an epoch time: 2001 to 2103. To take another number for one does no
harm: more is asked for than needed."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A value that can be put in order.

    Attributes:
        value: as the remote side wrote it.
        kind: only values of one kind can be compared: `number` (a JSON number), `digits` (one in a text), `time` (ISO 8601 with
            a zone), `local` (without), `date`.
        order: what to compare: a number, or a `pendulum.DateTime`; where the value has no zone, in the declared one, or in UTC.
    """

    value: Any
    kind: str
    order: Any

    @classmethod
    def of(cls, value: Any, zone: str | None = None) -> Self | None:
        """Read a value; `None` where it is neither a time nor a number.

        Args:
            zone: of a time that says none.
        """
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls(value, "number", value) if isfinite(value) else None
        if not isinstance(value, str):
            return None
        if _NUMBER.fullmatch(value):
            return cls(value, "digits", Decimal(value))
        found = _ISO.fullmatch(value)
        if found is None:
            return None
        import pendulum  # Here: a run without `Since` needs none.

        try:
            order = pendulum.parse(_basic(found), tz=zone or "UTC")
        except ValueError:
            return None
        if found["time"] is None:
            return cls(value, "date", order)
        return cls(value, "local" if found["zone"] is None else "time", order)

    @property
    def epoch(self) -> float:
        """Units per second, where a number is as large as an epoch time; else 0."""
        if self.kind not in ("number", "digits"):
            return 0.0
        return next((unit for unit, least, most in EPOCHS if least <= self.order < most), 0.0)

    @property
    def is_time(self) -> bool:
        """Whether it is a time, and no mere number."""
        return self.kind not in ("number", "digits") or self.epoch > 0

    @property
    def has_zone(self) -> bool:
        """Whether it is no time that may be of any zone."""
        return self.kind not in ("local", "date")

    def before(self, overlap: float) -> Any:
        """Return the value that lies `overlap` before: in seconds for times, in its own unit for other numbers.

        Where clocks go back, an hour comes twice, and what changes in the second one is written as a time before what changed in
        the first: such a time becomes one before both.
        """
        if not overlap and (self.has_zone or not _repeated(self.order)):
            return self.value
        if self.kind in ("number", "digits"):
            return self._number(Decimal(self.order) - Decimal(overlap) * Decimal(self.epoch or 1))
        try:
            when = self.order - timedelta(seconds=overlap)
            return self._text(when if self.has_zone else when - _repeated(when))
        except (OverflowError, ValueError):
            return self._text(self.order.replace(year=1, month=1, day=2))

    def at(self, when: datetime) -> "Timestamp":
        """Return this moment, written as this value is."""
        if self.epoch:
            value = self._number(Decimal(when.timestamp()) * Decimal(self.epoch))
        else:
            import pendulum

            value = self._text(pendulum.instance(when).in_timezone(self.order.timezone))
        found = Timestamp.of(value, None if self.has_zone else self.order.timezone_name)
        assert found is not None
        return found

    def _number(self, number: Decimal) -> Any:
        """Write a number in the spelling of this one; it is never rounded up."""
        if isinstance(self.value, int):
            return floor(number)
        if isinstance(self.value, float):
            return float(number)
        return str(number.quantize(Decimal(1).scaleb(-len(self.value.partition(".")[2])), ROUND_FLOOR))

    def _text(self, when: "DateTime") -> str:
        """Write a time in the spelling of this one: the same separators, digits and zone."""
        found = _ISO.fullmatch(self.value)
        assert found is not None
        dash = "-" if "-" in found["date"] else ""
        spelling = f"{dash}MM{dash}DD"
        if found["time"] is not None:
            colon = ":" if ":" in found["time"] else ""
            spelling += f"[{found['between']}]HH{colon}mm"
            if len(found["time"].replace(":", "")) == 6:
                spelling += f"{colon}ss"
        # pendulum writes years before 1000 with fewer digits.
        text: str = f"{when.year:04}" + when.format(spelling)
        if found["fraction"]:
            digits = len(found["fraction"])
            text += found["point"] + f"{when.microsecond:06}".ljust(digits, "0")[:digits]
        return text + (found["zone"] or "")


def _repeated(when: "DateTime") -> timedelta:
    """Return how far the clock goes back where this time of the day comes twice; else zero."""
    first, second = (when.replace(fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    return max(first - second, timedelta(0))


def _basic(found: re.Match[str]) -> str:
    """Return a time in the basic format of ISO 8601, without separators: pendulum reads no mixture of both formats."""
    text = found["date"].replace("-", "")
    if found["time"] is not None:
        text += "T" + found["time"].replace(":", "")
        text += f".{found['fraction']}" if found["fraction"] else ""
        text += (found["zone"] or "").upper()
    return text
