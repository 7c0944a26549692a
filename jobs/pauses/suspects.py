"""Tells whether a job that paused its client again and again was the only one in trouble, by what other jobs did in between."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import bindparam, case, exists, literal_column, or_, select

from jobs.db.database import Database
from jobs.schema.job_tables import attempt, job, pause
from jobs.schema.states import SUCCESS

AS_PROBE = "as a probe, no attempt used: "
"""Begins the error of an attempt that met trouble as the probe of its client, and was put back for that."""

TIMES = 3
"""So often a job pauses its client while other jobs succeed in between; then the trouble is its own."""


LOOK_BACK = 6
"""Refusals of one job that are looked at."""

_LATER = datetime(9999, 1, 1, tzinfo=UTC)


class Refusals(NamedTuple):
    """How often one job was refused so far, and what its client answered meanwhile."""

    #: At most `LOOK_BACK`.
    number: int
    #: After so many of them the client answered others well: a probe, or a job that succeeded.
    answered: int
    #: It was refused alone, as the first request after a pause, and then the client answered others well.
    is_proven: bool
    #: The last one was such, and the client has answered nobody since: the next probe is another one.
    is_last_probe: bool


class Suspects:
    """The history of jobs that paused their client, in one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        is_probe = attempt.c.error.startswith(AS_PROBE, autoescape=True)
        self._refusals = (
            select(attempt.c.ended_at, case((is_probe, literal_column("1")), else_=literal_column("0")).label("is_probe"))
            .where(attempt.c.job_id == bindparam("of_job"), or_(attempt.c.outcome == "pause", is_probe))
            .order_by(attempt.c.id.desc())
            .limit(LOOK_BACK)
        )
        since, until = (bindparam(name, type_=job.c.finished_at.type) for name in ("since", "until"))
        succeeded = exists(literal_column("1")).where(
            job.c.finished_at > since,
            job.c.finished_at <= until,
            job.c.state == SUCCESS,
            job.c.client == bindparam("of_client"),
        )
        reopened = exists(literal_column("1")).where(
            pause.c.client == bindparam("of_client"),
            pause.c.ended_by == "probe",
            pause.c.ended_at > since,
            pause.c.ended_at <= until,
        )
        self._answered = select(or_(succeeded, reopened))

    def of(self, job_id: int, client_id: str) -> Refusals:
        """Return how often a job was refused, which paused its client."""
        with self._db.read() as connection:
            found = list(reversed(connection.execute(self._refusals, {"of_job": job_id}).all()))
            times = [row.ended_at for row in found]
            answered = [
                bool(connection.execute(self._answered, {"since": since, "until": until, "of_client": client_id}).scalar_one())
                for since, until in pairwise([*times, _LATER])
            ]
        probes = [bool(row.is_probe) for row in found]
        is_proven = any(probe and good for probe, good in zip(probes, answered, strict=True))
        return Refusals(len(found), sum(answered), is_proven, bool(found) and probes[-1] and not answered[-1])
