"""What an attack does: to the rows, to a page, to what is said; and to which styles it can be done. Each is one function."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from syncs_testing.api import ROWS, Api, View, row_of
from syncs_testing.server import Reply, Seen
from syncs_testing.styles import Style

# Which styles.


def announcing(style: Style) -> bool:
    """Each answer names the next page."""
    return style.announcing


def counting(style: Style) -> bool:
    """The client counts up."""
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
    """Something else than an empty page tells where it ends."""
    return style.announcing or style.kind == "TotalPages" or (style.counting and totalling(style))


def ties(style: Style) -> bool:
    """It goes on behind a value that several rows may have."""
    return style.kind == "Keyset" and style.order != style.key


# What is done.


def at_second(make: Callable[[Api], Reply]) -> Callable[[Api, Seen], Reply | None]:
    """Answer the second request, or the only one of a single page, with what `make` returns; for ever from then on."""
    return lambda api, seen: make(api) if api.asked >= 2 or api.style.kind == "SinglePage" else None


def same(api: Api, seen: Seen, view: View) -> None:
    """Name page 2 as the next page, for ever."""
    view.next = api.rows[api.style.size]["n"]


def circle(api: Api, seen: Seen, view: View) -> None:
    """Lead from page 3 back to page 2."""
    if view.page >= 3:
        view.next = api.rows[api.style.size]["n"]


def itself(api: Api, seen: Seen, view: View) -> None:
    """Let the last page name itself."""
    if view.next is None:
        view.next = view.token if view.token is not None else api.rows[0]["n"]


def cursor_behind(api: Api, seen: Seen, view: View) -> None:
    """Let the last page name one behind it, which is empty."""
    if view.next is None and view.rows:
        view.next = 10**6


def behind_for_ever(api: Api, seen: Seen, view: View) -> None:
    """Let the page behind the last one name itself."""
    view.next = view.next or 10**6


def page_one(api: Api, seen: Seen, view: View) -> None:
    """Say page 1 whatever is asked, each time with another next page."""
    view.rows = api.rows[: api.style.size]
    if api.style.announcing:
        view.next = f"{api.asked + 1}x" if not api.style.linking else f"?from={api.asked + 1}x"


def empty_for_ever(api: Api, seen: Seen, view: View) -> None:
    """From page 3 on say nothing, and always name another page."""
    if view.page > 2 or not view.rows:
        view.rows, view.next = [], 10**6 + api.asked


def last_again(api: Api, seen: Seen, view: View) -> None:
    """Say the last page for any number behind it."""
    if not view.rows:
        view.rows = api.rows[-(len(api.rows) % api.style.size or api.style.size) :]


def hide(*pages: int) -> Callable[[Api], None]:
    """Let the filter empty these pages."""

    def prepare(api: Api) -> None:
        size = api.style.size
        api.hidden = {n for page in pages for n in range((page - 1) * size + 1, page * size + 1)}

    return prepare


def null(api: Api, seen: Seen, view: View) -> None:
    """Say null for an empty page."""
    if not view.rows and api.style.items is not None:
        view.rows = None


def text_for_rows(api: Api, seen: Seen, view: View) -> None:
    """Say in words that there is nothing to show, where the rows should be."""
    if view.page > 1 or api.style.kind == "SinglePage":
        view.rows = "busy, try again"


def null_last(api: Api, seen: Seen, view: View) -> None:
    """End with a page that is null."""
    if view.next is None and view.rows and view.page > 1 and api.style.announcing:
        view.next = 10**6
    null(api, seen, view)


def total(make: Callable[[View], Any]) -> Callable[[Api, Seen, View], None]:
    """Announce another number of rows."""

    def change(api: Api, seen: Seen, view: View) -> None:
        view.total = make(view)

    return change


def pages(make: Callable[[View], Any]) -> Callable[[Api, Seen, View], None]:
    """Announce another number of pages."""

    def change(api: Api, seen: Seen, view: View) -> None:
        view.pages = make(view)

    return change


def insert(api: Api, seen: Seen) -> Reply | None:
    """Insert rows in front while the client pages."""
    if 1 < api.asked < 5:
        api.rows.insert(0, row_of(1000 - api.asked) | {"id": f"a{api.asked:04}"})
    return None


def delete(*when: int) -> Callable[[Api, Seen], Reply | None]:
    """Delete the first row at these requests."""

    def answer(api: Api, seen: Seen) -> Reply | None:
        if api.asked in when:
            api.delete(0)
        return None

    return answer


def swap(api: Api, seen: Seen) -> Reply | None:
    """Delete the first row and add one at the end."""
    if api.asked == 3:
        api.delete(0)
        api.rows.append(row_of(ROWS + 1))
    return None


def move(api: Api, seen: Seen) -> Reply | None:
    """Move the last row to the front."""
    if api.asked == 3:
        api.rows.insert(0, api.rows.pop())
    return None


def twice(api: Api, seen: Seen, view: View) -> None:
    """Begin each page with the last row of the one before."""
    if view.page > 1 and view.rows:
        view.rows = [api.rows[view.start - 1], *view.rows]


def tied(api: Api) -> None:
    """Give rows on both sides of the first edge one value."""
    for row in api.rows:
        if api.style.size - 2 <= row["n"] <= api.style.size + 3:
            row[api.style.order] = f"t{api.style.size - 2:04}"


def link(make: Callable[[Api, View], str]) -> Callable[[Api, Seen, View], None]:
    """Name the next page by another link."""

    def change(api: Api, seen: Seen, view: View) -> None:
        if view.next is not None:
            view.next = make(api, view)

    return change


def relative(api: Api, view: View) -> str:
    """Return a relative link."""
    return f"?from={view.next}"


def redirected(api: Api, seen: Seen) -> Reply | None:
    """Redirect to another origin."""
    return (
        Reply(b"", 302, {"Location": f"{api.other}{seen.target}"}) if api.asked >= 2 or api.style.kind == "SinglePage" else None
    )


def moved_here(api: Api, seen: Seen) -> Reply | None:
    """Redirect to the same place, in a moment."""
    if api.asked == 2:
        return Reply(b"", 301, {"Location": seen.target, "Retry-After": "0"})
    return None


def cut_json(api: Api) -> Reply:
    """Return JSON that is cut off."""
    text = json.dumps({"data": api.rows[:3]}).encode()
    return Reply(text[:-10])


def bomb(api: Api) -> Reply:
    """Return 300 MB in 300 kB."""
    return Reply(gzip.compress(b"[" + b"0," * 150_000_000 + b"0]", 1), headers={"Content-Encoding": "gzip"})


def limited(value: Callable[[], str], status: int = 429) -> Callable[[Api, Seen], Reply | None]:
    """Refuse, and say when to come again."""
    return at_second(lambda api: Reply({}, status, {"Retry-After": value()}))


def moment(seconds: float) -> str:
    """Return an HTTP date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def skewed(api: Api) -> Reply:
    """Refuse, by a clock that is ten minutes ahead."""
    return Reply({}, 429, {"Date": moment(600), "Retry-After": moment(630)})


def iso(seconds: float) -> str:
    """Return an ISO date with seven decimals."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def epoch(seconds: float, factor: int = 1) -> str:
    """Return seconds since the epoch, times a factor."""
    return str(int((datetime.now(UTC).timestamp() + seconds) * factor))


def budget(headers: dict[str, str]) -> Callable[[Api, Seen, Reply], Reply]:
    """Add headers."""

    def spoil(api: Api, seen: Seen, reply: Reply) -> Reply:
        reply.headers.update(headers)
        return reply

    return spoil


def broken(**kind: Any) -> Callable[[Api, Seen, Reply], Reply]:
    """Break the second answer."""

    def spoil(api: Api, seen: Seen, reply: Reply) -> Reply:
        if api.asked >= 2 or api.style.kind == "SinglePage":
            for name, value in kind.items():
                setattr(reply, name, value)
        return reply

    return spoil


def charset(api: Api, seen: Seen, reply: Reply) -> Reply:
    """Send bytes that are no UTF-8."""
    reply.body = json.dumps(reply.body)[:-1].encode() + b', "name": "\xff\xfe caf\xe9"}'
    reply.headers["Content-Type"] = "application/json; charset=utf-8"
    return reply


def packed(api: Api, seen: Seen, reply: Reply) -> Reply:
    """Say gzip, and send none."""
    reply.headers["Content-Encoding"] = "gzip"
    return reply


def gone_behind(api: Api, seen: Seen, reply: Reply) -> Reply:
    """Say 404 for what is behind the last page."""
    return reply if api.style.start(seen, api.rows)[0] < len(api.rows) else Reply({}, 404)


def complaint(api: Api) -> Reply:
    """Return an error with status 200."""
    return Reply({"error": "busy"})


def login(api: Api) -> Reply:
    """Return a page to sign in at, with status 200."""
    return Reply(b"<html>Please sign in", headers={"Content-Type": "text/html"})
