"""Stores encrypted OAuth tokens that several workers share: by name, and replaced only if nobody else replaced them first."""

from typing import NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.schema.job_tables import token


class SealedToken(NamedTuple):
    """An encrypted token."""

    text: str
    #: Counts the replacements, from 1.
    version: int


class Tokens:
    """Encrypted tokens of one database, for any number of threads and processes."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        named = token.c.name == bindparam("b_name")
        self._get = select(token.c.sealed, token.c.version).where(named)
        first = insert_into(token).values(name=bindparam("b_name"), sealed=bindparam("b_sealed"), version=1, updated_at=db.now)
        self._first = first.on_conflict_do_nothing(index_elements=["name"]).returning(token.c.version)
        self._next = (
            update(token)
            .where(named, token.c.version == bindparam("b_version"))
            .values(sealed=bindparam("b_sealed"), version=token.c.version + 1, updated_at=db.now)
            .returning(token.c.version)
        )

    def get(self, name: str) -> SealedToken | None:
        """Return the token of this name as it was committed last; `None` if there is none."""
        with self._db.read() as connection:
            row = connection.execute(self._get, {"b_name": name}).one_or_none()
        return None if row is None else SealedToken(row.sealed, row.version)

    @retry_on_conflict
    def put(self, name: str, text: str, *, version: int) -> bool:
        """Replace a token, in a transaction of its own.

        Args:
            name: of the token.
            text: the new encrypted token.
            version: the version that is replaced; 0 if there is no token yet.

        Returns:
            `False` if the stored token has another version by now.
        """
        values: dict[str, str | int] = {"b_name": name, "b_sealed": text}
        if version:
            values["b_version"] = version
        with self._db.write(single=True) as connection:
            # RETURNING instead of the row count, which psycopg does not report for an INSERT.
            found = connection.execute(self._next if version else self._first, values)
            return found.scalar_one_or_none() is not None
