"""`Nested`: a listing of parents, each with a listing of children; the entities are the children.

It is resumed at the page of children where it stopped: its cursor holds the cursor of the parents' page, the parent, and the
cursor of its children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any

from clients.errors import AuthRefusedError, ClientError, GoneError, IncompleteError, PageError
from clients.page import Entity, Page
from clients.quoted_path import watching

Lists = Callable[[Any, Any], Iterator[Page]]
"""`(connection, since) -> pages`: `Listing`, `SoapListing`, …, or any generator of pages."""

_REFUSED = frozenset({401, 403})


@dataclass(frozen=True)
class Nested:
    """Lists the children of each parent.

    The key of a child is `parent/child`, since many APIs number children within their parent; `join=None` keeps it as it is.
    Its `parent` and `own_key` are the two as they were.
    A parent whose children are answered by 404 or 410, or refused (401, 403) while the first page of the parents is answered
    well, is reported as failed, and the others are listed; any other error stops the listing. If the listing of some children
    stopped early (`loop`, `limit`, `short`), the whole listing ends with that error, after the other parents. In each of these
    cases nothing is deleted, and neither where a page of parents or of children may not have been whole (`Page.doubt`,
    `Page.later`).

    Args:
        parents: what lists the parents. They are always listed whole.
        children: `parent -> listing` of its children; `since` of an incremental sync goes to these.
        join: separates the two keys. Where a parent's key contains it, it is quoted (`%2F`), so that keys stay different.

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

    def path_of(self, key: str) -> tuple[str, ...]:
        """Return the keys that the key of a child was made of, as `Entity.path`; nothing where it does not say them."""
        join = self.join
        if join is None or key.find(join) < 0 or key.find(join) != key.rfind(join):
            # It may be divided at several places: an own key may have such a text, or be made of several keys itself.
            return ()
        parent, _, own = key.partition(join)
        parent = parent.replace(_quoted(join), join).replace("%25", "%")
        path_of = getattr(self.parents, "path_of", None)
        before: tuple[str, ...] = (parent,) if path_of is None else path_of(parent)
        return (*before, own) if before else ()

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
    """How far a listing is: the cursor of the parents' page, the parent, whether it is done, and the cursor of its children."""

    at: Any = None
    parent: str | None = None
    done: bool = False
    child: Any = None
    #: Why the listing is not complete: `stopped`, and the message.
    flaw: Sequence[str] = ()
    #: Why pages of parents or of children may not have been whole; every page that follows says so too.
    doubt: str = ""

    @classmethod
    def of(cls, cursor: Any) -> _Place:
        if cursor is None:
            return cls()
        if isinstance(cursor, dict) and isinstance(cursor.get("parent", 0), str | None):
            known = {one.name: cursor[one.name] for one in fields(cls) if one.name in cursor}
            return cls(**known)
        raise ValueError("the stored cursor of the listing is not one that this version wrote")

    def to_json(self) -> dict[str, Any]:
        stored = {**{one.name: getattr(self, one.name) for one in fields(self)}, "flaw": list(self.flaw)}
        return {name: value for name, value in stored.items() if value or name == "parent"}


class _Walk:
    """Lists all parents and their children once."""

    def __init__(self, nested: Nested, conn: Any, since: Mapping[str, Any] | None, place: _Place) -> None:
        self._nested = nested
        self._conn = conn
        self._since = since
        self._place = place
        #: Errors, warnings and entities left for later that the next page gets besides its own.
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._later: list[str] = []

    def run(self) -> Iterator[Page]:
        parents = _pages(self._nested.parents, self._conn, self._place.at, None)
        try:
            for page in parents:
                yield from self._of_page(page)
                following = page.cursor if hasattr(self._nested.parents, "pages") else None
                self._place = _Place(following, flaw=self._place.flaw, doubt=self._place.doubt)
        except IncompleteError as error:
            self._note_flaw(error, "the parents")
        yield self._page(Page([]), None)
        if self._place.flaw:
            stopped, text = self._place.flaw
            flaw = IncompleteError(text)
            flaw.stopped = stopped
            raise flaw

    def _of_page(self, page: Page) -> Iterator[Page]:
        """Yield the children of the parents of one page, from where an earlier run stopped."""
        self._errors += [f"parents: {error}" for error in page.errors]
        self._warnings += [f"parents: {warning}" for warning in page.warnings]
        # Children of parents that are not shown are not shown either.
        self._later += page.later
        self._note_doubt(page, "parents: ")
        parents = list(page.items)
        keys = [parent.key for parent in parents]
        child = None
        if self._place.parent in keys:
            position = keys.index(self._place.parent)
            # If the parent is no longer on its page, the page is read from its first parent.
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
            pages = _watched(parent, _pages(listing, self._conn, cursor, self._since))
            page = next(pages, None)
            while page is not None:
                if page.cursor is not None and resumable:
                    yield self._page(page, replace(begun, child=page.cursor), parent)
                    page = next(pages, None)
                    continue
                # An error after the last page must be known before that page is yielded, so that both are stored together.
                following = None
                try:
                    following = next(pages, None)
                except IncompleteError as error:
                    self._note_flaw(error, f"children of {parent.key}")
                if following is not None and resumable:
                    raise PageError(f"children of {parent.key}: a page that is not the last one has no cursor")
                yield self._page(page, done if following is None else begun, parent)
                page = following
        except IncompleteError as error:
            self._note_flaw(error, f"children of {parent.key}")
        except GoneError as error:
            self._errors.append(f"children of {parent.key}: {error}")
        except AuthRefusedError as error:
            if error.status not in _REFUSED or not self._answers_well():
                raise
            self._errors.append(f"children of {parent.key}: {error}; the listing of the parents itself is answered well")
        self._place = self._with_notes(done)

    def _answers_well(self) -> bool:
        """Ask for the first page of the parents: is this one parent refused, or our sign-in?"""
        try:
            next(_pages(self._nested.parents, self._conn, None, None), None)
        except ClientError:
            return False
        return True

    def _note_flaw(self, error: IncompleteError, whose: str) -> None:
        if not self._place.flaw:
            self._place = replace(self._place, flaw=(error.stopped, f"{whose}: {error.message}"))

    def _note_doubt(self, page: Page, of: str) -> None:
        if page.doubt and not self._place.doubt:
            self._place = replace(self._place, doubt=f"{of}{page.doubt}")

    def _with_notes(self, place: _Place) -> _Place:
        """Return a place with what speaks against the listing so far."""
        return replace(place, flaw=self._place.flaw, doubt=self._place.doubt)

    def _page(self, page: Page, place: _Place | None, parent: Entity | None = None) -> Page:
        """Return a page of children as one of the whole listing."""
        (errors, self._errors), (warnings, self._warnings) = (self._errors, []), (self._warnings, [])
        later, self._later = self._later, []
        of = "" if parent is None else f"children of {parent.key}: "
        self._note_doubt(page, of)
        return Page(
            [self._entity(parent, one) for one in page.items] if parent is not None else (),
            None if place is None else self._with_notes(place).to_json(),
            errors=[*errors, *(f"{of}{error}" for error in page.errors)],
            repeated=page.repeated,
            warnings=[*warnings, *(f"{of}{warning}" for warning in page.warnings)],
            later=[*later, *(self._key(parent, key) for key in page.later)] if parent is not None else later,
            doubt=self._place.doubt,
            skew=page.skew,
        )

    def _entity(self, parent: Entity, child: Entity) -> Entity:
        key = str(child.key)
        path = (*(parent.path or (parent.key,)), *(child.path or (key,)))
        return replace(child, key=self._key(parent, key), path=path)

    def _key(self, parent: Entity, key: str) -> str:
        join = self._nested.join
        if join is None:
            return key
        return f"{parent.key.replace('%', '%25').replace(join, _quoted(join))}{join}{key}"


def _quoted(join: str) -> str:
    return "".join(f"%{ord(letter):02X}" for letter in join)


def _watched(parent: Entity, pages: Iterator[Page]) -> Iterator[Page]:
    """Yield the pages; the parent's key has to be quoted in their requests."""
    while True:
        with watching(parent):
            page = next(pages, None)
        if page is None:
            return
        yield page


def _pages(listing: Lists, conn: Any, cursor: Any, since: Mapping[str, Any] | None) -> Iterator[Page]:
    resume = getattr(listing, "pages", None)
    if resume is None:
        return iter(listing(conn, since))
    found: Iterator[Page] = resume(conn, cursor=cursor, **({} if since is None else {"since": since}))
    return found
