"""`Since`: how an incremental listing asks only for what is new."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

from clients.listings.jmespaths import compile_path
from flows.declarations.validation import check_zone
from flows.errors import DeclarationError

#: Made outside the class, where the name `field` is taken.
_OVERLAP: Any = field(default=0, kw_only=True)
_ZONE: Any = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Since:
    """An incremental listing: ask the remote side only for what is new.

    Args:
        field: JMESPath of the time or number in a listed item.
        param: the query parameter for the high-water mark; the remote side lists items from that value on.
        overlap: how far below the mark to ask again, for items that become visible late: seconds for times, else the unit of
            the field.
        zone: of times in the field that say none themselves: an IANA name such as `Europe/Berlin`, or `UTC`. Without it they may
            be of any zone, and each listing asks for the last 12 to 26 hours again.

    Raises:
        DeclarationError: the field is not JMESPath, the overlap is negative, or there is no such zone.
    """

    field: str
    param: str
    overlap: float = _OVERLAP
    zone: str | None = _ZONE

    def __post_init__(self) -> None:
        try:
            compile_path(self.field)
        except (ValueError, TypeError) as error:
            raise DeclarationError(f"Since(field=…): {error}") from None
        if not isinstance(self.param, str) or not self.param:
            raise DeclarationError(f"Since(param=…) must be the name of a parameter, got {self.param!r}")
        if isinstance(self.overlap, bool) or not isinstance(self.overlap, int | float) or not 0 <= self.overlap < inf:
            raise DeclarationError(f"Since(overlap=…) must be 0 or a positive number, got {self.overlap!r}")
        if self.zone is not None:
            check_zone("Since", self.zone)
