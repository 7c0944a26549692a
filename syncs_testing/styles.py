"""How well-behaved APIs page: one style for each kind of paginator, and predicates about styles for attacks.

A cursor or a link names the row to continue with (its number in the order of rows), so that it stays right when rows are added or
deleted; a page number and an offset count, as in real APIs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncs_testing.server import Reply, Seen

Row = dict[str, Any]

_PATH = re.compile(r"[A-Za-z_@\"][\w@.\"]*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Style:
    """One API: where things are in its requests and answers.

    Args:
        kind: the class name of the paginator.
        names: the fields of the paginator.
        items, total: where the list and the number of rows are in the body, as dotted names; None when the body is the list,
            or there is no total.
        key: where the key is in a row.
        total_header: the header with the number of rows.
        size: rows of a page, whatever was asked for.
    """

    kind: str
    names: Mapping[str, Any] = field(default_factory=dict)
    items: str | None = "data"
    key: str = "id"
    total: str | None = None
    total_header: str | None = None
    size: int = 10

    @property
    def counting(self) -> bool:
        """Whether the client counts, so that added and deleted rows shift the others."""
        return self.kind in ("PageNumber", "Offset", "TotalPages")

    @property
    def announcing(self) -> bool:
        """Whether each answer names the next page."""
        return self.kind in ("Cursor", "NextLink", "LinkHeader", "Continue", "RelayCursor", "ODataLink")

    @property
    def linking(self) -> bool:
        """Whether the next page is named by a URL."""
        return self.kind in ("NextLink", "LinkHeader", "ODataLink")

    @property
    def order(self) -> str:
        """The field after whose value `Keyset` continues; rows are sorted by it."""
        return str(self.names.get("field", self.key)) if self.kind == "Keyset" else self.key

    def start(self, seen: Seen, rows: Sequence[Row]) -> tuple[int, Any]:
        """Return where the requested page begins, as an index into `rows`, and the token of the request."""
        query = seen.query
        if self.kind in {"PageNumber", "TotalPages"}:
            number = int(query.get(self.names["param"], self.names["start"]))
            return (number - int(self.names["start"])) * self.size, number
        if self.kind == "Offset":
            offset = int(query.get(self.names["param"], 0))
            return offset, offset
        token: Any
        if self.kind == "Keyset":
            token = query.get(self.names["param"])
            if token is None:
                return 0, None
            return next((n for n, row in enumerate(rows) if str(get(row, self.order)) > token), len(rows)), token
        body = seen.json if isinstance(seen.json, dict) else {}
        if self.kind == "RelayCursor":
            token = (body.get("variables") or {}).get(self.names["variable"])
        elif self.kind == "Cursor":
            token = body.get(self.names["param"], query.get(self.names["param"]))
        else:
            token = query.get("from")
        if token is None:
            return 0, None
        at = int(re.sub(r"\D.*", "", str(token)) or 0)
        here = next((n for n, row in enumerate(rows) if row["n"] == at), None)
        return next((n for n, row in enumerate(rows) if row["n"] >= at), len(rows)) if here is None else here, token

    def reply(self, rows: Any, *, next_token: Any, base: str, path: str, total: Any, pages: Any) -> Reply:  # noqa: C901, PLR0912  # one case for each kind
        """Return an answer.

        Args:
            rows: of the page; an attack may put anything there.
            next_token: names the next page, or is a whole URL; None at the end.
            base: the URL of the server, for links.
            total, pages: the announced numbers, where this style announces them; None leaves them out.
        """
        body: Any = rows
        headers: dict[str, str] = {}
        if self.items is not None:
            body = {}
            put(body, self.items, rows)
        link = None
        if next_token is not None:
            text = str(next_token)
            link = text if "/" in text or text.startswith("?") else f"{base}{path}?from={text}"
        match self.kind:
            case "Cursor":
                put(body, self.names["path"], next_token)
            case "NextLink" if link is not None:
                put(body, self.names["path"], link)
            case "LinkHeader" if link is not None:
                headers["Link"] = f'<{link}>; rel="next"'
            case "ODataLink" if link is not None:
                body["@odata.nextLink"] = link
            case "Continue" if next_token is not None:
                put(body, self.names["path"], {"from": next_token, "continue": "-||"})
            case "RelayCursor":
                info = self.names["path"] if self.names["path"].endswith("pageInfo") else f"{self.names['path']}.pageInfo"
                put(
                    body,
                    info,
                    {"hasNextPage": next_token is not None, "endCursor": None if next_token is None else str(next_token)},
                )
            case "TotalPages" if pages is not None:
                if self.names.get("header"):
                    headers[self.names["header"]] = str(pages)
                else:
                    put(body, self.names["path"], pages)
            case _:
                pass
        if self.total is not None and total != ():
            put(body, self.total, total)
        if self.total_header is not None and total not in ((), None):
            headers[self.total_header] = str(total)
        return Reply(body, headers=headers)


def style_of(listing: Any, *, size: int = 10) -> Style:
    """Return the style that a declared listing expects, from the class and the fields of its paginator.

    Raises:
        ValueError: the listing has a paginator or a path that no style can answer; give one of your own.
    """
    paginator = listing.paginator
    kind = type(paginator).__name__
    public = [name for name in dir(paginator) if not name.startswith("_")]
    names = {name: getattr(paginator, name) for name in public if not callable(getattr(paginator, name))}
    style = Style(
        kind,
        names,
        items=listing.items,
        key=listing.key,
        total=listing.total,
        total_header=getattr(listing, "total_header", None),
        size=size,
    )
    if not (style.counting or style.announcing or kind in ("Keyset", "SinglePage")):
        raise ValueError(f"no style for the paginator {kind}; give one of your own")
    for path in (style.items, style.key, style.total):
        if path is not None and _PATH.fullmatch(path) is None:
            raise ValueError(f"no style can answer at {path!r}; plain names only (a.b.c)")
    return style


def get(value: Any, path: str) -> Any:
    """Return what is at a dotted path."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Store a value at a dotted path; a quoted name is one name."""
    names = [path.strip('"')] if path.startswith('"') else path.split(".")
    for name in names[:-1]:
        body = body.setdefault(name, {})
    body[names[-1]] = value


def announcing(style: Style) -> bool:
    """Each answer names the next page."""
    return style.announcing


def counting(style: Style) -> bool:
    """The client counts."""
    return style.counting


def paging(style: Style) -> bool:
    """There is more than one page."""
    return style.kind != "SinglePage"


def linking(style: Style) -> bool:
    """The next page is named by a URL."""
    return style.linking


def totalling(style: Style) -> bool:
    """The number of rows is announced in the body."""
    return style.total is not None


def orderless(style: Style) -> bool:
    """Rows may come in any order, and a filter may empty pages."""
    return style.announcing or style.counting


def tells_the_end(style: Style) -> bool:
    """Something else than an empty page shows the end."""
    return style.announcing or style.kind == "TotalPages" or (style.counting and totalling(style))


def ties(style: Style) -> bool:
    """It continues after a value that several rows may have."""
    return style.kind == "Keyset" and style.order != style.key
