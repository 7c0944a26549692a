"""Turns new jobs into rows of the bulk insert, in chunks that keep a statement small. Pure functions."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from jobs.enqueueing.duplicates import NewJob
from jobs.enqueueing.payload import payload_text
from jobs.errors import PayloadError
from jobs.job import Lane

CHUNK_ROWS, CHUNK_BYTES = 5000, 8 * 1024 * 1024

Row = tuple[Any, ...]
"""Of a job: document, fingerprint, priority, available_at, delay, key, serial key. The document comes first in every row."""


def lane_chunks(jobs: Sequence[NewJob]) -> Iterator[tuple[Lane, list[Row]]]:
    """Yield the rows of new jobs, in their order, by lane and in chunks."""
    number = 0
    for lane, same in groupby(jobs, key=lambda one: one.lane):
        rows = []
        for one in same:
            number += 1
            document = document_of(one, number, len(jobs))
            rows.append((document, one.fingerprint, one.priority, one.available_at, delay_of(one), one.key, one.serial_key))
        for chunk in chunks_of(rows):
            yield lane, chunk


def chunks_of(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Split rows, which begin with their document, so that no statement becomes too large."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) == CHUNK_ROWS or size + len(row[0]) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row[0])
    if chunk:
        yield chunk


def delay_of(one: NewJob) -> float | None:
    """Return the seconds of delay of a new job; `None` where it has a moment instead."""
    return None if one.available_at is not None else one.delay


def document_of(one: NewJob, number: int = 1, of: int = 1) -> str:
    """Return the payload of a new job as JSON text; `number` and `of` name it in the error.

    Raises:
        PayloadError: it cannot be stored.
    """
    which = f"{one.lane.type}: the payload" + (f" of job {number} of {of}" if of > 1 else "")
    try:
        return payload_text(one.payload)
    except PayloadError as error:
        raise PayloadError(f"{which} {error}") from error
