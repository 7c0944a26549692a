"""How far a listing has come: the right to run a sync, the cursor, the generation. Knows no page and no job."""

from dataclasses import dataclass
from typing import Any

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
    mark: Any
    #: Every entity is queued, changed or not.
    full: bool = False


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
                is_full=bindparam("b_full"),
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
            )
        )  # fmt: skip
        self._abandon = update(listing).where(held).values(state=ABANDONED, cursor=None, updated_at=db.now)
        self._complete = update(listing).where(held).values(
            state=COMPLETE, cursor=None, completed_at=db.now, updated_at=db.now
        )  # fmt: skip
        self._renew = update(listing).where(held).values(lease_until=db.from_now("lease"))
        self._release = update(listing).where(held).values(worker=None, lease_until=None, updated_at=db.now)

    @again
    def begin(self, sync: str, client: str, *, worker: str, lease: float, full: bool = False) -> ListingClaim | Busy:
        """Take the right to run a sync: go on with an interrupted listing, or begin the next generation.

        Args:
            sync, client: ids.
            worker: who takes it.
            lease: seconds until others may take it, unless renewed.
            full: list every entity as changed; an interrupted listing that did not is begun anew, and one that did goes on so.

        Returns:
            The claim, or who has it.
        """
        with self._db.write() as connection:
            connection.execute(self._open, {"b_sync": sync, "b_client": client})
            row = connection.execute(self._read, {"b_sync": sync}).one()
            if row.worker is not None and row.leased and not is_gone(row.worker):
                return Busy(row.worker, row.started_at)
            resumed = row.state == LISTING and (row.is_full or not full)
            generation = row.generation if resumed else row.generation + 1
            cursor, pages, listed = (row.cursor, row.pages, row.listed) if resumed else (None, 0, 0)
            claim_no = connection.execute(
                self._take,
                {
                    "b_sync": sync, "by": worker, "lease": lease, "b_generation": generation, "b_cursor": cursor,
                    "b_pages": pages, "b_listed": listed, "b_client": client,
                    "b_full": full or (resumed and row.is_full),
                },
            ).scalar_one()  # fmt: skip
        return ListingClaim(
            sync, claim_no, generation, cursor, resumed, pages, listed, row.mark, full or (resumed and row.is_full)
        )

    def advance(self, connection: Connection, claim: ListingClaim, *, cursor: Any, listed: int, last: bool) -> None:
        """Move the cursor behind a page, in the page's own transaction.

        Raises:
            LostLease: another process runs this sync now.
        """
        moved = connection.execute(self._advance, {**_claim(claim), "b_cursor": cursor, "b_listed": listed})
        if moved.rowcount != 1:
            raise LostLease(f"another process runs {claim.sync} now")
        if last:
            connection.execute(self._complete, _claim(claim))

    def complete(self, claim: ListingClaim) -> None:
        """Mark the listing as complete: its generation has seen every entity.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(self._complete, claim)

    def abandon(self, claim: ListingClaim) -> None:
        """Give up an incomplete listing: the next run begins a new generation at the first page.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(self._abandon, claim)

    def renew(self, claim: ListingClaim, *, lease: float) -> bool:
        """Extend the right to run; tell whether it is still held."""
        with self._db.write() as connection:
            return connection.execute(self._renew, {**_claim(claim), "lease": lease}).rowcount == 1

    def release(self, claim: ListingClaim) -> None:
        """Give the right to run back; does nothing where it is another's by now."""
        with self._db.write() as connection:
            connection.execute(self._release, _claim(claim))

    def _fenced(self, statement: Any, claim: ListingClaim) -> None:
        with self._db.write() as connection:
            if connection.execute(statement, _claim(claim)).rowcount != 1:
                raise LostLease(f"another process runs {claim.sync} now")


def _claim(claim: ListingClaim) -> dict[str, Any]:
    return {"b_sync": claim.sync, "b_claim": claim.claim_no}
