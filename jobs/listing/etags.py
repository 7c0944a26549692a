"""Stores the validators (ETag, Last-Modified) of responses that entities were made of, for conditional requests.

They are written by the finish that stores the content, and returned only while the record has that content. A validator that
outlived its content would be answered with 304 for ever, and the entity would never be saved.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.job import JobResult, StoredValidator
from jobs.outcome import Gone, Success, Unchanged
from jobs.schema.job_tables import record, validator

LONGEST = 2000
"""Bytes of a URL that is stored: with the rest of the key it must fit into a row of PostgreSQL's index, 2,704 bytes. A longer URL
is requested without a condition."""


class StoredValidators:
    """Validators of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys = keys = JsonRows(db, {"sync": "text", "key": "text"})
        self._known = (
            select(validator.c.key, *(validator.c[name] for name in ("identity", "method", "url", "etag", "last_modified")))
            .join_from(keys.table, validator, and_(validator.c.sync == keys.sync, validator.c.key == keys.key))
            .join(record, and_(record.c.sync == validator.c.sync, record.c.key == validator.c.key))
            .where(
                record.c.synced_at.is_not(None),
                record.c.deleted_at.is_(None),
                # Newer content from a run that stored no validators makes these invalid.
                validator.c.stored_at >= record.c.changed_at,
            )
        )
        entities = select(keys.sync, keys.key).select_from(keys.table)
        self._forget = delete(validator).where(tuple_(validator.c.sync, validator.c.key).in_(entities))
        self._rows = JsonRows(
            db,
            {
                "client": "text", "identity": "text", "method": "text", "url": "text", "etag": "text", "modified": "text",
                "sync": "text", "key": "text",
            },
        )  # fmt: skip
        self._put = self._put_statement()

    def _put_statement(self) -> Any:
        db, rows = self._db, self._rows
        make = postgresql.insert(validator) if db.dialect == "postgresql" else sqlite.insert(validator)
        names = ["client", "identity", "method", "url", "etag", "last_modified", "sync", "key", "stored_at"]
        source = select(
            rows.client, rows.identity, rows.method, rows.url, rows.etag, rows.modified, rows.sync, rows.key, db.now
        ).where(rows.url.is_not(None))  # fmt: skip
        statement = make.from_select(names, source)
        # If one URL serves two entities, it belongs to the last one; the other is requested without a condition.
        return statement.on_conflict_do_update(
            index_elements=["client", "identity", "method", "url"],
            set_={name: statement.excluded[name] for name in names[4:]},
        )

    def of(self, sync: str, keys: Iterable[str]) -> dict[str, list[StoredValidator]]:
        """Return the validators by key, for entities whose record has the content that they belong to.

        Args:
            sync: whose.
            keys: of the entities.
        """
        found: dict[str, list[StoredValidator]] = {}
        with self._db.read() as connection:
            for key, *stored in connection.execute(self._known, self._keys.bind([(sync, key) for key in sorted(set(keys))])):
                found.setdefault(key, []).append(StoredValidator(*stored))
        return found

    def replace(self, connection: Connection, dones: Sequence[JobResult]) -> None:
        """Replace the validators of the entities of finished jobs, in the transaction of the finish.

        Args:
            connection: of the finish.
            dones: those that were not lost; one without `validators`, or without a success, changes nothing.
        """
        latest = {
            (done.job.lane.type, done.job.key): done
            for done in dones
            if done.validators is not None and done.job.key and isinstance(done.verdict.outcome, Success | Unchanged | Gone)
        }
        if not latest:
            return
        connection.execute(self._forget, self._keys.bind(sorted(latest)))
        rows = {
            (done.job.lane.client, *one[:3]): (done.job.lane.client, *one, sync, key)
            for (sync, key), done in latest.items()
            for one in done.validators or ()
            if len(one.url.encode(errors="replace")) <= LONGEST
        }
        if rows:
            connection.execute(self._put, self._rows.bind([rows[place] for place in sorted(rows)]))
