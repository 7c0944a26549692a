"""Records the entities that kill their workers, so that the next listing does not queue them again."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.enqueueing.payload import is_same
from jobs.schema.job_tables import job, record, unreported_failure
from jobs.schema.states import FAILURE, QUEUED_LITERAL


class PoisonJob(NamedTuple):
    """A job that ended because it keeps killing its workers."""

    id: int
    queue: str
    client: str
    type: str
    phase: str
    key: str | None
    fingerprint: str | None
    payload: Any
    generation: int | None
    attempts: int
    message: str

    @property
    def version(self) -> str | None:
        """The version of the entity that it was about."""
        return self.payload.get("version") if isinstance(self.payload, dict) else None


class PoisonEntities:
    """Poison entities in the ledger of one database."""

    def __init__(self, db: Database) -> None:
        self._ended = JsonRows(db, {"id": "id"})
        old = job.alias("old")
        is_twin = and_(
            old.c.id == self._ended.id,
            job.c.state == QUEUED_LITERAL,
            job.c.queue == old.c.queue,
            job.c.fingerprint == old.c.fingerprint,
        )
        self._end = (
            update(job)
            .where(is_twin, job.c.key == old.c.key)
            .values(state=FAILURE, message=old.c.message, finished_at=db.now)
            .returning(*(job.c[name] for name in PoisonJob._fields))
        )
        # These twins are failed by no finish, so their unreported failures are written here.
        self._twins = twins = JsonRows(db, {"id": "id"})
        failed = select(job.c.client, job.c.type, job.c.id, job.c.key, job.c.message, db.now).join_from(
            twins.table, job, job.c.id == twins.id
        )
        self._report = insert(unreported_failure).from_select(
            ["client", "type", "job_id", "key", "message", "at"], failed.order_by(job.c.id)
        )
        # Twins with a chosen fingerprint may have another payload, which need not be poison.
        self._suspect = (
            update(job)
            .where(is_twin, is_same(job.c.payload, old.c.payload, db.dialect), job.c.rescues < old.c.rescues)
            .values(rescues=old.c.rescues)
        )
        self._noted = noted = JsonRows(
            db, {"sync": "text", "key": "text", "version": "text", "generation": "int", "error": "text"}
        )
        make = postgresql.insert(record) if db.dialect == "postgresql" else sqlite.insert(record)
        statement = make.from_select(
            ["sync", "key", "generation", "first_seen_at", "last_error", "last_error_at", "is_poison", "poison_version"],
            select(noted.sync, noted.key, noted.generation, db.now, noted.error, db.now, true(), noted.version).where(
                noted.key.is_not(None)
            ),
        )
        new = statement.excluded
        names = ("last_error", "last_error_at", "is_poison", "poison_version")
        self._note = statement.on_conflict_do_update(index_elements=["sync", "key"], set_={name: new[name] for name in names})

    def end(self, connection: Connection, poisoned: Sequence[PoisonJob]) -> list[PoisonJob]:
        """Fail the queued twins of poison entities, and record these in the ledger; twins of the same payload count as rescued.

        Returns:
            The twins that ended.
        """
        twins: list[PoisonJob] = []
        ids = sorted((one.id,) for one in poisoned if one.fingerprint is not None)
        if ids:
            twins = [PoisonJob(*row) for row in connection.execute(self._end, self._ended.bind(ids))]
            if twins:
                connection.execute(self._report, self._twins.bind([(one.id,) for one in twins]))
            connection.execute(self._suspect, self._ended.bind(ids))
        # One row for each entity, sorted by key, so that all transactions lock in one order.
        entities = {(one.type, one.key): one for one in poisoned if one.key is not None}
        if entities:
            rows = [(one.type, one.key or "", one.version, one.generation or 0, one.message) for one in entities.values()]
            connection.execute(self._note, self._noted.bind(sorted(rows)))
        return sorted(twins, key=lambda one: one.id)
