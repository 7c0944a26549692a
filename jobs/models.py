"""The tables. SQLModel describes them; the hot paths speak Core to `SomeRow.__table__` (law 12). Knows no query."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, Float, Index, Integer, Text, text
from sqlmodel import Field

from jobs import columns
from jobs.client_models import ClientRow, ListingRow, PauseRow, RecordRow, TokenRow, ValidatorRow
from jobs.columns import BIG, Row, document, moment, number, words
from jobs.notice_models import DeliveryRow, LetterRow, NewsRow, NoticeRow

QUEUED, PROCESSING, SUCCESS, FAILURE = "queued", "processing", "success", "failure"
SUPERSEDED, CANCELLED = "superseded", "cancelled"
STATES = (QUEUED, PROCESSING, SUCCESS, FAILURE, SUPERSEDED, CANCELLED)
FINISHED = (SUCCESS, FAILURE, SUPERSEDED, CANCELLED)

_DEFINED = ", ".join(f"'{state}'" for state in STATES)
# SQLite's planner proves a partial index only against a literal, so the same text stands in every statement (M3).
_IS_QUEUED = text("state = 'queued'")
_IS_PROCESSING = text("state = 'processing'")
_IS_FAILURE = text("state = 'failure'")


class QueueRow(Row, table=True):
    """A queue that some worker has served or some job has waited in."""

    __tablename__ = "queue"

    id: str = Field(sa_column=Column(Text(), primary_key=True))
    lease: float = 60
    concurrency: int = 8
    time_limit: float = 90
    updated_at: datetime | None = moment(nullable=False)
    #: Jobs in processing at once, over all workers; `None` for a queue that nobody declared.
    slots: int | None = Field(default=None, sa_column=Column(Integer()))
    #: At most so many starts in `rate_seconds`, over all workers.
    rate_n: int | None = Field(default=None, sa_column=Column(Integer()))
    rate_seconds: float | None = Field(default=None, sa_column=Column(Float()))
    #: Days that finished jobs stay; `None` keeps them.
    keep_success_days: float | None = Field(default=7, sa_column=Column(Float(), server_default="7"))
    keep_failure_days: float | None = Field(default=30, sa_column=Column(Float(), server_default="30"))
    keep_max_items: int | None = Field(default=None, sa_column=Column(Integer()))


class JobRow(Row, table=True):
    """One unit of work. The row is the truth (law 1)."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({_DEFINED})", name="job_state"),
        # The claim: one lane (queue, client, type, phase), urgent first, then due first, then first come.
        Index(
            "job_ready", "queue", "client", "type", "phase", text("priority DESC"), "available_at", "id",
            sqlite_where=_IS_QUEUED, postgresql_where=_IS_QUEUED,
        ),
        # At most one queued job of one content (M2); one in processing beside it is allowed (law 11).
        Index(
            "job_twin", "fingerprint", "queue", unique=True,
            sqlite_where=text("state = 'queued' AND fingerprint IS NOT NULL"),
            postgresql_where=text("state = 'queued' AND fingerprint IS NOT NULL"),
        ),
        # Jobs of one serial key: in the order they came, and never two in processing (M11).
        Index(
            "job_serial", "queue", "serial_key", "id",
            sqlite_where=text("state = 'queued' AND serial_key IS NOT NULL"),
            postgresql_where=text("state = 'queued' AND serial_key IS NOT NULL"),
        ),
        Index(
            "job_alone", "queue", "serial_key", unique=True,
            sqlite_where=text("state = 'processing' AND serial_key IS NOT NULL"),
            postgresql_where=text("state = 'processing' AND serial_key IS NOT NULL"),
        ),
        Index("job_lease", "queue", "lease_until", sqlite_where=_IS_PROCESSING, postgresql_where=_IS_PROCESSING),
        # "state IN (…)" would say the same and cost 4 µs more for each row that SQLite writes.
        Index(
            "job_finished", "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"), postgresql_where=text("finished_at IS NOT NULL"),
        ),
        # An incremental run asks for the entities again that failed; the newest failure of each counts.
        Index("job_failed", "type", "key", "id", sqlite_where=_IS_FAILURE, postgresql_where=_IS_FAILURE),
        # An id is never used again: a stale worker's (id, claim_no) must not fit another job.
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    #: Ascending in order of arrival.
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    queue: str = words(nullable=False)
    client: str = words(nullable=False)
    #: The id of the sync or job type.
    type: str = words(nullable=False)
    #: The entity's key, for jobs of a sync.
    key: str | None = words()
    #: Identity of the content; without one every job is its own.
    fingerprint: str | None = words()
    state: str = words(nullable=False, default=QUEUED)
    #: Higher goes first.
    priority: int = number()
    #: Not claimed before this moment.
    available_at: datetime | None = moment(nullable=False)
    created_at: datetime | None = moment(nullable=False)
    #: Start of the present or last attempt.
    started_at: datetime | None = moment()
    finished_at: datetime | None = moment()
    #: While processing: after this moment anyone may take the job back.
    lease_until: datetime | None = moment()
    #: The process that has or had it, see `jobs.worker`.
    worker: str | None = words()
    #: The fence: every claim adds one, nothing ever takes one away (M1).
    claim_no: int = number()
    #: Attempts that counted; snoozes and rescues do not.
    attempts: int = number()
    #: Attempts after the first.
    retries: int = number()
    snoozes: int = number()
    #: Times that a worker died or went silent with this job in hand.
    rescues: int = number()
    #: One line on the last outcome.
    message: str = words(nullable=False, default="")
    payload: Any = document()
    #: Of a job type with phases: the one it has reached; empty for all others.
    phase: str = words(nullable=False, default="")
    #: What the job noted for its next attempt.
    checkpoint: Any = document()
    #: Jobs of one serial key are worked one after the other, in the order they came.
    serial_key: str | None = words()
    #: The listing that asked for it.
    generation: int | None = Field(default=None, sa_column=Column(Integer()))
    #: The queued twin that this job gave way to.
    superseded_by: int | None = Field(default=None, sa_column=Column(BIG))


class AttemptRow(Row, table=True):
    """One try at a job, written when it ended: by the worker, or by whoever rescued the job."""

    __tablename__ = "attempt"
    # No AUTOINCREMENT: nothing refers to an attempt, and the page of `sqlite_sequence` was one of ten that a finish writes.
    __table_args__ = (Index("attempt_job", "job_id"),)

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    job_id: int = Field(sa_column=Column(BIG, nullable=False))
    claim_no: int = number()
    worker: str | None = words()
    started_at: datetime | None = moment()
    ended_at: datetime | None = moment(nullable=False)
    #: success, unchanged, gone, failure, retry, snooze, pause, phase, superseded, released, rescued, cancelled.
    outcome: str = words(nullable=False)
    error: str | None = words()
    traceback: str | None = words()
    phase: str = words(nullable=False, default="")
    #: The last exchanges with the remote side, `[{"request": …, "response": …}]`, without secrets.
    exchanges: Any = document()


class StartRow(Row, table=True):
    """Starts in a queue with a rate, kept as long as the rate looks back."""

    __tablename__ = "start"
    __table_args__ = (Index("start_queue", "queue", "at"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    queue: str = words(nullable=False)
    at: datetime | None = moment(nullable=False)
    count: int = number()


class LockRow(Row, table=True):
    """A named lock, held or once held."""

    __tablename__ = "lock"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    owner: str = words(nullable=False)
    #: The fence: every acquisition adds one.
    token: int = number()
    acquired_at: datetime | None = moment(nullable=False)
    #: After this moment anyone may take it; `None` when it was released.
    lease_until: datetime | None = moment()


class MaintenanceRow(Row, table=True):
    """When a piece of maintenance is next due; whoever moves the time on does it (M14)."""

    __tablename__ = "maintenance"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    next_at: datetime | None = moment(nullable=False)


queue = QueueRow.__table__
job = JobRow.__table__
attempt = AttemptRow.__table__
start = StartRow.__table__
lock = LockRow.__table__
maintenance = MaintenanceRow.__table__
client = ClientRow.__table__
pause = PauseRow.__table__
listing = ListingRow.__table__
record = RecordRow.__table__
validator = ValidatorRow.__table__
token = TokenRow.__table__
news = NewsRow.__table__
notice = NoticeRow.__table__
letter = LetterRow.__table__
delivery = DeliveryRow.__table__
metadata = columns.metadata
