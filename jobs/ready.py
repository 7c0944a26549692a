"""Which queued jobs may be claimed, as conditions of statements. Executes nothing.

A partial index serves a statement only where its predicate stands there literally, so the states here are literals.
"""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, and_, bindparam, case, exists, func, literal_column, null, or_, select

from jobs.database import Database
from jobs.models import client, job, pause
from jobs.settle import PROCESSING, QUEUED

_ZERO = literal_column("0", Integer)


class LaneColumns(NamedTuple):
    """A lane as four expressions."""

    queue: Any
    client: Any
    type: Any
    phase: Any

    def fits(self) -> list[ColumnElement[bool]]:
        """The jobs of this lane."""
        return [job.c.queue == self.queue, job.c.client == self.client, job.c.type == self.type, job.c.phase == self.phase]


#: The lane that `Lane.parameters` binds.
BOUND = LaneColumns(bindparam("in_queue"), bindparam("of_client"), bindparam("of_type"), bindparam("of_phase"))

#: Urgent first, then what is due longest, then what came first: the order of the index job_ready.
ORDER = (job.c.priority.desc(), job.c.available_at, job.c.id)


def is_open(client: Any) -> ColumnElement[bool]:
    """The client has no open pause, neither one in force nor one that waits for its probe (law 5)."""
    return ~_is_shut(client)


def if_open(client: Any) -> ColumnElement[Any]:
    """The client, or NULL, which no job has, while it has an open pause.

    SQLite asks `is_open` again for each row that it walks over; this it asks before it looks into the index at all.
    """
    return case((_is_shut(client), null()), else_=client)


def _is_shut(client: Any) -> ColumnElement[bool]:
    return exists(literal_column("1")).where(pause.c.client == client, pause.c.ended_at.is_(None))


def generation_of(of: Any) -> Any:
    """The generation of a client, under which the requests of a job begin that is claimed now."""
    return func.coalesce(select(client.c.generation).where(client.c.id == of).scalar_subquery(), literal_column("0"))


def is_due(db: Database, *, suspects: bool) -> list[ColumnElement[bool]]:
    """Its time has come; and it is, or is not, one that was in a dying worker's hands."""
    return [job.c.available_at <= db.now, job.c.rescues > _ZERO if suspects else job.c.rescues == _ZERO]


def is_in_turn() -> ColumnElement[bool]:
    """It has no serial key; or none of its key is in processing, and none that came earlier waits, due or not (M11).

    Within one claim this admits one job of each key: the second still sees the first in the queue. Between claims
    on PostgreSQL the unique index job_alone has the last word, see `jobs.contention`.
    """
    mate, earlier = job.alias("mate"), job.alias("earlier")
    return or_(
        job.c.serial_key.is_(None),
        and_(
            ~exists(literal_column("1")).where(
                mate.c.state == PROCESSING,
                mate.c.serial_key.is_not(None),
                mate.c.queue == job.c.queue,
                mate.c.serial_key == job.c.serial_key,
            ),
            ~exists(literal_column("1")).where(
                earlier.c.state == QUEUED,
                earlier.c.serial_key.is_not(None),
                earlier.c.queue == job.c.queue,
                earlier.c.serial_key == job.c.serial_key,
                earlier.c.id < job.c.id,
            ),
        ),
    )
