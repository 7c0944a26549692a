"""Compiles statements once and runs them on the driver itself, for the hot paths in place of `Connection.execute`.

SQLAlchemy takes 40 to 60 µs to execute a statement, even one whose compiled form it has cached; the drivers take 5 to 10. The
SQL text, the types of parameters and columns, the errors and the events are SQLAlchemy's as usual.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from sqlalchemy import JSON, Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.types import TypeEngine

from jobs.db.json_codec import decode

_Process: TypeAlias = Callable[[Any], Any]
_Statement: TypeAlias = Select[Any] | Insert | Update | Delete


class PreparedStatement:
    """A statement for one database, to be executed any number of times by any number of threads.

    Args:
        statement: without expanding parameters (`IN` over a list); or a function that builds it, called at the first execution.

    It is compiled at its first execution and runs in the open transaction of the connection that is passed. Parameters are passed
    by name, as to `Connection.execute`. Rows are returned as plain tuples, decoded by the types of their columns.
    """

    __slots__ = ("_arrange", "_decoders", "_sql", "_statement")

    def __init__(self, statement: _Statement | Callable[[], _Statement]) -> None:
        self._statement = statement
        self._sql: str | None = None
        self._decoders: list[tuple[int, _Process]] = []
        #: Turns named parameters into what the driver takes.
        self._arrange: _Process = dict

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute; return the selected or returned rows.

        Raises:
            sqlalchemy.exc.DBAPIError: as `Connection.execute` does.
        """
        sql, values, driver = self._ready(connection, parameters)
        try:
            found: list[tuple[Any, ...]] = driver.execute(sql, values).fetchall()
        except connection.dialect.loaded_dbapi.Error as error:
            raise_driver_error(connection, error, sql, values)
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
            raise_driver_error(connection, error, sql, values)
        return changed

    def count_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute once for each of these parameters, on SQLite; return how many rows changed.

        Raises:
            sqlalchemy.exc.DBAPIError: as `Connection.execute` does.
        """
        sql = self._sql or self._compile(connection)
        values = list(map(self._arrange, rows))
        fairy: Any = connection._dbapi_connection or connection.connection
        try:
            changed: int = fairy.dbapi_connection.executemany(sql, values).rowcount
        except connection.dialect.loaded_dbapi.Error as error:
            raise_driver_error(connection, error, sql, values)
        return changed

    def _ready(self, connection: Connection, parameters: Mapping[str, Any]) -> tuple[str, Any, Any]:
        """Return the SQL text, the values as the driver takes them, and the driver's connection."""
        sql = self._sql or self._compile(connection)
        values = self._arrange(parameters)
        hook = connection.engine.dispatch.before_cursor_execute
        if hook.listeners:
            for listener in hook:
                sql, values = listener(connection, None, sql, values, None, False)
        # `connection.connection.driver_connection` would take four calls. `connection.connection` reconnects if necessary.
        fairy: Any = connection._dbapi_connection or connection.connection
        return sql, values, fairy.dbapi_connection

    def _decode(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for index, decoder in self._decoders:
            if values[index] is not None:
                values[index] = decoder(values[index])
        return tuple(values)

    def _compile(self, connection: Connection) -> str:
        """Compile for the dialect of the connection, which knows its server's version once it is connected."""
        dialect = connection.dialect
        statement = self._statement() if callable(self._statement) else self._statement
        compiled = statement.compile(dialect=dialect)
        if compiled.post_compile_params:
            raise TypeError(f"a statement with expanding parameters cannot be prepared: {compiled}")
        defaults: dict[str, Any] = {}
        # By name, because one parameter may occur several times in the statement.
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
            for index, column in enumerate(statement.exported_columns)
            if (decoder := _decoder(column.type, dialect)) is not None
        ]
        # Assigned last: other threads take it as the sign that everything else is set.
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

    The function's source is generated, as `namedtuple` generates its constructor: a dict, a loop and `itemgetter` took twice as
    long, 3 of the 100 µs of a claim and a finish. The source contains only numbers and the names of parameters as literals.
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
            # Encoded once, so that a time that occurs several times has one value.
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
        return decode  # SQLAlchemy would call the same function through two others
    return type_.dialect_impl(dialect).result_processor(dialect, None)


def raise_driver_error(connection: Connection, error: Exception, sql: str, parameters: Any) -> NoReturn:
    """Raise SQLAlchemy's exception for an error of the driver; drop a broken connection together with its pool."""
    # SQLAlchemy rolls back if it knows of no transaction. On SQLite the transaction may have been begun on the driver, and then
    # the code that began it decides whether to roll back.
    if not connection.in_transaction() and _in_transaction(connection):
        connection.begin()
    connection._handle_dbapi_exception(error, sql, parameters, None, None)


def _in_transaction(connection: Connection) -> bool:
    try:
        return bool(getattr(connection.connection.driver_connection, "in_transaction", False))
    except connection.dialect.loaded_dbapi.Error:  # it is closed
        return False
