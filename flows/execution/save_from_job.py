"""`save_record`: writes the data of a record from a job type's own job, where fetching and saving are two kinds of jobs."""

from typing import Any

from flows.plain_json import plain_json
from jobs.db.json_codec import storable_document
from jobs.fingerprint import content_hash


def save_record(session: Any, sync: str, key: str, record: Any) -> bool:
    """Write what a sync has fetched into its `record` row, in the transaction of `session`.

    The row itself, with version and content hash, was written by the sync, whose `save` queued this job. If the row has the hash
    of other content by now, nothing is written: a later fetch came in between, and a later job will write that.

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

    from jobs.schema.job_tables import record as table

    document = plain_json(record, "record")
    hashed = content_hash(document)
    if session.get_bind().dialect.name == "postgresql":
        document = storable_document(document)
    mine = (table.c.sync == sync, table.c.key == key, table.c.content_hash == hashed)
    changed = session.connection().execute(update(table).where(*mine).values(data=document))
    return bool(changed.rowcount)
