"""Memory: how far a process grows while it lists and enqueues very many generated entities."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any


def megabytes(field: str) -> float:
    """Return a field of /proc/self/status; `VmHWM` is the most that was ever resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def listing(url: str, *, n: int, page: int) -> dict[str, float]:
    """List and enqueue `n` entities from a generator; return the growth in MB since the imports, and entities per second."""
    from clients import Entity, Page
    from flows import Client, Sync
    from flows.lister import Lister
    from flows.tracker import Progress, SilentTracker
    from jobs.job import Lane, Verdict
    from jobs.listing import ListingClaim
    from jobs.store import JobStore
    from jobs.worker import this_worker

    def pages(_connection: Any, _since: Any) -> Iterator[Page]:
        for start in range(0, n, page):
            yield Page([Entity(f"k{key:07d}", "1", {"id": key, "name": "generated"}) for key in range(start, start + page)])

    def connect(_settings: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def fail(error: Exception) -> Verdict:
        raise error

    sync = Sync("bench.generated", Client("bench", connect=connect), listing=pages)
    before = megabytes("VmRSS")
    began = perf_counter()
    store = JobStore.open(url)
    claim = store.begin_listing(sync.id, sync.client.id, worker=this_worker(), lease=600)
    assert isinstance(claim, ListingClaim)
    progress = Progress()
    ended = Lister(
        sync, store, claim, Lane(sync.queue_id, sync.client.id, sync.id), lambda: None, fail, fail, SilentTracker(), progress,
        False, None, lambda: True,
    ).run()  # fmt: skip
    seconds = perf_counter() - began
    store.close()
    assert ended.stopped == "end"
    assert progress.queued == n, progress
    return {"growth": megabytes("VmHWM") - before, "entities": n / seconds}
