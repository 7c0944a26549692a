"""`PausePolicy`: which errors pause a client, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from flows.declarations.validation import is_duration
from flows.declarations.window import LONGEST, Window, window_at
from flows.errors import DeclarationError

_ENFORCED: Mapping[int, float | None] = MappingProxyType({401: 900, 403: 900, 407: 900})

_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PausePolicy:
    """Which errors pause a client, and for how long.

    Args:
        after: number of generic errors in a row that pause the client.
        durations: seconds by error level; the last one is for all higher levels.
        enforced: seconds by HTTP status that pauses at once, also for the same errors of SOAP and FTP; `None` waits for a person.
        windows: maintenance windows; during one, no request is sent.

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
        if not self.durations or not all(is_duration(seconds) for seconds in self.durations):
            raise DeclarationError(f"PausePolicy(durations=…) must be positive seconds, got {self.durations}")
        for status, seconds in self.enforced.items():
            if seconds is not None and not is_duration(seconds):
                raise DeclarationError(
                    f"PausePolicy(enforced=…) must be positive seconds, or None (a person resumes), got {seconds!r} for {status}"
                )
        if not isinstance(self.windows, tuple | list) or not all(isinstance(one, Window) for one in self.windows):
            raise DeclarationError(f"PausePolicy(windows=…) must be a tuple of Window(…), got {self.windows!r}")
        if self.windows and (end := window_at(self.windows, _MONDAY)) is not None and end - _MONDAY >= LONGEST:
            raise DeclarationError("PausePolicy(windows=…) leaves no time to work: the windows follow one another without a gap")
