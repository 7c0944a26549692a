"""How far a listing has come: the right to run a sync, the cursor, the generation. Knows no page and no job."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import JSON, Connection, and_, bindparam, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.contention import again
from jobs.database import Database
from jobs.errors import LostLease
from jobs.models import listing
from jobs.worker import is_gone

LISTING, COMPLETE, ABANDONED = "listing", "complete", "abandoned"
_IS_TWIN = text("state = 'queued' AND fingerprint IS NOT NULL")


@dataclass(frozen=True, slots=True)
class ListingClaim:
    """The right to run a sync, fenced like a claimed job."""

    sync: str
    claim_no: int
    generation: int
    #: Where to resume; `None` starts at the first page.
    cursor: Any
    #: Whether an interrupted listing goes on.
    resumed: bool
    pages: int
    listed: int
    #: Where to ask from; `None` where everything is asked for.
    mark: Any
    #: Every entity is queued, changed or not.
    full: bool = False
    #: It asks only for what is new since the mark.
    is_filtered: bool = False
    #: What an interrupted listing has noted for its mark.
    next_mark: Any = None
    #: Listed items before the interruption that could not become entities or were left for later.
    flawed: int = 0


class Marked(NamedTuple):
    """What a page moves besides the cursor: JSON both."""

    #: What the next page needs to know; kept until the listing is complete.
    next: Any
    #: The mark, should the listing be complete with this page; `None` asks for everything the next time.
    mark: Any


@dataclass(frozen=True, slots=True)
class Busy:
    """Another process runs this sync."""

    worker: str
    since: Any


class Listings:
    """Listings of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        self._open = (
            insert_into(listing)
            .values(
                sync=bindparam("b_sync"), client=bindparam("b_client"), state=COMPLETE, generation=0,
                started_at=db.now, updated_at=db.now,
            )
            .on_conflict_do_nothing(index_elements=["sync"])
        )  # fmt: skip
        self._read = (
            select(listing, (listing.c.lease_until > db.now).label("leased"))
            .where(listing.c.sync == bindparam("b_sync"))
            .with_for_update(of=listing)
        )
        self._take = (
            update(listing)
            .where(listing.c.sync == bindparam("b_sync"))
            .values(
                claim_no=listing.c.claim_no + 1, worker=bindparam("by"), lease_until=db.from_now("lease"), updated_at=db.now,
                state=LISTING, generation=bindparam("b_generation"), cursor=bindparam("b_cursor", type_=JSON(none_as_null=True)),
                pages=bindparam("b_pages"), listed=bindparam("b_listed"), client=bindparam("b_client"), started_at=db.now,
                is_full=bindparam("b_full"), is_filtered=bindparam("b_filtered"), flawed=bindparam("b_flawed"),
                next_mark=bindparam("b_next", type_=JSON(none_as_null=True)),
            )
            .returning(listing.c.claim_no)
        )  # fmt: skip
        held = and_(listing.c.sync == bindparam("b_sync"), listing.c.claim_no == bindparam("b_claim"))
        self._advance = (
            update(listing)
            .where(held, listing.c.state == LISTING)
            .values(
                cursor=bindparam("b_cursor", type_=JSON(none_as_null=True)), pages=listing.c.pages + 1,
                listed=listing.c.listed + bindparam("b_listed"), updated_at=db.now,
                flawed=listing.c.flawed + bindparam("b_flawed"), next_mark=bindparam("b_next", type_=JSON(none_as_null=True)),
            )
        )  # fmt: skip
        ended: dict[Any, Any] = {"cursor": None, "next_mark": None, "updated_at": db.now}
        self._abandon = update(listing).where(held).values(state=ABANDONED, **ended)
        self._complete = update(listing).where(held).values(state=COMPLETE, completed_at=db.now, **ended)
        self._mark = self._complete.values(mark=bindparam("b_mark", type_=JSON(none_as_null=True)))
        self._read_mark = select(listing.c.mark).where(listing.c.sync == bindparam("b_sync"))
        self._renew = update(listing).where(held).values(lease_until=db.from_now("lease"))
        self._release = update(listing).where(held).values(worker=None, lease_until=None, updated_at=db.now)

    @again
    def begin(
        self, sync: str, client: str, *, worker: str, lease: float, full: bool = False, since: str | None = None
    ) -> ListingClaim | Busy:
        """Take the right to run a sync: go on with an interrupted listing, or begin the next generation.

        Args:
            sync, client: ids.
            worker: who takes it.
            lease: seconds until others may take it, unless renewed.
            full: list every entity as changed; an interrupted listing that did not is begun anew, and one that did goes on so.
            since: what a mark must be of to count, for a listing that may ask only for what is new. Without one, and for an
                interrupted listing that asked by another mark, everything is asked for.

        Returns:
            The claim, or who has it.
        """
        with self._db.write() as connection:
            connection.execute(self._open, {"b_sync": sync, "b_client": client})
            row = connection.execute(self._read, {"b_sync": sync}).one()
            if row.worker is not None and row.leased and not is_gone(row.worker):
                return Busy(row.worker, row.started_at)
            mark = row.mark["value"] if since is not None and isinstance(row.mark, dict) and row.mark.get("of") == since else None
            resumed = row.state == LISTING and (row.is_full or not full) and not (row.is_filtered and mark is None)
            full = full or (resumed and row.is_full)
            is_filtered = row.is_filtered if resumed else mark is not None and not full
            next_mark, flawed = (row.next_mark, row.flawed) if resumed else (None, 0)
            generation = row.generation if resumed else row.generation + 1
            cursor, pages, listed = (row.cursor, row.pages, row.listed) if resumed else (None, 0, 0)
            claim_no = connection.execute(
                self._take,
                {
                    "b_sync": sync, "by": worker, "lease": lease, "b_generation": generation, "b_cursor": cursor,
                    "b_pages": pages, "b_listed": listed, "b_client": client,
                    "b_full": full, "b_filtered": is_filtered, "b_flawed": flawed, "b_next": next_mark,
                },
            ).scalar_one()  # fmt: skip
        return ListingClaim(
            sync, claim_no, generation, cursor, resumed, pages, listed, mark if is_filtered else None, full, is_filtered,
            next_mark, flawed,
        )  # fmt: skip

    def mark(self, sync: str, since: str) -> Any:
        """Return the value that a listing would be asked from, or `None`."""
        with self._db.read() as connection:
            mark = connection.execute(self._read_mark, {"b_sync": sync}).scalar_one_or_none()
        return mark["value"] if isinstance(mark, dict) and mark.get("of") == since else None

    def advance(
        self,
        connection: Connection,
        claim: ListingClaim,
        *,
        cursor: Any,
        listed: int,
        last: bool,
        flawed: int = 0,
        marked: Marked | None = None,
    ) -> None:
        """Move the cursor behind a page, in the page's own transaction.

        Raises:
            LostLease: another process runs this sync now.
        """
        kept = None if marked is None else marked.next
        moved = connection.execute(
            self._advance, {**_claim(claim), "b_cursor": cursor, "b_listed": listed, "b_flawed": flawed, "b_next": kept}
        )
        if moved.rowcount != 1:
            raise LostLease(f"another process runs {claim.sync} now")
        if last:
            statement, values = self._completing(claim, marked)
            connection.execute(statement, values)

    def complete(self, claim: ListingClaim, marked: Marked | None = None) -> None:
        """Mark the listing as complete: its generation has seen every entity.

        Args:
            claim: of the run.
            marked: the mark moves with it, too; without one it stays where it is.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(*self._completing(claim, marked))

    def _completing(self, claim: ListingClaim, marked: Marked | None) -> tuple[Any, dict[str, Any]]:
        if marked is None:
            return self._complete, _claim(claim)
        return self._mark, {**_claim(claim), "b_mark": marked.mark}

    def abandon(self, claim: ListingClaim) -> None:
        """Give up an incomplete listing: the next run begins a new generation at the first page.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(self._abandon, _claim(claim))

    def renew(self, claim: ListingClaim, *, lease: float) -> bool:
        """Extend the right to run; tell whether it is still held."""
        with self._db.write() as connection:
            return connection.execute(self._renew, {**_claim(claim), "lease": lease}).rowcount == 1

    def release(self, claim: ListingClaim) -> None:
        """Give the right to run back; does nothing where it is another's by now."""
        with self._db.write() as connection:
            connection.execute(self._release, _claim(claim))

    def _fenced(self, statement: Any, values: dict[str, Any]) -> None:
        with self._db.write() as connection:
            if connection.execute(statement, values).rowcount != 1:
                raise LostLease(f"another process runs {values['b_sync']} now")


def _claim(claim: ListingClaim) -> dict[str, Any]:
    return {"b_sync": claim.sync, "b_claim": claim.claim_no}
