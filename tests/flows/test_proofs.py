"""What a run may conclude from a listing and from answers: found by a review that tried to lose data, one test a finding."""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from clients import Entity, GoneError, Page
from flows import Client, DeclarationError, Sync, engine
from flows.registry import load
from flows.result import RunResult
from jobs import Database, DatabaseUrlError, Failure, JobStore
from jobs.job import Lane
from jobs.listing import ListingClaim
from jobs.page import Item
from jobs.schema import check
from jobs.worker import this_worker

CLIENT = Client("proof", connect=lambda settings: nullcontext(object()))


def run(store: JobStore, keys: Sequence[str], *, fetch: Any = None, total: int | None = None, **options: Any) -> RunResult:
    """Run a sync whose listing shows these keys, ten a page."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        for start in range(0, max(len(keys), 1), 10):
            yield Page([Entity(key, None, {"key": key}) for key in keys[start : start + 10]], total=total)

    sync = Sync("proof.things", CLIENT, listing=listing, fetch=fetch or (lambda conn, entity: {"key": entity.key}), **options)
    return engine.run(sync, store)


def names(n: int, start: int = 0) -> list[str]:
    """Name `n` entities."""
    return [f"k{number}" for number in range(start, start + n)]


def test_a_short_listing_deletes_nothing(store: JobStore) -> None:
    """A listing that shows fewer entities than it announced is `short`, no success, and sweeps nothing (law 8)."""
    assert run(store, names(25), total=25, delete_missing=True).state == "success"
    result = run(store, names(21), total=25, delete_missing=True)
    assert (result.state, result.stopped, result.deleted) == ("partial", "short", 0)
    assert "announced 25 entities and did not show 4" in result.message
    assert store.live("proof.things") == 25
    assert run(store, names(24), total=24, delete_missing=True).deleted == 1


def test_a_listing_that_starts_over_counts_nothing_twice(store: JobStore) -> None:
    """What an interrupted run had listed does not stand in for what the next one, from the first page again, no longer shows."""
    run(store, names(25), total=25)
    claim = store.begin_listing("proof.things", "proof", worker=this_worker(), lease=60)
    assert isinstance(claim, ListingClaim)
    lane = Lane("proof", "proof", "proof.things")
    store.enqueue_page(claim, lane, [Item(key, None, {"key": key}) for key in names(10)], cursor={"page": 2})
    store.release_listing(claim)
    result = run(store, names(21), total=25, delete_missing=True)
    assert (result.stopped, result.deleted) == ("short", 0)
    assert store.live("proof.things") == 25


def test_gone_and_missing_share_one_budget(store: JobStore) -> None:
    """What 404 took counts when the sweep asks how much may go."""
    run(store, names(100))

    def fetch(conn: Any, entity: Entity) -> Any:
        if int(entity.key[1:]) < 15:
            raise GoneError("gone", status=404)
        return {"key": entity.key}

    result = run(store, names(90), fetch=fetch, delete_missing=True)
    assert (result.gone, result.deleted, result.state) == (15, 0, "partial")
    assert store.live("proof.things") == 85


def test_gone_without_a_record_is_no_loss(store: JobStore) -> None:
    """Links that were dead from the start neither fail nor use the budget up."""

    def fetch(conn: Any, entity: Entity) -> Any:
        if int(entity.key[1:]) % 2:
            raise GoneError("gone", status=404)
        return {"key": entity.key}

    result = run(store, names(20), fetch=fetch)
    assert (result.state, result.succeeded, result.gone, result.failed) == ("success", 10, 10, 0)


def test_a_moved_path_empties_no_table(store: JobStore) -> None:
    """Of records that are there, no more than the share goes; the others fail and stay."""
    run(store, names(20))

    def fetch(conn: Any, entity: Entity) -> Any:
        raise GoneError("gone", status=404)

    result = run(store, names(20), fetch=fetch)
    assert (result.state, result.gone, result.failed) == ("failed", 4, 16)
    assert store.live("proof.things") == 16


def test_exit_in_a_fetch_is_that_entity_s_failure(store: JobStore) -> None:
    """Code that calls sys.exit fails its own job and nothing else."""

    def fetch(conn: Any, entity: Entity) -> Any:
        if entity.key == "k7":
            raise SystemExit(4)
        return {"key": entity.key}

    result = run(store, names(20), fetch=fetch)
    assert (result.succeeded, result.failures) == (19, (("k7", "RuntimeError: the code called sys.exit(4)"),))


def test_a_delay_that_is_none_is_that_entity_s_failure(store: JobStore) -> None:
    """A `Failure` with a delay of NaN is refused where it is made, so only its job fails."""
    result = run(store, names(3), fetch=lambda conn, entity: Failure("x", delay=float("nan")))
    assert (result.state, result.failed) == ("failed", 3)
    assert "Failure" in result.failures[0][1]


def test_keys_that_the_database_cannot_tell_apart_are_one(store: JobStore) -> None:
    """NUL in a key becomes U+FFFD before duplicates are looked for; the second run finds it unchanged by content."""
    result = run(store, ["nul\0x", "nul\ufffdx", "b"])
    assert (result.state, result.listed, result.succeeded) == ("success", 2, 2)
    assert run(store, ["nul\0x", "b"]).unchanged == 2


@pytest.mark.parametrize("field", [{"retry": 3}, {"timeout": -5}, {"timeout": 0}, {"incremental": "updated_at"}], ids=str)
def test_a_wrong_declaration_is_refused_where_it_is_made(field: dict[str, Any]) -> None:
    """A field of the wrong kind is an error of the file, not of the run."""
    with pytest.raises(DeclarationError, match=next(iter(field))):
        Sync("proof.things", CLIENT, listing=lambda conn, since: iter(()), **field)


def test_a_file_with_tables_is_read_twice(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A declaration beside a SQLModel table loads again in one process, as `syncs run` through Prefect does it."""
    (tmp_path / "mine.py").write_text(
        "from contextlib import nullcontext\nfrom sqlmodel import Field, SQLModel\nfrom flows import Client\n"
        "class Thing(SQLModel, table=True):\n    id: int | None = Field(default=None, primary_key=True)\n"
        "c = Client('mine', connect=lambda s: nullcontext())\n"
    )
    monkeypatch.setenv("SYNCS_PATH", str(tmp_path))
    first, second = load(), load()
    assert (first.broken, second.broken) == ((), ())
    assert first.client("mine") is second.client("mine")


def test_a_password_in_the_query_is_not_shown() -> None:
    """An unreachable database is named without the query of its URL."""
    db = Database("postgresql://127.0.0.1:1/x?password=hunter2")
    with pytest.raises(Exception, match=r"does not answer|cannot be read") as caught:
        check(db)
    assert "hunter2" not in str(caught.value)
    db.close()


@pytest.mark.parametrize("driver", ["aiosqlite", "pysqlcipher"])
def test_the_driver_of_sqlite_is_ours_to_choose(driver: str, tmp_path: Any) -> None:
    """Another driver's name in the URL changes nothing, or is refused in one line."""
    try:
        JobStore.open(f"sqlite+{driver}:///{tmp_path}/x.db").close()
    except DatabaseUrlError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert os.listdir(tmp_path) in ([], ["x.db"])  # noqa: PTH208
