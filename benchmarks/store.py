"""Measures the job store alone: enqueueing, pages of unchanged entities, claiming and finishing."""

import time
from typing import Any

from benchmarks.floor import payload
from jobs import Retry, Success
from jobs.job import Content, JobResult, Lane, Verdict
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from jobs.process_identity import this_worker
from jobs.store import JobStore

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
    """Enqueue `n` new entities; return the seconds that the store took, without the making of the items."""
    claim = store.listings.claim(LANE.type, LANE.client, worker=this_worker(), lease=60)
    assert isinstance(claim, ListingClaim)
    pages = [_items(start, min(start + page, n)) for start in range(0, n, page)]
    began = time.perf_counter()
    for number, items in enumerate(pages):
        store.pages.enqueue(claim, LANE, items, cursor={"params": {"page": number + 2}})
    return time.perf_counter() - began, claim


def drain(url: str, *, n: int, batch: int) -> dict[str, float]:
    """Fill the store, then claim and finish by `batch`; return both speeds per second."""
    store = JobStore.open(url)
    filled, _ = _fill(store, n, 500)
    me = this_worker()
    done = 0
    began = time.perf_counter()
    while claimed := store.claim([LANE], batch, worker=me, lease=60):
        settled = store.finish([JobResult(job, _DONE, _RETRY) for job in claimed])
        done += sum(one.state == "success" for one in settled)
    seconds = time.perf_counter() - began
    store.close()
    assert done == n, f"{done} of {n} jobs finished"
    return {"enqueue": n / filled, "drain": n / seconds}


def pages(url: str, *, n: int, page: int) -> dict[str, float]:
    """List `n` new entities in pages, work them, list them again: entities enqueued, and found unchanged, per second."""
    store = JobStore.open(url)
    filled, claim = _fill(store, n, page)
    store.listings.complete(claim)
    store.listings.release(claim)
    me = this_worker()
    while claimed := store.claim([LANE], 500, worker=me, lease=60):
        store.finish([JobResult(job, _DONE, _RETRY, Content(job.payload["version"], "0" * 32, "{}")) for job in claimed])
    again, _ = _fill(store, n, page)
    left = store.views.lane(LANE)
    store.close()
    assert left.due == 0, f"{left.due} of {n} entities were not found unchanged"
    return {"enqueue": n / filled, "unchanged": n / again}
