"""Statements compiled once and run on the driver itself: what the hot paths use in place of `Connection.execute`.

SQLAlchemy takes 40 to 60 µs to execute a statement, also one whose compiled form it has cached; the drivers take 5 to 10. Text,
types of parameters and columns, errors and events are SQLAlchemy's all the same. Knows no table and no database of its own.
"""

from collections.abc import Callable, Mapping, Sequence
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

    __slots__ = ("_arrange", "_decoders", "_sql", "_statement")

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement
        self._sql: str | None = None
        self._decoders: list[tuple[int, _Process]] = []
        #: From parameters to what the driver takes.
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
        values = self._arrange(parameters)
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
        self._arrange = _by_name(defaults, encoders) if names is None else _in_order(names, defaults, encoders)
        self._decoders = [
            (index, decoder)
            for index, column in enumerate(self._statement.exported_columns)
            if (decoder := _decoder(column.type, dialect)) is not None
        ]
        # Last, because another thread takes this for the sign that all is there.
        self._sql = str(compiled)
        return self._sql


def _by_name(defaults: Mapping[str, Any], encoders: Mapping[str, _Process]) -> _Process:
    """Return a function from parameters to the dict that the driver takes."""

    def arrange(parameters: Mapping[str, Any]) -> dict[str, Any]:
        values = {**defaults, **parameters}
        for name, encode in encoders.items():
            values[name] = encode(values[name])
        return values

    return arrange


def _in_order(names: Sequence[str], defaults: Mapping[str, Any], encoders: Mapping[str, _Process]) -> _Process:
    """Return a function from parameters to the tuple that the driver takes.

    It is written out, as `namedtuple` writes its constructor: dict, loop and `itemgetter` took twice as long, 3 of the 100 µs of
    a claim and a finish. Its text holds only numbers and the names of parameters, as literals.
    """
    lines: list[str] = []
    known: dict[str, str] = {}
    scope: dict[str, Any] = {}
    for number, name in enumerate(dict.fromkeys(names)):
        found = f"given[{name!r}]"
        if name in defaults:
            scope[f"default_{number}"] = defaults[name]
            found = f"given.get({name!r}, default_{number})"
        if name in encoders:
            # A moment that stands in several places is one moment.
            scope[f"encode_{number}"] = encoders[name]
            lines.append(f"    value_{number} = encode_{number}({found})")
            found = f"value_{number}"
        known[name] = found
    values = ", ".join(known[name] for name in names)
    text = "\n".join(["def arrange(given):", *lines, f"    return ({values}{',' if names else ''})"])
    exec(text, scope)  # noqa: S102  # see above
    arrange: _Process = scope["arrange"]
    return arrange


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
