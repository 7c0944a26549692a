"""The conditions under which a queued job may be claimed, as SQL expressions.

The states are literals, because a partial index serves a statement only where its predicate stands there literally.
"""

from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
)

from jobs.db.database import Database
from jobs.schema.job_tables import client, job, pause
from jobs.schema.states import PROCESSING_LITERAL, QUEUED_LITERAL

_ZERO = literal_column("0", Integer)


class LaneColumns(NamedTuple):
    """A lane as four expressions."""

    queue: Any
    client: Any
    type: Any
    phase: Any

    def fits(self) -> list[ColumnElement[bool]]:
        """Return the conditions on a job of this lane."""
        return [job.c.queue == self.queue, job.c.client == self.client, job.c.type == self.type, job.c.phase == self.phase]


#: The lane that `Lane.parameters` binds.
BOUND = LaneColumns(bindparam("in_queue"), bindparam("of_client"), bindparam("of_type"), bindparam("of_phase"))

#: By priority, then by due time, then by id: the order of the index job_ready.
ORDER = (job.c.priority.desc(), job.c.available_at, job.c.id)


def is_open(client: Any) -> ColumnElement[bool]:
    """Return the condition that a client has no open pause, neither one in force nor one that waits for its probe."""
    return ~_is_paused(client)


def if_open(client: Any) -> ColumnElement[Any]:
    """Return the client, or NULL, which no job has, while the client has an open pause.

    SQLite evaluates `is_open` again for each row that it walks over, but this only once, before it reads the index.
    """
    return case((_is_paused(client), null()), else_=client)


def _is_paused(client: Any) -> ColumnElement[bool]:
    return exists(literal_column("1")).where(pause.c.client == client, pause.c.ended_at.is_(None))


def generation_of(of: Any) -> Any:
    """Return the generation of a client: requests of a job that is claimed now begin under it."""
    return func.coalesce(select(client.c.generation).where(client.c.id == of).scalar_subquery(), literal_column("0"))


def is_due(db: Database, *, suspects: bool) -> list[ColumnElement[bool]]:
    """Return the conditions that a job's time has come, and that it has, or has not, been rescued."""
    return [job.c.available_at <= db.now, job.c.rescues > _ZERO if suspects else job.c.rescues == _ZERO]


def is_declared(db: Database, type: Any) -> ColumnElement[bool]:
    """Return the condition that the project declares this type; true of all types where that is not known."""
    if not db.declared_types:
        return true()
    # Not `IN (…)`: statements are prepared once, without expanding parameters.
    return func.replace(db.declared_types, literal("|").concat(type).concat("|"), "") != db.declared_types


def is_in_turn(db: Database) -> ColumnElement[bool]:
    """Return the condition that a job has no serial key, or no other job of its key is in processing or queued before it.

    A job whose type is declared no longer holds nobody back: nobody would ever work it.

    Within one claim this admits one job of each key: the second still sees the first in the queue. Between claims on
    PostgreSQL the unique index job_alone decides, see `jobs.db.conflicts`.
    """
    active, earlier = job.alias("active"), job.alias("earlier")
    return or_(
        job.c.serial_key.is_(None),
        and_(
            ~exists(literal_column("1")).where(
                active.c.state == PROCESSING_LITERAL,
                active.c.serial_key.is_not(None),
                active.c.queue == job.c.queue,
                active.c.serial_key == job.c.serial_key,
            ),
            ~exists(literal_column("1")).where(
                earlier.c.state == QUEUED_LITERAL,
                earlier.c.serial_key.is_not(None),
                earlier.c.queue == job.c.queue,
                earlier.c.serial_key == job.c.serial_key,
                earlier.c.id < job.c.id,
                is_declared(db, earlier.c.type),
            ),
        ),
    )
