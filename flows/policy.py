"""The small declarations a client and a sync carry: pause policy, recipients, incremental listing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType
from typing import Any

from clients.paths import compile_path
from flows.errors import DeclarationError
from flows.window import LONGEST, Window, window_at

_ENFORCED: Mapping[int, float | None] = MappingProxyType({401: 900, 403: 900, 407: 900})


_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PausePolicy:
    """When trouble pauses a client, and for how long.

    Args:
        after: so many generic errors in a row pause the client.
        durations: seconds by error level; the last one serves all higher levels.
        enforced: seconds by status that pause at once (also for SOAP's and FTP's equals); `None` waits for a person.
        windows: declared maintenance windows; while one lasts, no request is sent.

    Raises:
        DeclarationError: a number is out of range, or the windows leave no time to work.
    """

    after: int = 3
    durations: tuple[float, ...] = (60, 300, 1800, 7200)
    enforced: Mapping[int, float | None] = field(default_factory=lambda: _ENFORCED)
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if self.after < 1:
            raise DeclarationError(f"PausePolicy(after=…) must be at least 1, got {self.after}")
        if not self.durations or not all(_is_duration(seconds) for seconds in self.durations):
            raise DeclarationError(f"PausePolicy(durations=…) must be positive seconds, got {self.durations}")
        for status, seconds in self.enforced.items():
            if seconds is not None and not _is_duration(seconds):
                raise DeclarationError(
                    f"PausePolicy(enforced=…) must be positive seconds, or None (a person resumes), got {seconds!r} for {status}"
                )
        if not isinstance(self.windows, tuple | list) or not all(isinstance(one, Window) for one in self.windows):
            raise DeclarationError(f"PausePolicy(windows=…) must be a tuple of Window(…), got {self.windows!r}")
        if (end := window_at(self.windows, _MONDAY)) is not None and end - _MONDAY >= LONGEST:
            raise DeclarationError("PausePolicy(windows=…) leaves no time to work: one window follows the other without a gap")

    def duration(self, level: int) -> float:
        """Return the seconds of a pause at this error level, counted from 0."""
        return self.durations[min(level, len(self.durations) - 1)]


@dataclass(frozen=True)
class Notify:
    """Recipients by level: `mailto:…`, `https://…`, any Apprise URL, or `block:<Prefect notification block>`.

    A level left at `None` takes the recipients from `SYNCS_NOTIFY_NOTICE`, `…_WARNING` or `…_ERROR`.

    Raises:
        DeclarationError: a level is no list of texts; what the texts mean, `syncs check` says.
    """

    notice: list[str] | None = None
    warning: list[str] | None = None
    error: list[str] | None = None

    def __post_init__(self) -> None:
        for level in ("notice", "warning", "error"):
            found = getattr(self, level)
            if found is not None and not (isinstance(found, list | tuple) and all(isinstance(one, str) for one in found)):
                # Not what it is: that may hold a password.
                raise DeclarationError(f"Notify({level}=…) must be a list of recipients, each of them a text")


#: Made here: inside `Since`, `field` is a field.
KEYWORD: Any = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Since:
    """Ask the remote side only for what is new.

    Args:
        field: JMESPath of the time or number in a listed item.
        param: the query parameter that carries the mark; the remote side lists what is not below it.
        overlap: how far below the mark to ask again, for what becomes visible late: in seconds for times, in the field's own
            unit for other numbers.

    Raises:
        DeclarationError: the field is no JMESPath, or the overlap no positive number.
    """

    field: str
    param: str
    overlap: float = KEYWORD

    def __post_init__(self) -> None:
        try:
            compile_path(self.field)
        except (ValueError, TypeError) as error:
            raise DeclarationError(f"Since(field=…): {error}") from None
        if not isinstance(self.param, str) or not self.param:
            raise DeclarationError(f"Since(param=…) must be the name of a parameter, got {self.param!r}")
        if isinstance(self.overlap, bool) or not isinstance(self.overlap, int | float) or not 0 <= self.overlap < inf:
            raise DeclarationError(f"Since(overlap=…) must be 0 or a positive number, got {self.overlap!r}")


def _is_duration(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < inf
