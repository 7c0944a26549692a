"""`Nested`: a listing of parents, each with a listing of children; the entities are the children.

It is resumed at the page of children where it stopped: its cursor holds the cursor of the parents' page, the parent, and the
cursor of its children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from clients.errors import (
    AuthRefusedError,
    BrokenBodyError,
    ClientError,
    GoneError,
    IncompleteError,
    PageError,
    RateLimitedError,
    RejectedError,
    TransientError,
)
from clients.listings.nested_place import Place, quoted_join
from clients.page import Entity, Page
from clients.quoted_path import watching

Lists = Callable[[Any, Any], Iterator[Page]]
"""`(connection, since) -> pages`: `Listing`, `SoapListing`, …, or any generator of pages."""

_REFUSED = frozenset({401, 403})

_PROXY_REFUSED = 407
"""Of the proxy, which stands before the whole remote system."""

_PASSING = (TransientError, RateLimitedError, BrokenBodyError, ConnectionError, TimeoutError)
"""What may be over when the same children are asked for again."""


@dataclass(frozen=True)
class Nested:
    """Lists the children of each parent.

    The key of a child is `parent/child`, since many APIs number children within their parent; `join=None` keeps it as it is.
    Its `parent` and `own_key` are the two as they were.
    A parent whose children are answered by 404, 410 or another 4xx, or refused (401, 403) while the first page of the parents is
    answered well, is reported as failed, and the others are listed. So is one that keeps answering with 429, 5xx or not at all,
    when it is asked again while its page of parents is answered each time (`passed_over` of the iterator; a generator of parents
    cannot say where to go on). Any other error stops the listing. If the listing of some children stopped early (`loop`, `limit`,
    `short`), the whole listing ends with that error, after the other parents. In each of these cases nothing is deleted, and
    neither where a page of parents or of children may not have been whole (`Page.doubt`, `Page.later`).

    Args:
        parents: what lists the parents. They are always listed whole.
        children: `parent -> listing` of its children; `since` of an incremental sync goes to these.
        join: separates the two keys. Where a parent's key contains it, it is quoted (`%2F`), so that keys stay different.

    Raises:
        ValueError: `join` is empty.
    """

    #: Its pages say where to go on when one parent fails for good.
    passes_over: ClassVar[bool] = True
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
        parent = parent.replace(quoted_join(join), join).replace("%25", "%")
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
        return _Walk(self, conn, since, Place.of(cursor))


class _Walk(Iterator[Page]):
    """Lists all parents and their children once.

    Attributes:
        passed_over: after an error that was that of one parent alone, since its page of parents had just been answered, and that
            may be over later: the cursor that reports it as failed and goes on with the next parent. Else None.
    """

    def __init__(self, nested: Nested, conn: Any, since: Mapping[str, Any] | None, place: Place) -> None:
        self._nested = nested
        self._conn = conn
        self._since = since
        self._place = replace(place, errors=())
        #: Errors, warnings and entities left for later that the next page gets besides its own.
        self._errors: list[str] = list(place.errors)
        self._warnings: list[str] = []
        self._later: list[str] = []
        self.passed_over: dict[str, Any] | None = None
        self._pages = self._run()

    def __next__(self) -> Page:
        return next(self._pages)

    def _run(self) -> Iterator[Page]:
        if self._errors:
            # Stored at once: the next parent may fail, too.
            yield self._page(Page([]), self._place)
        parents = _pages(self._nested.parents, self._conn, self._place.at, None)
        try:
            while (page := self._next_of(parents)) is not None:
                yield from self._of_page(page)
                following = page.cursor if hasattr(self._nested.parents, "pages") else None
                self._place = Place(following, flaw=self._place.flaw, doubt=self._place.doubt)
        except IncompleteError as error:
            self._note_flaw(error, "the parents")
        yield self._page(Page([]), None)
        if self._place.flaw:
            stopped, text = self._place.flaw
            flaw = IncompleteError(text)
            flaw.stopped = stopped
            raise flaw

    def _next_of(self, parents: Iterator[Page]) -> Page | None:
        """Return the next page of parents, which may be nested themselves."""
        try:
            return next(parents, None)
        except Exception:
            if (over := getattr(parents, "passed_over", None)) is not None:
                self.passed_over = replace(self._place, at=over, parent=None, child=None, errors=self._errors).to_json()
            raise

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
        found: Any = None
        begun = replace(self._place, parent=parent.key, done=False, child=None)
        done = replace(begun, done=True)
        listing = self._nested.children(parent)
        resumable = hasattr(listing, "pages")
        try:
            found = _pages(listing, self._conn, cursor, self._since)
            yield from self._of_children(parent, found, begun, done, resumable=resumable)
        except IncompleteError as error:
            self._note_flaw(error, f"children of {parent.key}")
        except (GoneError, RejectedError) as error:
            # Without a status it is our own request that is wrong; a redirect or the proxy concerns all.
            if isinstance(error, RejectedError) and (error.waits or not _is_of_one(error.status)):
                raise
            self._errors.append(f"children of {parent.key}: {error}")
        except AuthRefusedError as error:
            if error.status not in _REFUSED or not self._answers_well():
                raise
            self._errors.append(f"children of {parent.key}: {error}; the listing of the parents itself is answered well")
        except _PASSING as error:
            if not isinstance(error, RateLimitedError) or error.status is not None:
                self._pass_over(parent, error, begun=begun, done=done, over=getattr(found, "passed_over", None))
            raise
        self._place = self._with_notes(done)

    def _of_children(
        self, parent: Entity, found: Iterator[Page], begun: Place, done: Place, *, resumable: bool
    ) -> Iterator[Page]:
        pages = _watched(parent, found)
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

    def _pass_over(self, parent: Entity, error: Exception, *, begun: Place, done: Place, over: Any) -> None:
        """Keep where to go on if these children fail for good; `over` is that within them, if they are nested themselves."""
        if over is not None:
            behind = replace(begun, child=over, errors=self._errors)
        else:
            text = f"children of {parent.key}: {error}; the page of its parents was answered well"
            behind = replace(done, errors=[*self._errors, text])
        if hasattr(self._nested.parents, "pages"):
            self.passed_over = self._with_notes(behind).to_json()

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

    def _with_notes(self, place: Place) -> Place:
        """Return a place with what speaks against the listing so far."""
        return replace(place, flaw=self._place.flaw, doubt=self._place.doubt)

    def _page(self, page: Page, place: Place | None, parent: Entity | None = None) -> Page:
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
        return f"{parent.key.replace('%', '%25').replace(join, quoted_join(join))}{join}{key}"


def _is_of_one(status: int | None) -> bool:
    """Say whether a refusal with this status is one of the children that were asked for."""
    return status is not None and 400 <= status < 500 and status != _PROXY_REFUSED


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
