"""A listing of parents, each with a listing of children: the entities are the children. Knows no protocol.

Resumable to the page of a child: its cursor says from where the parents' page is read again, which parent it was, and how far its
children were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from clients.errors import GoneError, IncompleteError, PageError
from clients.page import Entity, Page

Lists = Callable[[Any, Any], Iterator[Page]]
"""`(connection, since) -> pages`: `Listing` and its kin, or any generator of pages."""


@dataclass(frozen=True)
class Nested:
    """Lists the children of each parent.

    The key of a child is `parent/child`, since many APIs number children within their parent; `join=None` keeps it as it is.
    A parent whose children answer 404 or 410 is reported as failed, and the others go on; any other error stops the listing
    there. Children that ended before their end (`loop`, `limit`, `short`) end the whole listing so, after the others. In each of
    these cases nothing is deleted.

    Args:
        parents: what lists the parents. They are always listed whole.
        children: `parent -> listing` of its children; `since` of an incremental sync goes to these.
        join: what stands between the two keys. A parent's key that has it is quoted there (`%2F`), so that no two run together.

    Raises:
        ValueError: `join` is empty.
    """

    parents: Lists
    children: Callable[[Entity], Lists]
    _: KW_ONLY
    join: str | None = "/"

    def __post_init__(self) -> None:
        if self.join == "":
            raise ValueError("Nested: join must be a text or None")

    def __call__(self, conn: Any, since: Mapping[str, Any] | None = None) -> Iterator[Page]:
        """Yield the pages from the start."""
        return self.pages(conn, since=since)

    def pages(self, conn: Any, *, cursor: Any = None, since: Mapping[str, Any] | None = None) -> Iterator[Page]:
        """Yield the pages of children after `cursor`, or from the start; the last one is empty.

        Raises (while iterating):
            ValueError: the cursor is not one of such a listing.
            IncompleteError: the parents or some children are not complete; all their pages were yielded.
            ClientError: a listing failed.
        """
        return _Walk(self, conn, since, _Place.of(cursor)).run()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a listing is; strictly private. What leads to the parents' page, the parent there, whether that is done, and else how
    far its children are."""

    at: Any = None
    parent: str | None = None
    done: bool = False
    child: Any = None
    #: What is known not to be complete: `stopped`, and in words.
    flaw: Sequence[str] = ()

    @classmethod
    def of(cls, cursor: Any) -> _Place:
        if cursor is None:
            return cls()
        if isinstance(cursor, dict) and isinstance(cursor.get("parent", 0), str | None):
            known = {name: cursor[name] for name in ("at", "parent", "done", "child", "flaw") if name in cursor}
            return cls(**known)
        raise ValueError("the stored cursor of the listing is not one that this version wrote")

    def to_json(self) -> dict[str, Any]:
        stored = {"at": self.at, "parent": self.parent, "done": self.done, "child": self.child, "flaw": list(self.flaw)}
        return {name: value for name, value in stored.items() if value or name == "parent"}


class _Walk:
    """One way through all parents; strictly private."""

    def __init__(self, nested: Nested, conn: Any, since: Mapping[str, Any] | None, place: _Place) -> None:
        self._nested = nested
        self._conn = conn
        self._since = since
        self._place = place
        #: What the next page has to tell beside its own: errors and warnings.
        self._errors: list[str] = []
        self._warnings: list[str] = []

    def run(self) -> Iterator[Page]:
        parents = _pages(self._nested.parents, self._conn, self._place.at, None)
        try:
            for page in parents:
                yield from self._of_page(page)
                following = page.cursor if hasattr(self._nested.parents, "pages") else None
                self._place = _Place(following, flaw=self._place.flaw)
        except IncompleteError as error:
            self._blame(error, "the parents")
        yield self._page(Page([]), None)
        if self._place.flaw:
            stopped, text = self._place.flaw
            flaw = IncompleteError(text)
            flaw.stopped = stopped
            raise flaw

    def _of_page(self, page: Page) -> Iterator[Page]:
        """Yield the children of the parents of one page, behind the place where an earlier run was."""
        self._errors += [f"parents: {error}" for error in page.errors]
        self._warnings += [f"parents: {warning}" for warning in page.warnings]
        parents = list(page.items)
        keys = [parent.key for parent in parents]
        child = None
        if self._place.parent in keys:
            position = keys.index(self._place.parent)
            # One that is no longer on its page has moved, or is gone: the page is then read from its first parent.
            parents = parents[position + self._place.done :]
            child = self._place.child
        for parent in parents:
            yield from self._of_parent(parent, child)
            child = None

    def _of_parent(self, parent: Entity, cursor: Any) -> Iterator[Page]:
        begun = replace(self._place, parent=parent.key, done=False, child=None)
        done = replace(begun, done=True)
        listing = self._nested.children(parent)
        resumable = hasattr(listing, "pages")
        try:
            pages = _pages(listing, self._conn, cursor, self._since)
            page = next(pages, None)
            while page is not None:
                if page.cursor is not None and resumable:
                    yield self._page(page, replace(begun, child=page.cursor, flaw=self._place.flaw), parent)
                    page = next(pages, None)
                    continue
                # Behind the last page may stand that it was not complete: that belongs into its own transaction.
                following = None
                try:
                    following = next(pages, None)
                except IncompleteError as error:
                    self._blame(error, f"children of {parent.key}")
                if following is not None and resumable:
                    raise PageError(f"children of {parent.key}: a page that is not the last one has no cursor")
                place = done if following is None else begun
                yield self._page(page, replace(place, flaw=self._place.flaw), parent)
                page = following
        except IncompleteError as error:
            self._blame(error, f"children of {parent.key}")
        except GoneError as error:
            self._errors.append(f"children of {parent.key}: {error}")
        self._place = replace(done, flaw=self._place.flaw)

    def _blame(self, error: IncompleteError, whose: str) -> None:
        if not self._place.flaw:
            self._place = replace(self._place, flaw=(error.stopped, f"{whose}: {error.message}"))

    def _page(self, page: Page, place: _Place | None, parent: Entity | None = None) -> Page:
        """Return a page of children as one of the whole listing."""
        (errors, self._errors), (warnings, self._warnings) = (self._errors, []), (self._warnings, [])
        of = "" if parent is None else f"children of {parent.key}: "
        return Page(
            [self._entity(parent, one) for one in page.items] if parent is not None else (),
            None if place is None else place.to_json(),
            errors=[*errors, *(f"{of}{error}" for error in page.errors)],
            repeated=page.repeated,
            warnings=[*warnings, *(f"{of}{warning}" for warning in page.warnings)],
            later=[self._key(parent, key) for key in page.later] if parent is not None else (),
            doubt=page.doubt and f"{of}{page.doubt}",
            skew=page.skew,
        )

    def _entity(self, parent: Entity, child: Entity) -> Entity:
        return replace(child, key=self._key(parent, str(child.key)))

    def _key(self, parent: Entity, key: str) -> str:
        join = self._nested.join
        if join is None:
            return key
        quoted = "".join(f"%{ord(letter):02X}" for letter in join)
        return f"{parent.key.replace('%', '%25').replace(join, quoted)}{join}{key}"


def _pages(listing: Lists, conn: Any, cursor: Any, since: Mapping[str, Any] | None) -> Iterator[Page]:
    resume = getattr(listing, "pages", None)
    if resume is None:
        return iter(listing(conn, since))
    found: Iterator[Page] = resume(conn, cursor=cursor, **({} if since is None else {"since": since}))
    return found
