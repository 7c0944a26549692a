"""The job store alone: enqueue, unchanged pages, claim and finish, with everything that it always writes."""

import time
from typing import Any

from benchmarks.floor import payload
from jobs import Retry, Success
from jobs.job import Content, Done, Lane, Verdict
from jobs.listing import ListingClaim
from jobs.page import Item
from jobs.store import JobStore
from jobs.worker import this_worker

LANE = Lane("bench", "bench", "bench.jobs")
_RETRY = Retry()
_DONE = Verdict(Success("done"))


def _items(start: int, end: int) -> list[Item]:
    found = []
    for number in range(start, end):
        item: dict[str, Any] = payload(number)["data"]
        found.append(Item(item["alpha_3"], item["rev"], item))
    return found


def _fill(store: JobStore, n: int, page: int) -> tuple[float, ListingClaim]:
    """Return the seconds that the store took for `n` new entities; the items are made before the clock starts."""
    claim = store.begin_listing(LANE.type, LANE.client, worker=this_worker(), lease=60)
    assert isinstance(claim, ListingClaim)
    pages = [_items(start, min(start + page, n)) for start in range(0, n, page)]
    began = time.perf_counter()
    for number, items in enumerate(pages):
        store.enqueue_page(claim, LANE, items, cursor={"params": {"page": number + 2}})
    return time.perf_counter() - began, claim


def drain(url: str, *, n: int, batch: int) -> dict[str, float]:
    """Fill the store, then claim and finish by `batch`; return both speeds per second."""
    store = JobStore.open(url)
    filled, _ = _fill(store, n, 500)
    me = this_worker()
    done = 0
    began = time.perf_counter()
    while claimed := store.claim([LANE], batch, worker=me, lease=60):
        settled = store.finish([Done(job, _DONE, _RETRY) for job in claimed])
        done += sum(one.state == "success" for one in settled)
    seconds = time.perf_counter() - began
    store.close()
    assert done == n, f"{done} of {n} jobs finished"
    return {"enqueue": n / filled, "drain": n / seconds}


def pages(url: str, *, n: int, page: int) -> dict[str, float]:
    """List `n` new entities in pages, work them, list them again: entities enqueued, and found unchanged, per second."""
    store = JobStore.open(url)
    filled, claim = _fill(store, n, page)
    store.complete_listing(claim)
    store.release_listing(claim)
    me = this_worker()
    while claimed := store.claim([LANE], 500, worker=me, lease=60):
        store.finish([Done(job, _DONE, _RETRY, Content(job.payload["version"], "0" * 32, "{}")) for job in claimed])
    again, _ = _fill(store, n, page)
    left = store.lane(LANE)
    store.close()
    assert left.due == 0, f"{left.due} of {n} entities were not found unchanged"
    return {"enqueue": n / filled, "unchanged": n / again}
