"""Opens and sets up connections to PostgreSQL: time-outs, keepalives, encoding, and what a connection pooler allows."""

import logging
import os
from typing import Any

from sqlalchemy.engine import URL, ExceptionContext

from jobs.errors import DatabaseUrlError

log = logging.getLogger("syncs.database")

#: Parameters of libpq (PostgreSQL manual, "Parameter Key Words") that the URL may set otherwise. With these, a host that does
#: not answer is noticed after about 50 seconds, less than a lease of 60; without them after up to two hours.
DEFAULTS = {
    "connect_timeout": "10",  # seconds
    "keepalives_idle": "20",  # seconds
    "keepalives_interval": "10",  # seconds
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds
    "client_encoding": "utf8",
    "application_name": "syncs",
}

_ENVIRONMENT = {"connect_timeout": "PGCONNECT_TIMEOUT", "application_name": "PGAPPNAME"}
"""Variables of libpq that set such a parameter, too."""

#: What each session needs, whatever role or database say.
_REQUIRED = {"DateStyle": "ISO, YMD", "TimeZone": "UTC", "default_transaction_isolation": "read committed"}

#: What a session gets unless somebody has set it for the role, the database or in the URL (`options=-c lock_timeout=5s`). The
#: server uses the keepalives to free the rows of a host that is gone.
_USUAL = {
    "tcp_keepalives_idle": "20s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "lock_timeout": "60s",
    "statement_timeout": "10min",
    "idle_in_transaction_session_timeout": "1h",
}

_READ_ONLY = "25006"
"""PostgreSQL's error "read_only_sql_transaction"."""

_SETTINGS = ", ".join(
    f"('{name}', '{value}', {required})"
    for values, required in ((_REQUIRED, "true"), (_USUAL, "false"))
    for name, value in values.items()
)
# The join leaves out what this version of PostgreSQL does not know.
_SET_UP = f"""SELECT set_config(given.name, given.value, false) FROM (VALUES {_SETTINGS}) AS given (name, value, required)
JOIN pg_settings USING (name) WHERE required OR source IN ('default', 'configuration file')"""  # noqa: S608 - constants


class PostgresConnections:
    """How connections are opened, and what every new one needs.

    Args:
        url: the URL as it was given; its query holds parameters of libpq, and `prepare_threshold` of psycopg.

    Raises:
        DatabaseUrlError: a parameter is unknown or has an impossible value.
    """

    def __init__(self, url: URL) -> None:
        query = dict(url.query)
        has_threshold = "prepare_threshold" in query
        threshold = _threshold(query.pop("prepare_threshold", "none"))
        #: The URL without what is no parameter of libpq.
        self.url = url.set(query=query)
        self.arguments: dict[str, Any] = {
            name: value for name, value in DEFAULTS.items() if name not in query and _ENVIRONMENT.get(name, "") not in os.environ
        }
        self._has_threshold = has_threshold
        if has_threshold:
            self.arguments["prepare_threshold"] = threshold
        #: Whether a pooler stands between, as PgBouncer does; None before the first connection.
        self.is_pooled: bool | None = None

    def check_parameters(self) -> None:
        """Check the parameters of the URL without connecting.

        Raises:
            DatabaseUrlError: libpq does not know one of them.
            ImportError: the driver is missing.
        """
        import psycopg
        from psycopg.conninfo import make_conninfo

        try:
            make_conninfo(**{name: value for name, value in self.url.query.items() if isinstance(value, str)})
        except psycopg.Error as error:
            said = str(error).strip().splitlines()[0]
            raise DatabaseUrlError(f"SYNCS_DATABASE_URL has a parameter that PostgreSQL's driver does not take: {said}") from None

    def connected(self, connection: Any, _record: Any = None) -> None:
        """Set up a new connection of psycopg.

        Raises:
            DatabaseUrlError: the database cannot hold the data, or cannot be used through this pooler.
        """
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseUrlError(
                f"SYNCS_DATABASE_URL names a database with the encoding {encoding}, which cannot hold every text; "
                "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )
        before, connection.autocommit = connection.autocommit, True
        try:
            # A pooler makes up the number that it tells its clients, for the connection behind it changes.
            (pid,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
            if pid == connection.info.backend_pid:
                self.is_pooled = False
                connection.execute(_SET_UP, prepare=False)
            else:
                self._through_pooler(connection)
        finally:
            connection.autocommit = before

    def _through_pooler(self, connection: Any) -> None:
        if not self.is_pooled:
            log.info("a connection pooler stands before the database: no prepared statements, no LISTEN, no session settings")
        self.is_pooled = True
        # In transaction mode the next transaction may run on another connection, where what was prepared or set is missing.
        if not self._has_threshold:
            connection.prepare_threshold = None
        style = connection.info.parameter_status("DateStyle") or ""
        if not style.startswith("ISO"):
            raise DatabaseUrlError(
                f"SYNCS_DATABASE_URL leads through a connection pooler to a database with DateStyle {style}, which sync-clients "
                "cannot change there; do it with ALTER DATABASE … SET DateStyle TO 'ISO'"
            )


def drop_if_read_only(context: ExceptionContext) -> None:
    """Drop the connections to a server that has become read-only: after a failover a new one leads to another server."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _threshold(value: Any) -> int | None:
    """Return after how many executions psycopg prepares a statement: 0 at once, None never."""
    if value == "none":
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise DatabaseUrlError(
        "SYNCS_DATABASE_URL has a prepare_threshold that is no whole number; none means no prepared statements"
    )
