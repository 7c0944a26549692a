"""Queues jobs: in bulk, all or none, on request in the caller's transaction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    Connection,
    Insert,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    func,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from jobs.db.change_listener import CHANNEL
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_codec import decode
from jobs.db.json_rows import JsonRows
from jobs.db.prepared_statements import PreparedStatement
from jobs.enqueueing.duplicates import Enqueued, Identity, NewJob, Plan, Policy, Twin, check_policy, check_time, plan
from jobs.enqueueing.job_rows import CHUNK_ROWS, Row, chunks_of, delay_of, document_of, lane_chunks
from jobs.enqueueing.payload import is_same
from jobs.errors import JobsError
from jobs.job import Lane
from jobs.schema.job_tables import job
from jobs.schema.states import QUEUED_LITERAL

ATTEMPTS = 10
"""Attempts of one call; a further one is needed if another transaction queued a twin since the twins were read."""

_IS_TWIN = text("state = 'queued' AND fingerprint IS NOT NULL")

SerialKeyOf = Callable[[Any], str | None]


class Enqueuer:
    """New jobs of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._postgres = db.dialect == "postgresql"
        self._twins = JsonRows(db, {"queue": "text", "fingerprint": "text"})
        self._look = _Statement(db, self._look_statement())
        self._new = JsonRows(
            db,
            {
                "payload": "json", "fingerprint": "text", "priority": "int", "at": "time", "later": "seconds", "key": "text",
                "serial_key": "text",
            },
        )  # fmt: skip
        self._insert = _Statement(db, self._insert_statement())
        self._changed = JsonRows(
            db,
            {
                "payload": "json", "id": "id", "phase": "text", "priority": "int", "at": "time", "later": "seconds",
                "serial_key": "text",
            },
        )  # fmt: skip
        self._replace = _Statement(db, self._replace_statement())
        # An update takes SQLite's write lock even if it matches nothing: nobody can change what is read after it.
        self._lock = update(job).where(job.c.id == -1).values(message="")

    def _look_statement(self) -> Select[Any]:
        rows = self._twins
        # As text, because the caller's connection may decode JSON differently.
        payload = job.c.payload.cast(Text) if self._postgres else type_coerce(job.c.payload, Text)
        return (
            select(job.c.id, job.c.queue, job.c.fingerprint, payload.label("payload"))
            # As an expression the queue matches no index, so that PostgreSQL uses job_twin even without statistics. With
            # job_ready it read 20,000 queued jobs to find one.
            .join_from(rows.table, job, and_(job.c.fingerprint == rows.fingerprint, job.c.queue.concat("") == rows.queue))
            # SQLite uses a partial index only with literals.
            .where(text("job.state = 'queued'"), text("job.fingerprint IS NOT NULL"))
            # In one order, so that two calls do not deadlock. The lock keeps claims and other calls out until the end.
            .order_by(job.c.id)
            .with_for_update(of=job)
        )

    def _insert_statement(self) -> Insert | Select[Any]:
        rows, now = self._new, self._db.now
        payload: ColumnElement[Any] = rows.payload.cast(postgresql.JSON) if self._postgres else rows.payload
        source = select(
            bindparam("in_queue").cast(Text), bindparam("of_client").cast(Text), bindparam("of_type").cast(Text),
            bindparam("of_phase").cast(Text), rows.key, rows.fingerprint, QUEUED_LITERAL, rows.priority,
            func.coalesce(rows.at, rows.later, now), now, payload, rows.serial_key,
        ).where(rows.payload.is_not(None))  # fmt: skip
        columns = [
            "queue", "client", "type", "phase", "key", "fingerprint", "state", "priority", "available_at", "created_at",
            "payload", "serial_key",
        ]  # fmt: skip
        insert_into = postgresql.insert if self._postgres else sqlite.insert
        statement = (
            insert_into(job)
            .from_select(columns, source)
            # PostgreSQL waits for an uncommitted twin of another transaction; if that rolls back, this row is inserted.
            .on_conflict_do_nothing(index_elements=["queue", "fingerprint"], index_where=_IS_TWIN)
        )
        if not self._postgres:
            return statement.returning(job.c.id, job.c.fingerprint)
        new = statement.returning(job.c.id, job.c.fingerprint, job.c.queue, job.c.available_at).cte("new")
        return select(new.c.id, new.c.fingerprint, _notify_listeners(new))

    def _replace_statement(self) -> Update | Select[Any]:
        rows = self._changed
        payload: ColumnElement[Any] = rows.payload.cast(postgresql.JSON) if self._postgres else rows.payload
        statement = (
            update(job)
            .where(job.c.id == rows.id, text("state = 'queued'"))
            .values(
                payload=payload, priority=rows.priority, serial_key=rows.serial_key,
                available_at=func.coalesce(rows.at, rows.later, job.c.available_at),
                # Phase and checkpoint of an earlier attempt belong to the old payload.
                phase=rows.phase, checkpoint=None, retries=0,
                # The same payload may kill workers again.
                rescues=case((is_same(job.c.payload, rows.payload, self._db.dialect), job.c.rescues), else_=0),
            )
        )  # fmt: skip
        if not self._postgres:
            return statement
        changed = statement.returning(job.c.queue, job.c.available_at).cte("changed")
        return select(_notify_listeners(changed))

    def enqueue(
        self,
        jobs: Sequence[NewJob],
        policy: Policy = "allow",
        *,
        serial: SerialKeyOf | None = None,
        connection: Connection | None = None,
    ) -> list[Enqueued]:
        """Queue jobs: all of them, or, when an error is raised, none.

        Args:
            jobs: in the order in which their ids ascend.
            policy: what becomes of duplicates: `allow`, `reject`, `discard`, `replace`, or a function
                `(new payload, old payload) -> payload`; see `jobs.enqueueing.duplicates.plan`.
            serial: payload → serial key, for payloads that `policy` merges.
            connection: takes part in its transaction, which the caller ends. Until then nobody sees the jobs, and on PostgreSQL
                their queued twins are locked. On SQLite a deferred transaction that has read before may fail to become a
                writer; begin it with BEGIN IMMEDIATE.

        Returns:
            One answer for each job, in their order.

        Raises:
            DuplicateJob: the policy is `reject`, and a job has a twin.
            NaiveTime: a time has no zone.
            PayloadError: a payload is not JSON, or too large.
            ScheduleError: a delay or moment cannot be.
            ValueError: there is no such policy.
        """
        check_policy(policy)
        jobs = list(jobs)
        for one in jobs:
            check_time(one)
        if not jobs:
            return []
        if connection is not None and not connection.in_transaction():
            connection.begin()
        if policy == "allow":
            return self._allow(jobs, connection)
        for number, one in enumerate(jobs, 1):
            # Checked before the transaction too, which should be short.
            document_of(one, number, len(jobs))
        if connection is None:
            return self._enqueue(jobs, policy, serial)
        if self._postgres:
            # An error on the way, such as a late twin, rolls back to here.
            with connection.begin_nested():
                return self._store(connection, jobs, policy, serial)
        # Without a savepoint: with Python's driver its release may commit the transaction. None is needed either: under the write
        # lock there are no races, and everything is decided before the first row is written.
        return self._store(connection, jobs, policy, serial)

    def _allow(self, jobs: Sequence[NewJob], connection: Connection | None) -> list[Enqueued]:
        chunks = list(lane_chunks(plan(jobs, {}, "allow").inserts))
        if connection is not None:
            return [Enqueued(job_id, None) for job_id in self._add(connection, chunks, {})]
        with self._db.write(single=len(chunks) == 1) as own:
            return [Enqueued(job_id, None) for job_id in self._add(own, chunks, {})]

    @retry_on_conflict
    def _enqueue(self, jobs: Sequence[NewJob], policy: Policy, serial: SerialKeyOf | None) -> list[Enqueued]:
        with self._db.write() as connection:
            return self._store(connection, jobs, policy, serial, own=True)

    def _store(
        self, connection: Connection, jobs: Sequence[NewJob], policy: Policy, serial: SerialKeyOf | None, *, own: bool = False
    ) -> list[Enqueued]:
        answers: list[Enqueued | None] = [None] * len(jobs)
        left: Sequence[int] = range(len(jobs))
        if not own and not self._postgres:
            connection.execute(self._lock)
        for _ in range(ATTEMPTS):
            mine = [jobs[index] for index in left]
            todo = plan(mine, self._queued(connection, mine), policy, serial=serial)
            ids = self._write(connection, todo)
            missed = []
            for index, place in zip(left, todo.places, strict=True):
                job_id = place.twin if place.insert is None else ids[place.insert]
                if job_id is None:
                    missed.append(index)
                else:
                    answers[index] = Enqueued(job_id, job_id if place.is_duplicate else None)
            if not missed:
                return [answer for answer in answers if answer is not None]
            left = missed
        raise JobsError(f"{len(left)} jobs could not be queued: others queue and claim the same ones all the time; try again")

    def _queued(self, connection: Connection, jobs: Sequence[NewJob]) -> dict[Identity, Twin]:
        identities = list(dict.fromkeys(identity for one in jobs if (identity := one.identity) is not None))
        found = {}
        for start in range(0, len(identities), CHUNK_ROWS):
            rows = self._twins.bind(identities[start : start + CHUNK_ROWS])
            for job_id, queue, fingerprint, payload in self._look.rows(connection, rows):
                found[queue, fingerprint] = Twin(job_id, None if payload is None else decode(payload))
        return found

    def _write(self, connection: Connection, todo: Plan) -> list[int | None]:
        """Store a plan; return the id of each of its inserts, `None` where another transaction inserted a twin first."""
        # All rows are built before the first is written, so that an error in one leaves nothing behind.
        changes = [
            (document_of(one), job_id, one.lane.phase, one.priority, one.available_at, delay_of(one), one.serial_key)
            for job_id, one in sorted(todo.updates.items())
        ]
        inserts = list(lane_chunks(todo.inserts))
        for chunk in chunks_of(changes):
            self._replace.rows(connection, self._changed.bind(chunk))
        by_identity: dict[Identity, int] = {}
        # Returned rows are not matched to jobs; those without a fingerprint were all stored, in ascending order.
        rest = iter(self._add(connection, inserts, by_identity))
        return [next(rest) if (identity := one.identity) is None else by_identity.get(identity) for one in todo.inserts]

    def _add(self, connection: Connection, chunks: Sequence[tuple[Lane, list[Row]]], found: dict[Identity, int]) -> list[int]:
        """Insert rows; return the ids of those without a fingerprint, and put the others into `found`."""
        plain = []
        for lane, chunk in chunks:
            parameters = {**self._new.bind(chunk), **lane.parameters()}
            for job_id, fingerprint, *_ in self._insert.rows(connection, parameters):
                if fingerprint is None:
                    plain.append(job_id)
                else:
                    found[lane.queue, fingerprint] = job_id
        return sorted(plain)


class _Statement:
    """A statement for our own connections, where it is compiled once, and for connections of callers."""

    def __init__(self, db: Database, statement: Select[Any] | Insert | Update) -> None:
        self._dialect = db.engine.dialect
        self._statement = statement
        self._prepared = PreparedStatement(statement)

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute; return what it selects or returns."""
        ours, theirs = self._dialect, connection.dialect
        if (ours.name, ours.driver, ours.paramstyle) != (theirs.name, theirs.driver, theirs.paramstyle):
            found = connection.execute(self._statement, parameters)
            return found.all() if found.returns_rows else []
        if isinstance(self._statement, Update):
            self._prepared.count(connection, parameters)
            return []
        return self._prepared.rows(connection, parameters)


def _notify_listeners(rows: CTE) -> ColumnElement[Any]:
    """Notify listening workers of each due job. PostgreSQL sends equal notifications of a transaction once."""
    return case((rows.c.available_at <= func.statement_timestamp(), func.pg_notify(CHANNEL, rows.c.queue)))
