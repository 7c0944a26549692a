"""Writes the typed rows of a batch of finished jobs: those of all entities together, or of each alone where one is refused."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from jobs.db.database import Database
from jobs.job import JobResult
from jobs.listing.record_upsert import KnownEntity
from jobs.outcome import Failure, Gone, Success
from jobs.typed_tables.table_writer import EntityKey, EntityRows, RowsRefused, TableWriter

Known = Mapping[tuple[str, str], KnownEntity]


class BatchRows:
    """The typed rows of finishes of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def save(self, connection: Connection, dones: Sequence[JobResult], known: Known) -> None:
        """Write the rows of entities that were saved, and delete those of entities that are gone.

        Args:
            connection: in the transaction of the finish.
            dones: whose claims hold; of two jobs of one entity the last counts.
            known: what the ledger has of their entities.

        Raises:
            RowsRefused: the database refuses one of them; the transaction must be rolled back.
        """
        saved: dict[TableWriter, dict[str, tuple[EntityRows, EntityKey | None]]] = {}
        gone: dict[TableWriter, dict[str, EntityKey]] = {}
        for done in dones:
            rows: EntityRows | None = done.rows
            if rows is None:
                continue
            before = known.get((done.job.lane.type, rows.key))
            there = None if before is None else EntityKey(rows.key, before.row_key)
            if isinstance(done.verdict.outcome, Success) and rows.rows is not None:
                gone.get(rows.writer, {}).pop(rows.key, None)
                saved.setdefault(rows.writer, {})[rows.key] = rows, there
            elif isinstance(done.verdict.outcome, Gone):
                saved.get(rows.writer, {}).pop(rows.key, None)
                gone.setdefault(rows.writer, {})[rows.key] = there or EntityKey(rows.key, None)
        for writer, keys in gone.items():
            writer.delete(self._db, connection, list(keys.values()))
        for writer, entities in saved.items():
            writer.save(self._db, connection, list(entities.values()))

    def save_alone(self, connection: Connection, done: JobResult, known: Known) -> JobResult:
        """Write the rows of one entity, and return its job; a failure if the database refuses them."""
        if done.rows is None or not isinstance(done.verdict.outcome, Success | Gone):
            return done
        try:
            with connection.begin_nested():
                self.save(connection, [done], known)
        except RowsRefused as error:
            # It may be another row that this one waits for: a reference to an entity that comes later.
            return done._replace(verdict=done.verdict._replace(outcome=Failure(done.rows.writer.described(str(error)))))
        return done
