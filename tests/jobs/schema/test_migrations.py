"""Migrations of databases that hold something: from each earlier version forward (M20, T21)."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from jobs import Database, JobStore
from jobs.pauses.pause import ClientState
from jobs.schema import upgrade as schema
from jobs.schema.job_tables import metadata
from tests.support.store_helpers import (
    ELSEWHERE,
    LANE,
    change,
    done,
    end_probe,
    enqueue,
    finish,
    probe,
    query,
    record,
    run_out,
    take,
)

LONG_AGO = "2000-01-01 00:00:00.000000+00"
FAR_OFF = "2999-01-01 00:00:00.000000+00"
OLD = tuple(version for version in schema.VERSIONS if version < "0004")


def upgrade_to(db: Database, version: str) -> None:
    """Bring an empty database to an earlier version."""
    with db.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def moment(db: Database, value: str) -> str:
    """Return a moment as the database keeps it."""
    return value.removesuffix("+00") if db.dialect == "sqlite" else value


def fill(db: Database) -> dict[str, int]:
    """Put rows into every table that the version has, with all columns that were there from the beginning; count them."""
    past, future = moment(db, LONG_AGO), moment(db, FAR_OFF)
    jobs = [
        {
            "queue": "default", "client": "api", "type": "api.things", "key": f"k{n}", "fingerprint": f"api.things/k{n}",
            "state": state, "priority": n % 2, "available_at": past, "created_at": past, "claim_no": n % 3, "attempts": n % 2,
            "finished_at": past if state in ("success", "failure", "superseded") else None,
            "lease_until": past if state == "processing" else None, "worker": ELSEWHERE, "message": "was here",
        }
        for n, state in enumerate(["queued", "processing", "success", "failure", "superseded"] * 20)
    ]  # fmt: skip
    pauses = [
        {"client": client, "cause": cause, "reason": "why", "set_by": "w", "level": 2, "started_at": past, "until": until,
         "ended_at": ended, "ended_by": None if ended is None else "person"}
        for client, cause, until, ended in (
            ("api", "level", past, None), ("b", "asked", future, None), ("c", "enforced", None, None), ("d", "level", past, past),
        )
    ]  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {
        "job": jobs,
        "attempt": [
            {"job_id": n + 1, "claim_no": 1, "ended_at": past, "outcome": "success", "error": "none"} for n in range(0, 100, 5)
        ],
        "client": [{"id": name, "errors": 1, "level": 2, "generation": 7} for name in "abcd"]
        + [{"id": "api", "errors": 1, "level": 2, "generation": 7}],
        "pause": pauses,
        "queue": [{"id": "default", "lease": 60, "concurrency": 8, "time_limit": 90, "updated_at": past}],
        "listing": [
            {"sync": "api.things", "client": "api", "state": "complete", "is_full": False, "started_at": past, "updated_at": past}
        ],
        "record": [
            {"sync": "api.things", "key": f"k{n}", "version": "1", "first_seen_at": past, "is_poison": n == 3, "data": '{"n": 1}'}
            for n in range(50)
        ],
        "notice": [{"client": "api", "level": "error", "cause": "level", "created_at": past, "updated_at": past}],
    }
    with db.write() as connection:
        for table, values in rows.items():
            columns = {column["name"]: column for column in inspect(connection).get_columns(table)}
            assert set(values[0]) <= set(columns), table
            names = ", ".join(values[0])
            casts = ", ".join(
                f"CAST(:{name} AS {columns[name]['type']})" if db.dialect == "postgresql" else f":{name}" for name in values[0]
            )
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({casts})"), values)
    return {table: len(values) for table, values in rows.items() if table != "notice"}


@pytest.fixture
def empty(empty_database_url: str) -> Any:
    """Return a database without tables."""
    db = Database(empty_database_url)
    yield db
    db.close()


@pytest.mark.rows("T21", "M20")
@pytest.mark.parametrize("version", OLD)
def test_a_filled_database_goes_forward(empty: Database, version: str, tmp_path: Path) -> None:
    """Every row is there afterwards, tables are those of the models, and the work goes on."""
    upgrade_to(empty, version)
    counts = fill(empty)
    assert schema.upgrade(empty) == (version, schema.HEAD)
    store = JobStore(empty)
    assert {table: query(store, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in counts} == counts
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        steps = [str(step) for step in compare_metadata(context, metadata)]
        found = inspect(connection)
        indexes = {index["name"] for table in metadata.tables for index in found.get_indexes(table)}
    assert [step for step in steps if schema.VERSION_TABLE not in step and "job_ready" not in step] == []
    assert {index.name for table in metadata.tables.values() for index in table.indexes} <= indexes | {"job_ready"}

    old = store.views.job(3)
    assert (old.job.key, old.job.state, old.job.message) == ("k2", "success", "was here")
    kept = record(store, "k3")
    assert kept is not None
    assert (kept["version"], kept["is_poison"]) == ("1", True)
    assert len(take(store, 100)) == 20
    enqueue(store, ["new"])
    (job,) = take(store)
    assert finish(store, done(job)) == ["success"]


@pytest.mark.rows("T21", "SC-20")
@pytest.mark.parametrize("version", OLD)
def test_pauses_go_forward(empty: Database, version: str) -> None:
    """What the clock had ended is over, and waits for no probe; what was in force still is, and what a probe may end can be."""
    upgrade_to(empty, version)
    fill(empty)
    schema.upgrade(empty)
    store = JobStore(empty)
    assert store.pauses.state("api") == ClientState(7)
    assert store.probes.due() == []
    assert [(one.client, one.cause, one.level, one.probes) for one in store.pauses.in_force()] == [
        ("b", "asked", 2, 0),
        ("c", "enforced", 2, 0),
    ]
    ended = {one.client: (one.state, one.ended_by) for one in store.pause_history.latest()}
    assert ended == {"api": ("ended", "clock"), "b": ("paused", None), "c": ("paused", None), "d": ("ended", "person")}
    (api,) = store.pause_history.latest("api")
    assert api.ended_at == api.until
    run_out(store, "b")
    of = probe(store, "b")
    assert of.generation == 7
    assert end_probe(store, of, True) is not None
    assert store.pauses.state("b") == ClientState(8)
    assert store.pauses.resume("c", by="me")
    store.pauses.open("api", 60, cause="person", reason="", set_by="me", generation=7)
    assert take(store) == []
    assert store.due_times.next([LANE]) == pytest.approx(60, abs=10)


def test_clocks_of_both_databases_agree_on_what_is_over(empty: Database) -> None:
    """A pause that ends in an hour is not over, one that ended a second ago is: in UTC, whatever zone the server is in."""
    upgrade_to(empty, "0003")
    if empty.dialect == "postgresql":
        with empty.write() as connection:
            connection.execute(text(f"ALTER DATABASE {empty.url.database} SET timezone = 'Pacific/Auckland'"))
        empty.engine.dispose()
    fill(empty)
    store = JobStore(empty)
    now = store.views.now()
    for client, seconds in (("api", -1), ("b", 3600)):
        until = moment(empty, (now + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f+00"))
        change(store, "UPDATE pause SET until = :until WHERE client = :client", until=until, client=client)
    schema.upgrade(empty)
    assert [one.client for one in store.pauses.in_force()] == ["b", "c"]
    assert store.probes.due() == []


@pytest.mark.parametrize("unusual", [False, True])
def test_records_become_jsonb(empty: Database, unusual: bool) -> None:
    """Their values stay as they are, with all digits; what `jsonb` refuses is replaced, or fetched again."""
    upgrade_to(empty, "0007")
    there = {"plain": r'{"b":1.10,"a":[12345678901234567890.123456789,"\\u0000"],"n":null}', "seven": '"7e12345"'}
    if unusual:
        there |= {"nul": r'{"v":"a\u0000\\u0000"}', "vast": '{"v":1e200000}'}
    insert = (
        "INSERT INTO record (sync, key, data, content_hash, first_seen_at, synced_at, generation, job_generation, is_poison) "
        f"VALUES ('s', :key, :data, 'h', '{moment(empty, LONG_AGO)}', '{moment(empty, LONG_AGO)}', 1, 1, false)"
    )
    with empty.write() as connection:
        connection.execute(text(insert), [{"key": key, "data": data} for key, data in there.items()])
    schema.upgrade(empty)
    rows = {row["key"]: row for row in query(JobStore(empty), "SELECT key, CAST(data AS TEXT) AS data, synced_at FROM record")}
    found = {key: row["data"] and json.loads(row["data"], parse_float=Decimal) for key, row in rows.items()}
    wanted = {key: json.loads(data, parse_float=Decimal) for key, data in there.items()}
    if empty.dialect == "postgresql" and unusual:
        wanted |= {"nul": {"v": "a\ufffd\\u0000"}, "vast": None}
        assert rows["vast"]["synced_at"] is None
    assert found == wanted
    assert all(row["synced_at"] for key, row in rows.items() if found[key] is not None)
