"""Names of parameters by which APIs page and filter, the most usual first. Nothing is taken from here that was not tried."""

from flows.drafting.places import words_of

PAGE = ("page", "_page", "p", "pageNumber", "page_number", "pageNo", "page[number]", "pg", "pageIndex", "currentPage")
OFFSET = ("offset", "skip", "start", "from", "startAt", "_start", "$skip", "page[offset]")
KEYSET = ("starting_after", "after", "since_id", "last_id", "after_id", "cursor", "last", "marker", "min_id", "since")
CURSOR = (
    "cursor", "start_cursor", "page_token", "pageToken", "after", "next", "next_cursor", "starting_after", "token", "offset",
    "start", "page", "pagination_token", "continuation", "page[cursor]", "marker", "page[after]",
)  # fmt: skip
SIZE = (
    "per_page", "limit", "page_size", "pageSize", "size", "_per_page", "_limit", "count", "maxResults", "$top", "page[size]", "n",
    "take", "perPage",
)  # fmt: skip
SINCE = (
    "updated_since", "modified_after", "updated_after", "since", "modified_since", "updated_at_min", "changed_since",
    "updated_from", "updatedSince", "modifiedSince", "from_date", "start_date",
)  # fmt: skip

_BESIDE_SIZE = {
    "offset": "limit", "skip": "limit", "from": "size", "startAt": "maxResults", "_start": "_limit", "$skip": "$top",
    "start": "limit", "startIndex": "count", "page[offset]": "page[limit]", "_page": "_per_page", "page[number]": "page[size]",
    "pageNumber": "pageSize", "page_number": "page_size", "pageIndex": "pageSize", "start_cursor": "page_size",
    "starting_after": "limit", "after": "limit", "cursor": "limit", "pageToken": "pageSize", "page_token": "page_size",
}  # fmt: skip
"""The parameter for the size of a page, by the one that pages."""


def unique(*names: str) -> tuple[str, ...]:
    """Return the names in their order, each once, without empty ones."""
    return tuple(dict.fromkeys(name for name in names if name))


def page_names(echo: str) -> tuple[str, ...]:
    """Return the likely parameters where an answer calls the number of its page `echo`."""
    words = words_of(echo)
    # Names in answers are written as JSON does, those of parameters may be as the server's language does.
    capital = f"{echo[:1].upper()}{echo[1:]}"
    if not echo or words in (("page",), ("number",), ("current",)) or "current" in words:
        return unique("page", echo, capital)
    return unique(echo, "page", capital)


def cursor_names(name: str) -> tuple[str, ...]:
    """Return the likely parameters for what an answer calls `name`: `nextPageToken` is sent as `pageToken`."""
    bare = name
    for prefix in ("next_", "x-next-", "end_", "next-", "next", "end", "_next"):
        if name.lower().startswith(prefix) and len(name) > len(prefix):
            bare = name[len(prefix) :]
            break
    bare = bare[0].lower() + bare[1:] if bare else ""
    likely = {"cursor": ("cursor", "start_cursor"), "next": ("cursor", "_next", "page", "next")}.get(bare.lower(), (bare,))
    if "token" in words_of(name):
        likely = (bare, "page_token", "pagination_token", "pageToken")
    if name.lower() == "endcursor":
        likely = ("after", "cursor")
    return unique(*likely, name, *CURSOR)


def size_names(param: str, echo: str = "", given: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the likely parameters for the size of a page.

    Args:
        param: the parameter that pages.
        echo: what the answer calls it.
        given: parameters of the URL, which come first.
    """
    known = [name for name in given if name in SIZE or {"size", "limit", "per"} & set(words_of(name))]
    return unique(*known, _BESIDE_SIZE.get(param, ""), echo, *SIZE)


def since_names(field: str) -> tuple[str, ...]:
    """Return the likely parameters of a filter by a time of change."""
    words = words_of(field)
    base = words[0] if words and words[0] in ("updated", "modified", "changed") else ""
    return unique(f"{base}_since" if base else "", f"{base}_after" if base else "", *SINCE, field)
