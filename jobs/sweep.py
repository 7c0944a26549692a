"""Deleting what a complete listing no longer has, and only then (law 8). Stamps `deleted_at`, removes nothing."""

from dataclasses import dataclass

from sqlalchemy import and_, bindparam, func, select, update

from jobs.database import Database
from jobs.listing import COMPLETE, ListingClaim
from jobs.models import listing, record


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did, or why it did nothing."""

    deleted: int
    #: Why nothing was deleted, for a person; empty when the sweep was allowed.
    refused: str = ""


class Sweeps:
    """Sweeps of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        live = and_(record.c.sync == bindparam("b_sync"), record.c.deleted_at.is_(None))
        missing = and_(live, record.c.generation < bindparam("b_generation"))
        self._proof = (
            select(listing.c.listed)
            .where(
                listing.c.sync == bindparam("b_sync"),
                listing.c.claim_no == bindparam("b_claim"),
                listing.c.generation == bindparam("b_generation"),
                listing.c.state == COMPLETE,
            )
            .with_for_update()
        )
        self._live = select(func.count()).select_from(record).where(live)
        self._missing = select(func.count()).select_from(record).where(missing)
        self._delete = update(record).where(missing).values(deleted_at=db.now)

    def sweep(self, claim: ListingClaim, *, max_share: float) -> SweepResult:
        """Mark the records that this complete generation has not seen.

        Args:
            claim: of the run whose listing is complete.
            max_share: of the live records; above it nothing is deleted.

        Returns:
            How many were marked, or why none was.
        """
        key = {"b_sync": claim.sync, "b_generation": claim.generation}
        with self._db.write() as connection:
            listed = connection.execute(self._proof, {**key, "b_claim": claim.claim_no}).scalar_one_or_none()
            if listed is None:
                return SweepResult(0, "the listing is not complete")
            missing = connection.execute(self._missing, key).scalar_one()
            if not missing:
                return SweepResult(0)
            live = connection.execute(self._live, key).scalar_one()
            if not listed:
                return SweepResult(0, f"the listing came back empty; {missing} records were kept")
            if missing > max_share * live:
                return SweepResult(
                    0, f"{missing} of {live} records are missing, more than the allowed {max_share:.0%}; all were kept"
                )
            connection.execute(self._delete, key)
        return SweepResult(missing)
