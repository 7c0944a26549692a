"""The tables. SQLModel describes them; the hot paths speak Core to `SomeRow.__table__` (law 12). Knows no query."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Boolean, CheckConstraint, Column, Float, Index, Integer, Table, Text, false, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from jobs.clock import UTCDateTime

QUEUED, PROCESSING, SUCCESS, FAILURE = "queued", "processing", "success", "failure"
SUPERSEDED, CANCELLED = "superseded", "cancelled"
STATES = (QUEUED, PROCESSING, SUCCESS, FAILURE, SUPERSEDED, CANCELLED)
FINISHED = (SUCCESS, FAILURE, SUPERSEDED, CANCELLED)

_BIG = BigInteger().with_variant(Integer(), "sqlite")
_DEFINED = ", ".join(f"'{state}'" for state in STATES)
# SQLite's planner proves a partial index only against a literal, so the same text stands in every statement (M3).
_IS_QUEUED = text("state = 'queued'")
_IS_PROCESSING = text("state = 'processing'")
_IS_FAILURE = text("state = 'failure'")


def _moment(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(UTCDateTime(), nullable=nullable))


def _text(*, nullable: bool = True, default: str | None = None) -> Any:
    return Field(default=default, sa_column=Column(Text(), nullable=nullable, server_default=default))


def _count() -> Any:
    return Field(default=0, sa_column=Column(Integer(), nullable=False, server_default="0"))


def _json() -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True)))


# A registry of our own: people's tables may be SQLModel too, and may be called `job`.
_registry = registry()


class Row(SQLModel, registry=_registry):
    """What the tables share: access to the Core table."""

    __table__: ClassVar[Table]


class QueueRow(Row, table=True):
    """A queue that some worker has served or some job has waited in."""

    __tablename__ = "queue"

    id: str = Field(sa_column=Column(Text(), primary_key=True))
    lease: float = 60
    concurrency: int = 8
    time_limit: float = 90
    updated_at: datetime | None = _moment(nullable=False)
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
    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    queue: str = _text(nullable=False)
    client: str = _text(nullable=False)
    #: The id of the sync or job type.
    type: str = _text(nullable=False)
    #: The entity's key, for jobs of a sync.
    key: str | None = _text()
    #: Identity of the content; without one every job is its own.
    fingerprint: str | None = _text()
    state: str = _text(nullable=False, default=QUEUED)
    #: Higher goes first.
    priority: int = _count()
    #: Not claimed before this moment.
    available_at: datetime | None = _moment(nullable=False)
    created_at: datetime | None = _moment(nullable=False)
    #: Start of the present or last attempt.
    started_at: datetime | None = _moment()
    finished_at: datetime | None = _moment()
    #: While processing: after this moment anyone may take the job back.
    lease_until: datetime | None = _moment()
    #: The process that has or had it, see `jobs.worker`.
    worker: str | None = _text()
    #: The fence: every claim adds one, nothing ever takes one away (M1).
    claim_no: int = _count()
    #: Attempts that counted; snoozes and rescues do not.
    attempts: int = _count()
    #: Attempts after the first.
    retries: int = _count()
    snoozes: int = _count()
    #: Times that a worker died or went silent with this job in hand.
    rescues: int = _count()
    #: One line on the last outcome.
    message: str = _text(nullable=False, default="")
    payload: Any = _json()
    #: Of a job type with phases: the one it has reached; empty for all others.
    phase: str = _text(nullable=False, default="")
    #: What the job noted for its next attempt.
    checkpoint: Any = _json()
    #: Jobs of one serial key are worked one after the other, in the order they came.
    serial_key: str | None = _text()
    #: The listing that asked for it.
    generation: int | None = Field(default=None, sa_column=Column(Integer()))
    #: The queued twin that this job gave way to.
    superseded_by: int | None = Field(default=None, sa_column=Column(_BIG))


class AttemptRow(Row, table=True):
    """One try at a job, written when it ended: by the worker, or by whoever rescued the job."""

    __tablename__ = "attempt"
    # No AUTOINCREMENT: nothing refers to an attempt, and the page of `sqlite_sequence` was one of ten that a finish writes.
    __table_args__ = (Index("attempt_job", "job_id"),)

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    job_id: int = Field(sa_column=Column(_BIG, nullable=False))
    claim_no: int = _count()
    worker: str | None = _text()
    started_at: datetime | None = _moment()
    ended_at: datetime | None = _moment(nullable=False)
    #: success, unchanged, gone, failure, retry, snooze, pause, phase, superseded, released, rescued, cancelled.
    outcome: str = _text(nullable=False)
    error: str | None = _text()
    traceback: str | None = _text()
    phase: str = _text(nullable=False, default="")
    #: The last exchanges with the remote side, `[{"request": …, "response": …}]`, without secrets.
    exchanges: Any = _json()


class StartRow(Row, table=True):
    """Starts in a queue with a rate, kept as long as the rate looks back."""

    __tablename__ = "start"
    __table_args__ = (Index("start_queue", "queue", "at"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    queue: str = _text(nullable=False)
    at: datetime | None = _moment(nullable=False)
    count: int = _count()


class LockRow(Row, table=True):
    """A named lock, held or once held."""

    __tablename__ = "lock"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    owner: str = _text(nullable=False)
    #: The fence: every acquisition adds one.
    token: int = _count()
    acquired_at: datetime | None = _moment(nullable=False)
    #: After this moment anyone may take it; `None` when it was released.
    lease_until: datetime | None = _moment()


class MaintenanceRow(Row, table=True):
    """When a piece of maintenance is next due; whoever moves the time on does it (M14)."""

    __tablename__ = "maintenance"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    next_at: datetime | None = _moment(nullable=False)


class ClientRow(Row, table=True):
    """How a client is doing: what the next pause depends on."""

    __tablename__ = "client"

    id: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Generic errors since the last success.
    errors: int = _count()
    #: How many pauses deep it is in trouble: the index into the durations. A good probe takes one off, a success after it all.
    level: int = _count()
    #: Every pause, resume and reopening adds one, so that a late answer cannot undo what a person did (law 5).
    generation: int = _count()
    #: The last pause that went into a notice.
    told: int = Field(default=0, sa_column=Column(_BIG, nullable=False, server_default="0"))


class PauseRow(Row, table=True):
    """One pause of a client, present or past. The claim reads it (law 5).

    While it is open, ordinary claims leave the client alone, also after `until`: then a probe goes first, and ends it.
    """

    __tablename__ = "pause"
    __table_args__ = (
        Index(
            "pause_open", "client", unique=True,
            sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL"),
        ),
        # One client's history, and what of it nobody was told yet.
        Index("pause_of", "client", "id"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    client: str = _text(nullable=False)
    #: level, enforced, asked (the API's own word), person, window.
    cause: str = _text(nullable=False)
    reason: str = _text(nullable=False, default="")
    set_by: str | None = _text()
    level: int = _count()
    started_at: datetime | None = _moment(nullable=False)
    #: The end, by the clock; `None` waits for a person.
    until: datetime | None = _moment()
    ended_at: datetime | None = _moment()
    #: `probe` where that went well, a person, or the cause of the pause that took its place.
    ended_by: str | None = _text()
    #: Probes that were begun; the number of the present one is its fence.
    probes: int = _count()
    #: Who probes, and how long others wait for that; `None` when nobody does.
    probe_by: str | None = _text()
    probe_until: datetime | None = _moment()


class ListingRow(Row, table=True):
    """How far a sync's listing has come, and which process runs the sync."""

    __tablename__ = "listing"

    sync: str = Field(sa_column=Column(Text(), primary_key=True))
    client: str = _text(nullable=False)
    #: Each complete pass over the remote side has its number; records carry the last one that saw them.
    generation: int = _count()
    #: listing or complete.
    state: str = _text(nullable=False)
    #: What the paginator resumes from; moves in the transaction of its page (law 2).
    cursor: Any = _json()
    #: Whether it queues every entity, changed or not; counts for a resumed listing too.
    is_full: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    #: High-water mark of the last complete listing, `{"of": field, "value": …}`.
    mark: Any = _json()
    #: What the present listing has shown so far of that field; becomes the mark when it is complete.
    next_mark: Any = _json()
    #: Whether it asks only for what is new: such a listing never deletes.
    is_filtered: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    #: Listed items that could not become entities or were left for later: then nothing is deleted.
    flawed: int = _count()
    pages: int = _count()
    listed: int = _count()
    #: The fence, as on a job.
    claim_no: int = _count()
    worker: str | None = _text()
    lease_until: datetime | None = _moment()
    started_at: datetime | None = _moment(nullable=False)
    updated_at: datetime | None = _moment(nullable=False)
    completed_at: datetime | None = _moment()


class RecordRow(Row, table=True):
    """What we know of one entity: the mirror of its data and the ledger of its last success and error."""

    __tablename__ = "record"

    sync: str = Field(sa_column=Column(Text(), primary_key=True))
    key: str = Field(sa_column=Column(Text(), primary_key=True))
    version: str | None = _text()
    #: SHA-256 over the canonical JSON, first 128 bits.
    content_hash: str | None = _text()
    #: The record, where the sync has no `save` of its own.
    data: Any = _json()
    generation: int = _count()
    #: The job that wrote it last; an older one, slow on its way, no longer may.
    job_id: int | None = Field(default=None, sa_column=Column(_BIG))
    #: The listing that asked for that job. A job that was asked for by a later listing is newer, whatever its id.
    job_generation: int = _count()
    first_seen_at: datetime | None = _moment(nullable=False)
    changed_at: datetime | None = _moment()
    synced_at: datetime | None = _moment()
    deleted_at: datetime | None = _moment()
    last_error: str | None = _text()
    last_error_at: datetime | None = _moment()
    #: The version that killed its workers: not queued again until it changes, or a full run asks for it.
    is_poison: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    poison_version: str | None = _text()


class ValidatorRow(Row, table=True):
    """What a server said about the version of an answer whose content is stored: for conditional requests."""

    __tablename__ = "validator"
    __table_args__ = (Index("validator_entity", "sync", "key"),)

    client: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Who asked: answers to one sign-in are nobody else's.
    identity: str = Field(sa_column=Column(Text(), primary_key=True))
    method: str = Field(sa_column=Column(Text(), primary_key=True))
    url: str = Field(sa_column=Column(Text(), primary_key=True))
    etag: str | None = _text()
    last_modified: str | None = _text()
    #: The entity whose record holds the content.
    sync: str | None = _text()
    key: str | None = _text()
    stored_at: datetime | None = _moment(nullable=False)


class TokenRow(Row, table=True):
    """A token that the remote side replaces with each use, sealed with a key that the database does not hold (law 9)."""

    __tablename__ = "token"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    sealed: str = _text(nullable=False)
    version: int = _count()
    updated_at: datetime | None = _moment(nullable=False)


class NewsRow(Row, table=True):
    """A job or a listing that has failed and of which nobody was told; written by what failed it, gone when it is told."""

    __tablename__ = "news"

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    client: str = _text(nullable=False)
    type: str = _text(nullable=False)
    job_id: int = Field(sa_column=Column(_BIG, nullable=False))
    key: str | None = _text()
    message: str = _text(nullable=False, default="")
    at: datetime | None = _moment(nullable=False)


class NoticeRow(Row, table=True):
    """One piece of trouble that people are told of, from its beginning to its end. No secret and no payload: keys only."""

    __tablename__ = "notice"
    __table_args__ = (
        Index(
            "notice_open", "client", "subject", unique=True,
            sqlite_where=text("closed_at IS NULL"), postgresql_where=text("closed_at IS NULL"),
        ),
        Index("notice_last", "client", "subject", "closed_at"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    client: str = _text(nullable=False)
    #: The sync or job type; empty for the client as a whole.
    subject: str = _text(nullable=False, default="")
    #: api or processing.
    kind: str = _text(nullable=False)
    #: notice, warning or error: the highest so far.
    level: str = _text(nullable=False)
    #: What happened so far: `[{"cause", "text", "count", "keys", "told"}]`.
    causes: Any = _json()
    #: Pauses, failed runs or failed jobs so far, and how many of them people were told of.
    count: int = _count()
    told_count: int = _count()
    #: Letters since `window_at`, the beginning of the present window.
    letters: int = _count()
    #: What else its letters say.
    facts: Any = _json()
    #: It came back too often: only digests tell of it.
    is_muted: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    opened_at: datetime | None = _moment(nullable=False)
    updated_at: datetime | None = _moment(nullable=False)
    window_at: datetime | None = _moment(nullable=False)
    told_at: datetime | None = _moment()
    closed_at: datetime | None = _moment()
    closed_by: str | None = _text()


class LetterRow(Row, table=True):
    """One text about a notice, stored before it is sent."""

    __tablename__ = "letter"
    __table_args__ = (Index("letter_notice", "notice"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    notice: int = Field(sa_column=Column(_BIG, nullable=False))
    client: str = _text(nullable=False)
    #: opened, more (another cause, or a higher level), digest or recovered.
    what: str = _text(nullable=False)
    event: str = _text(nullable=False)
    level: str = _text(nullable=False)
    subject: str = _text(nullable=False)
    body: str = _text(nullable=False)
    #: What machines may want to know.
    data: Any = _json()
    created_at: datetime | None = _moment(nullable=False)


class DeliveryRow(Row, table=True):
    """A letter on its way to one recipient."""

    __tablename__ = "delivery"
    __table_args__ = (
        Index(
            "delivery_due", "next_at", "letter",
            sqlite_where=text("state = 'waiting'"), postgresql_where=text("state = 'waiting'"),
        ),
        Index("delivery_letter", "letter"),
        {"sqlite_autoincrement": True},
    )  # fmt: skip

    id: int | None = Field(default=None, sa_column=Column(_BIG, primary_key=True, autoincrement=True))
    letter: int = Field(sa_column=Column(_BIG, nullable=False))
    notice: int = Field(sa_column=Column(_BIG, nullable=False))
    #: Fingerprint of the recipient, who may hold a secret: found again in the declaration when it is sent.
    recipient: str = _text(nullable=False)
    #: What people may see of the recipient.
    masked: str = _text(nullable=False)
    #: waiting, sent, or failed: given up.
    state: str = _text(nullable=False, default="waiting")
    attempts: int = _count()
    #: The fence, as on a job.
    claim_no: int = _count()
    next_at: datetime | None = _moment(nullable=False)
    #: While it is being sent: after this moment anyone may.
    lease_until: datetime | None = _moment()
    created_at: datetime | None = _moment(nullable=False)
    sent_at: datetime | None = _moment()
    #: Who took it: `direct`, or the name of a carrier.
    via: str | None = _text()
    error: str | None = _text()


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
metadata = _registry.metadata
