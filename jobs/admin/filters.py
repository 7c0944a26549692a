"""Selects jobs by queue, client, type, state, key, id and values in their payload, and JSON of other columns by such values."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Numeric, Text, and_, case, cast, func, literal, literal_column, or_
from sqlalchemy.dialects import postgresql

from jobs.errors import FilterError
from jobs.schema.job_tables import job, record
from jobs.schema.states import STATES

LARGEST_ID = 2**63 - 1
"""The largest id that a database can store."""

_MOST_INDEXES = 4
# No float has more than 300 digits before or after the point.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,299})(?:\.\d{1,300})?(?:[eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Filter:
    """Matches jobs for which every given condition is true.

    Args:
        queue, client, type, state, key: columns of the job.
        where: paths into the payload and the values there, as text: `{"data.name": "x"}`. A number fits however it is
            written (`5` and `5.0`), `true`, `false` and `null` are JSON's, a whole number in a path may be an index.
        ids: only these.

    Raises:
        FilterError: the state does not exist, or a path is not valid.
    """

    queue: str | None = None
    client: str | None = None
    type: str | None = None
    state: str | None = None
    key: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in STATES:
            raise FilterError(f"no job is ever {self.state!r}; states are: {', '.join(STATES)}")
        for path in self.where:
            check_path(path)

    @property
    def names_ids_only(self) -> bool:
        """Whether it has ids and no other condition."""
        return self.ids is not None and self == Filter(ids=self.ids)

    def conditions(self, dialect: str) -> list[ColumnElement[bool]]:
        """Return the conditions on the job's row, without the one on ids."""
        columns = ((job.c.queue, self.queue), (job.c.client, self.client), (job.c.type, self.type), (job.c.key, self.key))
        found = [column == value for column, value in columns if value is not None]
        if self.state is not None:
            # A literal, so that the partial indexes are used; it is one of STATES.
            found.append(job.c.state == literal_column(f"'{self.state}'"))
        return found + [has_value(dialect, job.c.payload, path, value) for path, value in self.where.items()]


def check_path(path: str) -> None:
    """Refuse what is no path into JSON.

    Raises:
        FilterError: it is none.
    """
    names = path.split(".")
    if not all(names) or '"' in path or "\0" in path or sum(map(_is_index, names)) > _MOST_INDEXES:
        raise FilterError(f"{path!r} is no path into a payload; write names with dots between, as in data.name")


def has_value(dialect: str, column: ColumnElement[Any], path: str, value: str) -> ColumnElement[bool]:
    """Return the condition that the JSON of a column has this value at this path; see `Filter` and `check_path`."""
    names = path.split(".")
    if dialect == "postgresql":
        return func.coalesce(_postgresql(column, names, value, is_jsonb=column is record.c.data), False)
    return func.coalesce(or_(*(_sqlite(column, place, value) for place in _places(names))), False)


def _postgresql(column: ColumnElement[Any], path: list[str], value: str, *, is_jsonb: bool) -> ColumnElement[bool]:
    if is_jsonb:
        return _at(column, func.jsonb_typeof, postgresql.JSONB(), path, value)
    text = cast(column, Text)
    # A payload may contain an escaped NUL. PostgreSQL stores it, but a statement that extracts any text from that payload fails.
    whole = case(
        (func.strpos(text, "\\u0000") > 0, cast(func.replace(text, "\\u0000", "\\ufffd"), postgresql.JSON)),
        else_=cast(column, postgresql.JSON),
    )
    return _at(whole, func.json_typeof, postgresql.JSON(), path, value)


def _at(whole: ColumnElement[Any], typeof: Any, type_: Any, path: list[str], value: str) -> ColumnElement[bool]:
    place = literal(path, postgresql.ARRAY(Text))
    found = whole.op("#>>", return_type=Text())(place)
    kind = typeof(whole.op("#>", return_type=type_)(place))
    if value == "null":
        # `#>>` returns the same for JSON's null and for a missing value.
        return or_(found == value, kind == value)
    if not _is_number(value):
        return found == value
    return case((kind == "number", cast(found, Numeric) == cast(literal(value, Text), Numeric)), else_=found == value)


def _sqlite(column: ColumnElement[Any], place: str, value: str) -> ColumnElement[bool]:
    # In SQLite a text ends at an escaped NUL.
    whole = case((func.instr(column, "\\u0000") > 0, func.replace(column, "\\u0000", "\\ufffd")), else_=column)
    kind = func.json_type(whole, place)
    found = func.json_extract(whole, place)
    same: ColumnElement[bool] = found == literal(value, Text)
    if value in ("true", "false", "null"):
        return case((kind == "text", same), else_=kind == value)
    if not _is_number(value):
        return and_(kind.in_(("text", "array", "object")), same)
    if value.lstrip("-").isdigit() and abs(int(value)) > LARGEST_ID:
        # SQLite's integers have 64 bits. With the path given twice, `json_extract` returns JSON text, with all digits.
        number = func.json_extract(whole, place, place) == f"[{value},{value}]"
    else:
        number = found == json.loads(value)
    return case((kind == "text", same), (kind.in_(("integer", "real")), number), else_=False)


def _places(path: list[str]) -> list[str]:
    """Return the JSON paths that these names may mean on SQLite, where a whole number may be a name or an index."""
    places = ["$"]
    for name in path:
        steps = [f'."{name}"', f"[{name}]"] if _is_index(name) else [f'."{name}"']
        places = [place + step for place in places for step in steps]
    return places


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))
