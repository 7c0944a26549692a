"""jobs.listing.runs: the rows of runs, from beginning to end, and of processes that died. On both databases."""

from __future__ import annotations

from typing import Any

from jobs import JobStore
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.runs import COUNTS, INTERRUPTED, LOST, RUNNING
from jobs.process_identity import this_worker
from jobs.reading import runs as reading
from tests.support.store_helpers import ELSEWHERE, LANE, change, query, runs

#: A process of this host that has ended: nobody has this number and this start.
GONE = f"{this_worker().rpartition(':')[0].rpartition(':')[0]}:1:0"
LONG_AGO = {"sqlite": "'2000-01-01 00:00:00.000000'", "postgresql": "'2000-01-01 00:00:00+00'"}


def begin(store: JobStore, sync: str = LANE.type, **how: Any) -> int:
    """Begin a run."""
    options = {"worker": this_worker(), "started_by": "hand", "patience": 60.0, **how}
    return store.runs.begin(sync, LANE.client, LANE.queue, **options)


def end(store: JobStore, run: int, state: str = "success", **values: Any) -> None:
    """End a run."""
    store.runs.end(run, {"state": state, "stopped": "end", "message": "", **dict.fromkeys(COUNTS, 0), **values})


def states(store: JobStore) -> list[str]:
    """Return the states as people see them, the newest first."""
    return [one.state for one in runs(store)]


def test_a_run_from_beginning_to_end(store: JobStore) -> None:
    """It is there while it runs, and afterwards with its numbers; lists are of one sync or of all, the newest first."""
    first = begin(store, flow_run="f1", started_by="prefect")
    (running,) = runs(store)
    assert (running.id, running.state, running.ended_at, running.flow_run) == (first, "running", None, "f1")
    other = begin(store, "api.others")
    end(store, first, "partial", listed=12, failed=3, deleted=1, message="3 of 12 failed")
    found = {one.id: one for one in runs(store)}
    assert list(found) == [other, first]
    one = found[first]
    assert (one.state, one.listed, one.failed, one.deleted, one.started_by) == ("partial", 12, 3, 1, "prefect")
    assert one.ended_at is not None
    assert one.ended_at >= one.started_at
    assert [one.id for one in runs(store, LANE.type)] == [first]
    assert [one.id for one in runs(store, limit=1)] == [other]


def test_a_dead_process_leaves_an_interrupted_run(store: JobStore) -> None:
    """People see it at once, `maintain` closes it; what lives is left, by its process, its patience or its listing's lease."""
    begin(store, worker=GONE)
    mine = begin(store, "api.mine")
    begin(store, "api.waits", worker=ELSEWHERE)
    lists = begin(store, "api.lists", worker=ELSEWHERE, patience=0)
    claim = store.listings.claim("api.lists", LANE.client, worker=ELSEWHERE, lease=60)
    assert isinstance(claim, ListingClaim)
    store.runs.claimed(lists, "api.lists", claim.claim_no)
    begin(store, "api.silent", worker=ELSEWHERE, patience=0)
    change(store, f"UPDATE run SET alive_until = {LONG_AGO[store.db.dialect]} WHERE sync <> 'api.waits'")
    change(store, f"UPDATE run SET alive_until = '2999-01-01' WHERE id = {mine}")
    seen = {one.sync: one.state for one in runs(store)}
    expected = {
        "api.silent": "interrupted",
        "api.lists": "running",
        "api.waits": "running",
        "api.mine": "running",
        LANE.type: "interrupted",
    }
    assert seen == expected
    assert store.runs.close_dead() == 2
    assert {one.sync: one.state for one in runs(store)} == expected
    assert query(store, "SELECT count(*) AS n FROM run WHERE state = 'interrupted' AND ended_at IS NOT NULL") == [{"n": 2}]
    assert {one.message for one in runs(store) if one.state == "interrupted"} == {LOST}
    assert store.runs.close_dead() == 0


def test_a_run_that_was_closed_by_mistake_stores_its_own_end(store: JobStore) -> None:
    """A host that was cut off for longer than its lease comes back."""
    run = begin(store, worker=ELSEWHERE, patience=-1)
    assert store.runs.close_dead() == 1
    end(store, run, listed=5)
    (found,) = runs(store)
    assert (found.state, found.listed, found.message) == ("success", 5, "")


def test_the_next_run_closes_those_that_lost_the_right(store: JobStore) -> None:
    """One that waits for its turn has not had it, and goes on."""
    lost, waits, takes = (begin(store, worker=ELSEWHERE) for _ in range(3))
    store.runs.claimed(lost, LANE.type, 4)
    store.runs.claimed(takes, LANE.type, 5)
    assert {one.id: one.state for one in runs(store)} == {lost: "interrupted", waits: "running", takes: "running"}


def test_runs_are_kept_like_jobs(store: JobStore) -> None:
    """Successes for 7 days, others for 30, by the queue; the last run of a sync and its last success stay."""
    ids = [begin(store) for _ in range(6)]
    for run, state in zip(ids, ("success", "success", "failed", "skipped", "failed", "failed"), strict=True):
        end(store, run, state)
    begin(store, "api.running")
    ages = dict(zip(ids, (50, 45, 35, 8, 20, 1), strict=True))
    for run, age in ages.items():
        now = "datetime('now', '-{} days') || '.000000'" if store.db.dialect == "sqlite" else "now() - interval '{} days'"
        change(store, f"UPDATE run SET ended_at = {now.format(age)} WHERE id = {run}")
    assert store.retention.prune().runs == 3
    assert [one.id for one in runs(store, LANE.type)] == [ids[5], ids[4], ids[1]]
    assert states(store).count("running") == 1


def test_reading_repeats_what_writing_says() -> None:
    """`jobs.reading` imports no SQLAlchemy, so that it repeats the words."""
    assert (reading.RUNNING, reading.INTERRUPTED, reading.LOST) == (RUNNING, INTERRUPTED, LOST)


def test_readers_use_the_same_words() -> None:
    """What reads without SQLAlchemy has its own copy of them."""
    assert (reading.RUNNING, reading.INTERRUPTED, reading.LOST) == (RUNNING, INTERRUPTED, LOST)
