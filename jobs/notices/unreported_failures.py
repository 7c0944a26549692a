"""Reads what people were not told of yet: failed jobs and listings, new pauses, and notices that have changed.

A finish leaves a row for each job that has failed for good, and so does a failed listing. For pauses `client.told` holds the
last one that a notice includes. `jobs.notices.notice` includes both in notices and removes the rows.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, case, exists, func, insert, literal_column, or_, select

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.schema.job_tables import client, job, listing, notice, pause, unreported_failure

GATHER_SECONDS = 5.0
"""Seconds that failures wait for further ones before they are reported; those of a running sync wait for the end of its run."""

BATCH = 10_000
"""Failures that are read at once."""

COUNT_LIMIT = 10_000
"""Queued jobs are counted up to this number."""

NO_JOB = 0
"""The job id of a failure that is a listing's."""


class UnreportedFailure(NamedTuple):
    """A job or a listing that has failed for good and that people were not told of."""

    id: int
    type: str
    #: `NO_JOB` for a listing.
    job_id: int
    #: Of a job: its entity's key. Of a listing: why it ended, see `RunResult.stopped`.
    key: str | None
    message: str
    at: datetime


class Unreported:
    """What people were not told of, in one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        failure = unreported_failure
        of_client: Any = bindparam("b_client")
        self._record = insert(failure).values(job_id=NO_JOB, at=db.now)
        self._ids = ids = JsonRows(db, {"id": "id"})
        is_running = exists().where(listing.c.sync == failure.c.type, listing.c.lease_until > db.now)
        self._failures = (
            select(failure.c.id, failure.c.type, failure.c.job_id, failure.c.key, failure.c.message, failure.c.at)
            .where(
                failure.c.client == of_client,
                failure.c.id > bindparam("b_after"),
                or_(failure.c.type == bindparam("b_ended"), ~is_running),
            )
            .order_by(failure.c.id)
            .limit(BATCH)
        )
        by_type = (
            select(failure.c.client, failure.c.type, func.min(failure.c.at).label("first"))
            .group_by(failure.c.client, failure.c.type)
            .subquery()
        )
        type_is_running = exists().where(listing.c.sync == by_type.c.type, listing.c.lease_until > db.now)
        self._failed_types = select(
            by_type.c.client, (by_type.c.first <= db.from_now("ago")).label("is_old"), type_is_running.label("is_running")
        )
        is_open = exists().where(
            notice.c.client == of_client, notice.c.subject == bindparam("b_subject"), notice.c.closed_at.is_(None)
        )
        is_unreported = exists().where(failure.c.client == of_client, failure.c.type == bindparam("b_subject"))
        # A literal, because SQLite has no Boolean.
        self._has_open = select(case((or_(is_open, is_unreported), literal_column("1")), else_=literal_column("0")))
        new_pause = exists().where(pause.c.client == client.c.id, pause.c.id > client.c.told)
        self._with_new_pause = select(client.c.id).where(new_pause)
        is_paused = exists().where(pause.c.client == notice.c.client, pause.c.ended_at.is_(None))
        self._with_ended_pause = select(notice.c.client).where(
            notice.c.closed_at.is_(None), notice.c.subject == literal_column("''"), ~is_paused
        )
        window_is_over = notice.c.window_at <= db.from_now("ago")
        has_counted = and_(notice.c.count > notice.c.told_count, notice.c.told_at.is_not(None))
        # The trouble of a job type ends when none of it has failed for a window; that of a sync when a run of it succeeds.
        is_quiet = and_(notice.c.closed_at.is_(None), notice.c.updated_at <= db.from_now("ago"))
        self._with_old_window = select(notice.c.client).where(window_is_over, or_(has_counted, is_quiet))
        self._count_queued = select(func.count()).select_from(
            select(job.c.id)
            .where(job.c.state == literal_column("'queued'"), job.c.client == of_client)
            .limit(COUNT_LIMIT)
            .subquery()
        )
        self._payloads = select(job.c.id, job.c.payload).join_from(ids.table, job, job.c.id == ids.id)

    def clients(self, among: Collection[str], *, window: float, gather: float = GATHER_SECONDS) -> list[str]:
        """Return the clients whose notices may have to change.

        Args:
            among: the clients that the caller declares.
            window: seconds after which a digest reports what was counted.
            gather: seconds that failures wait for further ones.
        """
        with self._db.read() as connection:
            found = set(connection.execute(self._with_new_pause).scalars())
            found |= set(connection.execute(self._with_ended_pause).scalars())
            found |= set(connection.execute(self._with_old_window, {"ago": -window}).scalars())
            failed = connection.execute(self._failed_types, {"ago": -gather}).all()
        found |= {row.client for row in failed if row.is_old and not row.is_running}
        return sorted(found & set(among))

    def has_trouble(self, client_id: str, subject: str) -> bool:
        """Tell whether a notice of this sync or job type is open, or a failure of it is unreported."""
        with self._db.read() as connection:
            return bool(connection.execute(self._has_open, {"b_client": client_id, "b_subject": subject}).scalar_one())

    def failures(self, client_id: str, *, ended: str = "", after: int = 0) -> list[UnreportedFailure]:
        """Return the failures of a client that can be reported now, the oldest first, at most `BATCH` of them.

        Args:
            client_id: the client.
            ended: the sync whose run is ending: its failures need not wait for the end of the run.
            after: only failures with a higher id.
        """
        wanted = {"b_client": client_id, "b_ended": ended, "b_after": after}
        with self._db.read() as connection:
            return [UnreportedFailure(*row) for row in connection.execute(self._failures, wanted)]

    @retry_on_conflict
    def record_listing(self, client_id: str, sync_id: str, stopped: str, message: str) -> None:
        """Store that a listing has failed, in case its run dies before it reports that itself.

        Args:
            client_id, sync_id: the sync.
            stopped: why the listing ended, see `RunResult.stopped`.
            message: one line, without secrets.
        """
        with self._db.write() as connection:
            connection.execute(self._record, {"client": client_id, "type": sync_id, "key": stopped, "message": message})

    def payloads(self, jobs: Iterable[int]) -> dict[int, Any]:
        """Return the payloads of those jobs that still exist."""
        with self._db.read() as connection:
            rows = connection.execute(self._payloads, self._ids.bind([(one,) for one in jobs])).all()
        return {row.id: row.payload for row in rows}

    def count_queued(self, client_id: str) -> int:
        """Count the queued jobs of a client, up to `COUNT_LIMIT`."""
        with self._db.read() as connection:
            count: int = connection.execute(self._count_queued, {"b_client": client_id}).scalar_one()
        return count
