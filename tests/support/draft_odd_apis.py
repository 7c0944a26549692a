"""More APIs for `syncs new`: what is rarer, or says nothing about its pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.draft_server import Api, Ask, Row, Told, cut, made, moment, paged


def _from(ask: Ask, name: str, mark: str) -> int:
    """Return where a cursor of this kind begins."""
    value = ask.query.get(name, "")
    return int(value.removeprefix(mark)) if value.startswith(mark) else 0


def skip_take(ask: Ask, rows: Sequence[Any]) -> Told:
    """Nothing but rows; `skip` and `take`."""
    return Told(cut(ask, rows, offset="skip", limit="take", default=15)[0])


def since_id(ask: Ask, rows: Sequence[Any]) -> Told:
    """Nothing but rows; `since_id`."""
    return Told([row for row in rows if row["id"] > ask.number("since_id", 0)][: min(100, ask.number("limit", 20))])


def from_zero(ask: Ask, rows: Sequence[Any]) -> Told:
    """A total, and pages from 0 that no answer counts."""
    return Told({"list": paged(ask, rows, default=20, start=0)[0], "total": len(rows)})


def airtable(ask: Ask, rows: Sequence[Any]) -> Told:
    """`offset` is a cursor."""
    at, many = _from(ask, "offset", "itr/"), min(100, ask.number("pageSize", 20))
    return Told({"records": rows[at : at + many]} | ({"offset": f"itr/{at + many}"} if at + many < len(rows) else {}))


def slack(ask: Ask, rows: Sequence[Any]) -> Told:
    """The cursor is in an object of its own, and empty at the end."""
    at, many = _from(ask, "cursor", "dXNl"), ask.number("limit", 25)
    after = f"dXNl{at + many}" if at + many < len(rows) else ""
    return Told({"ok": True, "members": rows[at : at + many], "response_metadata": {"next_cursor": after}})


def header_cursor(ask: Ask, rows: Sequence[Any]) -> Told:
    """The cursor is in a header."""
    at, many = _from(ask, "cursor", "hc"), ask.number("limit", 20)
    return Told(rows[at : at + many], {"X-Next-Cursor": f"hc{at + many}"} if at + many < len(rows) else {})


def zendesk(ask: Ask, rows: Sequence[Any]) -> Told:
    """A next link for ever; the flag says when to stop."""
    at, many = _from(ask, "page[after]", "xa"), ask.number("page[size]", 20)
    meta = {"has_more": at + many < len(rows), "after_cursor": f"xa{at + many}"}
    return Told({"users": rows[at : at + many], "meta": meta, "links": {"next": ask.link(**{"page[after]": f"xa{at + many}"})}})


def fhir(ask: Ask, rows: Sequence[Any]) -> Told:
    """Links as a list, rows within rows."""
    at, many = ask.number("_from", 0), ask.number("_count", 10)
    links = [{"relation": "self", "url": ask.link()}]
    links += [{"relation": "next", "url": ask.link(_from=at + many)}] if at + many < len(rows) else []
    entries = [{"fullUrl": f"http://x/{row['id']}", "resource": {**row, "id": str(row["id"])}} for row in rows[at : at + many]]
    return Told({"resourceType": "Bundle", "id": "b-1", "total": len(rows), "link": links, "entry": entries})


def express(ask: Ask, rows: Sequence[Any]) -> Told:
    """`next` has the parameters of the next page."""
    shown, page, many, pages = paged(ask, rows, size="limit")
    return Told({"results": shown} | ({"next": {"page": page + 1, "limit": many}} if page < pages else {}))


def scim(ask: Ask, rows: Sequence[Any]) -> Told:
    """Offsets from 1."""
    shown, at, _ = cut(ask, rows, offset="startIndex", limit="count", default=20, first=1)
    return Told(
        {"schemas": ["urn:x"], "totalResults": len(rows), "itemsPerPage": len(shown), "startIndex": at + 1, "Resources": shown}
    )


def strict(ask: Ask, rows: Sequence[Any]) -> Told:
    """What it does not know is a 400."""
    if set(ask.query) - {"pageNumber", "pageSize"}:
        return Told({"error": "unknown parameter"}, status=400)
    shown, page, many, _ = paged(ask, rows, page="pageNumber", size="pageSize")
    return Told({"pageNumber": page, "pageSize": many, "totalItems": len(rows), "items": shown})


def german(ask: Ask, rows: Sequence[Any]) -> Told:
    """Names that say nothing in English."""
    shown, page, _, pages = paged(ask, rows, page="seite", size="anzahl", default=20)
    after = ask.link(seite=page + 1) if page < pages else None
    body: Row = {"eintraege": shown, "seite": page, "seiten": pages, "gesamt": len(rows), "weiter": after}
    return Told(body)


def by_key(ask: Ask, rows: Sequence[Any]) -> Told:
    """All rows at once, as an object by their keys."""
    return Told({"people": {str(row["id"]): row for row in rows}, "generated": moment(1)})


_ROWS = made(67)
_THINGS = [
    {"kennung": f"K{n:05}", "bezeichnung": f"Ding {n}", "erstellt": moment(n // 3), "geaendert": moment(n)} for n in range(67)
]

ODD_APIS = {
    **{one.__name__: Api("v1/things", _ROWS, one) for one in (
        skip_take, since_id, from_zero, airtable, slack, header_cursor, zendesk, fhir, express, scim, strict, by_key,
    )},
    "german": Api("dinge", _THINGS, german, lambda row: str(row["kennung"])),
}  # fmt: skip
