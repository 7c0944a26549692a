"""The states of a job: as values, and as literals for statements."""

from sqlalchemy import ColumnElement, literal_column

QUEUED, PROCESSING, SUCCESS, FAILURE = "queued", "processing", "success", "failure"
SUPERSEDED, CANCELLED = "superseded", "cancelled"
STATES = (QUEUED, PROCESSING, SUCCESS, FAILURE, SUPERSEDED, CANCELLED)
FINISHED = (SUCCESS, FAILURE, SUPERSEDED, CANCELLED)

# A database uses a partial index only for a statement in which the index's predicate stands literally; a bound parameter is no
# literal.
QUEUED_LITERAL: ColumnElement[str] = literal_column("'queued'")
PROCESSING_LITERAL: ColumnElement[str] = literal_column("'processing'")
FAILURE_LITERAL: ColumnElement[str] = literal_column("'failure'")

#: What a state is called once a claim turned out to belong to another worker: nothing was written.
LOST = "lost"
