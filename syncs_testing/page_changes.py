"""Changes to the rows and pages of an API under attack: moved rows, wrong totals, cursors that lead back. One function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syncs_testing.api import ROWS, Api, View, row_of
from syncs_testing.server import Reply, Seen


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
    """Let the last page name another one, which is empty."""
    if view.next is None and view.rows:
        view.next = 10**6


def behind_for_ever(api: Api, seen: Seen, view: View) -> None:
    """Let the page behind the last one name itself."""
    view.next = view.next or 10**6


def page_one(api: Api, seen: Seen, view: View) -> None:
    """Return page 1 for every request, each time with another next page."""
    view.rows = api.rows[: api.style.size]
    if api.style.announcing:
        view.next = f"{api.asked + 1}x" if not api.style.linking else f"?from={api.asked + 1}x"


def empty_for_ever(api: Api, seen: Seen, view: View) -> None:
    """From page 3 on return empty pages that name another page."""
    if view.page > 2 or not view.rows:
        view.rows, view.next = [], 10**6 + api.asked


def last_again(api: Api, seen: Seen, view: View) -> None:
    """Return the last page for any number behind it."""
    if not view.rows:
        view.rows = api.rows[-(len(api.rows) % api.style.size or api.style.size) :]


def hide(*pages: int) -> Callable[[Api], None]:
    """Let the filter empty these pages."""

    def prepare(api: Api) -> None:
        size = api.style.size
        api.hidden = {n for page in pages for n in range((page - 1) * size + 1, page * size + 1)}

    return prepare


def null(api: Api, seen: Seen, view: View) -> None:
    """Return null for an empty page."""
    if not view.rows and api.style.items is not None:
        view.rows = None


def text_for_rows(api: Api, seen: Seen, view: View) -> None:
    """Return a text instead of the rows."""
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


def growing(api: Api, seen: Seen, view: View) -> None:
    """Announce one row more than there are up to this page, while there are more."""
    view.total = min(len(api.rows), view.start + api.style.size + 1)


def of_the_page(api: Api, seen: Seen, view: View) -> None:
    """Announce the rows of the page in place of all."""
    view.total = len(view.rows)


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
