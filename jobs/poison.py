"""Remembering the entities that kill their workers, so that the next listing does not hand them out again. Knows no worker."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.database import Database
from jobs.models import FAILURE, job, record
from jobs.rows import Rows
from jobs.settle import QUEUED


class Poisoned(NamedTuple):
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


class Poisons:
    """The ledger's memory of poison, of one database."""

    def __init__(self, db: Database) -> None:
        self._twins = twins = Rows(db, {"queue": "text", "fingerprint": "text", "message": "text"})
        self._end = (
            update(job)
            .where(job.c.state == QUEUED, job.c.queue == twins.queue, job.c.fingerprint == twins.fingerprint)
            .values(state=FAILURE, message=twins.message, finished_at=db.now)
        )
        self._noted = noted = Rows(db, {"sync": "text", "key": "text", "version": "text", "generation": "int", "error": "text"})
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

    def end(self, connection: Connection, poisoned: Sequence[Poisoned]) -> None:
        """End the queued twins of poisonous jobs, whose content is the same, and note the entities in the ledger."""
        twins = {(one.queue, one.fingerprint, one.message) for one in poisoned if one.fingerprint is not None}
        if twins:
            connection.execute(self._end, self._twins.bind(sorted(twins)))
        # One row for each entity, in one order for everybody: the keys are unique, so the sort looks no further.
        entities = {(one.type, one.key): one for one in poisoned if one.key is not None}
        if entities:
            rows = [(one.type, one.key or "", one.version, one.generation or 0, one.message) for one in entities.values()]
            connection.execute(self._note, self._noted.bind(sorted(rows)))
