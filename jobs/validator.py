"""Validators of the answers that entities were made of, so that the next request can be conditional. Knows no HTTP.

They are written by the finish that stores the content, and only offered while the ledger stands by it: a validator that outlived
its content would answer 304 for ever, and the entity would never be saved.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from jobs.database import Database
from jobs.job import Done, Stored
from jobs.models import record, validator
from jobs.outcome import Gone, Success, Unchanged
from jobs.rows import Rows

LONGEST = 2000
"""Bytes of a URL that is kept. With the rest of the key it has to fit into a row of PostgreSQL's index, 2,704 bytes; an answer of
a longer one is asked for without a condition."""


class Validators:
    """Validators of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys = keys = Rows(db, {"sync": "text", "key": "text"})
        self._known = (
            select(validator.c.key, *(validator.c[name] for name in ("identity", "method", "url", "etag", "last_modified")))
            .join_from(keys.table, validator, and_(validator.c.sync == keys.sync, validator.c.key == keys.key))
            .join(record, and_(record.c.sync == validator.c.sync, record.c.key == validator.c.key))
            .where(
                record.c.synced_at.is_not(None),
                record.c.deleted_at.is_(None),
                # Content that came later, from a run that kept no validators, is not what these stand for.
                validator.c.stored_at >= record.c.changed_at,
            )
        )
        entities = select(keys.sync, keys.key).select_from(keys.table)
        self._forget = delete(validator).where(tuple_(validator.c.sync, validator.c.key).in_(entities))
        self._rows = Rows(
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
        # One URL may serve two entities: it then belongs to the last one, and the other is asked for without a condition.
        return statement.on_conflict_do_update(
            index_elements=["client", "identity", "method", "url"],
            set_={name: statement.excluded[name] for name in names[4:]},
        )

    def of(self, sync: str, keys: Iterable[str]) -> dict[str, list[Stored]]:
        """Return the validators by key, of those entities whose record holds what they stand for.

        Args:
            sync: whose.
            keys: of the entities.
        """
        found: dict[str, list[Stored]] = {}
        with self._db.read() as connection:
            for key, *stored in connection.execute(self._known, self._keys.bind([(sync, key) for key in sorted(set(keys))])):
                found.setdefault(key, []).append(Stored(*stored))
        return found

    def replace(self, connection: Connection, dones: Sequence[Done]) -> None:
        """Put the validators of finished jobs in place of those that their entities had, in the transaction of the finish.

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
