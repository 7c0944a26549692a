"""Queues single entities by their keys, without a listing."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import storable
from jobs.fingerprint import entity_fingerprint
from jobs.job import Lane
from jobs.schema.job_tables import job, listing, record
from jobs.schema.states import FAILURE_LITERAL, QUEUED_LITERAL


class Renewals:
    """Renewals in one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        of_entity = (job.c.type == bindparam("of_type"), job.c.key == bindparam("b_key"))
        self._record = select(record.c.version, record.c.job_generation).where(
            record.c.sync == bindparam("of_type"), record.c.key == bindparam("b_key")
        )
        self._failed = select(job.c.payload).where(job.c.state == FAILURE_LITERAL, *of_entity).order_by(job.c.id.desc()).limit(1)
        self._generation = select(listing.c.generation).where(listing.c.sync == bindparam("of_type"))
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        statement = insert_into(job).values(
            queue=bindparam("in_queue"), client=bindparam("of_client"), type=bindparam("of_type"), key=bindparam("b_key"),
            fingerprint=bindparam("b_fingerprint"), state=QUEUED_LITERAL, priority=bindparam("b_priority"),
            available_at=db.now, created_at=db.now, payload=bindparam("b_payload", type_=job.c.payload.type),
            generation=bindparam("b_generation"),
        )  # fmt: skip
        # One that is queued stays as it was listed, and is due now.
        self._queue = statement.on_conflict_do_update(
            index_elements=["queue", "fingerprint"],
            index_where=text("state = 'queued' AND fingerprint IS NOT NULL"),
            set_={"available_at": statement.excluded.available_at},
        ).returning(job.c.id)
        self._queued = select(func.count()).where(
            job.c.state == QUEUED_LITERAL, job.c.queue == bindparam("in_queue"), job.c.fingerprint == bindparam("b_fingerprint")
        )

    def unknown(self, lane: Lane, keys: Sequence[str]) -> list[str]:
        """Return those of these keys of which no record and no failed or queued job exists."""
        with self._db.read() as connection:
            return [key for key in keys if not self._is_known(connection, lane, key)]

    def _is_known(self, connection: Any, lane: Lane, key: str) -> bool:
        values = self._values(lane, key)
        return (
            connection.execute(self._record, values).one_or_none() is not None
            or connection.execute(self._failed, values).one_or_none() is not None
            or connection.execute(self._queued, values).scalar_one() > 0
        )

    @retry_on_conflict
    def queue(self, lane: Lane, key: str, *, priority: int = 0) -> int:
        """Queue an entity to be worked whether it changed or not; return the id of its job.

        Its job has the version that is known, and what was listed only where a queued or failed job still has that.

        Args:
            lane: of the sync's jobs.
            key: of the entity.
            priority: of the job.
        """
        values = self._values(lane, key)
        with self._db.write() as connection:
            known = connection.execute(self._record, values).one_or_none()
            failed = connection.execute(self._failed, values).scalar_one_or_none()
            listed = connection.execute(self._generation, values).scalar_one_or_none()
            payload = {"version": None if known is None else known.version, "data": None}
            if isinstance(failed, dict):
                payload = failed
            # Of an older generation than the record, what it brings would be taken for overtaken.
            generation = max(listed or 0, 0 if known is None else known.job_generation)
            return int(
                connection.execute(
                    self._queue,
                    {**values, "b_priority": priority, "b_payload": {**payload, "full": True}, "b_generation": generation},
                ).scalar_one()
            )

    @staticmethod
    def _values(lane: Lane, key: str) -> dict[str, Any]:
        key = key if key.isprintable() else storable(key)
        return {
            "in_queue": lane.queue, "of_client": lane.client, "of_type": lane.type, "b_key": key,
            "b_fingerprint": entity_fingerprint(lane.type, key),
        }  # fmt: skip
