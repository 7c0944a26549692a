"""Stores the progress of listings: which process may run a sync, the cursor, the generation and the high-water mark."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import JSON, Connection, Integer, and_, bindparam, case, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.errors import LostLease
from jobs.listing.listing_claim import ListingBusy, ListingClaim, MarkUpdate
from jobs.process_identity import is_gone
from jobs.schema.job_tables import listing

LISTING, COMPLETE, ABANDONED = "listing", "complete", "abandoned"

LONGEST_PASS = 86_400.0
"""Seconds after which an unfinished listing is begun anew: what its first pages showed is too old by then."""


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
            select(
                listing,
                (listing.c.lease_until > db.now).label("leased"),
                (listing.c.began_at > db.from_now("longest")).label("is_recent"),
            )
            .where(listing.c.sync == bindparam("b_sync"))
            .with_for_update(of=listing)
        )
        self._take = (
            update(listing)
            .where(listing.c.sync == bindparam("b_sync"))
            .values(
                claim_no=listing.c.claim_no + 1, worker=bindparam("by"), lease_until=db.from_now("lease"), updated_at=db.now,
                state=bindparam("b_state"), generation=bindparam("b_generation"),
                cursor=bindparam("b_cursor", type_=JSON(none_as_null=True)),
                pages=bindparam("b_pages"), listed=bindparam("b_listed"), client=bindparam("b_client"), started_at=db.now,
                is_full=bindparam("b_full"), is_filtered=bindparam("b_filtered"), flawed=bindparam("b_flawed"),
                next_mark=bindparam("b_next", type_=JSON(none_as_null=True)), declaration=bindparam("b_declaration"),
                failures=bindparam("b_failures"), restarts=bindparam("b_restarts"),
                began_at=case((bindparam("b_resumed", type_=Integer()) == literal_column("1"), listing.c.began_at), else_=db.now),
            )
            .returning(listing.c.claim_no)
        )  # fmt: skip
        held = and_(listing.c.sync == bindparam("b_sync"), listing.c.claim_no == bindparam("b_claim"))
        #: 0 with the first page of a listing that starts over, else 1.
        keeps: Any = bindparam("b_keeps", type_=Integer())
        self._advance = (
            update(listing)
            .where(held, listing.c.state != COMPLETE)
            .values(
                failures=0, restarts=listing.c.restarts + 1 - keeps,
                cursor=bindparam("b_cursor", type_=JSON(none_as_null=True)),
                pages=listing.c.pages * keeps + 1,
                listed=listing.c.listed * keeps + bindparam("b_listed"), updated_at=db.now,
                flawed=listing.c.flawed * keeps + bindparam("b_flawed"),
                next_mark=bindparam("b_next", type_=JSON(none_as_null=True)),
            )
        )  # fmt: skip
        self._fail = update(listing).where(held).values(failures=listing.c.failures + 1, updated_at=db.now)
        ended: dict[Any, Any] = {"cursor": None, "next_mark": None, "updated_at": db.now}
        self._abandon = update(listing).where(held).values(state=ABANDONED, **ended)
        self._complete = update(listing).where(held).values(state=COMPLETE, completed_at=db.now, **ended)
        self._mark = self._complete.values(mark=bindparam("b_mark", type_=JSON(none_as_null=True)))
        self._unfinished = select(
            listing.c.sync, listing.c.worker, and_(listing.c.worker.is_not(None), listing.c.lease_until > db.now).label("leased")
        ).where(listing.c.state == LISTING, listing.c.began_at > db.from_now("longest"))
        self._read_mark = select(listing.c.mark).where(listing.c.sync == bindparam("b_sync"))
        self._renew = update(listing).where(held).values(lease_until=db.from_now("lease"))
        self._release = update(listing).where(held).values(worker=None, lease_until=None, updated_at=db.now)

    @retry_on_conflict
    def claim(
        self,
        sync: str,
        client: str,
        *,
        worker: str,
        lease: float,
        full: bool = False,
        since: str | None = None,
        declaration: str | None = None,
        limited: bool = False,
        new_pass: bool = False,
        only_unfinished: bool = False,
    ) -> ListingClaim | ListingBusy | None:
        """Take the right to run a sync: continue an interrupted listing, or begin the next generation.

        Args:
            sync, client: ids.
            worker: who takes it.
            lease: seconds until others may take it, unless renewed.
            full: treat every entity as changed. An interrupted listing that did not is restarted; one that did continues so.
            since: identifies the kind of mark, for a listing that may list only what is new; a stored mark of another kind does
                not count. Without `since`, and for an interrupted listing that used another mark, everything is listed.
            declaration: a digest of what is listed and how; an interrupted listing of another one is not continued.
            limited: it will not list all, and nobody continues it.
            new_pass: continue nothing.
            only_unfinished: begin nothing.

        Returns:
            The claim, or which process has it; `None` if nothing would be continued and nothing is to begin: then nothing is
            written.
        """
        with self._db.write() as connection:
            if not only_unfinished:
                connection.execute(self._open, {"b_sync": sync, "b_client": client})
            row = connection.execute(self._read, {"b_sync": sync, "longest": -LONGEST_PASS}).one_or_none()
            if row is None:
                return None
            if row.worker is not None and row.leased and not is_gone(row.worker):
                return ListingBusy(row.worker, row.started_at)
            mark = row.mark["value"] if since is not None and isinstance(row.mark, dict) and row.mark.get("of") == since else None
            resumed = (
                row.state == LISTING
                and bool(row.is_recent)
                and not new_pass
                and (row.is_full or not full)
                and not (row.is_filtered and mark is None)
                and (declaration is None or row.declaration in (None, declaration))
            )
            if only_unfinished and not resumed:
                return None
            full = full or (resumed and row.is_full)
            is_filtered = row.is_filtered if resumed else mark is not None and not full
            next_mark, flawed = (row.next_mark, row.flawed) if resumed else (None, 0)
            generation = row.generation if resumed else row.generation + 1
            cursor, pages, listed = (row.cursor, row.pages, row.listed) if resumed else (None, 0, 0)
            failures, restarts = (row.failures, row.restarts) if resumed else (0, 0)
            claim_no = connection.execute(
                self._take,
                {
                    "b_sync": sync, "by": worker, "lease": lease, "b_generation": generation, "b_cursor": cursor,
                    "b_pages": pages, "b_listed": listed, "b_client": client, "b_state": ABANDONED if limited else LISTING,
                    "b_full": full, "b_filtered": is_filtered, "b_flawed": flawed, "b_next": next_mark,
                    "b_declaration": declaration, "b_failures": failures, "b_restarts": restarts, "b_resumed": int(resumed),
                },
            ).scalar_one()  # fmt: skip
        return ListingClaim(
            sync=sync,
            claim_no=claim_no,
            generation=generation,
            cursor=cursor,
            resumed=resumed,
            pages=pages,
            listed=listed,
            mark=mark if is_filtered else None,
            full=full,
            is_filtered=is_filtered,
            next_mark=next_mark,
            flawed=flawed,
            failures=failures,
            restarts=restarts,
        )

    def interrupted(self, syncs: Iterable[str]) -> list[str]:
        """Return which of these syncs have an unfinished listing that no process has in hand, and that would be continued."""
        wanted = set(syncs)
        with self._db.read() as connection:
            rows = connection.execute(self._unfinished, {"longest": -LONGEST_PASS}).all()
        return [row.sync for row in rows if row.sync in wanted and (not row.leased or is_gone(row.worker))]

    def failed(self, claim: ListingClaim) -> None:
        """Count a try that brought no page, because of generic trouble; the next page that comes counts from 0."""
        with self._db.write() as connection:
            connection.execute(self._fail, _claim(claim))

    def high_water_mark(self, sync: str, since: str) -> Any:
        """Return the high-water mark that a listing would start from, or `None`."""
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
        marked: MarkUpdate | None = None,
        anew: bool = False,
    ) -> None:
        """Store the cursor after a page, in the transaction of the page.

        Args:
            connection: of that transaction.
            claim: of the run.
            cursor: where the next page begins.
            listed, flawed: what the page showed.
            last: the listing is complete with it.
            marked: the new high-water mark.
            anew: the listing has started over with this page: what was counted before does not count.

        Raises:
            LostLease: another process runs this sync now.
        """
        kept = None if marked is None else marked.next
        moved = connection.execute(
            self._advance,
            {
                **_claim(claim), "b_cursor": cursor, "b_listed": listed, "b_flawed": flawed, "b_next": kept,
                "b_keeps": int(not anew),
            },
        )  # fmt: skip
        if moved.rowcount != 1:
            raise LostLease(f"another process runs {claim.sync} now")
        if last:
            statement, values = self._completing(claim, marked)
            connection.execute(statement, values)

    def complete(self, claim: ListingClaim, marked: MarkUpdate | None = None) -> None:
        """Mark the listing as complete: its generation contains every entity.

        Args:
            claim: of the run.
            marked: the new high-water mark; without it the mark stays as it is.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(*self._completing(claim, marked))

    def _completing(self, claim: ListingClaim, marked: MarkUpdate | None) -> tuple[Any, dict[str, Any]]:
        if marked is None:
            return self._complete, _claim(claim)
        return self._mark, {**_claim(claim), "b_mark": marked.mark}

    def abandon(self, claim: ListingClaim) -> None:
        """Discard an incomplete listing: the next run begins a new generation at the first page.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(self._abandon, _claim(claim))

    def renew(self, claim: ListingClaim, *, lease: float) -> bool:
        """Extend the right to run; tell whether it is still held."""
        with self._db.write() as connection:
            return connection.execute(self._renew, {**_claim(claim), "lease": lease}).rowcount == 1

    def release(self, claim: ListingClaim) -> None:
        """Release the right to run; does nothing if another process has it by now."""
        with self._db.write() as connection:
            connection.execute(self._release, _claim(claim))

    def _fenced(self, statement: Any, values: dict[str, Any]) -> None:
        with self._db.write() as connection:
            if connection.execute(statement, values).rowcount != 1:
                raise LostLease(f"another process runs {values['b_sync']} now")


def _claim(claim: ListingClaim) -> dict[str, Any]:
    return {"b_sync": claim.sync, "b_claim": claim.claim_no}
