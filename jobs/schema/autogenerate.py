"""Keeps a project's own Alembic from touching the tables of sync-clients, which stand in the same database."""

from collections.abc import Mapping

from jobs.schema.job_tables import metadata
from jobs.schema.upgrade import VERSION_TABLE


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
    """Tell Alembic whether a name of the database is the project's own, as the option `include_name` of `context.configure`.

    Without it, `alembic revision --autogenerate` proposes to drop each table that the project's models do not have, and so ours
    with all jobs and records.

    Args:
        name: of a schema, table, column, index or constraint; None is the default schema.
        type_: what it is.
        parent_names: `table_name` and others to which it belongs.
    """
    table = name if type_ == "table" else parent_names.get("table_name")
    return table not in metadata.tables and table != VERSION_TABLE
