"""Deleting what a complete listing no longer has, and only then (law 8). Stamps `deleted_at`, removes nothing."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, false, func, select, update
from sqlmodel import Session

from jobs.clock import UTCDateTime
from jobs.database import Database
from jobs.job import Lane
from jobs.listing import COMPLETE, ListingClaim
from jobs.models import job, listing, record
from jobs.rows import Rows
from jobs.settle import PROCESSING, QUEUED

BATCH = 100
"""Entities that are deleted one by one in one transaction."""

LOOKED = 1000
SHOWN = 10
"""Keys that a preview names."""

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
class Missing:
    """Records that a complete listing did not show."""

    count: int
    #: The first of their keys.
    keys: tuple[str, ...]
    #: All records that are not deleted.
    live: int


def refusal(sync: str, missing: int, live: int, *, gone: int, listed: int, max_share: float, how: str, doubt: str = "") -> str:
    """Say why so many records must not be deleted, for a person; empty where they may be.

    Args:
        sync: whose they are.
        missing: those that the listing did not show.
        live: all that were there before it.
        gone: records that the run has already lost to 404 and 410; they count.
        listed: entities that the listing showed.
        max_share: of those that were there. What this very listing has brought does not make room for more deletions: where all
            keys are new ones, such as after a change of the API, all old records are missing.
        how: what a person does who wants it all the same.
        doubt: why the listing may not be complete.
    """
    confirm = f"`syncs run {sync} {how}` deletes them"
    if not listed:
        return f"the listing came back empty; {missing} records were kept; {confirm}"
    if doubt:
        return f"{doubt}; {missing} of {live} records are missing, and all were kept; {confirm}"
    if missing + gone > max_share * (live + gone):
        return f"{missing} of {live} records are missing, more than the allowed {max_share:.0%}; all were kept; {confirm}"
    return ""


class Sweeps:
    """Sweeps of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        live = and_(record.c.sync == bindparam("b_sync"), record.c.deleted_at.is_(None))
        of_lane = and_(
            job.c.queue == bindparam("in_queue"), job.c.client == bindparam("of_client"), job.c.type == bindparam("of_type")
        )
        # An entity that is still being worked was listed, whatever its record says: a job of an earlier listing may have
        # written the record while a newer one waits for its retry.
        idle = and_(
            live,
            *(
                record.c.key.not_in(select(job.c.key).where(job.c.state == state, of_lane, job.c.key.is_not(None)))
                for state in (QUEUED, PROCESSING)
            ),
        )
        missing = and_(idle, record.c.generation < bindparam("b_generation"))
        self._proof = (
            select(listing.c.listed, listing.c.started_at)
            .where(
                listing.c.sync == bindparam("b_sync"),
                listing.c.claim_no == bindparam("b_claim"),
                listing.c.generation == bindparam("b_generation"),
                listing.c.state == COMPLETE,
                # One that asked only for what is new has not shown the rest.
                listing.c.is_filtered == false(),
                listing.c.flawed == 0,
            )
            .with_for_update()
        )
        self._live = select(func.count()).select_from(record).where(live)
        before = record.c.first_seen_at < bindparam("b_started", type_=UTCDateTime())
        self._before = select(func.count()).select_from(record).where(live, before)
        self._missing = select(func.count()).select_from(record).where(missing)
        self._delete = update(record).where(missing).values(deleted_at=db.now)
        self._idle = select(record.c.key).where(idle, record.c.key > bindparam("after")).order_by(record.c.key).limit(LOOKED)
        self._next = select(record.c.key).where(missing, record.c.key > bindparam("after")).order_by(record.c.key).limit(BATCH)
        self._keys = keys = Rows(db, {"sync": "text", "key": "text"})
        self._stamp = (
            update(record)
            .where(record.c.sync == keys.sync, record.c.key == keys.key, record.c.deleted_at.is_(None))
            .values(deleted_at=db.now)
        )

    def live(self, sync: str) -> int:
        """Count the records of a sync that are not deleted."""
        with self._db.read() as connection:
            return int(connection.execute(self._live, {"b_sync": sync}).scalar_one())

    def missing(self, lane: Lane, listed: Container[int]) -> Missing:
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
            return Missing(count, tuple(shown), int(connection.execute(self._live, values).scalar_one()))

    def sweep(
        self, claim: ListingClaim, lane: Lane, *, max_share: float, delete: Delete | None = None, gone: int = 0,
        allow: bool = False, how: str = "--allow-deletes", doubt: str = "",
    ) -> SweepResult:  # fmt: skip
        """Mark the records that this complete generation has not seen.

        Args:
            claim: of the run whose listing is complete.
            lane: of its jobs; entities with a job that is not done are no candidates.
            max_share: of the records that were there before this run; above it nothing is deleted.
            gone: records that this run has already lost to 404 and 410; they count.
            delete: `(session, key) -> error or None`, called for each in the transaction that marks it; what it wrote before
                an error is undone, and the record stays.
            allow: a person has confirmed it: whatever is missing is deleted.
            how: the options with which a person does that.
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
            # A listing that was interrupted began earlier than that; what it had brought by then counts as if it had been there.
            live = connection.execute(self._before, {**key, "b_started": proof.started_at}).scalar_one()
            if not allow and (
                refused := refusal(
                    claim.sync, missing, live, gone=gone, listed=proof.listed, max_share=max_share, how=how, doubt=doubt
                )
            ):
                return SweepResult(0, refused)
            if delete is None:
                connection.execute(self._delete, key)
                return SweepResult(missing)
        return self._one_by_one(key, delete)

    def _one_by_one(self, key: dict[str, Any], delete: Delete) -> SweepResult:
        deleted, after = 0, ""
        errors: list[tuple[str, str]] = []
        while True:
            with self._db.write() as connection:
                keys = connection.execute(self._next, {**key, "after": after}).scalars().all()
                if not keys:
                    return SweepResult(deleted, errors=tuple(errors))
                gone = []
                for one in keys:
                    with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
                        error = delete(session, one)
                        if error is None:
                            session.commit()
                            gone.append((key["b_sync"], one))
                        else:
                            session.rollback()
                            errors.append((one, error))
                if gone:
                    connection.execute(self._stamp, self._keys.bind(gone))
            deleted, after = deleted + len(gone), keys[-1]
