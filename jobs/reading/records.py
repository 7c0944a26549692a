"""Reads records, page by page in the order of their keys, and the entities that fail now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.db.json_codec import decode
from jobs.reading.reader import Reader, moment
from jobs.reading.where import check_paths, where_sql

PAGE = 2000
"""Records that are read at once."""


@dataclass(frozen=True, slots=True)
class RecordView:
    """What is known of one entity."""

    key: str
    version: str | None
    #: The record; `None` where the sync stores it elsewhere, or the entity was never stored.
    data: Any
    first_seen_at: datetime | None
    changed_at: datetime | None
    synced_at: datetime | None
    deleted_at: datetime | None
    #: Of its last attempt, if that failed.
    last_error: str | None
    last_error_at: datetime | None


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records are read.

    Args:
        sync: whose.
        failing: only entities whose last attempt failed, also those that were never stored.
        deleted: also those that are marked as deleted.
        where: paths into the data and the values there, as in `jobs.admin.filters.Filter`.

    Raises:
        FilterError: a path is none.
    """

    sync: str
    failing: bool = False
    deleted: bool = False
    where: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_paths(self.where)


_TIMES = ("first_seen_at", "changed_at", "synced_at", "deleted_at")
_STORED = (
    "SELECT record.key AS key, record.version, CAST(record.data AS text), record.first_seen_at, record.changed_at, "
    "record.synced_at, record.deleted_at, record.last_error, record.last_error_at FROM record WHERE record.sync = :sync"
)

#: The newest failed job of an entity that has no record.
_NEVER_STORED = """
    SELECT job.key AS key, CAST(NULL AS text), CAST(NULL AS text), CAST(NULL AS timestamptz), CAST(NULL AS timestamptz),
    CAST(NULL AS timestamptz), CAST(NULL AS timestamptz), job.message, job.finished_at FROM job
    WHERE job.type = :sync AND job.state = 'failure' AND job.key IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM record WHERE record.sync = job.type AND record.key = job.key)
    AND NOT EXISTS (
        SELECT 1 FROM job AS newer WHERE newer.type = job.type AND newer.key = job.key AND newer.state = 'failure'
        AND newer.id > job.id
    )
"""


def record_page(reader: Reader, wanted: RecordFilter, *, after: str | None = None, limit: int = PAGE) -> list[RecordView]:
    """Return records in the order of their keys.

    Args:
        reader: of the database.
        wanted: which.
        after: only those behind this key.
        limit: the most to return.
    """
    condition, values = where_sql(reader.dialect, "record.data", wanted.where)
    stored = _STORED + condition
    if wanted.failing:
        stored += " AND record.last_error IS NOT NULL AND record.deleted_at IS NULL"
    elif not wanted.deleted:
        stored += " AND record.deleted_at IS NULL"
    if after is not None:
        values["after"] = after
        stored += " AND record.key > :after"
    statement = stored
    if wanted.failing and not wanted.where:
        never = _NEVER_STORED + (" AND job.key > :after" if after is not None else "")
        # Each with its own limit: PostgreSQL would look at all of them else.
        first = " ORDER BY key LIMIT :most"
        statement = f"SELECT * FROM ({stored}{first}) AS stored UNION ALL SELECT * FROM ({never}{first}) AS never"  # noqa: S608
    rows = reader.select(f"{statement} ORDER BY key LIMIT :most", sync=wanted.sync, most=limit, **values)
    return [_view(row) for row in rows]


def all_records(reader: Reader, wanted: RecordFilter, *, limit: int | None = None) -> Iterator[list[RecordView]]:
    """Yield records page by page in the order of their keys, all of them or the first `limit`."""
    after, left = None, limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = record_page(reader, wanted, after=after, limit=size)
        if page:
            yield page
        if len(page) < size:
            return
        after, left = page[-1].key, None if left is None else left - len(page)


def find_record(reader: Reader, sync: str, key: str) -> RecordView | None:
    """Return what is known of an entity, also of one that is deleted or was never stored; `None` where that is nothing."""
    rows = reader.select(f"{_STORED} AND record.key = :key", sync=sync, key=key)
    rows = rows or reader.select(f"{_NEVER_STORED} AND job.key = :key", sync=sync, key=key)
    return _view(rows[0]) if rows else None


def has_records(reader: Reader, sync: str) -> bool:
    """Tell whether anything is known of any entity of a sync."""
    return bool(reader.select("SELECT 1 FROM record WHERE sync = :sync LIMIT 1", sync=sync))


def _view(row: tuple[Any, ...]) -> RecordView:
    key, version, data, *times, error, error_at = row
    read = dict(zip(_TIMES, map(moment, times), strict=True))
    return RecordView(
        key=key,
        version=version,
        data=None if data is None else decode(data),
        last_error=error,
        last_error_at=moment(error_at),
        **read,
    )
