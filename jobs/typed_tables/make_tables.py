"""Makes typed tables that are missing, and adds columns that may be empty; says what a person has to do about all else."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Table, inspect, select, text
from sqlalchemy import types as sa
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, sort_tables

from jobs.db.database import Database
from jobs.errors import TableMismatch, first_line
from jobs.schema.job_tables import metadata, record
from jobs.schema.upgrade import VERSION_TABLE, migration_lock
from jobs.typed_tables.target_table import bare_type

_KINDS: tuple[tuple[type[Any], str], ...] = (
    (sa.Boolean, "boolean"),
    (sa.Enum, "text"),
    (sa.Uuid, "uuid"),
    (sa.JSON, "json"),
    (sa.Integer, "whole number"),
    (sa.Float, "float"),
    (sa.Numeric, "decimal"),
    (sa.DateTime, "time"),
    (sa.Date, "date"),
    (sa.Time, "time of day"),
    (sa.Interval, "interval"),
    (sa.LargeBinary, "bytes"),
    (sa.String, "text"),
)


def make_tables(db: Database, tables: Sequence[Table]) -> list[tuple[str, str]]:
    """Make what is missing of tables. Of several processes at the same time one does it.

    Args:
        db: with our own tables.
        tables: of the project.

    Returns:
        What was done: (table, change).

    Raises:
        TableMismatch: a table in the database does not fit, or may not be changed.
        SchemaError: our own tables are not there.
    """
    for table in tables:
        _refuse_ours(table)
    try:
        with db.read() as connection:
            if not _missing(connection, tables, db.name):
                return []
        with migration_lock(db) as connection:
            return _make(connection, db, tables)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise TableMismatch(
            f"{db.name} refuses to make or change {', '.join(one.name for one in tables)}: {first_line(error)}; "
            "give this user the right to, or let the owner of the tables do it"
        ) from error


def has_records(db: Database, sync: str) -> bool:
    """Tell whether a sync has stored something before."""
    with db.read() as connection:
        return connection.execute(select(record.c.key).where(record.c.sync == sync).limit(1)).first() is not None


def _make(connection: Connection, db: Database, tables: Sequence[Table]) -> list[tuple[str, str]]:
    done = []
    for table, columns in _missing(connection, tables, db.name):
        if columns is None:
            table.create(connection)
            done.append((table.fullname, "made"))
            continue
        for name in columns:
            _add_column(connection, table, name)
            done.append((table.fullname, f"column {name} added"))
        for index in table.indexes:
            if {column.name for column in index.columns} <= {*columns}:
                index.create(connection)
    return done


def _missing(connection: Connection, tables: Sequence[Table], where: str) -> list[tuple[Table, list[str] | None]]:
    """Return the tables that are missing, with None, and those that lack columns; each before those that refer to it.

    Raises:
        TableMismatch: something else differs.
    """
    found: list[tuple[Table, list[str] | None]] = []
    inspector = inspect(connection)
    for table in sort_tables(tables):
        if not inspector.has_table(table.name, schema=table.schema):
            found.append((table, None))
            continue
        try:
            there = {column["name"]: column for column in inspector.get_columns(table.name, schema=table.schema)}
            key = set(inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"])
        except (NoSuchTableError, SQLAlchemyError) as error:
            raise TableMismatch(f"{where}: the table {table.fullname} cannot be looked at: {first_line(error)}") from error
        _check_key(table, key, where)
        lacks = [column.name for column in table.columns if column.name not in there]
        for name in lacks:
            _check_nullable(table, name, where)
        for column in table.columns:
            if column.name in there:
                _check_type(table, column, there[column.name], connection.dialect.name, where)
        for name, one in there.items():
            if name not in table.c and not one["nullable"] and one["default"] is None and not _is_numbered(one):
                raise TableMismatch(
                    f"{where}: the column {table.fullname}.{name} must not be empty, and the class has no such field: "
                    "add the field, or give the column a default"
                )
        if lacks:
            found.append((table, lacks))
    return found


def _refuse_ours(table: Table) -> None:
    if table.schema is None and (table.name in metadata.tables or table.name == VERSION_TABLE):
        raise TableMismatch(f"the table {table.name} is one of sync-clients' own: give the class another __tablename__")


def _check_key(table: Table, there: set[str], where: str) -> None:
    wanted = {column.name for column in table.primary_key}
    if wanted != there:
        has = ", ".join(sorted(there)) or "none"
        raise TableMismatch(
            f"{where}: the primary key of the table {table.fullname} is {has}, the class has {', '.join(sorted(wanted))}: "
            "change one of them, or name another __tablename__"
        )


def _check_nullable(table: Table, name: str, where: str) -> None:
    if not table.c[name].nullable:
        raise TableMismatch(
            f"{where}: the table {table.fullname} has no column {name}, and the class does not let it be empty: "
            "let the field be `… | None = None`, or add the column yourself and run with --full"
        )


def _check_type(table: Table, column: Any, there: Any, dialect: str, where: str) -> None:
    wanted, found = _kind(bare_type(column, dialect), dialect), _kind(there["type"], dialect)
    if wanted is None or found is None or wanted == found:
        return
    raise TableMismatch(
        f"{where}: the column {table.fullname}.{column.name} is {there['type']}, the class has "
        f"{column.type.compile(dialect=_dialect_of(dialect))}: change one of them, or name another __tablename__"
    )


def _kind(type_: Any, dialect: str) -> str | None:
    """Return what a type keeps, `None` where that is not known."""
    kind = next((kind for of, kind in _KINDS if isinstance(type_, of)), None)
    if isinstance(type_, sa.Enum) and dialect == "postgresql" and type_.native_enum:
        return "enum"
    if dialect == "sqlite":
        # It has no such types, and keeps them as others; only the name of the column's type tells.
        if isinstance(type_, sa.NullType):
            return None
        if kind == "uuid":
            kind = "text"
        if isinstance(type_, sa.Interval):
            kind = "time"
    return kind


def _dialect_of(name: str) -> Dialect:
    from sqlalchemy.dialects import postgresql, sqlite

    return postgresql.dialect() if name == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]


def _is_numbered(column: Any) -> bool:
    return bool(column.get("identity") or column.get("autoincrement") is True or column.get("computed"))


def _add_column(connection: Connection, table: Table, name: str) -> None:
    column, dialect = table.c[name], connection.dialect
    if isinstance(kind := bare_type(column, dialect.name), sa.Enum):
        kind.create(connection, checkfirst=True)  # of PostgreSQL; it does nothing elsewhere
    where = dialect.identifier_preparer.format_table(table)
    connection.execute(text(f"ALTER TABLE {where} ADD COLUMN {CreateColumn(column).compile(dialect=dialect)}"))
