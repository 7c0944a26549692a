"""Measures claims from a job store with very many queued jobs, of one client and of others."""

import time
from collections.abc import Sequence
from statistics import median, quantiles

from benchmarks.cell import new_database
from benchmarks.floor import payload
from benchmarks.memory import megabytes
from jobs import Retry, Success
from jobs.job import Job, JobResult, Lane, Verdict
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from jobs.process_identity import this_worker
from jobs.store import JobStore

_RETRY = Retry()
_DONE = Verdict(Success("done"))
_QUEUE = "bench"


def _lane(client: int | str) -> Lane:
    return Lane(_QUEUE, f"client{client}", f"client{client}.things")


def _fill(store: JobStore, lane: Lane, n: int) -> None:
    claim = store.listings.claim(lane.type, lane.client, worker=this_worker(), lease=600)
    assert isinstance(claim, ListingClaim)
    for start in range(0, n, 1000):
        items = [payload(number)["data"] for number in range(start, min(start + 1000, n))]
        store.pages.enqueue(claim, lane, [Item(item["alpha_3"], item["rev"], item) for item in items], cursor=start)
    store.listings.release(claim)


def _analyze(store: JobStore) -> None:
    """Give PostgreSQL the statistics that autovacuum would collect within a minute. On SQLite there are none by default."""
    if store.db.dialect == "postgresql":
        with store.db.write() as connection:
            connection.exec_driver_sql("ANALYZE")


def _claim(store: JobStore, lanes: Sequence[Lane], n: int) -> tuple[float, list[Job]]:
    """Claim; return the milliseconds that it took, and the jobs."""
    began = time.perf_counter()
    jobs = store.claim(lanes, n, worker=this_worker(), lease=60)
    return (time.perf_counter() - began) * 1000, jobs


def _finish(store: JobStore, jobs: Sequence[Job]) -> None:
    settled = store.finish([JobResult(job, _DONE, _RETRY) for job in jobs])
    assert all(one.state == "success" for one in settled)


def many_clients(url: str, *, n: int, clients: int, paused: int, claims: int, batch: int) -> dict[str, float]:
    """Queue `n` jobs over so many clients, pause some of them, claim from all; return the milliseconds of a claim.

    Every claim names all lanes, as a worker of the whole queue does, and checks for expired leases when that is due.
    """
    store = JobStore.open(url)
    lanes = [_lane(number) for number in range(clients)]
    for lane in lanes:
        _fill(store, lane, n // clients)
    for lane in lanes[:paused]:
        store.pauses.open(lane.client, 3600, cause="person", reason="benchmark", set_by="benchmark")
    _analyze(store)
    times = []
    for _ in range(claims):
        took, jobs = _claim(store, lanes, batch)
        assert len(jobs) == batch
        assert not {job.lane for job in jobs} & set(lanes[:paused]), "a job of a paused client was claimed"
        times.append(took)
        _finish(store, jobs)
    store.close()
    return {"claim p50": median(times), "claim p99": quantiles(times, n=100)[98], "claim max": max(times)}


def long_run(url: str, *, n: int, batch: int) -> dict[str, float]:
    """Drain `n` jobs in one run; return jobs per second, a claim's time in the last tenth over that in the first, and the growth.

    The growth is that of the process in MB, from the end of the first tenth to the maximum.
    """
    store, lane = JobStore.open(url), _lane(0)
    _fill(store, lane, n)
    _analyze(store)
    times: list[float] = []
    sizes: list[float] = []
    done = 0
    began = time.perf_counter()
    while True:
        took, jobs = _claim(store, [lane], batch)
        if not jobs:
            break
        times.append(took)
        _finish(store, jobs)
        done += len(jobs)
        if len(times) % max(1, n // batch // 20) == 0:
            sizes.append(megabytes("VmRSS"))
    seconds = time.perf_counter() - began
    store.close()
    assert done == n, f"{done} of {n} jobs finished"
    tenth = len(times) // 10
    return {
        "drain": n / seconds,
        "claim last/first": median(times[-tenth:]) / median(times[:tenth]),
        "growth": max(sizes) - sizes[1],
        "start": sizes[0],
        "middle": sizes[len(sizes) // 2],
        "end": sizes[-1],
    }


def paused_neighbour(url: str, *, n: int, claims: int, batch: int, is_over: bool = False) -> dict[str, float]:
    """Return a claim's time beside `n` queued jobs of a paused client, over its time without them.

    Two databases, used alternately, so that the load of the machine is the same for both.
    With `is_over` the pause has run out, and the client was not probed yet.
    """
    times: dict[str, list[float]] = {}
    stores = {"alone": JobStore.open(url), "beside": JobStore.open(new_database(url))}
    free, paused = _lane("free"), _lane("paused")
    for name, store in stores.items():
        _fill(store, free, claims * batch)
        if name == "beside":
            _fill(store, paused, n)
        store.pauses.open(paused.client, 0 if is_over else 3600, cause="person", reason="benchmark", set_by="benchmark")
        _analyze(store)
    for _ in range(claims):
        for name, store in stores.items():
            took, jobs = _claim(store, [free, paused], batch)
            assert len(jobs) == batch
            times.setdefault(name, []).append(took)
            _finish(store, jobs)
    for store in stores.values():
        store.close()
    return {"claim beside/alone": median(times["beside"]) / median(times["alone"]), "claim": median(times["beside"])}
