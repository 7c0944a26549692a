"""Removes what is kept of a sync, a job type or a queue that is no longer declared, in bounded transactions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, delete, exists, func, literal_column, select

from jobs.admin.commands import Commands
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.schema.job_tables import job, listing, maintenance, notice, queue, record, run, start, unreported_failure, validator

BATCH = 1000
"""Rows in one transaction."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept under a name: rows by what they are."""

    records: int = 0
    jobs: int = 0
    runs: int = 0
    #: Its listing, notices, validators, and the row and the starts of a queue.
    others: int = 0

    @property
    def total(self) -> int:
        """The number of all rows."""
        return self.records + self.jobs + self.runs + self.others

    def __str__(self) -> str:
        parts = ((self.records, "record"), (self.jobs, "job"), (self.runs, "run"), (self.others, "other row"))
        return ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in parts if count) or "nothing"


class Forgetting:
    """Forgets names in one database. It may be stopped and repeated at any time.

    Args:
        db: the database.
        commands: delete the jobs.
    """

    def __init__(self, db: Database, commands: Commands) -> None:
        self._db, self._commands = db, commands
        self._keys = keys = JsonRows(db, {"key": "text"})
        self._ids = ids = JsonRows(db, {"id": "id"})
        named: Any = bindparam("b_name")
        self._records = select(record.c.key).where(record.c.sync == named).order_by(record.c.key).limit(BATCH)
        is_named = record.c.key.in_(select(keys.key).select_from(keys.table))
        self._delete_records = delete(record).where(record.c.sync == named, is_named)
        self._runs = select(run.c.id).where(run.c.sync == named).order_by(run.c.id).limit(BATCH)
        self._delete_runs = delete(run).where(run.c.id.in_(select(ids.id).select_from(ids.table)))

    def kept(self, name: str, *, is_queue: bool) -> Kept:
        """Count what is kept of a sync or job type, or of a queue.

        Args:
            name: its id.
            is_queue: whether it is a queue's.
        """
        with self._db.read() as connection:

            def count(table: Table, condition: ColumnElement[bool]) -> int:
                return int(connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one())

            others = sum(count(table, condition) for table, condition in self._small(name, is_queue=is_queue))
            if is_queue:
                return Kept(jobs=count(job, job.c.queue == name), others=others)
            return Kept(
                records=count(record, record.c.sync == name),
                jobs=count(job, job.c.type == name),
                runs=count(run, run.c.sync == name),
                others=others,
            )

    def types_in(self, name: str) -> list[str]:
        """Return the types of the jobs in a queue."""
        with self._db.read() as connection:
            return sorted(connection.execute(select(job.c.type).where(job.c.queue == name).distinct()).scalars())

    def is_worked(self, name: str, *, is_queue: bool) -> bool:
        """Tell whether a worker has one of its jobs at present, which cannot be deleted."""
        column = job.c.queue if is_queue else job.c.type
        one: Any = literal_column("1")
        with self._db.read() as connection:
            found = select(one).where(exists(one).where(job.c.state == literal_column("'processing'"), column == name))
            return connection.execute(found).one_or_none() is not None

    def forget(self, name: str, *, is_queue: bool, by: str = "", stop: Callable[[], bool] = lambda: False) -> bool:
        """Remove it; return whether all of it is gone, as far as no worker has one of its jobs.

        Args:
            name: its id.
            is_queue: whether it is a queue's.
            by: the person, for the attempts of jobs.
            stop: called before each transaction; true ends the work.
        """
        steps = self._steps(name, is_queue=is_queue, by=by)
        while not stop():
            if next(steps, None) is None:
                break
        else:
            return False
        return not self.is_worked(name, is_queue=is_queue)

    def _steps(self, name: str, *, is_queue: bool, by: str) -> Iterator[bool]:
        of_name = job.c.queue == name if is_queue else job.c.type == name
        page = select(job.c.id).where(of_name).order_by(job.c.id).limit(BATCH)
        after = 0
        while ids := self._read(page.where(job.c.id > after), name):
            # Those that a worker has are refused, and stay.
            self._commands.delete(ids, by=by)
            after = ids[-1]
            yield True
        if not is_queue:
            while keys := self._read(self._records, name):
                self._remove(self._delete_records, {"b_name": name, **self._keys.bind([(one,) for one in keys])})
                yield True
            while ids := self._read(self._runs, name):
                self._remove(self._delete_runs, self._ids.bind([(one,) for one in ids]))
                yield True
        # The small ones last: a name that is half forgotten is still found.
        for table, condition in self._small(name, is_queue=is_queue):
            self._remove(delete(table).where(condition), {})
            yield True

    def _read(self, statement: Any, name: str) -> Sequence[Any]:
        with self._db.read() as connection:
            return connection.execute(statement, {"b_name": name}).scalars().all()

    @retry_on_conflict
    def _remove(self, statement: Any, values: dict[str, Any]) -> None:
        with self._db.write() as connection:
            connection.execute(statement, values)

    @staticmethod
    def _small(name: str, *, is_queue: bool) -> list[tuple[Table, ColumnElement[bool]]]:
        """Return the tables with few rows of a name, and which rows those are."""
        if is_queue:
            return [(start, start.c.queue == name), (queue, queue.c.id == name)]
        return [
            (validator, validator.c.sync == name),
            (unreported_failure, unreported_failure.c.type == name),
            (notice, notice.c.subject == name),
            (maintenance, maintenance.c.name == f"late:{name}"),
            (listing, listing.c.sync == name),
        ]
