"""Tokens that workers share, as text that only its owner can read: kept by name, replaced by compare-and-set. Knows no secret."""

from typing import NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.contention import again
from jobs.database import Database
from jobs.models import token


class Sealed(NamedTuple):
    """What is kept under a name."""

    text: str
    #: Counts the replacements, from 1; 0 stands for a name that has nothing yet.
    version: int


class Tokens:
    """Sealed tokens of one database. Any number of threads and processes may call it."""

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

    def get(self, name: str) -> Sealed | None:
        """Return what is kept under a name, as it was committed last; `None` where nothing is."""
        with self._db.read() as connection:
            row = connection.execute(self._get, {"b_name": name}).one_or_none()
        return None if row is None else Sealed(row.sealed, row.version)

    @again
    def put(self, name: str, text: str, *, version: int) -> bool:
        """Replace what is kept, in a transaction of its own.

        Args:
            name: whose it is.
            text: the new one.
            version: of the one that it replaces; 0 where there is none.

        Returns:
            Whether it was done: not where another version is there by now.
        """
        values: dict[str, str | int] = {"b_name": name, "b_sealed": text}
        if version:
            values["b_version"] = version
        with self._db.write(single=True) as connection:
            # Not its count of rows: psycopg does not say it for an INSERT.
            found = connection.execute(self._next if version else self._first, values)
            return found.scalar_one_or_none() is not None
