"""`Draft`: what is known of an API, as far as its declaration needs it, and how sure it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.page import Paginator

CERTAIN, GUESSED, OPEN = "certain", "guessed", "open"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Args:
        what: rows, key, version, total, paging, page size, fetch, incremental, rate, validators.
        value: as the declaration has it; None where there is none.
        sure: `certain` (seen), `guessed` (look at it), `open` (not found).
        why: in a few words.
    """

    what: str
    value: str | None
    sure: str
    why: str


@dataclass(slots=True)
class Draft:
    """What a file in `syncs/` will declare.

    Args:
        name: of the client.
        url: of the client.
        path: of the listing.
        auth: Python of its sign-in, without `auth=`; None for none.
        names: what that Python imports from `clients`.
        params, paginator, items, key, version, total, total_header: of the listing.
        fetch: of the sync.
        since: field, parameter and zone of `Since`.
        source: URL for the docstring.
        rows: that were seen; for the table.
        record: one that was fetched, as it came; None where the rows are the records.
        findings: all of them.
        look_at: lines for a person.
    """

    name: str
    url: str
    path: str
    auth: str | None = None
    names: Sequence[str] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    paginator: Paginator | None = None
    items: str | None = None
    key: str = "id"
    version: str | None = None
    total: str | None = None
    total_header: str | None = None
    fetch: str | None = None
    since: tuple[str, str, str | None] | None = None
    source: str = ""
    rows: Sequence[Any] = ()
    record: Any = None
    findings: list[Finding] = field(default_factory=list)
    look_at: list[str] = field(default_factory=list)
    requests: int = 0

    def add(self, what: str, value: str | None, sure: str, why: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(what, value, sure, why))
