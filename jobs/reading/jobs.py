"""Reads lists of jobs: filtered, in any order, page by page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.db.json_codec import decode
from jobs.errors import JobNotFound
from jobs.reading.reader import Reader, moment
from jobs.reading.where import check_paths, where_sql

SORTS = ("id", "created_at", "available_at", "finished_at", "attempts", "retries", "queue", "client", "type", "key", "state")
"""The columns by which jobs are sorted."""

FEW = 10_000
"""Jobs that are named by their ids."""

NAMES = (
    "id", "queue", "client", "type", "key", "state", "attempts", "retries", "message", "created_at", "available_at",
    "finished_at",
)  # fmt: skip
_TIMES = frozenset({"created_at", "available_at", "finished_at"})


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs are listed, and how.

    Args:
        queue, client, type, state, key: columns of the job.
        where: paths into the payload and the values there, as in `jobs.admin.filters.Filter`.
        since: only jobs that were queued or finished since then.
        sort: one of `SORTS`; `finished_at` lists only jobs that are finished.
        ascending: the lowest or oldest first.
        after: the id of a job: only those behind it in this order.
        payload: with their payloads.
        limit: the most to return.

    Raises:
        FilterError: a path is none.
    """

    queue: str | None = None
    client: str | None = None
    type: str | None = None
    state: str | None = None
    key: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    sort: str = "id"
    ascending: bool = False
    after: int | None = None
    payload: bool = False
    limit: int = 50

    def __post_init__(self) -> None:
        check_paths(self.where)


def job_list(reader: Reader, wanted: JobQuery) -> list[dict[str, Any]]:
    """Return jobs as documents: `NAMES`, and `payload` if asked for.

    Raises:
        JobNotFound: there is no job `after`, by which it could go on.
    """
    condition, values = where_sql(reader.dialect, "job.payload", wanted.where)
    for name in ("queue", "client", "type", "key"):
        if (value := getattr(wanted, name)) is not None:
            condition += f" AND job.{name} = :of_{name}"
            values[f"of_{name}"] = value
    if wanted.state is not None:
        # A literal, so that the partial indexes are used.
        condition += f" AND job.state = '{_word(wanted.state)}'"
    if wanted.since is not None:
        condition += _since(reader, wanted.since, values)
    order, after = _order(reader, wanted, values)
    columns = ", ".join(f"job.{name}" for name in NAMES) + (", CAST(job.payload AS text)" if wanted.payload else "")
    statement = f"SELECT {columns} FROM job WHERE 1 = 1{condition}{after} ORDER BY {order} LIMIT :most"  # noqa: S608 - our words
    rows = reader.select(statement, most=wanted.limit, **values)
    return [_document(row, payload=wanted.payload) for row in rows]


def _since(reader: Reader, since: datetime, values: dict[str, Any]) -> str:
    """Return the condition that a job was queued or has finished since then.

    Few such jobs are named by their ids, because SQLite would look for them among all; of many, the newest are soon found.
    """
    values["since"] = reader.time(since)
    # Ids ascend in the order of arrival.
    rows = reader.select("SELECT id FROM job WHERE created_at < :since ORDER BY id DESC LIMIT 1", since=values["since"])
    values["edge"] = rows[0][0] if rows else 0
    finished = "finished_at IS NOT NULL AND finished_at >= :since"
    (count,) = reader.select(
        f"SELECT (SELECT count(*) FROM (SELECT 1 FROM job WHERE {finished} LIMIT :few) AS late), (SELECT max(id) FROM job)",  # noqa: S608
        since=values["since"],
        few=FEW,
    )
    if count[0] < FEW and (count[1] or 0) - values["edge"] < FEW:
        return f" AND job.id IN (SELECT id FROM job WHERE id > :edge UNION SELECT id FROM job WHERE {finished})"  # noqa: S608
    return f" AND (job.id > :edge OR ({finished}))"


def _order(reader: Reader, wanted: JobQuery, values: dict[str, Any]) -> tuple[str, str]:
    """Return the order, and the condition of what stands behind `after` in it."""
    direction, beyond = ("ASC", ">") if wanted.ascending else ("DESC", "<")
    column = f"job.{_word(wanted.sort)}"
    order = f"{column} {direction}" if wanted.sort == "id" else f"{column} {direction}, job.id {direction}"
    if wanted.sort == "key":
        order = f"job.key IS NULL, {order}"
    only = " AND job.finished_at IS NOT NULL" if wanted.sort == "finished_at" else ""
    if wanted.after is None:
        return order, only
    values["after"] = wanted.after
    if wanted.sort == "id":
        return order, f" AND job.id {beyond} :after"
    rows = reader.select(f"SELECT {column} FROM job WHERE id = :after", after=wanted.after)  # noqa: S608 - one of SORTS
    if not rows:
        raise JobNotFound(f"no job has the id {wanted.after}, so what stands behind it is not known")
    if (value := rows[0][0]) is None:
        return order, f"{only} AND {column} IS NULL AND job.id {beyond} :after"
    values["value"] = value
    behind = f"{column} {beyond} :value OR ({column} = :value AND job.id {beyond} :after)"
    return order, f"{only} AND ({behind}{' OR job.key IS NULL' if wanted.sort == 'key' else ''})"


def _document(row: tuple[Any, ...], *, payload: bool) -> dict[str, Any]:
    found = dict(zip(NAMES, row, strict=False))
    found |= {name: moment(found[name]) for name in _TIMES}
    if payload:
        found["payload"] = None if row[-1] is None else decode(row[-1])
    return found


def _word(name: str) -> str:
    """Return a word that goes into a statement, after a look at it."""
    assert name.isidentifier(), name
    return name
