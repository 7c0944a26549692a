"""The small declarations a client and a sync carry: pause policy, recipients, incremental listing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Any

from clients.paths import compile_path
from flows.errors import DeclarationError

_ENFORCED: Mapping[int, float | None] = MappingProxyType({401: 900, 403: 900, 407: 900})


@dataclass(frozen=True)
class PausePolicy:
    """When trouble pauses a client, and for how long.

    Args:
        after: so many generic errors in a row pause the client.
        durations: seconds by error level; the last one serves all higher levels.
        enforced: seconds by status that pause at once (also for SOAP's and FTP's equals); `None` waits for a person.
        windows: declared maintenance windows.

    Raises:
        DeclarationError: a number is out of range.
    """

    after: int = 3
    durations: tuple[float, ...] = (60, 300, 1800, 7200)
    enforced: Mapping[int, float | None] = field(default_factory=lambda: _ENFORCED)
    windows: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.after < 1:
            raise DeclarationError(f"PausePolicy(after=…) must be at least 1, got {self.after}")
        if not self.durations or any(seconds <= 0 for seconds in self.durations):
            raise DeclarationError(f"PausePolicy(durations=…) must be positive seconds, got {self.durations}")

    def duration(self, level: int) -> float:
        """Return the seconds of a pause at this error level, counted from 0."""
        return self.durations[min(level, len(self.durations) - 1)]


@dataclass(frozen=True)
class Notify:
    """Recipients by level: `mailto:…`, `https://…`, any Apprise URL, or `block:<Prefect notification block>`.

    A level left at `None` takes the recipients from `SYNCS_NOTIFY_NOTICE`, `…_WARNING` or `…_ERROR`.
    """

    notice: list[str] | None = None
    warning: list[str] | None = None
    error: list[str] | None = None


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
