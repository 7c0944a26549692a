"""Upserts many rows into a typed table at once, with the types of its columns.

On PostgreSQL the rows are one JSON parameter of one statement, as in `jobs.db.json_rows`: `executemany` sends each row by itself,
and took five times as long. SQLite has no network, and gets the values as they are, so that a float keeps its last bit.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from math import isfinite
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Dialect, Text, bindparam, column, func, literal_column, select
from sqlalchemy import types as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

from jobs.db import json_codec
from jobs.db.prepared_statements import PreparedStatement
from jobs.typed_tables.target_table import TargetTable, bare_type, type_on

_PLAIN = (
    sa.String,
    sa.Integer,
    sa.Numeric,
    sa.Float,
    sa.Boolean,
    sa.Date,
    sa.DateTime,
    sa.Time,
    sa.Uuid,
    sa.JSON,
    sa.LargeBinary,
)
_Values = Mapping[str, Any]


class Upsert:
    """Inserts rows of some columns into a table, or updates those that are there.

    Args:
        target: the table.
        dialect: of the database.
        columns: that each row has.
        kept: those that no update changes.
    """

    def __init__(self, target: TargetTable, dialect: Dialect, columns: Sequence[str], kept: Sequence[str]) -> None:
        self._target, self._columns, self._kept = target, tuple(columns), frozenset(kept)
        self._has_key = {*target.key} <= {*columns}
        self._dialect = dialect.name
        self._is_postgres = dialect.name == "postgresql"
        of = [target.table.c[name] for name in self._columns]
        self._encoders: list[Callable[[Any], Any] | None] | None = None
        if self._is_postgres and all(_is_plain(one, dialect.name) for one in of):
            self._encoders = [_encoder(one, dialect) for one in of]
        self._names = [f"v_{index}" for index in range(len(of))]
        self._one = self._of_one_row()
        self._prepared = PreparedStatement(self._one if self._encoders is None else self._of_json())

    def run(self, connection: Connection, rows: Sequence[_Values]) -> bool:
        """Write rows; return whether all of them: one that stands there for another parent is left as it is.

        Raises:
            sqlalchemy.exc.DBAPIError: the database refuses one.
        """
        if self._encoders is not None:
            return self._run_json(connection, rows, self._encoders)
        values = [dict(zip(self._names, row.values(), strict=True)) for row in rows]
        if self._is_postgres:
            return connection.execute(self._one, values).rowcount in (-1, len(rows))
        return self._prepared.count_many(connection, values) == len(rows)

    def _run_json(self, connection: Connection, rows: Sequence[_Values], encoders: Sequence[Callable[[Any], Any] | None]) -> bool:
        if self._has_key and len(rows) > 1:
            # One statement writes no row twice; of two the last counts, if they are of one parent.
            last = {self._target.identity(row): row for row in rows}
            owner = self._target.owner
            if owner is not None and any(row[owner] != last[self._target.identity(row)][owner] for row in rows):
                return False
            rows = list(last.values())
        found = [
            [
                value if value is None or encode is None else encode(value)
                for value, encode in zip(row.values(), encoders, strict=True)
            ]
            for row in rows
        ]
        parameters = {"rows": orjson.dumps(found, default=str).decode(), "count": len(found)}
        return self._prepared.count(connection, parameters) == len(found)

    def _of_one_row(self) -> Any:
        make = postgresql.insert(self._target.table) if self._is_postgres else sqlite.insert(self._target.table)
        values = {
            name: bindparam(parameter, type_=_bound_type(self._target.table.c[name], self._dialect))
            for name, parameter in zip(self._columns, self._names, strict=True)
        }
        return self._on_conflict(make.values(values))

    def _of_json(self) -> Any:
        value = column("value", JSONB)
        source = func.jsonb_array_elements(bindparam("rows", type_=Text).cast(JSONB)).table_valued(value, name="raw")
        # The limit removes nothing; it tells the planner the number of rows.
        raw = select(source.c.value).select_from(source).limit(bindparam("count", type_=sa.Integer)).subquery("v")
        values = [
            raw.c.value.op("->>")(literal_column(str(index))).cast(self._target.table.c[name].type)
            for index, name in enumerate(self._columns)
        ]
        make = postgresql.insert(self._target.table)
        return self._on_conflict(make.from_select(list(self._columns), select(*values)))

    def _on_conflict(self, make: Any) -> Any:
        target, key = self._target, list(self._target.key)
        if not self._has_key:
            # The database numbers the rows.
            return make
        changed = {name: make.excluded[name] for name in self._columns if name not in key and name not in self._kept}
        if not changed:
            # An update of nothing, so that rows which are there count.
            changed = {key[0]: make.excluded[key[0]]}
        where = None
        if target.owner is not None:
            where = target.table.c[target.owner].is_not_distinct_from(make.excluded[target.owner])
        return make.on_conflict_do_update(index_elements=key, set_=changed, where=where)


def _bound_type(of: Column[Any], dialect: str) -> Any:
    """Return the type as which a value is bound: no value of a JSON column is NULL, not the JSON `null`."""
    found = type_on(of, dialect)
    return type(found)(none_as_null=True) if isinstance(found, sa.JSON) else found


def _is_plain(of: Column[Any], dialect: str) -> bool:
    """Tell whether it is known of which text PostgreSQL makes a value of the column."""
    found = type_on(of, dialect)
    is_wrapped = isinstance(found, sa.TypeDecorator) and not isinstance(found, AutoString | UTCDateTime | sa.Interval)
    return not is_wrapped and isinstance(bare_type(of, dialect), _PLAIN)


def _encoder(of: Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what makes a value of a column one of JSON, whose text PostgreSQL reads; `None` where orjson does."""
    found = bare_type(of, dialect.name)
    if isinstance(found, sa.Enum):
        name_of: Any = found.dialect_impl(dialect).bind_processor(dialect)
        return name_of  # type: ignore[no-any-return]
    if isinstance(found, sa.JSON):
        return lambda value: json_codec.encode(value).decode()
    if isinstance(found, sa.LargeBinary):
        return lambda value: f"\\x{value.hex()}"
    if isinstance(found, sa.Interval):
        return _interval
    # A text is as exact; orjson writes `null` for what is no number.
    return _number if isinstance(found, sa.Numeric | sa.Float) else None


def _number(value: Any) -> Any:
    return value if isinstance(value, float) and isfinite(value) else str(value)


def _interval(value: timedelta) -> str:
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
