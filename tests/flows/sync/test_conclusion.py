"""What a run may conclude from a listing and from answers: found by a review that tried to lose data, one test a finding."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from clients import Entity, GoneError, Page
from flows import Client, DeclarationError, Sync
from flows.progress import Progress, SilentTracker
from flows.project.registry import load
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import Database, DatabaseUrlError, Failure, JobStore, Retry, Snooze
from jobs.job import Lane
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from jobs.process_identity import this_worker
from jobs.schema.upgrade import check
from tests.support.fake_things_api import query

CLIENT = Client("proof", connect=lambda settings: nullcontext(object()))


def run(
    store: JobStore, keys: Sequence[str], *, fetch: Any = None, total: int | None = None, tracker: Any = None, **options: Any
) -> RunResult:
    """Run a sync whose listing shows these keys, ten a page."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        for start in range(0, max(len(keys), 1), 10):
            yield Page([Entity(key, None, {"key": key}) for key in keys[start : start + 10]], total=total)

    sync = Sync("proof.things", CLIENT, listing=listing, fetch=fetch or (lambda conn, entity: {"key": entity.key}), **options)
    return engine.run(sync, store, tracker=tracker)


def names(n: int, start: int = 0) -> list[str]:
    """Name `n` entities."""
    return [f"k{number}" for number in range(start, start + n)]


def test_a_short_listing_deletes_nothing(store: JobStore) -> None:
    """A listing that shows fewer entities than it announced is `short`, no success, and sweeps nothing (law 8)."""
    assert run(store, names(25), total=25, delete_missing=True).state == "success"
    result = run(store, names(21), total=25, delete_missing=True)
    assert (result.state, result.stopped, result.deleted) == ("partial", "short", 0)
    assert "announced 25 entities and did not show 4" in result.message
    assert store.sweeps.count_records("proof.things") == 25
    assert run(store, names(24), total=24, delete_missing=True).deleted == 1


def test_a_listing_that_starts_over_counts_nothing_twice(store: JobStore) -> None:
    """What an interrupted run had listed does not stand in for what the next one, from the first page again, no longer shows."""
    run(store, names(25), total=25)
    claim = store.listings.claim("proof.things", "proof", worker=this_worker(), lease=60)
    assert isinstance(claim, ListingClaim)
    lane = Lane("proof", "proof", "proof.things")
    store.pages.enqueue(claim, lane, [Item(key, None, {"key": key}) for key in names(10)], cursor={"page": 2})
    store.listings.release(claim)
    result = run(store, names(21), total=25, delete_missing=True)
    assert (result.stopped, result.deleted) == ("short", 0)
    assert store.sweeps.count_records("proof.things") == 25


def test_an_entity_that_is_put_off_again_and_again_is_one(store: JobStore) -> None:
    """How often jobs went back hides no failures: 3 of 20 are more than a tenth, and the message says 20."""
    calls: Counter[str] = Counter()
    seen: list[tuple[int, int]] = []

    class Watch(SilentTracker):
        def progress(self, progress: Progress) -> None:
            seen.append((progress.worked + progress.unchanged, len(progress.put_off)))

    def fetch(conn: Any, entity: Entity) -> Any:
        calls[entity.key] += 1
        if entity.key in ("k0", "k1", "k2"):
            return Failure("no", retry=False)
        return Snooze(0, "not yet") if calls[entity.key] < 6 else {"key": entity.key}

    result = run(store, names(20), fetch=fetch, tracker=Watch())
    assert (result.state, result.message, result.snoozed) == ("failed", "3 of 20 failed", 5 * 17)
    # A bar shows no more than there is, and all of it only at the end.
    assert max(seen) == (20, 0)


def test_gone_and_missing_share_one_budget(store: JobStore) -> None:
    """What 404 took counts when the sweep asks how much may go."""
    run(store, names(100))

    def fetch(conn: Any, entity: Entity) -> Any:
        if int(entity.key[1:]) < 15:
            raise GoneError("gone", status=404)
        return {"key": entity.key}

    result = run(store, names(90), fetch=fetch, delete_missing=True)
    assert (result.gone, result.deleted, result.state) == (15, 0, "partial")
    assert store.sweeps.count_records("proof.things") == 85


@pytest.mark.parametrize(("dead", "state"), [(4, "success"), (5, "failed"), (20, "failed")])
def test_gone_without_a_record_is_no_loss(store: JobStore, dead: int, state: str) -> None:
    """Links that were dead from the start do not fail; but more than the share of them is no success: is the path right?"""

    def fetch(conn: Any, entity: Entity) -> Any:
        if int(entity.key[1:]) < dead:
            raise GoneError("gone", status=404)
        return {"key": entity.key}

    result = run(store, names(20), fetch=fetch)
    assert (result.state, result.succeeded, result.gone, result.failed) == (state, 20 - dead, dead, 0)
    assert result.message.startswith(f"{dead} of 20 listed entities are gone (404 or 410)") is (state == "failed")


def test_one_entity_may_be_gone(store: JobStore) -> None:
    """A share of one entity is less than one."""

    def fetch(conn: Any, entity: Entity) -> Any:
        raise GoneError("gone", status=404)

    result = run(store, names(1), fetch=fetch)
    assert (result.state, result.gone, result.message) == ("success", 1, "")


def test_a_fetch_without_a_record_replaces_none(store: JobStore) -> None:
    """A function without `return`, or a remote `null`: the entity fails, says so, and keeps the record that it has."""
    run(store, names(3))
    before = [row["data"] for row in query(store, "SELECT data FROM record ORDER BY key")]
    result = run(store, names(3), fetch=lambda conn, entity: None)
    assert (result.state, result.succeeded, result.failed, result.retrying) == ("failed", 0, 3, 0)
    assert "returned None" in result.failures[0][1]
    assert [row["data"] for row in query(store, "SELECT data FROM record ORDER BY key")] == before


def test_those_that_will_be_tried_again_are_named(store: JobStore) -> None:
    """Two failed and wait for a retry: the run says which; if none was stored it is no success."""

    def fetch(conn: Any, entity: Entity) -> Any:
        return Failure("500") if entity.key in ("k3", "k7") else {"key": entity.key}

    retry = Retry(max_retries=3, delay=3600)
    result = run(store, names(10), fetch=fetch, retry=retry)
    assert (result.state, result.succeeded, result.failed, result.retrying) == ("success", 8, 0, 2)
    assert dict(result.retries) == {"k3": "500", "k7": "500"}
    result = run(store, names(1, start=20), fetch=lambda conn, entity: Failure("500"), retry=retry)
    assert (result.state, result.retrying) == ("failed", 1)


def test_a_moved_path_empties_no_table(store: JobStore) -> None:
    """Of records that are there, no more than the share goes; the others fail and stay."""
    run(store, names(20))

    def fetch(conn: Any, entity: Entity) -> Any:
        raise GoneError("gone", status=404)

    result = run(store, names(20), fetch=fetch)
    assert (result.state, result.gone, result.failed) == ("failed", 4, 16)
    assert store.sweeps.count_records("proof.things") == 16


class Pages:
    """A listing that can be continued, ten keys a page; before the page at `broken` it fails."""

    def __init__(self, keys: Sequence[str], broken: int | None = None) -> None:
        self.keys, self.broken = keys, broken

    def __call__(self, conn: Any, since: Any = None) -> Iterator[Page]:
        """List from the start."""
        return self.pages(conn)

    def pages(self, conn: Any, *, cursor: Any = None) -> Iterator[Page]:
        """List."""
        for start in range(cursor or 0, len(self.keys), 10):
            if start == self.broken:
                raise ConnectionError("cut")
            found = self.keys[start : start + 10]
            yield Page([Entity(key, None, {"key": key}) for key in found], start + 10 if start + 10 < len(self.keys) else None)


def continued(store: JobStore, keys: Sequence[str], broken: int | None, *, gone: int = 0, **how: Any) -> RunResult:
    """Run or continue a listing of these keys; those with a number below `gone` answer 404."""

    def fetch(conn: Any, entity: Entity) -> Any:
        if int(entity.key[1:]) < gone:
            raise GoneError("gone", status=404)
        return {"key": entity.key}

    sync = Sync("proof.things", CLIENT, listing=Pages(keys, broken), fetch=fetch, delete_missing=True)
    return engine.run(sync, store, **how)


def test_runs_of_one_pass_share_what_may_be_gone(store: JobStore) -> None:
    """Each run of an interrupted listing loses what the ones before have left; a new pass begins to count anew."""
    continued(store, names(50), None)
    found = [continued(store, names(50), broken, gone=50) for broken in (10, 20, 40)]
    assert [(one.gone, one.failed) for one in found] == [(10, 0), (0, 10), (0, 20)]
    assert store.sweeps.count_records("proof.things") == 40
    continued(store, names(50), None, gone=50, new_pass=True)
    assert store.sweeps.count_records("proof.things") == 32


def test_a_continued_pass_sweeps_what_is_left_of_the_share(store: JobStore) -> None:
    """What an earlier run of it lost counts, also for a worker that lists only; what it created is no base."""
    continued(store, names(50), None)
    keys = names(47)
    assert continued(store, keys, 10, gone=8).gone == 8
    result = continued(store, keys, None)
    assert (result.deleted, result.state) == (0, "partial")
    assert "3 of 42 records are missing" in result.message
    assert continued(store, keys, None, new_pass=True).deleted == 3


def test_what_an_interrupted_pass_created_is_no_base(store: JobStore) -> None:
    """All keys changed: the new ones that a run before the interruption stored do not let the sweep take the old ones."""
    continued(store, names(10), None)
    keys = names(80, start=100)
    assert continued(store, keys, 70).stopped == "error"
    result = continued(store, keys, None)
    assert (result.deleted, result.state) == (0, "partial")
    assert "10 of 10 records are missing" in result.message


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
