"""Writing the data of a record from a job of one's own, where fetching and saving are jobs of two kinds. Knows no job."""

from typing import Any

from flows.plain import plain
from jobs.fingerprint import content_hash


def save_record(session: Any, sync: str, key: str, record: Any) -> bool:
    """Write what a sync has fetched into its `record` row, in the transaction of `session`.

    The row itself, with version and content hash, is the sync's: its `save` has handed the record on. What is not the content
    that the row stands for is not written: a later fetch has come in between, and a later job will write that (DS-10).

    Args:
        session: of the job that saves, `job.session`.
        sync: the id of the sync that has fetched it.
        key: of the entity.
        record: what was fetched: JSON.

    Returns:
        Whether it was written.

    Raises:
        PayloadError: the record is not JSON.
    """
    # Only here: importing `flows` brings no SQLAlchemy.
    from sqlalchemy import update

    from jobs.models import record as table

    document = plain(record, "record")
    mine = (table.c.sync == sync, table.c.key == key, table.c.content_hash == content_hash(document))
    changed = session.connection().execute(update(table).where(*mine).values(data=document))
    return bool(changed.rowcount)
