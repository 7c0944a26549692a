"""Writes the rows of a batch of entities to their typed tables, in the transaction of a finish or a sweep."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    StatementError,
)

from jobs.db.database import Database
from jobs.errors import first_line
from jobs.typed_tables.target_table import TableRow, TargetTable, parameter
from jobs.typed_tables.upsert import Upsert

_LACKS = re.compile("no such table|no such column|has no column named")


class RowsRefused(Exception):
    """The database refused a row of a batch, or a row belongs to another entity. The text is one line; it may quote values."""


class EntityRows(NamedTuple):
    """What becomes of one entity in the typed tables of its sync.

    Args:
        writer: of the sync.
        key: of the entity.
        rows: for each target the rows of the entity; `None` deletes them.
        row_key: as the ledger keeps it; see `TableWriter`.
    """

    writer: "TableWriter"
    key: str
    rows: tuple[Sequence[TableRow], ...] | None = None
    row_key: str | None = None


class EntityKey(NamedTuple):
    """Which rows of typed tables belong to an entity: its key, and the primary keys that cannot be made of it."""

    key: str
    row_key: str | None


class TableWriter:
    """Writes the entities of one sync.

    Args:
        targets: in an order in which each row can refer to those before it; a table with a row for each entity before its
            children.
        described: what a person is told of an error's text: the client's secrets are masked.

    The primary key of an entity's row is its key, unless the project says otherwise. Where it does, the ledger keeps the
    primary key as `row_key`, JSON `{table: [values]}`: an entity that is gone has no record that it could be made of.
    """

    def __init__(self, targets: Sequence[TargetTable], described: Callable[[str], str]) -> None:
        self.targets = tuple(targets)
        self.described = described
        self._upserts: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Upsert] = {}
        self._main = next((one for one in self.targets if one.parent is None), None)

    def save(self, db: Database, connection: Connection, entities: Sequence[tuple[EntityRows, EntityKey | None]]) -> None:
        """Write entities: their rows, and in child tables these rows alone.

        Args:
            db: whose connection it is.
            connection: in a transaction.
            entities: each with what the ledger has of it so far, None if that is nothing; no two of one key.

        Raises:
            RowsRefused: a row cannot be stored; what was written must be rolled back.
        """
        with _refusals():
            moved = [before for one, before in entities if before is not None and before.row_key != one.row_key]
            if moved:
                self._delete(db, connection, moved)
            for index, target in enumerate(self.targets):
                rows = [row for one, _ in entities for row in (one.rows or ())[index]]
                if target.parent is not None:
                    parents = [self.identity(target, EntityKey(one.key, one.row_key)) for one, _ in entities]
                    self._remove_others(db, connection, target, parents, rows)
                self._upsert(connection, target, rows)

    def delete(self, db: Database, connection: Connection, keys: Sequence[EntityKey]) -> None:
        """Delete or stamp the rows of entities, child rows first.

        Raises:
            RowsRefused: the database refuses that, mostly because another table refers to a row.
        """
        with _refusals():
            self._delete(db, connection, keys)

    def delete_each(self, db: Database, connection: Connection, keys: Sequence[EntityKey]) -> dict[str, str]:
        """Delete or stamp the rows of entities; those that the database refuses stay.

        Returns:
            Why, by key.
        """
        refused = self._tried(db, connection, keys)
        if refused is None:
            return {}
        if len(keys) == 1:
            return {keys[0].key: refused}
        found = {one.key: self._tried(db, connection, [one]) for one in keys}
        return {key: text for key, text in found.items() if text is not None}

    def identity(self, target: TargetTable, of: EntityKey) -> tuple[Any, ...]:
        """Return the values of `target.found_by` for the rows of an entity."""
        known = {} if of.row_key is None else json.loads(of.row_key)
        if target.parent is None:
            values = known.get(target.table.fullname, [of.key])
            return tuple(target.restore(name, value) for name, value in zip(target.key, values, strict=True))
        main = self._main
        if main is None or len(main.key) > 1:
            return (target.restore(target.parent, of.key),)
        return (target.restore(target.parent, known.get(main.table.fullname, [of.key])[0]),)

    def _tried(self, db: Database, connection: Connection, keys: Sequence[EntityKey]) -> str | None:
        try:
            with connection.begin_nested():
                self.delete(db, connection, keys)
        except RowsRefused as error:
            return self.described(str(error))
        return None

    def _delete(self, db: Database, connection: Connection, keys: Sequence[EntityKey]) -> None:
        for target in reversed(self.targets):
            found = []
            for key in keys:
                try:
                    found.append(self.identity(target, key))
                except ValueError:
                    continue  # A key that is no primary key of this table has no row there.
            self._run_delete(db, connection, target, target.found_by, found)

    def _remove_others(
        self,
        db: Database,
        connection: Connection,
        target: TargetTable,
        parents: Sequence[tuple[Any, ...]],
        rows: Sequence[TableRow],
    ) -> None:
        """Delete or stamp the child rows of these parents that are not among the new ones."""
        found = connection.execute(target.children(), {"parents": [one for (one,) in parents]}).all()
        if not found:
            return
        if any(name not in row.values for row in rows for name in target.key):
            # The database numbers its rows, so that none can be found again.
            self._run_delete(db, connection, target, target.found_by, parents)
            return
        kept = {target.identity(row.values) for row in rows}
        self._run_delete(db, connection, target, target.key, [tuple(row[1:]) for row in found if tuple(row[1:]) not in kept])

    @staticmethod
    def _run_delete(
        db: Database, connection: Connection, target: TargetTable, names: Sequence[str], rows: Iterable[tuple[Any, ...]]
    ) -> None:
        values = [dict(zip(map(parameter, names), one, strict=True)) for one in rows]
        if values:
            connection.execute(target.delete(db, names), values)

    def _upsert(self, connection: Connection, target: TargetTable, rows: Sequence[TableRow]) -> None:
        alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Any]] = defaultdict(list)
        for row in rows:
            alike[tuple(row.values), row.kept].append(row.values)
        for (columns, kept), some in alike.items():
            if {*target.key} <= {*columns}:
                # In one order everywhere, so that two processes rarely wait for each other.
                some.sort(key=lambda row: str(target.identity(row)))
            if not self._upsert_of(target, connection, columns, kept).run(connection, some):
                owner, key = target.owner, ", ".join(target.key)
                raise RowsRefused(
                    f"{target.table.name}: a row with this {key} belongs to another {owner}; make {owner} part of the primary key"
                )

    def _upsert_of(self, target: TargetTable, connection: Connection, columns: tuple[str, ...], kept: tuple[str, ...]) -> Upsert:
        known = (target.table.fullname, columns, kept)
        if (found := self._upserts.get(known)) is None:
            found = self._upserts[known] = Upsert(target, connection.dialect, columns, kept)
        return found


class _refusals:  # noqa: N801 - a context manager
    """Turns what the database says of a row into `RowsRefused`; conflicts and outages are raised as they are."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, IntegrityError | DataError | ProgrammingError | NotSupportedError):
            raise RowsRefused(first_line(error)) from error
        if isinstance(error, OperationalError) and _LACKS.search(str(error.orig)):
            # SQLite's word for a table or column that somebody has dropped meanwhile.
            raise RowsRefused(first_line(error)) from error
        if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
            # A type of the project's own refused a value.
            raise RowsRefused(first_line(error)) from error
        if isinstance(error, OverflowError | ValueError):
            raise RowsRefused(first_line(error)) from error
