"""Statements compiled once and run on the driver itself: what the hot paths use in place of `Connection.execute`.

SQLAlchemy takes 40 to 60 µs to execute a statement, also one whose compiled form it has cached; the drivers take 5 to 10. Text,
types of parameters and columns, errors and events are SQLAlchemy's all the same. Knows no table and no database of its own.
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NoReturn, TypeAlias

from sqlalchemy import JSON, Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.types import TypeEngine

from jobs.fingerprint import decode

_Process: TypeAlias = Callable[[Any], Any]


class Prepared:
    """A statement for one database, to be executed any number of times by any number of threads.

    Args:
        statement: without parameters that expand (`IN` over a list).

    It is compiled by its first execution and runs inside the transaction of the connection that it is given. Parameters are those
    that `Connection.execute` takes, by name. Rows come as plain tuples, decoded by the types of their columns.
    """

    __slots__ = ("_arrange", "_decoders", "_defaults", "_encoders", "_sql", "_statement")

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement
        self._sql: str | None = None
        self._defaults: dict[str, Any] = {}
        self._encoders: list[tuple[str, _Process]] = []
        self._decoders: list[tuple[int, _Process]] = []
        #: From values by name to what the driver takes.
        self._arrange: _Process = dict

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute; return what it selects or returns.

        Raises:
            sqlalchemy.exc.DBAPIError: as `Connection.execute` does.
        """
        sql, values, driver = self._ready(connection, parameters)
        try:
            found: list[tuple[Any, ...]] = driver.execute(sql, values).fetchall()
        except connection.dialect.loaded_dbapi.Error as error:
            refuse(connection, error, sql, values)
        if self._decoders:
            return [self._decode(row) for row in found]
        return found

    def count(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Execute a statement that returns no rows; return how many it changed.

        Raises:
            sqlalchemy.exc.DBAPIError: as `Connection.execute` does.
        """
        sql, values, driver = self._ready(connection, parameters)
        try:
            changed: int = driver.execute(sql, values).rowcount
        except connection.dialect.loaded_dbapi.Error as error:
            refuse(connection, error, sql, values)
        return changed

    def _ready(self, connection: Connection, parameters: Mapping[str, Any]) -> tuple[str, Any, Any]:
        """Return text, values as the driver takes them, and the driver's connection."""
        sql = self._sql or self._compile(connection)
        values: Any = {**self._defaults, **parameters}
        for name, encode in self._encoders:
            values[name] = encode(values[name])
        values = self._arrange(values)
        heard = connection.engine.dispatch.before_cursor_execute
        if heard.listeners:
            for listener in heard:
                sql, values = listener(connection, None, sql, values, None, False)
        # `connection.connection.driver_connection` takes four calls; it opens the connection again where it broke.
        fairy: Any = connection._dbapi_connection or connection.connection
        return sql, values, fairy.dbapi_connection

    def _decode(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for index, decoder in self._decoders:
            if values[index] is not None:
                values[index] = decoder(values[index])
        return tuple(values)

    def _compile(self, connection: Connection) -> str:
        """Compile in the dialect of the connection, which knows its server by now."""
        dialect = connection.dialect
        compiled = self._statement.compile(dialect=dialect)
        if compiled.post_compile_params:
            raise TypeError(f"a statement with expanding parameters cannot be prepared: {compiled}")
        defaults: dict[str, Any] = {}
        # By name: one parameter may stand in several places of the statement.
        encoders: dict[str, _Process] = {}
        for bind, name in compiled.bind_names.items():
            encode = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if not bind.required:
                defaults[name] = bind.effective_value
            if encode is not None:
                encoders[name] = encode
        names = compiled.positiontup
        if names is not None:
            self._arrange = _in_order(names)
        self._defaults, self._encoders = defaults, list(encoders.items())
        self._decoders = [
            (index, decoder)
            for index, column in enumerate(self._statement.exported_columns)
            if (decoder := _decoder(column.type, dialect)) is not None
        ]
        # Last, because another thread takes this for the sign that all is there.
        self._sql = str(compiled)
        return self._sql


def _in_order(names: list[str]) -> _Process:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _decoder(type_: TypeEngine[Any], dialect: Dialect) -> _Process | None:
    if isinstance(type_, JSON) and dialect.name == "sqlite":
        return decode  # which `jobs.database` gives to SQLAlchemy, and that would call through two more functions
    return type_.dialect_impl(dialect).result_processor(dialect, None)


def _fetch(cursor: Any) -> Any:
    return cursor.fetchall()


def _rowcount(cursor: Any) -> Any:
    return cursor.rowcount


def refuse(connection: Connection, error: Exception, sql: str, parameters: Any) -> NoReturn:
    """Raise what SQLAlchemy raises for an error of the driver; give up a connection that broke, together with its pool."""
    # SQLAlchemy rolls back where it knows of no transaction; on SQLite one is begun past it, and whoever began it decides.
    if not connection.in_transaction() and _in_transaction(connection):
        connection.begin()
    connection._handle_dbapi_exception(error, sql, parameters, None, None)


def _in_transaction(connection: Connection) -> bool:
    try:
        return bool(getattr(connection.connection.driver_connection, "in_transaction", False))
    except connection.dialect.loaded_dbapi.Error:  # it is closed
        return False
