"""Measures a minimal job table, written by hand with sqlite3 and psycopg: the baseline for the job store.

It has indexes for claims, leases and unique fingerprints, and fences every finish by state and claim number. It has no attempts,
pauses, records or retries. It imports nothing of the project.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, LiteralString, Protocol

import psycopg

Claimed = tuple[int, int, Any]
"""Id, claim number, payload."""

LEASE = 60.0

_COLUMNS = """
    queue TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued', priority INTEGER NOT NULL DEFAULT 0, available_at {time} NOT NULL,
    created_at {time} NOT NULL, fingerprint TEXT NOT NULL, payload TEXT NOT NULL, claim_no INTEGER NOT NULL DEFAULT 0,
    worker TEXT, lease_until {time}, finished_at {time}, attempts INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT ''
"""
_INDEXES = (
    "CREATE INDEX floor_ready ON floor (queue, priority DESC, available_at, id) WHERE state = 'queued'",
    "CREATE UNIQUE INDEX floor_twin ON floor (queue, fingerprint) WHERE state = 'queued'",
    "CREATE INDEX floor_lease ON floor (lease_until) WHERE state = 'processing'",
)


class Floor(Protocol):
    """A hand-written lease table."""

    def enqueue(self, payloads: Sequence[Any]) -> None:
        """Insert jobs in one transaction, except payloads that are queued already."""
        ...

    def claim(self, n: int, worker: str) -> list[Claimed]:
        """Claim up to `n` due jobs."""
        ...

    def finish(self, claims: Sequence[Claimed], message: str) -> int:
        """Finish jobs in one transaction; return how many were still held."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def _rows(payloads: Sequence[Any]) -> Iterator[tuple[str, str]]:
    for payload in payloads:
        text = json.dumps(payload)
        yield hashlib.sha256(text.encode()).hexdigest(), text


class SqliteFloor:
    """With sqlite3: WAL, NORMAL, BEGIN IMMEDIATE, executemany."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=15)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(
            f"CREATE TABLE IF NOT EXISTS floor (id INTEGER PRIMARY KEY AUTOINCREMENT, {_COLUMNS.format(time='REAL')})"
        )
        for index in _INDEXES:
            self._db.execute(index.replace("INDEX ", "INDEX IF NOT EXISTS "))

    def enqueue(self, payloads: Sequence[Any]) -> None:
        """Insert jobs in one transaction, except payloads that are queued already."""
        now = time.time()
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT INTO floor (queue, available_at, created_at, fingerprint, payload) VALUES ('q', ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            [(now, now, *row) for row in _rows(payloads)],
        )
        self._db.execute("COMMIT")

    def claim(self, n: int, worker: str) -> list[Claimed]:
        """Claim up to `n` due jobs."""
        now = time.time()
        self._db.execute("BEGIN IMMEDIATE")
        rows = self._db.execute(
            "UPDATE floor SET state = 'processing', claim_no = claim_no + 1, worker = ?, lease_until = ?, attempts = attempts + 1"
            " WHERE id IN (SELECT id FROM floor WHERE queue = 'q' AND state = 'queued' AND available_at <= ?"
            " ORDER BY priority DESC, available_at, id LIMIT ?) RETURNING id, claim_no, payload",
            (worker, now + LEASE, now, n),
        ).fetchall()
        self._db.execute("COMMIT")
        return [(row[0], row[1], json.loads(row[2])) for row in rows]

    def finish(self, claims: Sequence[Claimed], message: str) -> int:
        """Finish jobs in one transaction; return how many were still held."""
        now = time.time()
        self._db.execute("BEGIN IMMEDIATE")
        found = self._db.executemany(
            "UPDATE floor SET state = 'success', finished_at = ?, lease_until = NULL, message = ?"
            " WHERE id = ? AND state = 'processing' AND claim_no = ?",
            [(now, message, job_id, claim_no) for job_id, claim_no, _ in claims],
        ).rowcount
        self._db.execute("COMMIT")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class PostgresFloor:
    """With psycopg 3: SKIP LOCKED, arrays with unnest (twice as fast as executemany here), synchronous commit."""

    def __init__(self, url: str) -> None:
        self._db = psycopg.connect(url, autocommit=True, prepare_threshold=1)
        exists = self._db.execute("SELECT to_regclass('floor') IS NOT NULL").fetchone()
        if exists == (False,):
            self._run(
                f"CREATE TABLE floor (id BIGSERIAL PRIMARY KEY, {_COLUMNS.format(time='timestamptz')}) WITH (fillfactor = 80)"
            )
            for index in _INDEXES:
                self._run(index)

    def _run(self, statement: str) -> None:
        self._db.execute(statement.encode())

    def enqueue(self, payloads: Sequence[Any]) -> None:
        """Insert jobs in one transaction, except payloads that are queued already."""
        fingerprints, texts = zip(*_rows(payloads), strict=True)
        self._db.execute(
            "INSERT INTO floor (queue, available_at, created_at, fingerprint, payload)"
            " SELECT 'q', now(), now(), * FROM unnest(%s::text[], %s::text[]) ON CONFLICT DO NOTHING",
            (list(fingerprints), list(texts)),
        )

    def claim(self, n: int, worker: str) -> list[Claimed]:
        """Claim up to `n` due jobs."""
        rows = self._db.execute(_POSTGRES_CLAIM, (n, worker, LEASE)).fetchall()
        return [(row[0], row[1], json.loads(row[2])) for row in rows]

    def finish(self, claims: Sequence[Claimed], message: str) -> int:
        """Finish jobs in one transaction; return how many were still held."""
        return self._db.execute(
            "UPDATE floor SET state = 'success', finished_at = now(), lease_until = NULL, message = %s"
            " FROM unnest(%s::bigint[], %s::int[]) AS v (id, claim_no)"
            " WHERE floor.id = v.id AND floor.claim_no = v.claim_no AND state = 'processing'",
            (message, [job_id for job_id, _, _ in claims], [claim_no for _, claim_no, _ in claims]),
        ).rowcount

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


_POSTGRES_CLAIM: LiteralString = """
    WITH ready AS MATERIALIZED (
        SELECT id FROM floor WHERE queue = 'q' AND state = 'queued' AND available_at <= now()
        ORDER BY priority DESC, available_at, id LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE floor SET state = 'processing', claim_no = claim_no + 1, worker = %s, attempts = attempts + 1,
        lease_until = now() + make_interval(secs => %s)
    FROM ready WHERE floor.id = ready.id RETURNING floor.id, claim_no, payload
"""


def open_floor(url: str) -> Floor:
    """Open the job table of a database, and create it if necessary."""
    return SqliteFloor(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else PostgresFloor(url)


def payload(number: int) -> dict[str, Any]:
    """Return the payload of one job: an item as a page of the demo lists it."""
    return {"version": "3f9677dc57b5", "data": {"alpha_3": f"k{number:07d}", "name": "Ghotuo", "rev": "3f9677dc57b5"}}


def drain(url: str, *, n: int, batch: int) -> dict[str, float]:
    """Fill the table with `n` jobs, then claim and finish them by `batch`; return both speeds per second."""
    floor = open_floor(url)
    began = time.perf_counter()
    for start in range(0, n, 500):
        floor.enqueue([payload(number) for number in range(start, min(start + 500, n))])
    filled = time.perf_counter()
    done = 0
    while claims := floor.claim(batch, "me"):
        done += floor.finish(claims, "done")
    ended = time.perf_counter()
    floor.close()
    assert done == n, f"{done} of {n} jobs finished"
    return {"enqueue": n / (filled - began), "drain": n / (ended - filled)}
