"""The ledger: reads and writes what is known of each entity, the `record` rows, in the transaction of a finish."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.database import Database
from jobs.db.json_codec import without_nul
from jobs.db.json_rows import JsonRows
from jobs.db.prepared_statements import PreparedStatement
from jobs.job import JobResult
from jobs.outcome import Failure, Gone, Success, Unchanged, one_line
from jobs.schema.job_tables import record


class KnownEntity(NamedTuple):
    """What the ledger has of an entity; the hash only of one that is in sync."""

    content_hash: str | None
    #: The job that wrote it last: the generation of its listing, and its id.
    writer: tuple[int, int]
    #: Whether its record is not marked as deleted.
    is_live: bool
    #: See `jobs.typed_tables.table_writer`.
    row_key: str | None = None


class Ledger:
    """The `record` table of one database, as finishes see it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys = keys = JsonRows(db, {"sync": "text", "key": "text"})
        self._known = PreparedStatement(
            select(
                record.c.sync, record.c.key, record.c.content_hash, record.c.job_generation, record.c.job_id,
                and_(record.c.deleted_at.is_(None), record.c.synced_at.is_not(None)).label("in_sync"),
                record.c.deleted_at.is_(None).label("is_live"), record.c.row_key,
            )
            .join_from(keys.table, record, and_(record.c.sync == keys.sync, record.c.key == keys.key))
            .with_for_update(of=record)
        )  # fmt: skip
        self._saved = JsonRows(
            db,
            {
                "sync": "text",
                "key": "text",
                "version": "text",
                "content_hash": "text",
                "data": "json",
                "row_key": "text",
                "generation": "int",
                "job": "id",
            },
        )
        self._save = PreparedStatement(self._save_statement())
        self._seen = seen = JsonRows(db, {"sync": "text", "key": "text", "version": "text", "generation": "int", "job": "id"})
        self._touch = PreparedStatement(
            update(record)
            .where(record.c.sync == seen.sync, record.c.key == seen.key)
            .values(
                version=seen.version, generation=_greatest(record.c.generation, seen.generation), synced_at=db.now,
                job_id=seen.job, job_generation=seen.generation, last_error=None, last_error_at=None, is_poison=False,
            )
        )  # fmt: skip
        self._gone = gone = JsonRows(db, {"sync": "text", "key": "text", "generation": "int", "job": "id"})
        self._delete = PreparedStatement(self._delete_statement(gone))
        self._failed = failed = JsonRows(db, {"sync": "text", "key": "text", "error": "text", "generation": "int", "job": "id"})
        self._blame = PreparedStatement(
            update(record)
            .where(record.c.sync == failed.sync, record.c.key == failed.key, _is_not_after(failed.generation, failed.job))
            .values(last_error=failed.error, last_error_at=db.now)
        )

    def _delete_statement(self, gone: JsonRows) -> Any:
        """Mark as deleted; an entity that was never stored gets a row, too: its pass has to know that it was looked for."""
        db = self._db
        names = ["sync", "key", "generation", "job_id", "job_generation", "first_seen_at", "synced_at", "deleted_at"]
        source = select(
            gone.sync, gone.key, gone.generation, gone.job, gone.generation, db.now, db.now, db.now
        ).where(gone.key.is_not(None))  # fmt: skip
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        statement = insert_into(record).from_select(names, source)
        return statement.on_conflict_do_update(
            index_elements=["sync", "key"],
            set_={
                "deleted_at": func.coalesce(record.c.deleted_at, statement.excluded.deleted_at),
                "synced_at": statement.excluded.synced_at,
                "job_id": statement.excluded.job_id,
                "job_generation": statement.excluded.job_generation,
            },
        )

    def _save_statement(self) -> Any:
        db, rows = self._db, self._saved
        data = rows.data.cast(postgresql.JSONB) if db.dialect == "postgresql" else rows.data
        source = select(
            rows.sync, rows.key, rows.version, rows.content_hash, data, rows.row_key, rows.generation, rows.job,
            rows.generation, db.now, db.now, db.now,
        ).where(rows.key.is_not(None))  # fmt: skip
        # SQLite cannot parse ON CONFLICT behind a SELECT that has no WHERE.
        make = postgresql.insert(record) if db.dialect == "postgresql" else sqlite.insert(record)
        statement = make.from_select(
            [
                "sync", "key", "version", "content_hash", "data", "row_key", "generation", "job_id", "job_generation",
                "first_seen_at", "changed_at", "synced_at",
            ],
            source,
        )  # fmt: skip
        new = statement.excluded
        same = and_(record.c.content_hash.is_not_distinct_from(new.content_hash), record.c.deleted_at.is_(None))
        return statement.on_conflict_do_update(
            index_elements=["sync", "key"],
            set_={
                "version": new.version,
                "content_hash": new.content_hash,
                "data": new.data,
                "row_key": new.row_key,
                "generation": _greatest(record.c.generation, new.generation),
                "changed_at": case((same, record.c.changed_at), else_=new.changed_at),
                "synced_at": new.synced_at,
                "deleted_at": None,
                "job_id": new.job_id,
                "job_generation": new.job_generation,
                "last_error": None,
                "last_error_at": None,
                "is_poison": False,
            },
            # Two finishes of one new entity at once: neither saw the other's row, the later job's stays.
            where=_is_not_after(new.job_generation, new.job_id),
        )

    def known(self, connection: Connection, dones: Sequence[JobResult]) -> dict[tuple[str, str], KnownEntity]:
        """Return what the ledger has of the entities whose records these jobs may write, by sync and key; the rows are locked."""
        keys = {
            (done.job.lane.type, done.job.key)
            for done in dones
            if done.job.key is not None and isinstance(done.verdict.outcome, Success | Unchanged | Gone) and writes_record(done)
        }
        if not keys:
            return {}
        rows = self._known.rows(connection, self._keys.bind(sorted(keys)))
        return {
            (sync, key): KnownEntity(content_hash if in_sync else None, (generation, job_id or 0), is_live, row_key)
            for sync, key, content_hash, generation, job_id, in_sync, is_live, row_key in rows
        }

    def write(self, connection: Connection, dones: Sequence[JobResult]) -> None:
        """Write what came of jobs to the records of their entities."""
        saved, seen, gone, failed = [], [], [], []
        is_jsonb = self._db.dialect == "postgresql"
        for done in dones:
            lane, key, content = done.job.lane, done.job.key, done.content
            if key is None:
                continue
            match done.verdict.outcome:
                case Success() if content is not None:
                    if is_jsonb and content.data is not None:
                        content = content._replace(data=without_nul(content.data))
                    saved.append((lane.type, key, *content, done.job.generation or 0, done.job.id))
                case Unchanged() if content is not None:
                    seen.append((lane.type, key, content.version, done.job.generation or 0, done.job.id))
                case Gone():
                    gone.append((lane.type, key, done.job.generation or 0, done.job.id))
                case Failure(message):
                    failed.append((lane.type, key, one_line(message), done.job.generation or 0, done.job.id))
        for statement, rows, values in (
            (self._save, self._saved, saved),
            (self._touch, self._seen, seen),
            (self._delete, self._gone, gone),
            (self._blame, self._failed, failed),
        ):
            if values:
                statement.count(connection, rows.bind(_last(values)))


def writes_record(done: JobResult) -> bool:
    """Tell whether a finished job changes the content of its entity's record."""
    return done.content is not None or isinstance(done.verdict.outcome, Gone)


def overtaken_ids(dones: Sequence[JobResult], known: Mapping[tuple[str, str], KnownEntity]) -> set[int]:
    """Return the jobs whose entity a later job has written since they were claimed: what they bring is older than the record."""
    ids = set()
    for done in dones:
        before = known.get((done.job.lane.type, done.job.key or ""))
        if before is not None and writes_record(done) and before.writer > (done.job.generation or 0, done.job.id):
            ids.add(done.job.id)
    return ids


def _last(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Keep the last row of each entity, in order of keys: no statement writes a row twice, and all lock in one order."""
    return sorted({row[:2]: row for row in rows}.values(), key=lambda row: row[:2])


def _is_not_after(generation: Any, job_id: Any) -> Any:
    """The record was written by this job or an earlier one.

    The generation of the listing counts before the id: a job that waits for its retry is given what a later listing says and
    keeps its id, although a job with a higher one may have been finished meanwhile.
    """
    return or_(
        record.c.job_generation < generation,
        and_(record.c.job_generation == generation, func.coalesce(record.c.job_id, 0) <= job_id),
    )


def _greatest(old: Any, new: Any) -> Any:
    return case((func.coalesce(new, 0) > old, new), else_=old)
