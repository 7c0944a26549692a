"""Declares the tables of clients, pauses, paces, listings, runs, records, ETags and OAuth tokens."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Float, Index, Integer, Text, false
from sqlmodel import Field

from jobs.schema.column_types import (
    ID_TYPE,
    Row,
    document_column,
    integer_column,
    json_column,
    partial_index,
    text_column,
    time_column,
)


class ClientRow(Row, table=True):
    """The errors of a client, which decide about its next pause."""

    __tablename__ = "client"

    id: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Generic errors since the last success.
    errors: int = integer_column()
    #: Pauses in a row: the index into the durations of pauses. A successful probe subtracts one, a success after it resets it.
    level: int = integer_column()
    #: Every pause, resume and reopening adds one, so that a late answer cannot undo what a person did.
    generation: int = integer_column()
    #: The last pause that a notice includes.
    told: int = Field(default=0, sa_column=Column(ID_TYPE, nullable=False, server_default="0"))


class PauseRow(Row, table=True):
    """One pause of a client, open or ended. The claim reads it.

    While it is open, ordinary claims skip the client. After `until` a probe goes first, and ends the pause if it succeeds.
    """

    __tablename__ = "pause"
    __table_args__ = (
        partial_index(
            "pause_open",
            "client",
            unique=True,
            where="ended_at IS NULL",
        ),
        # For the history of a client, and its pauses that no notice includes yet.
        Index("pause_of", "client", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    client: str = text_column(nullable=False)
    #: level, enforced, asked (by the API itself), person, window.
    cause: str = text_column(nullable=False)
    reason: str = text_column(nullable=False, default="")
    set_by: str | None = text_column()
    level: int = integer_column()
    started_at: datetime | None = time_column(nullable=False)
    #: When it ends by the clock; `None` waits for a person.
    until: datetime | None = time_column()
    ended_at: datetime | None = time_column()
    #: `probe` if that succeeded, a person, or the cause of the pause that replaced it.
    ended_by: str | None = text_column()
    #: Probes that were begun; the number of the current one is its fence.
    probes: int = integer_column()
    #: The process that probes, and until when others wait for it; `None` if none does.
    probe_by: str | None = text_column()
    probe_until: datetime | None = time_column()


class PaceRow(Row, table=True):
    """How fast one process may send requests to an origin of a client, as it knows; of those that use it at the same time."""

    __tablename__ = "pace"

    client: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Scheme, host and port.
    origin: str = Field(sa_column=Column(Text(), primary_key=True))
    worker: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Requests per second that it may send beside the others, learned from refusals; `None` if that is not known.
    rate: float | None = Field(default=None, sa_column=Column(Float()))
    #: When it was measured.
    measured_at: datetime | None = time_column()
    seen_at: datetime | None = time_column(nullable=False)


class ListingRow(Row, table=True):
    """The progress of a sync's listing, and the process that runs the sync."""

    __tablename__ = "listing"

    sync: str = Field(sa_column=Column(Text(), primary_key=True))
    client: str = text_column(nullable=False)
    #: The number of the pass over the remote side; a record has the number of the last pass that showed it.
    generation: int = integer_column()
    #: listing, complete, or abandoned: nothing continues it.
    state: str = text_column(nullable=False)
    #: When its pass began.
    began_at: datetime | None = time_column()
    #: A digest of the declaration that it lists by; another one begins a new pass.
    declaration: str | None = text_column()
    #: Tries in a row without a page behind the cursor, because of generic trouble.
    failures: int = integer_column()
    #: Times that it went back to the first page in its pass.
    restarts: int = integer_column()
    #: Where the paginator resumes; changes in the transaction of the page.
    cursor: Any = json_column()
    #: Whether it queues every entity, changed or not; also for the rest of an interrupted listing.
    is_full: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    #: High-water mark of the last complete listing, `{"of": field, "value": …}`.
    mark: Any = json_column()
    #: The highest value of that field in the current listing so far; becomes the mark when it is complete.
    next_mark: Any = json_column()
    #: Whether it asks only for changed entities: such a listing never deletes.
    is_filtered: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    #: Listed items that could not become entities or were skipped: then nothing is deleted.
    flawed: int = integer_column()
    pages: int = integer_column()
    listed: int = integer_column()
    #: The fence, as on a job.
    claim_no: int = integer_column()
    worker: str | None = text_column()
    lease_until: datetime | None = time_column()
    started_at: datetime | None = time_column(nullable=False)
    updated_at: datetime | None = time_column(nullable=False)
    completed_at: datetime | None = time_column()


class RunRow(Row, table=True):
    """One run of a sync, whatever started it; written when it begins and when it ends. Dry runs have none."""

    __tablename__ = "run"
    __table_args__ = (
        Index("run_of", "sync", "id"),
        # For the last success of a sync that has failed a thousand times since.
        partial_index("run_whole", "sync", "id", where="state = 'success' AND stopped = 'end'"),
        partial_index("run_open", "sync", where="state = 'running'"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(ID_TYPE, primary_key=True, autoincrement=True))
    sync: str = text_column(nullable=False)
    client: str = text_column(nullable=False)
    #: Its `keep` says how long the run is kept.
    queue: str = text_column(nullable=False)
    #: running, success, partial, failed, paused, skipped, or interrupted: its process ended without a result.
    state: str = text_column(nullable=False)
    #: Why its listing ended; `None` while it runs.
    stopped: str | None = text_column()
    #: hand, prefect, work (which continues listings) or python.
    started_by: str = text_column(nullable=False)
    #: The id of its Prefect flow run.
    flow_run: str | None = text_column()
    #: The process that runs it, see `jobs.process_identity`.
    worker: str = text_column(nullable=False)
    #: Until then its process is believed to live, where nothing else tells: it waits for a pause or for its turn.
    alive_until: datetime | None = time_column(nullable=False)
    #: The claim of its listing; the lease of that tells that its process lives.
    claim_no: int | None = Field(default=None, sa_column=Column(Integer()))
    started_at: datetime | None = time_column(nullable=False)
    ended_at: datetime | None = time_column()
    pages: int = integer_column()
    listed: int = integer_column()
    queued: int = integer_column()
    succeeded: int = integer_column()
    unchanged: int = integer_column()
    gone: int = integer_column()
    failed: int = integer_column()
    deleted: int = integer_column()
    message: str = text_column(nullable=False, default="")


class RecordRow(Row, table=True):
    """What is known of one entity: its data, and its last success and error."""

    __tablename__ = "record"
    __table_args__ = (
        # To count the records of a sync, 1,000,000 in 60 ms. Their conditions name no column that a run changes in each record:
        # on PostgreSQL such an update would write all indexes anew.
        partial_index("record_live", "sync", where="deleted_at IS NULL"),
        partial_index("record_failing", "sync", "key", where="last_error IS NOT NULL AND deleted_at IS NULL"),
    )

    sync: str = Field(sa_column=Column(Text(), primary_key=True))
    key: str = Field(sa_column=Column(Text(), primary_key=True))
    version: str | None = text_column()
    #: SHA-256 over the canonical JSON, first 128 bits.
    content_hash: str | None = text_column()
    #: The record, where the sync has no `save` of its own.
    data: Any = document_column()
    #: The primary keys of its rows in typed tables, `{table: [values]}`; NULL where the key tells them.
    row_key: str | None = text_column()
    generation: int = integer_column()
    #: The job that wrote it last; an older job that finishes later must not.
    job_id: int | None = Field(default=None, sa_column=Column(ID_TYPE))
    #: The generation of the listing that queued that job. A job of a later listing is newer, whatever its id.
    job_generation: int = integer_column()
    first_seen_at: datetime | None = time_column(nullable=False)
    changed_at: datetime | None = time_column()
    synced_at: datetime | None = time_column()
    deleted_at: datetime | None = time_column()
    last_error: str | None = text_column()
    last_error_at: datetime | None = time_column()
    #: Whether `poison_version` killed its workers: it is not queued again until it changes, or in a full run.
    is_poison: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    poison_version: str | None = text_column()


class ValidatorRow(Row, table=True):
    """The validators of an HTTP response whose content is stored, for conditional requests."""

    __tablename__ = "validator"
    __table_args__ = (Index("validator_entity", "sync", "key"),)

    client: str = Field(sa_column=Column(Text(), primary_key=True))
    #: The sign-in of the request: a response must not be reused for another one.
    identity: str = Field(sa_column=Column(Text(), primary_key=True))
    method: str = Field(sa_column=Column(Text(), primary_key=True))
    url: str = Field(sa_column=Column(Text(), primary_key=True))
    etag: str | None = text_column()
    last_modified: str | None = text_column()
    #: The entity whose record holds the content.
    sync: str | None = text_column()
    key: str | None = text_column()
    stored_at: datetime | None = time_column(nullable=False)


class TokenRow(Row, table=True):
    """An OAuth token that the remote side replaces with each use, encrypted with a key that is not in the database."""

    __tablename__ = "token"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    sealed: str = text_column(nullable=False)
    version: int = integer_column()
    updated_at: datetime | None = time_column(nullable=False)
