"""Says to which project a database belongs, so that another one does not work its jobs or delete its history by mistake."""

from sqlalchemy import insert, inspect, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from jobs.db.database import Database
from jobs.errors import DatabaseUnavailable, ForeignDatabase
from jobs.schema.job_tables import project as table


def owner(db: Database) -> str | None:
    """Return the name of the project, None where none is written down, or there are no tables yet.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    try:
        with db.read() as connection:
            if not inspect(connection).has_table(table.name):
                return None
            name: str | None = connection.execute(select(table.c.name)).scalar()
    except DBAPIError as error:
        raise DatabaseUnavailable(f"{db.name} cannot be read: {str(error.orig).strip().splitlines()[0]}") from error
    return name


def check(db: Database, project: str | None) -> str | None:
    """Check that a database does not belong to another project; return to which it does.

    Args:
        db: with or without tables.
        project: the name of ours; None where it has none.

    Raises:
        ForeignDatabase: it does.
        DatabaseUnavailable: the database does not answer.
    """
    found = owner(db)
    if found is not None and found != project:
        ours = "this one has no name" if project is None else f"this one is {project!r}"
        raise ForeignDatabase(
            f"{db.name} belongs to the project {found!r}, and {ours}: set SYNCS_DATABASE_URL to a database of its own, "
            f"or SYNCS_PROJECT={found} to share this one"
        )
    return found


def claim(db: Database, project: str | None) -> None:
    """Write down that a database belongs to a project, if that has a name and the database belongs to none. It needs tables.

    Raises:
        ForeignDatabase: it belongs to another one.
        DatabaseUnavailable: the database does not answer.
    """
    if check(db, project) is not None or project is None:
        return
    try:
        with db.write() as connection:
            connection.execute(insert(table).values(id=1, name=project))
    except IntegrityError:  # another process was first
        check(db, project)
