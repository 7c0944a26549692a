"""The tables of clients and of what they list: pauses, listings, records, validators, tokens. Knows no query."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Index, Text, false, text
from sqlmodel import Field

from jobs.columns import BIG, Row, document, moment, number, words


class ClientRow(Row, table=True):
    """How a client is doing: what the next pause depends on."""

    __tablename__ = "client"

    id: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Generic errors since the last success.
    errors: int = number()
    #: How many pauses deep it is in trouble: the index into the durations. A good probe takes one off, a success after it all.
    level: int = number()
    #: Every pause, resume and reopening adds one, so that a late answer cannot undo what a person did (law 5).
    generation: int = number()
    #: The last pause that went into a notice.
    told: int = Field(default=0, sa_column=Column(BIG, nullable=False, server_default="0"))


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

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    client: str = words(nullable=False)
    #: level, enforced, asked (the API's own word), person, window.
    cause: str = words(nullable=False)
    reason: str = words(nullable=False, default="")
    set_by: str | None = words()
    level: int = number()
    started_at: datetime | None = moment(nullable=False)
    #: The end, by the clock; `None` waits for a person.
    until: datetime | None = moment()
    ended_at: datetime | None = moment()
    #: `probe` where that went well, a person, or the cause of the pause that took its place.
    ended_by: str | None = words()
    #: Probes that were begun; the number of the present one is its fence.
    probes: int = number()
    #: Who probes, and how long others wait for that; `None` when nobody does.
    probe_by: str | None = words()
    probe_until: datetime | None = moment()


class ListingRow(Row, table=True):
    """How far a sync's listing has come, and which process runs the sync."""

    __tablename__ = "listing"

    sync: str = Field(sa_column=Column(Text(), primary_key=True))
    client: str = words(nullable=False)
    #: Each complete pass over the remote side has its number; records carry the last one that saw them.
    generation: int = number()
    #: listing or complete.
    state: str = words(nullable=False)
    #: What the paginator resumes from; moves in the transaction of its page (law 2).
    cursor: Any = document()
    #: Whether it queues every entity, changed or not; counts for a resumed listing too.
    is_full: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    #: High-water mark of the last complete listing, `{"of": field, "value": …}`.
    mark: Any = document()
    #: What the present listing has shown so far of that field; becomes the mark when it is complete.
    next_mark: Any = document()
    #: Whether it asks only for what is new: such a listing never deletes.
    is_filtered: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    #: Listed items that could not become entities or were left for later: then nothing is deleted.
    flawed: int = number()
    pages: int = number()
    listed: int = number()
    #: The fence, as on a job.
    claim_no: int = number()
    worker: str | None = words()
    lease_until: datetime | None = moment()
    started_at: datetime | None = moment(nullable=False)
    updated_at: datetime | None = moment(nullable=False)
    completed_at: datetime | None = moment()


class RecordRow(Row, table=True):
    """What we know of one entity: the mirror of its data and the ledger of its last success and error."""

    __tablename__ = "record"

    sync: str = Field(sa_column=Column(Text(), primary_key=True))
    key: str = Field(sa_column=Column(Text(), primary_key=True))
    version: str | None = words()
    #: SHA-256 over the canonical JSON, first 128 bits.
    content_hash: str | None = words()
    #: The record, where the sync has no `save` of its own.
    data: Any = document()
    generation: int = number()
    #: The job that wrote it last; an older one, slow on its way, no longer may.
    job_id: int | None = Field(default=None, sa_column=Column(BIG))
    #: The listing that asked for that job. A job that was asked for by a later listing is newer, whatever its id.
    job_generation: int = number()
    first_seen_at: datetime | None = moment(nullable=False)
    changed_at: datetime | None = moment()
    synced_at: datetime | None = moment()
    deleted_at: datetime | None = moment()
    last_error: str | None = words()
    last_error_at: datetime | None = moment()
    #: The version that killed its workers: not queued again until it changes, or a full run asks for it.
    is_poison: bool = Field(default=False, sa_column=Column(Boolean(), nullable=False, server_default=false()))
    poison_version: str | None = words()


class ValidatorRow(Row, table=True):
    """What a server said about the version of an answer whose content is stored: for conditional requests."""

    __tablename__ = "validator"
    __table_args__ = (Index("validator_entity", "sync", "key"),)

    client: str = Field(sa_column=Column(Text(), primary_key=True))
    #: Who asked: answers to one sign-in are nobody else's.
    identity: str = Field(sa_column=Column(Text(), primary_key=True))
    method: str = Field(sa_column=Column(Text(), primary_key=True))
    url: str = Field(sa_column=Column(Text(), primary_key=True))
    etag: str | None = words()
    last_modified: str | None = words()
    #: The entity whose record holds the content.
    sync: str | None = words()
    key: str | None = words()
    stored_at: datetime | None = moment(nullable=False)


class TokenRow(Row, table=True):
    """A token that the remote side replaces with each use, sealed with a key that the database does not hold (law 9)."""

    __tablename__ = "token"

    name: str = Field(sa_column=Column(Text(), primary_key=True))
    sealed: str = words(nullable=False)
    version: int = number()
    updated_at: datetime | None = moment(nullable=False)
