"""Marks records as deleted that a complete listing no longer contains (`docs/architecture.md`, law 8)."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, false, func, select, update
from sqlmodel import Session

from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.job import Lane
from jobs.listing.delete_share import refusal
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.progress import COMPLETE
from jobs.schema.job_tables import job, listing, record
from jobs.schema.states import PROCESSING_LITERAL, QUEUED_LITERAL
from jobs.typed_tables.table_writer import EntityKey, TableWriter

BATCH = 100
"""Entities that are deleted in one transaction."""

PREVIEW_BATCH = 1000
"""Keys that a preview reads in one statement."""

SHOWN = 10
"""Keys that a preview lists."""

Delete = Callable[[Session, str], str | None]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did, or why it did nothing."""

    deleted: int
    #: Why nothing was deleted, for a person; empty when the sweep was allowed.
    refused: str = ""
    #: Entities whose own deletion failed: (key, error).
    errors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MissingRecords:
    """Records that a complete listing did not show."""

    count: int
    #: The first of their keys.
    keys: tuple[str, ...]
    #: All records that are not deleted.
    live: int


@dataclass(frozen=True, slots=True)
class PassRecords:
    """The records that existed before the pass of a sync: those that are not deleted, and those that it has lost so far."""

    live: int
    lost: int
    #: The number of the pass; 0 if the sync has never been listed.
    generation: int


class Sweeps:
    """Sweeps of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        live = and_(record.c.sync == bindparam("b_sync"), record.c.deleted_at.is_(None))
        of_lane = and_(
            job.c.queue == bindparam("in_queue"), job.c.client == bindparam("of_client"), job.c.type == bindparam("of_type")
        )
        # An entity with an unfinished job was listed, even if its record has an older generation: a job of an earlier listing
        # may have written the record while a newer one waits for its retry.
        idle = and_(
            live,
            *(
                record.c.key.not_in(select(job.c.key).where(job.c.state == state, of_lane, job.c.key.is_not(None)))
                for state in (QUEUED_LITERAL, PROCESSING_LITERAL)
            ),
        )
        missing = and_(idle, record.c.generation < bindparam("b_generation"))
        self._proof = (
            select(listing.c.listed)
            .where(
                listing.c.sync == bindparam("b_sync"),
                listing.c.claim_no == bindparam("b_claim"),
                listing.c.generation == bindparam("b_generation"),
                listing.c.state == COMPLETE,
                # An incremental listing does not contain what is unchanged.
                listing.c.is_filtered == false(),
                listing.c.flawed == 0,
            )
            .with_for_update()
        )
        self._live = select(func.count()).select_from(record).where(live)
        of_sync = listing.c.sync == bindparam("b_sync")
        began = select(func.coalesce(listing.c.began_at, listing.c.started_at)).where(of_sync)
        # Jobs without a listing belong to no pass: nothing is lost yet.
        start = func.coalesce(began.scalar_subquery(), db.now)
        self._of_pass = select(
            func.count(case((record.c.deleted_at.is_(None), 1))),
            func.count(case((record.c.deleted_at >= start, 1))),
            func.coalesce(select(listing.c.generation).where(of_sync).scalar_subquery(), 0),
        ).where(record.c.sync == bindparam("b_sync"), record.c.first_seen_at < start)
        self._missing = select(func.count()).select_from(record).where(missing)
        self._delete = update(record).where(missing).values(deleted_at=db.now)
        self._idle = (
            select(record.c.key).where(idle, record.c.key > bindparam("after")).order_by(record.c.key).limit(PREVIEW_BATCH)
        )
        self._next = (
            select(record.c.key, record.c.row_key)
            .where(missing, record.c.key > bindparam("after"))
            .order_by(record.c.key)
            .limit(BATCH)
        )
        self._keys = keys = JsonRows(db, {"sync": "text", "key": "text"})
        self._stamp = (
            update(record)
            .where(record.c.sync == keys.sync, record.c.key == keys.key, record.c.deleted_at.is_(None))
            .values(deleted_at=db.now)
        )

    def count_records(self, sync: str) -> int:
        """Count the records of a sync that are not deleted."""
        with self._db.read() as connection:
            return int(connection.execute(self._live, {"b_sync": sync}).scalar_one())

    def of_pass(self, sync: str) -> PassRecords:
        """Count the records that existed before the pass of a sync, whichever runs and workers have worked on it since."""
        with self._db.read() as connection:
            return PassRecords(*connection.execute(self._of_pass, {"b_sync": sync}).one())

    def missing(self, lane: Lane, listed: Container[int]) -> MissingRecords:
        """Find the records that a listing did not show, and write nothing.

        Args:
            lane: of the jobs of its sync; entities with a job that is not done are no candidates.
            listed: the `hash` of each key that it showed.
        """
        count, after = 0, ""
        shown: list[str] = []
        with self._db.read() as connection:
            values = {"b_sync": lane.type, **lane.parameters()}
            while keys := connection.execute(self._idle, {**values, "after": after}).scalars().all():
                gone = [key for key in keys if hash(key) not in listed]
                count, after = count + len(gone), keys[-1]
                shown += gone[: SHOWN - len(shown)]
            return MissingRecords(count, tuple(shown), int(connection.execute(self._live, values).scalar_one()))

    def run(
        self,
        claim: ListingClaim,
        lane: Lane,
        *,
        max_share: float,
        delete: Delete | None = None,
        rows: TableWriter | None = None,
        allow: bool = False,
        how: str = "--allow-deletes",
        doubt: str = "",
    ) -> SweepResult:
        """Mark the records as deleted that this complete listing does not contain.

        Args:
            claim: of the run whose listing is complete.
            lane: of its jobs; entities with a job that is not done are no candidates.
            max_share: of the records that existed before this pass; above it nothing is deleted. What the pass has already lost
                because of 404 and 410 counts.
            delete: `(session, key) -> error or None`, called for each in the transaction that marks it; what it wrote before
                an error is undone, and the record stays.
            rows: deletes the typed rows of entities in the transaction that marks these, where there is no `delete`.
            allow: a person has confirmed it: whatever is missing is deleted.
            how: the option with which a person does that.
            doubt: why the listing may not be complete; then nothing is deleted unless a person has confirmed it.

        Returns:
            How many were marked, or why none was.
        """
        key = {"b_sync": claim.sync, "b_generation": claim.generation, **lane.parameters()}
        with self._db.write() as connection:
            proof = connection.execute(self._proof, {**key, "b_claim": claim.claim_no}).one_or_none()
            if proof is None:
                return SweepResult(0, "the listing is not complete")
            missing = connection.execute(self._missing, key).scalar_one()
            if not missing:
                return SweepResult(0)
            live, gone, _ = connection.execute(self._of_pass, key).one()
            if not allow and (
                refused := refusal(
                    claim.sync, missing, live, gone=gone, listed=proof.listed, max_share=max_share, how=how, doubt=doubt
                )
            ):
                return SweepResult(0, refused)
            if delete is None and rows is None:
                connection.execute(self._delete, key)
                return SweepResult(missing)
        return self._in_batches(key, delete, rows)

    def _in_batches(self, key: dict[str, Any], delete: Delete | None, rows: TableWriter | None) -> SweepResult:
        deleted, after = 0, ""
        errors: dict[str, str] = {}
        while True:
            with self._db.write() as connection:
                found = [EntityKey(*one) for one in connection.execute(self._next, {**key, "after": after})]
                if not found:
                    return SweepResult(deleted, errors=tuple(errors.items()))
                if delete is not None:
                    refused = _one_by_one(connection, [one.key for one in found], delete)
                else:
                    assert rows is not None
                    refused = rows.delete_each(self._db, connection, found)
                gone = [(key["b_sync"], one.key) for one in found if one.key not in refused]
                if gone:
                    connection.execute(self._stamp, self._keys.bind(gone))
            errors |= refused
            deleted, after = deleted + len(gone), found[-1].key


def _one_by_one(connection: Connection, keys: Sequence[str], delete: Delete) -> dict[str, str]:
    """Delete entities, each with a session of its own; return the errors by key."""
    errors: dict[str, str] = {}
    for one in keys:
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            if (error := delete(session, one)) is None:
                session.commit()
            else:
                session.rollback()
                errors[one] = error
    return errors
