"""APIs that page as well-known systems do, for `syncs new`. A wrong parameter shows as it does there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.support.draft_server import DATED, Api, Ask, Row, Told, cut, made, moment, paged


def github(ask: Ask, rows: Sequence[Any]) -> Told:
    """Link header."""
    shown, page, _, pages = paged(ask, rows, default=30)
    link = {"Link": f'<{ask.link(page=page + 1)}>; rel="next", <{ask.link(page=pages)}>; rel="last"'} if page < pages else {}
    return Told(shown, {**link, "X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "42", "X-RateLimit-Reset": "4070908800"})


def wordpress(ask: Ask, rows: Sequence[Any]) -> Told:
    """X-WP-TotalPages; a page behind the last one is a 400."""
    shown, page, _, pages = paged(ask, rows)
    if not 0 < page <= max(1, pages):
        return Told({"code": "rest_post_invalid_page_number"}, status=400)
    link = {"Link": f'<{ask.link(page=page + 1)}>; rel="next"'} if page < pages else {}
    return Told(shown, {"X-WP-Total": str(len(rows)), "X-WP-TotalPages": str(pages), **link})


def wordpress_without_link(ask: Ask, rows: Sequence[Any]) -> Told:
    """The same behind a proxy that drops Link."""
    told = wordpress(ask, rows)
    told.headers.pop("Link", None)
    return told


def mediawiki(ask: Ask, rows: Sequence[Any]) -> Told:
    """`continue`."""
    many = 500 if ask.query.get("aplimit") == "max" else min(500, ask.number("aplimit", 10))
    begin = ask.query.get("apcontinue", "")
    at = next((n for n, row in enumerate(rows) if row["title"].replace(" ", "_") >= begin), len(rows)) if begin else 0
    body: Row = {"batchcomplete": "", "query": {"allpages": rows[at : at + many]}}
    if at + many < len(rows):
        body["continue"] = {"apcontinue": rows[at + many]["title"].replace(" ", "_"), "continue": "-||"}
    return Told(body)


def registry(ask: Ask, rows: Sequence[Any]) -> Told:
    """docker-registry: a list of strings, `n` and `last`, a relative Link."""
    many, last = ask.number("n", 20), ask.query.get("last", "")
    shown = [row for row in rows if row > last][:many]
    more = bool(shown) and shown[-1] != rows[-1]
    return Told({"repositories": shown}, {"Link": f'<{ask.path}?last={shown[-1]}&n={many}>; rel="next"'} if more else {})


def json_server(ask: Ask, rows: Sequence[Any]) -> Told:
    """json-server 0.17: all rows without `_page`; an unknown parameter is a filter."""
    query = {name: value for name, value in ask.query.items() if not name.startswith("_")}
    found = [row for row in rows if all(str(row.get(name)) == value for name, value in query.items())]
    headers = {"X-Total-Count": str(len(found))}
    if "_page" in ask.query:
        shown, page, _, pages = paged(ask, found, page="_page", size="_limit")
        links = [
            f'<{ask.link(_page=n)}>; rel="{rel}"'
            for rel, n in (("first", 1), ("next", page + 1))
            if rel != "next" or page < pages
        ]
        return Told(shown, {**headers, "Link": ", ".join(links)})
    if "_start" in ask.query:
        at = ask.number("_start", 0)
        return Told(found[at : at + ask.number("_limit", len(found))], headers)
    return Told(found[: ask.number("_limit", len(found))], {})


def json_server_1(ask: Ask, rows: Sequence[Any]) -> Told:
    """json-server 1: an object around the page."""
    if "_page" not in ask.query:
        return Told(list(rows))
    shown, page, _, pages = paged(ask, rows, page="_page", size="_per_page")
    after = page + 1 if page < pages else None
    return Told({"first": 1, "prev": None, "next": after, "last": pages, "pages": pages, "items": len(rows), "data": shown})


def redmine(ask: Ask, rows: Sequence[Any]) -> Told:
    """total_count, offset, limit."""
    shown, at, many = cut(ask, rows)
    return Told({"issues": shown, "total_count": len(rows), "offset": at, "limit": many})


def datasette(ask: Ask, rows: Sequence[Any]) -> Told:
    """next and next_url; rows are lists, unless objects are asked for."""
    many, at = ask.number("_size", 100), ask.number("_next", 0)
    shown: list[Any] = list(rows[at : at + many])
    after = str(shown[-1][0]) if at + many < len(rows) else None
    if ask.query.get("_shape") == "objects":
        shown = [dict(zip(("id", "name", "n"), row, strict=True)) for row in shown]
    return Told({
        "database": "things", "table": "things", "is_view": False, "rows": shown, "truncated": False,
        "filtered_table_rows_count": len(rows), "columns": ["id", "name", "n"], "primary_keys": ["id"], "units": {},
        "suggested_facets": [{"name": "name", "toggle_url": ask.link(_facet="name")}], "facet_results": {},
        "next": after, "next_url": ask.link(_next=after) if after else None, "query_ms": 1.5,
    })  # fmt: skip


def demo(ask: Ask, rows: Sequence[Any]) -> Told:
    """The demo of this repository: page, pages, total."""
    page = ask.number("page", 1)
    return Told({"data": rows[(page - 1) * 100 : page * 100], "page": page, "pages": -(-len(rows) // 100), "total": len(rows)})


def stripe(ask: Ask, rows: Sequence[Any]) -> Told:
    """has_more and starting_after."""
    many, after = min(100, ask.number("limit", 10)), ask.query.get("starting_after")
    at = 1 + next((n for n, row in enumerate(rows) if row["id"] == after), -1)
    return Told({"object": "list", "url": ask.path, "has_more": at + many < len(rows), "data": rows[at : at + many]})


def shopify(ask: Ask, rows: Sequence[Any]) -> Told:
    """Link with page_info, which allows no other parameters but the limit."""
    many, at = ask.number("limit", 50), ask.number("page_info", 0)
    link = {"Link": f'<{ask.base}{ask.path}?limit={many}&page_info={at + many}>; rel="next"'} if at + many < len(rows) else {}
    return Told({"products": rows[at : at + many]}, link)


def drf(ask: Ask, rows: Sequence[Any]) -> Told:
    """next, previous, count, results."""
    shown, page, _, pages = paged(ask, rows, size="page_size", default=20)
    if page > pages:
        return Told({"detail": "Invalid page."}, status=404)
    after = ask.link(page=page + 1) if page < pages else None
    return Told({"count": len(rows), "next": after, "previous": None, "results": shown})


def odata(ask: Ask, rows: Sequence[Any]) -> Told:
    """@odata.nextLink; $top is how many in all."""
    skip, top = ask.number("$skip", 0), ask.number("$top", len(rows))
    shown = rows[skip : skip + min(20, top)]
    body: Row = {"@odata.context": f"{ask.base}/$metadata#Products", "@odata.count": len(rows), "value": shown}
    if skip + 20 < len(rows) and top > 20:
        body["@odata.nextLink"] = ask.link(**{"$skip": skip + 20})
    return Told(body)


def json_api(ask: Ask, rows: Sequence[Any]) -> Told:
    """links.next; rows with attributes, and what they include."""
    shown, page, many, pages = paged(ask, rows, page="page[number]", size="page[size]")
    links = {"self": ask.link(), "first": ask.link(**{"page[number]": 1}), "last": ask.link(**{"page[number]": pages})}
    links |= {"next": ask.link(**{"page[number]": page + 1})} if page < pages else {"next": None}
    included = [{"type": "people", "id": str(n), "attributes": {"name": "x"}} for n in range(30)]
    return Told(
        {"data": shown, "included": included, "links": links, "meta": {"page": {"size": many}}, "jsonapi": {"version": "1.0"}}
    )


def elastic(ask: Ask, rows: Sequence[Any]) -> Told:
    """from, size; what it does not know is a 400."""
    if set(ask.query) - {"from", "size", "q", "sort"}:
        return Told({"error": {"type": "illegal_argument_exception"}, "status": 400}, status=400)
    shown, *_ = cut(ask, rows, offset="from", limit="size", default=10, most=10_000)
    total = {"value": len(rows), "relation": "eq"}
    return Told({"took": 3, "timed_out": False, "_shards": {"total": 5, "failed": 0}, "hits": {"total": total, "hits": shown}})


def notion(ask: Ask, rows: Sequence[Any]) -> Told:
    """start_cursor, next_cursor, has_more."""
    many, start = min(100, ask.number("page_size", 10)), ask.query.get("start_cursor")
    at = next((n for n, row in enumerate(rows) if f"c-{row['id']}" == start), 0)
    more = at + many < len(rows)
    after = f"c-{rows[at + many]['id']}" if more else None
    return Told(
        {"object": "list", "results": rows[at : at + many], "next_cursor": after, "has_more": more, "request_id": "r-1234567"}
    )


def spring(ask: Ask, rows: Sequence[Any]) -> Told:
    """Spring Data REST: pages from 0, _embedded, page.totalPages, and a next link."""
    shown, page, many, pages = paged(ask, rows, size="size", default=20, start=0)
    links = {"self": {"href": ask.link()}} | ({"next": {"href": ask.link(page=page + 1)}} if page + 1 < pages else {})
    about = {"size": many, "totalElements": len(rows), "totalPages": pages, "number": page}
    return Told({"_embedded": {"people": shown}, "_links": links, "page": about})


def spring_page(ask: Ask, rows: Sequence[Any]) -> Told:
    """Spring's Page without links."""
    shown, page, many, pages = paged(ask, rows, size="size", default=20, start=0)
    return Told({
        "content": shown, "pageable": {"pageNumber": page, "pageSize": many, "offset": page * many, "paged": True},
        "totalPages": pages, "totalElements": len(rows), "last": page + 1 >= pages, "size": many, "number": page,
        "numberOfElements": len(shown), "first": page == 0, "empty": not shown,
    })  # fmt: skip


def relay(ask: Ask, rows: Sequence[Any]) -> Told:
    """edges and pageInfo, over GET."""
    many, after = min(100, ask.number("first", 20)), ask.number("after", 0)
    edges = [{"cursor": str(row["id"]), "node": row} for row in rows[after : after + many]]
    info = {"hasNextPage": after + many < len(rows), "endCursor": edges[-1]["cursor"] if edges else None}
    return Told({"data": {"people": {"totalCount": len(rows), "edges": edges, "pageInfo": info}}})


def _rows(total: int, of: Callable[[int], Any]) -> list[Any]:
    return [of(n) for n in range(1, total + 1)]


_PAGES = _rows(64, lambda n: {"pageid": 9000 + n, "ns": 0, "title": f"Page {n:03}"})
_LANGUAGES = _rows(
    310, lambda n: {"alpha_3": f"{chr(97 + n // 26)}{chr(97 + n % 26)}x", "name": f"Tongue {n}", "rev": f"{n * 7919:012x}"}
)
_CUSTOMERS = _rows(45, lambda n: {"id": f"cus_{n * 7919 % 1000:04}", "object": "customer", "created": 1700000000 + n})
_PRODUCTS = _rows(70, lambda n: {"ProductID": n, "Name": f"P {n}", "ModifiedDate": moment(n)})
_ARTICLES = _rows(47, lambda n: {"type": "articles", "id": str(n), "attributes": {"title": f"T {n}", "updatedAt": moment(n)}})
_BOOKS = _rows(58, lambda n: {"_index": "books", "_id": f"b{n}", "_score": 1.0, "_source": {"name": f"B {n}"}})
_USERS = _rows(34, lambda n: {"object": "user", "id": f"{n:08x}-aaaa", "last_edited_time": moment(n)})
_POSTS = made(37, modified_gmt=lambda n: moment(n, "%Y-%m-%dT%H:%M:%S"))


def _by(name: Any) -> Callable[[Any], str]:
    return lambda row: str(row[name])


APIS = {
    "github": Api("repos/issues", made(95, **DATED), github, detail="body", since="since"),
    "wordpress": Api("wp-json/wp/v2/posts", _POSTS, wordpress, detail="content", since="modified_after", field="modified_gmt"),
    "wordpress_without_link": Api("wp-json/wp/v2/posts", made(37), wordpress_without_link),
    "mediawiki": Api("w/api.php?action=query&list=allpages&format=json", _PAGES, mediawiki, _by("pageid")),
    "registry": Api("v2/_catalog", _rows(53, lambda n: f"team/app-{n:03}"), registry, str),
    "json_server": Api("posts", made(42), json_server),
    "json_server_page": Api("posts?_page=1", made(42), json_server),
    "json_server_1": Api("posts?_page=1&_per_page=10", made(42), json_server_1),
    "redmine": Api("issues.json", made(67, updated_on=moment), redmine),
    "datasette": Api("things/things.json", _rows(250, lambda n: [n, f"Thing {n}", n % 7]), datasette, _by(0)),
    "demo": Api("languages", _LANGUAGES, demo, _by("alpha_3"), detail="scope"),
    "stripe": Api("v1/customers", _CUSTOMERS, stripe),
    "shopify": Api("admin/api/products.json", made(130, **DATED), shopify),
    "drf": Api("api/pets/", made(65), drf, detail="owner"),
    "odata": Api("odata/Products", _PRODUCTS, odata, _by("ProductID")),
    "json_api": Api("articles", _ARTICLES, json_api),
    "elastic": Api("books/_search", _BOOKS, elastic, _by("_id")),
    "notion": Api("v1/users", _USERS, notion),
    "spring": Api("people", made(51), spring),
    "spring_page": Api("people", made(51), spring_page),
    "relay": Api("graph/people", made(71), relay),
}
