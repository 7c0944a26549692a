"""Whether an earlier attempt at a job may have reached the remote side without anybody knowing. Decides nothing."""

from sqlalchemy import bindparam, exists, select

from jobs.database import Database
from jobs.job import Job
from jobs.models import attempt

#: Sent and not answered; its worker died or went silent; taken from a worker that had it in hand.
_OUTCOMES = ("unknown", "rescued", "released")


class Doubts:
    """What the attempts of one database say."""

    def __init__(self, db: Database) -> None:
        self._db = db
        open_ends = exists().where(
            attempt.c.job_id == bindparam("of_job"), attempt.c.phase == bindparam("of_phase"), attempt.c.outcome.in_(_OUTCOMES)
        )
        self._ask = select(open_ends)

    def of(self, job: Job) -> bool:
        """Tell whether an attempt at this phase of a claimed job ended without anybody knowing what it did.

        One is enough, whatever came after it: that an attempt failed later on does not undo what the first one may have done.
        """
        if job.rescues:
            # Also those of a twin that gave way to it.
            return True
        if job.claim_no == 1:
            return False
        with self._db.read() as connection:
            return bool(connection.execute(self._ask, {"of_job": job.id, "of_phase": job.lane.phase}).scalar_one())
