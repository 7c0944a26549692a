"""One typed table as a target: its columns, how a row is found again, and the statements that write to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    DateTime,
    Delete,
    Interval,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator

from jobs.db.database import Database


class TableRow(NamedTuple):
    """One row: values by the names of columns, as their types take them, and the columns that no update changes."""

    values: Mapping[str, Any]
    kept: tuple[str, ...] = ()


DELETED_AT = "deleted_at"
"""A table with such a column of time keeps the rows of entities that are gone, and stamps them."""


def parameter(name: str) -> str:
    """Return how a column is bound where the row is looked for; SQLAlchemy keeps the column's own name for new values."""
    return f"of_{name}"


@dataclass(frozen=True)
class TargetTable:
    """A table into which a sync writes.

    Args:
        table: the Core table.
        parent: the column of a child table that has the key of the entity's row; `None` for a table with a row for each entity.
        restore: `(column, value) -> value`, makes the value of a column of its text or JSON.
    """

    table: Table
    parent: str | None
    restore: Callable[[str, Any], Any]

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The names of the columns of the primary key."""
        return tuple(column.name for column in self.table.primary_key)

    @cached_property
    def found_by(self) -> tuple[str, ...]:
        """The columns by which the rows of an entity are found."""
        return self.key if self.parent is None else (self.parent,)

    @cached_property
    def owner(self) -> str | None:
        """The column that says whose a child row is, where its primary key does not: another entity's row is not taken away."""
        return None if self.parent is None or self.parent in self.key else self.parent

    def identity(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the primary key of a row."""
        return tuple(row[name] for name in self.key)

    def children(self) -> Select[Any]:
        """Return the statement that reads the primary keys of the child rows of parents, bound as the list `parents`."""
        assert self.parent is not None
        column = self.table.c[self.parent]
        # Their type goes with them; each value would get a type of its own.
        found = column.in_(bindparam("parents", expanding=True, type_=column.type))
        live = (self.table.c[DELETED_AT].is_(None),) if self.stamps else ()
        return select(column, *(self.table.c[name] for name in self.key)).where(found, *live)

    @cached_property
    def stamps(self) -> bool:
        """Whether rows that are gone stay, with the time in `deleted_at`."""
        column = self.table.c.get(DELETED_AT)
        return column is not None and isinstance(bare_type(column), DateTime)

    def delete(self, db: Database, names: Sequence[str]) -> Delete | Update:
        """Return the statement that deletes or stamps the row, or rows, with these columns, bound under `parameter(name)`."""
        found = and_(*(self.table.c[name] == bindparam(parameter(name), type_=self.table.c[name].type) for name in names))
        if not self.stamps:
            return delete(self.table).where(found)
        column = self.table.c[DELETED_AT]
        return update(self.table).where(found, column.is_(None)).values({DELETED_AT: _now(db, column)})


def type_on(column: Column[Any], dialect: str) -> Any:
    """Return the type of a column on a database, which may be a variant of its own."""
    found: Any = column.type
    return found._variant_mapping.get(dialect, found)


def bare_type(column: Column[Any], dialect: str = "") -> Any:
    """Return the type of a column on a database, without the class of SQLModel or the user's that wraps it."""
    found = type_on(column, dialect)
    while isinstance(found, TypeDecorator) and not isinstance(found, Interval):
        found = found.impl_instance
    return found


def is_zoned(column: Column[Any]) -> bool:
    """Tell whether a column of time keeps moments, in place of wall times."""
    found = bare_type(column)
    return isinstance(found, DateTime) and bool(found.timezone)


def _now(db: Database, column: Column[Any]) -> ColumnElement[Any]:
    """Return the time of the database's clock as a column keeps it; without a zone it is UTC."""
    if db.dialect == "postgresql":
        return db.now if is_zoned(column) else func.timezone("UTC", db.now)
    now = db.clock()
    return bindparam("b_now", now if is_zoned(column) else now.replace(tzinfo=None), type_=column.type)
