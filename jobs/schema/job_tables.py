"""Declares the tables of queues and jobs, and names the Core table of every model.

SQLModel declares the tables; the hot paths use the Core tables in batches, which is 5 to 13 times as fast.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, Float, Index, Integer, Text, text
from sqlmodel import Field

from jobs.schema import column_types as columns
from jobs.schema.client_tables import ClientRow, ListingRow, PaceRow, PauseRow, RecordRow, RunRow, TokenRow, ValidatorRow
from jobs.schema.column_types import ID_TYPE, Row, integer_column, json_column, partial_index, text_column, time_column
from jobs.schema.notice_tables import DeliveryRow, NoticeRow, OutboxMessageRow, UnreportedFailureRow
from jobs.schema.states import QUEUED, STATES

_DEFINED = ", ".join(f"'{state}'" for state in STATES)
# SQLite uses a partial index only if the statement contains the same literal.
_IS_QUEUED = "state = 'queued'"
_IS_PROCESSING = "state = 'processing'"
_IS_FAILURE = "state = 'failure'"


class QueueRow(Row, table=True):
    """A queue that a worker has served or that a job has waited in."""

    __tablename__ = "queue"

    id: str = Field(sa_column=Column(Text(), primary_key=True))
    lease: float = 60
    concurrency: int = 8
    time_limit: float = 90
    updated_at: datetime | None = time_column(nullable=False)
    #: Jobs in processing at once, over all workers; `None` without a limit.
    slots: int | None = Field(default=None, sa_column=Column(Integer()))
    #: At most so many starts in `rate_seconds`, over all workers.
    rate_n: int | None = Field(default=None, sa_column=Column(Integer()))
    rate_seconds: float | None = Field(default=None, sa_column=Column(Float()))
    #: Days that finished jobs stay; `None` keeps them.
    keep_success_days: float | None = Field(default=7, sa_column=Column(Float(), server_default="7"))
    keep_failure_days: float | None = Field(default=30, sa_column=Column(Float(), server_default="30"))
    keep_max_items: int | None = Field(default=None, sa_column=Column(Integer()))


class JobRow(Row, table=True):
    """One unit of work. The row is the source of truth; Prefect only displays it."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({_DEFINED})", name="job_state"),
        # For the claim: one lane (queue, client, type, phase), by priority, then by due time, then by arrival.
        partial_index(
            "job_ready",
            "queue",
            "client",
            "type",
            "phase",
            text("priority DESC"),
            "available_at",
            "id",
            where=_IS_QUEUED,
        ),
        # At most one queued job of a fingerprint. One in processing beside it is allowed, because what was queued later is newer.
        partial_index(
            "job_twin",
            "fingerprint",
            "queue",
            unique=True,
            where="state = 'queued' AND fingerprint IS NOT NULL",
        ),
        # Jobs of one serial key are processed in order of arrival, and never two at once.
        partial_index(
            "job_serial",
            "queue",
            "serial_key",
            "id",
            where="state = 'queued' AND serial_key IS NOT NULL",
        ),
        partial_index(
            "job_alone",
            "queue",
            "serial_key",
            unique=True,
            where="state = 'processing' AND serial_key IS NOT NULL",
        ),
        partial_index("job_lease", "queue", "lease_until", where=_IS_PROCESSING),
        # "state IN (…)" would mean the same and cost 4 µs more for each row that SQLite writes.
        partial_index(
            "job_finished",
            "finished_at",
            where="finished_at IS NOT NULL",
        ),
        # For an incremental run, which requeues entities that failed; the newest failure of each counts.
        partial_index("job_failed", "type", "key", "id", where=_IS_FAILURE),
        # Ids are never reused: a stale worker's (id, claim_no) must not match another job.
        {"sqlite_autoincrement": True},
    )

    #: Ascends in order of arrival.
    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    queue: str = text_column(nullable=False)
    client: str = text_column(nullable=False)
    #: The id of the sync or job type.
    type: str = text_column(nullable=False)
    #: The entity's key, for jobs of a sync.
    key: str | None = text_column()
    #: Equal for jobs of the same content; `None` if duplicates are not looked for.
    fingerprint: str | None = text_column()
    state: str = text_column(nullable=False, default=QUEUED)
    #: Higher is claimed first.
    priority: int = integer_column()
    #: Not claimed before this time.
    available_at: datetime | None = time_column(nullable=False)
    created_at: datetime | None = time_column(nullable=False)
    #: Start of the current or last attempt.
    started_at: datetime | None = time_column()
    finished_at: datetime | None = time_column()
    #: While processing: after this time any worker may rescue the job.
    lease_until: datetime | None = time_column()
    #: The process that claimed it last, see `jobs.process_identity`.
    worker: str | None = text_column()
    #: The fence: every claim adds one, and it never decreases.
    claim_no: int = integer_column()
    #: Attempts that counted; snoozes and rescues do not.
    attempts: int = integer_column()
    #: Attempts after the first.
    retries: int = integer_column()
    snoozes: int = integer_column()
    #: Times that the lease ended while a worker had the job, or that the worker died.
    rescues: int = integer_column()
    #: One line on the last outcome.
    message: str = text_column(nullable=False, default="")
    payload: Any = json_column()
    #: The phase it has reached; empty for job types without phases.
    phase: str = text_column(nullable=False, default="")
    #: What the job saved for its next attempt.
    checkpoint: Any = json_column()
    #: Jobs of one serial key are processed one after the other, in order of arrival.
    serial_key: str | None = text_column()
    #: The generation of the listing that queued it.
    generation: int | None = Field(default=None, sa_column=Column(Integer()))
    #: The queued job of the same fingerprint that replaced this one.
    superseded_by: int | None = Field(default=None, sa_column=Column(ID_TYPE))


class AttemptRow(Row, table=True):
    """One attempt at a job, written when it ended: by the worker, or by the process that rescued the job."""

    __tablename__ = "attempt"
    # No AUTOINCREMENT: nothing refers to an attempt, and `sqlite_sequence` would be one more page in each finish, the tenth.
    __table_args__ = (Index("attempt_job", "job_id"),)

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    job_id: int = Field(sa_column=Column(ID_TYPE, nullable=False))
    claim_no: int = integer_column()
    worker: str | None = text_column()
    started_at: datetime | None = time_column()
    ended_at: datetime | None = time_column(nullable=False)
    #: success, unchanged, gone, failure, retry, snooze, pause, phase, superseded, released, rescued, cancelled.
    outcome: str = text_column(nullable=False)
    error: str | None = text_column()
    traceback: str | None = text_column()
    phase: str = text_column(nullable=False, default="")
    #: The last exchanges with the remote side, `[{"request": …, "response": …}]`, and the `body` of a refusal, without secrets.
    exchanges: Any = json_column()


class StartRow(Row, table=True):
    """Starts of jobs in a queue with a rate limit, kept for the period of the rate."""

    __tablename__ = "start"
    __table_args__ = (Index("start_queue", "queue", "at"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    queue: str = text_column(nullable=False)
    at: datetime | None = time_column(nullable=False)
    count: int = integer_column()


class LockRow(Row, table=True):
    """A named lock, held now or in the past."""

    __tablename__ = "lock"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    owner: str = text_column(nullable=False)
    #: The fence: every acquisition adds one.
    token: int = integer_column()
    acquired_at: datetime | None = time_column(nullable=False)
    #: After this time anyone may acquire it; `None` when it was released.
    lease_until: datetime | None = time_column()


class MaintenanceRow(Row, table=True):
    """When a maintenance task is next due; the process that advances this time does the task."""

    __tablename__ = "maintenance"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    next_at: datetime | None = time_column(nullable=False)


class ProjectRow(Row, table=True):
    """The project to which the database belongs: one row, or none while nobody with a name has opened it."""

    __tablename__ = "sync_clients_project"
    __table_args__ = (CheckConstraint("id = 1", name="sync_clients_project_one"),)

    id: int = Field(sa_column=Column(Integer(), primary_key=True, autoincrement=False))
    name: str = text_column(nullable=False)


queue = QueueRow.__table__
job = JobRow.__table__
attempt = AttemptRow.__table__
start = StartRow.__table__
lock = LockRow.__table__
maintenance = MaintenanceRow.__table__
project = ProjectRow.__table__
client = ClientRow.__table__
pause = PauseRow.__table__
pace = PaceRow.__table__
listing = ListingRow.__table__
run = RunRow.__table__
record = RecordRow.__table__
validator = ValidatorRow.__table__
token = TokenRow.__table__
unreported_failure = UnreportedFailureRow.__table__
notice = NoticeRow.__table__
outbox_message = OutboxMessageRow.__table__
delivery = DeliveryRow.__table__
metadata = columns.metadata
