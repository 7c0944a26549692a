"""Reads counts of queues and lanes, lists of jobs, and single jobs, for people and for workers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, case, func, or_, select

from jobs.admin.filters import LARGEST_ID, Filter
from jobs.db.clock import UTCDateTime
from jobs.db.database import Database
from jobs.db.json_codec import encode
from jobs.errors import JobNotFound
from jobs.job import Lane
from jobs.schema import states
from jobs.schema.job_tables import attempt, job, pause
from jobs.schema.job_tables import queue as served
from jobs.schema.states import PROCESSING_LITERAL, QUEUED_LITERAL


@dataclass(frozen=True, slots=True)
class QueueView:
    """Counts of one queue. `queued` jobs are due now, `delayed` jobs later."""

    queue: str
    clients: list[str]
    queued: int
    delayed: int
    processing: int
    success: int
    failure: int
    #: The last end of a pause of one of its clients; `None` without a pause or when a person must resume.
    paused_until: datetime | None
    #: Whether one of its clients is paused.
    paused: bool
    #: Age of the oldest due job.
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class JobView:
    """One job of a list."""

    id: int
    queue: str
    client: str
    type: str
    key: str | None
    state: str
    attempts: int
    retries: int
    message: str
    created_at: datetime
    available_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt at a job."""

    claim_no: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime
    outcome: str
    error: str | None
    traceback: str | None
    phase: str
    #: The last exchanges with the remote side, `[{"request": …, "response": …}]`, and the `body` of a refusal; secrets were
    #: masked before they were stored.
    exchanges: Any


@dataclass(frozen=True, slots=True)
class JobDetail:
    """One job with all its columns and attempts."""

    job: JobView
    payload: Any
    #: The phase it has reached; empty for a type without phases.
    phase: str
    #: Size of its checkpoint; `None` without one.
    checkpoint_bytes: int | None
    serial_key: str | None
    fingerprint: str | None
    priority: int
    claim_no: int
    worker: str | None
    lease_until: datetime | None
    snoozes: int
    rescues: int
    generation: int | None
    superseded_by: int | None
    #: Another queued job of the same fingerprint.
    twin: int | None
    #: When it is tried again; `None` unless it waits for that.
    next_try_at: datetime | None
    attempts: list[AttemptView]


@dataclass(frozen=True, slots=True)
class LaneView:
    """The number of unfinished jobs in a lane."""

    #: Due now.
    due: int
    #: Queued for later.
    delayed: int
    processing: int


class Views:
    """Views of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        due = and_(job.c.state == QUEUED_LITERAL, job.c.available_at <= db.now)
        later = and_(job.c.state == QUEUED_LITERAL, job.c.available_at > db.now)
        of_lane = and_(
            job.c.queue == bindparam("in_queue"),
            job.c.client == bindparam("of_client"),
            job.c.type == bindparam("of_type"),
            job.c.phase == bindparam("of_phase"),
        )
        # Two counts, each with its partial index: one query for "queued or processing" would read the whole table.
        working = select(func.count()).select_from(job).where(job.c.state == PROCESSING_LITERAL, of_lane).scalar_subquery()
        self._lane = select(
            func.count(case((due, 1))).label("due"), func.count(case((later, 1))).label("delayed"), working.label("processing")
        ).where(job.c.state == QUEUED_LITERAL, of_lane)
        self._queues = (
            select(
                job.c.queue,
                job.c.client,
                func.count(case((due, 1))).label("queued"),
                func.count(case((later, 1))).label("delayed"),
                func.count(case((job.c.state == states.PROCESSING, 1))).label("processing"),
                func.count(case((job.c.state == states.SUCCESS, 1))).label("success"),
                func.count(case((job.c.state == states.FAILURE, 1))).label("failure"),
                func.min(case((due, job.c.available_at))).label("oldest"),
            )
            .group_by(job.c.queue, job.c.client)
            .order_by(job.c.queue, job.c.client)
        )
        self._busy = select(job.c.queue).distinct().where(job.c.state == PROCESSING_LITERAL).order_by(job.c.queue)
        self._served = select(served.c.id).order_by(served.c.id)
        self._paused = select(pause.c.client, pause.c.until).where(
            pause.c.ended_at.is_(None), or_(pause.c.until.is_(None), pause.c.until > db.now)
        )
        self._now: Select[Any] = select(db.now.label("now"))

    def now(self) -> datetime:
        """Return the database's time."""
        with self._db.read() as connection:
            return _moment(connection.execute(self._now).scalar_one())

    def lane(self, lane: Lane) -> LaneView:
        """Return the number of unfinished jobs in one lane."""
        with self._db.read() as connection:
            row = connection.execute(self._lane, lane.parameters()).one()
        return LaneView(row.due, row.delayed, row.processing)

    def busy_queues(self) -> list[str]:
        """Return the queues that have jobs in processing. It reads only those jobs."""
        with self._db.read() as connection:
            return list(connection.execute(self._busy).scalars())

    def queues(self) -> list[QueueView]:
        """Return the counts of every queue that has or had jobs, or that a worker has served."""
        with self._db.read() as connection:
            rows = connection.execute(self._queues).all()
            paused = {row.client: row.until for row in connection.execute(self._paused)}
            now = _moment(connection.execute(self._now).scalar_one())
            by_queue: dict[str, list[Any]] = {name: [] for name in connection.execute(self._served).scalars()}
        for row in rows:
            by_queue.setdefault(row.queue, []).append(row)
        return [_queue_view(queue, by_queue[queue], paused, now) for queue in sorted(by_queue)]

    def jobs(self, wanted: Filter = Filter(), *, limit: int = 50) -> list[JobView]:  # noqa: B008  # it is frozen
        """Return jobs, the newest first.

        Args:
            wanted: which jobs.
            limit: the most jobs to return.
        """
        statement = select(*_JOB_COLUMNS).where(*wanted.conditions(self._db.dialect)).order_by(job.c.id.desc()).limit(limit)
        if wanted.ids is not None:
            statement = statement.where(job.c.id.in_([one for one in wanted.ids if one <= LARGEST_ID]))
        with self._db.read() as connection:
            return [JobView(*tuple(row)) for row in connection.execute(statement)]

    def job(self, job_id: int) -> JobDetail:
        """Return one job with its attempts.

        Raises:
            JobNotFound: there is none.
        """
        with self._db.read() as connection:
            row = connection.execute(select(job).where(job.c.id == min(job_id, LARGEST_ID))).one_or_none()
            if row is None:
                raise JobNotFound(f"no job has the id {job_id}")
            tries = connection.execute(select(attempt).where(attempt.c.job_id == job_id).order_by(attempt.c.id)).all()
            twin = connection.execute(
                select(job.c.id).where(
                    job.c.state == QUEUED_LITERAL,
                    job.c.queue == row.queue,
                    job.c.fingerprint == row.fingerprint,
                    job.c.fingerprint.is_not(None),
                    job.c.id != job_id,
                )
            ).scalar_one_or_none()
        waits = row.state == states.QUEUED and row.claim_no > 0
        return JobDetail(
            job=JobView(*(getattr(row, column.name) for column in _JOB_COLUMNS)),
            payload=row.payload,
            phase=row.phase,
            checkpoint_bytes=None if row.checkpoint is None else len(encode(row.checkpoint)),
            serial_key=row.serial_key,
            fingerprint=row.fingerprint,
            priority=row.priority,
            claim_no=row.claim_no,
            worker=row.worker,
            lease_until=row.lease_until,
            snoozes=row.snoozes,
            rescues=row.rescues,
            generation=row.generation,
            superseded_by=row.superseded_by,
            twin=twin,
            next_try_at=row.available_at if waits else None,
            attempts=[AttemptView(*(getattr(one, name) for name in AttemptView.__slots__)) for one in tries],
        )


_JOB_COLUMNS = (
    job.c.id,
    job.c.queue,
    job.c.client,
    job.c.type,
    job.c.key,
    job.c.state,
    job.c.attempts,
    job.c.retries,
    job.c.message,
    job.c.created_at,
    job.c.available_at,
    job.c.finished_at,
)


def _queue_view(queue: str, rows: list[Any], paused: dict[str, datetime | None], now: datetime) -> QueueView:
    ends = [paused[row.client] for row in rows if row.client in paused]
    oldest = min((row.oldest for row in rows if row.oldest is not None), default=None)
    return QueueView(
        queue=queue,
        clients=sorted(row.client for row in rows),
        queued=sum(row.queued for row in rows),
        delayed=sum(row.delayed for row in rows),
        processing=sum(row.processing for row in rows),
        success=sum(row.success for row in rows),
        failure=sum(row.failure for row in rows),
        paused_until=None if not ends or None in ends else max(end for end in ends if end is not None),
        paused=bool(ends),
        oldest_seconds=None if oldest is None else max(0.0, (now - oldest).total_seconds()),
    )


def _moment(found: Any) -> datetime:
    value = UTCDateTime().process_result_value(found, None)
    assert value is not None
    return value
