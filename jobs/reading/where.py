"""Conditions on values in JSON columns, as SQL for a `Reader`."""

from collections.abc import Mapping
from typing import Any


def check_paths(where: Mapping[str, str] | None) -> None:
    """Refuse what is no path into JSON.

    Raises:
        FilterError: one is none.
    """
    if where:
        from jobs.admin.filters import check_path

        for path in where:
            check_path(path)


def where_sql(dialect: str, column: str, where: Mapping[str, str] | None) -> tuple[str, dict[str, Any]]:
    """Return the conditions as SQL that begins with AND, and the values of its parameters.

    SQLAlchemy makes them, as for the bulk commands; it is imported only when there is a filter.

    Args:
        dialect: sqlite or postgresql.
        column: `job.payload` or `record.data`.
        where: paths and values, see `jobs.admin.filters.Filter`.
    """
    if not where:
        return "", {}
    from sqlalchemy import and_
    from sqlalchemy.dialects import postgresql, sqlite

    from jobs.admin.filters import has_value
    from jobs.schema.job_tables import metadata

    table, _, name = column.partition(".")
    json = metadata.tables[table].c[name]
    condition = and_(*(has_value(dialect, json, path, value) for path, value in where.items()))
    named = postgresql.dialect(paramstyle="named") if dialect == "postgresql" else sqlite.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    compiled = condition.compile(dialect=named, compile_kwargs={"render_postcompile": True})
    return f" AND {compiled}", dict(compiled.params)
