"""A dry run says what would be created, changed and deleted, and writes nothing at all."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from clients import Entity, Page
from flows.cli.sync_commands.run_summary import summary
from flows.progress import Progress, SilentTracker
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore
from tests.support.fake_rows_api import Rows
from tests.support.fake_things_api import change, declare, dump


def dry(
    remote: Rows, store: JobStore, *, full: bool = False, limit: int | None = None, allow: bool = False, **fields: Any
) -> RunResult:
    """Run dry, and see that no row of no table has changed."""
    before = dump(store)
    result = engine.run(
        remote.sync(**{"incremental": None, **fields}), store, dry_run=True, full=full, limit=limit, allow_deletes=allow
    )
    assert dump(store) == before
    return result


def filled(n: int = 5) -> Rows:
    """Return a remote with rows of version 1."""
    return Rows([{"id": f"k{number}", "at": 1_600_000_000 + number, "v": "1"} for number in range(1, n + 1)])


def would(result: RunResult) -> tuple[Any, ...]:
    """Return what would happen."""
    return result.created, result.changed, result.undecided, result.would_delete


def test_what_would_happen(store: JobStore) -> None:
    """New, changed, deleted ones come to numbers and keys; a deleted one that is back is a new one."""
    remote = filled(10)
    remote.run(store, incremental=None)
    change(store, "UPDATE record SET deleted_at = synced_at WHERE key = 'k10'")
    remote.rows[0]["v"] = "2"
    del remote.rows[1]
    remote.rows.append({"id": "k11", "at": 0, "v": "1"})
    result = dry(remote, store, delete_missing=True)
    assert (result.state, result.stopped, result.listed, result.queued, result.unchanged) == ("success", "end", 10, 3, 7)
    assert would(result) == (2, 1, 0, 1)
    assert result.examples == {"created": ("k10", "k11"), "changed": ("k1",), "undecided": (), "would_delete": ("k2",)}
    assert result.deleted == 0
    real = remote.run(store, incremental=None, delete_missing=True)
    assert (real.queued, real.deleted) == (3, 1)
    assert would(real) == (None, None, None, None)


def test_the_first_keys(store: JobStore) -> None:
    """Ten of each are named, the others counted."""
    result = dry(filled(25), store)
    assert (result.created, result.examples["created"]) == (25, tuple(f"k{n}" for n in range(1, 11)))
    assert "25 would be created: k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, …" in summary(result)
    document = result.as_json()
    assert json.loads(json.dumps(document))["examples"]["created"][0] == "k1"
    assert {"created", "changed", "undecided", "would_delete", "distinct"} <= set(document)


@pytest.mark.parametrize(("fetches", "expected"), [(True, (0, 0, 3, 0)), (False, (0, 1, 0, 0))])
def test_without_versions(store: JobStore, fetches: bool, expected: tuple[int, ...]) -> None:
    """Where the item is the record its content tells; else only a fetch would, and a dry run fetches nothing."""
    remote = filled(3)
    for row in remote.rows:
        del row["v"]
    fields: dict[str, Any] = {} if fetches else {"fetch": None}
    remote.run(store, incremental=None, **fields)
    remote.rows[1] = {**remote.rows[1], "more": 1}
    remote.fetched.clear()
    assert would(dry(remote, store, **fields)) == expected
    assert not remote.fetched


def test_full(store: JobStore) -> None:
    """What would be worked again although it did not change is neither new nor changed."""
    remote = filled(3)
    remote.run(store, incremental=None)
    result = dry(remote, store, full=True)
    assert (result.queued, would(result)) == (3, (0, 0, 3, 0))


def test_a_sweep_that_would_be_refused(store: JobStore) -> None:
    """It says so with the words of the run, and with the confirmation it shows what would go."""
    remote = filled(10)
    remote.run(store, incremental=None)
    del remote.rows[:6]
    refused = dry(remote, store, delete_missing=True)
    assert (refused.state, refused.would_delete) == ("partial", 0)
    assert "6 of 10 records are missing, more than the allowed 20%" in refused.message
    assert refused.message.split("; dry run")[0] == remote.run(store, incremental=None, delete_missing=True).message
    allowed = dry(remote, store, delete_missing=True, allow=True)
    assert (allowed.state, allowed.would_delete) == ("success", 6)
    assert allowed.examples["would_delete"] == ("k1", "k2", "k3", "k4", "k5", "k6")
    remote.rows.clear()
    assert "came back empty" in dry(remote, store, delete_missing=True).message


@pytest.mark.parametrize("how", ["limit", "flawed", "later", "short", "declared"])
def test_when_nothing_is_swept(store: JobStore, how: str) -> None:
    """A listing that proves nothing deletes nothing, and its preview says nothing of deletions."""
    remote = filled(10)
    remote.run(store, incremental=None)
    del remote.rows[0]

    def listing(conn: Any, since: Any) -> Any:
        more: dict[str, Any] = {"flawed": {"errors": ["no key"]}, "later": {"later": ["k9"]}, "short": {"total": 50}}.get(how, {})
        yield Page([Entity(row["id"], row["v"], row) for row in remote.rows], **more)

    result = dry(
        remote, store, listing=listing, delete_missing=how != "declared", limit=5 if how == "limit" else None
    )  # fmt: skip
    assert result.would_delete == 0
    assert result.state == {"flawed": "partial", "short": "partial"}.get(how, "success")


def test_entities_in_the_hands_of_a_worker_are_not_missing(store: JobStore) -> None:
    """As in the sweep: who has a job that is not done was listed."""
    remote = filled(10)
    remote.run(store, incremental=None)
    change(store, "UPDATE job SET state = 'queued' WHERE key = 'k1'")
    del remote.rows[0]
    assert dry(remote, store, delete_missing=True).would_delete == 0


def test_incremental(store: JobStore) -> None:
    """It asks from the mark, moves it not, sweeps nothing, and counts what would be asked for again."""
    remote = filled(5)
    remote.failing = {"k1"}
    declared = {"incremental": remote.sync().incremental, "delete_missing": True}
    remote.run(store, **declared)
    remote.rows.append({"id": "k6", "at": 1_600_000_009, "v": "1"})
    result = dry(remote, store, **declared)
    assert remote.asked == [None, 1_600_000_005]
    assert (result.state, result.listed, result.queued, would(result)) == ("success", 2, 2, (1, 0, 1, 0))
    assert dry(remote, store, full=True, **declared).listed == 6


def test_in_an_empty_database(store: JobStore) -> None:
    """Nothing is written there either: no listing, no client, no queue."""
    result = dry(filled(3), store, delete_missing=True)
    assert would(result) == (3, 0, 0, 0)
    assert not any(dump(store).values())


@pytest.mark.slow
def test_commands(petstore: Any, api: Any) -> None:
    """`syncs run --dry-run` says it in text and in JSON, `--allow-deletes` in a run deletes."""
    api.items = [{"id": number} for number in range(1, 5)]
    petstore.write("syncs/petstore.py", (petstore.folder / "syncs/petstore.py").read_text().replace(
        'items="data"),', 'items="data"), delete_missing=True,'))  # fmt: skip
    text = petstore.syncs("run", "petstore.pets", "--dry-run").stdout
    assert "4 would be created: 1, 2, 3, 4\n" in text
    assert petstore.syncs("run", "petstore.pets").returncode == 0
    del api.items[1:]
    found = json.loads(petstore.syncs("run", "petstore.pets", "--dry-run", "--json").stdout)
    assert (found["undecided"], found["would_delete"], found["state"]) == (1, 0, "partial")
    refused = petstore.syncs("run", "petstore.pets", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["deleted"]) == (1, 0)
    assert "`syncs run petstore.pets --allow-deletes`" in json.loads(refused.stdout)["message"]
    assert "3 would be deleted: 2, 3, 4" in petstore.syncs("run", "petstore.pets", "--dry-run", "--allow-deletes").stdout
    allowed = petstore.syncs("run", "petstore.pets", "--allow-deletes", "--json")
    assert (allowed.returncode, json.loads(allowed.stdout)["deleted"]) == (0, 3)
    assert json.loads(allowed.stdout)["distinct"] == 1


def test_stop(store: JobStore) -> None:
    """A dry run of an endless listing ends soon after its stop."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        for number in range(10**9):
            yield Page([Entity(str(number))], cursor=number)

    stop, seen = threading.Event(), []

    class Watching(SilentTracker):
        def progress(self, progress: Progress) -> None:
            seen.append(progress.pages)
            if progress.pages == 5:
                stop.set()

    sync = declare("http://127.0.0.1:9/", listing=listing)
    result = engine.run(sync, store, dry_run=True, stop=stop, tracker=Watching())
    assert (result.stopped, result.pages, result.listed) == ("stop", 5, 5)
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_limit_cuts_a_page(store: JobStore, limit: int) -> None:
    """A limit counts entities and not pages."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("a"), Entity("b")])
        yield Page([Entity("c"), Entity("d")])

    result = engine.run(declare("http://127.0.0.1:9/", listing=listing), store, dry_run=True, limit=limit)
    assert (result.listed, result.stopped) == (min(limit, 4), "limit" if limit < 4 else "end")
