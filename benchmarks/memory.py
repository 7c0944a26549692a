"""Measures the memory of a process that lists and enqueues very many generated entities."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any


def megabytes(field: str) -> float:
    """Return a field of /proc/self/status in MB; `VmHWM` is the maximum of the resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def listing(url: str, *, n: int, page: int) -> dict[str, float]:
    """List and enqueue `n` entities from a generator; return the growth in MB since the imports, and entities per second."""
    from clients import Entity, Page
    from flows import Client, Sync
    from flows.execution.delete_guard import DeleteGuard
    from flows.execution.entity_executor import EntityExecutor
    from flows.project.redaction import Mask
    from flows.sync.listing import Lister
    from flows.worker.batch_runner import Reporting
    from flows.worker.executor_factory import OpenClients
    from jobs.job import Lane
    from jobs.listing.listing_claim import ListingClaim
    from jobs.process_identity import this_worker
    from jobs.store import JobStore

    def pages(_connection: Any, _since: Any) -> Iterator[Page]:
        for start in range(0, n, page):
            yield Page([Entity(f"k{key:07d}", "1", {"id": key, "name": "generated"}) for key in range(start, start + page)])

    def connect(_settings: Any) -> AbstractContextManager[None]:
        return nullcontext()

    sync = Sync("bench.generated", Client("bench", connect=connect), listing=pages)
    before = megabytes("VmRSS")
    began = perf_counter()
    store = JobStore.open(url)
    claim = store.listings.claim(sync.id, sync.client.id, worker=this_worker(), lease=600)
    assert isinstance(claim, ListingClaim)
    reporting = Reporting()
    with OpenClients() as clients:
        connections, _ = clients.open(sync.client)
        ended = Lister(
            EntityExecutor(sync, connections, Mask(), DeleteGuard(sync, store)),
            store,
            claim,
            Lane(sync.queue_id, sync.client.id, sync.id),
            reporting=reporting,
            full=False,
            limit=None,
            may_go_on=lambda: True,
            on_page=lambda: None,
        ).run()
    seconds = perf_counter() - began
    store.close()
    assert ended.stopped == "end"
    assert reporting.progress.queued == n, reporting.progress
    return {"growth": megabytes("VmHWM") - before, "entities": n / seconds}
