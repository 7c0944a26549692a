"""Opens the project's database for commands that only ask. It imports neither SQLAlchemy nor pydantic where all is well."""

import os
from pathlib import Path

from flows.project.discovery import project_name_in
from jobs.reading.reader import Reader, is_missing, open_reader

DEFAULT_URL = "sqlite:///data/syncs.db"
"""As in `flows.project.settings`; a test compares the two."""


def read_database() -> Reader | None:
    """Open the project's database to read; `None` where it does not exist yet, which it then does not afterwards either.

    Raises:
        FlowsError, JobsError: as `flows.project.settings.open_store`.
    """
    url = _variable("SYNCS_DATABASE_URL") or DEFAULT_URL
    if is_missing(url):
        return None
    reader = open_reader(url, project=_variable("SYNCS_PROJECT").strip() or project_name_in(Path("pyproject.toml")))
    if reader is not None:
        return reader
    # Something is unusual. This says what is wrong, or makes or claims the tables; its connections are set up for any case.
    from flows.project.settings import open_store

    db = open_store().db
    driver = db.engine.dialect.dbapi
    connection = db.engine.raw_connection().driver_connection
    assert driver is not None
    assert connection is not None
    if db.dialect == "postgresql":
        connection.autocommit = True
    return Reader(connection, db.dialect, driver.Error)


def _variable(name: str) -> str:
    """Return a variable, whatever its case, as pydantic-settings does."""
    return next((value for key, value in os.environ.items() if key.upper() == name), "")
