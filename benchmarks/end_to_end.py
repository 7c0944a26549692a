"""Measures a whole run of the demo into SQLite, and beside it a bare httpx loop that stores nothing, and plain Prefect.

All of them list pages of 100, get each entity with eight threads and decode it, from a server in a process of its own that
answers from memory.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

API = Path(__file__).parents[1] / "syncs" / "_languages_api.py"
THREADS = 8


@contextmanager
def serving() -> Iterator[str]:
    """Run the API of the demo; yield its base URL."""
    with Popen([sys.executable, str(API)], stdin=PIPE, stdout=PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()


def bare() -> dict[str, float]:
    """Get every entity with httpx in a loop that stores nothing; return entities per second."""
    import httpx

    with serving() as url, httpx.Client(base_url=url) as client, ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        keys: list[str] = []
        page, pages = 1, 1
        while page <= pages:
            body = client.get("/languages", params={"page": page}).raise_for_status().json()
            keys += [item["alpha_3"] for item in body["data"]]
            page, pages = page + 1, body["pages"]
        found = list(pool.map(lambda key: client.get(f"/languages/{key}").raise_for_status().json(), keys))
        seconds = time.perf_counter() - began
    assert len(found) == body["total"]
    return {"entities": len(found) / seconds}


def engine(url: str) -> dict[str, float]:
    """Run the demo's sync through the engine: entities per second, first on an empty database, then with nothing changed."""
    from flows.project import registry
    from flows.sync import run as engine
    from jobs.store import JobStore

    sync = registry.load([API.with_name("languages.py")]).sync("languages")
    store = JobStore.open(url)
    with serving() as base_url:
        os.environ["LANGUAGES_BASE_URL"] = base_url
        first = engine.run(sync, store)
        second = engine.run(sync, store)
    store.close()
    assert first.state == "success", first
    assert first.succeeded == first.listed == second.unchanged, (first, second)
    return {"entities": first.listed / first.seconds, "unchanged": second.listed / second.seconds}


@contextmanager
def prefect_server() -> Iterator[float]:
    """Run a Prefect server for this process; yield the seconds that it took to start. Must run before Prefect is imported."""
    from urllib.request import urlopen

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    began = time.perf_counter()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with Popen(command, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True) as server:
        try:
            while True:
                try:
                    urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=1).close()
                    break
                except OSError:
                    assert server.poll() is None, "the Prefect server ended"
                    time.sleep(0.05)
            yield time.perf_counter() - began
        finally:
            # A normal stop would take a minute to store its events, which nobody reads.
            os.killpg(server.pid, signal.SIGKILL)


def engine_on_prefect() -> dict[str, float]:
    """Run the demo's sync as a flow run of a real Prefect server; return entities per second of the run."""
    os.environ["SYNCS_PATH"] = str(API.with_name("languages.py"))
    with prefect_server(), serving() as base_url:
        os.environ["LANGUAGES_BASE_URL"] = base_url
        from flows.orchestration.in_process_run import run_sync

        result = run_sync("languages", url=os.environ["PREFECT_API_URL"])
    assert result.state == "success", result
    return {"entities": result.listed / result.seconds}


def plain_prefect(*, n: int) -> dict[str, float]:
    """Get `n` entities with the most obvious Prefect program: one mapped task for each, in eight threads.

    Returns entities per second of the flow, the seconds of the server's start, and those of the imports until the flow began.
    """
    with prefect_server() as server_start:
        return {**_plain_prefect(n), "server_start": server_start}


def _plain_prefect(n: int) -> dict[str, float]:
    started = time.perf_counter()
    import httpx
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    with serving() as url, httpx.Client(base_url=url) as client:

        @task
        def page(number: int) -> list[str]:
            body = client.get("/languages", params={"page": number}).raise_for_status().json()
            return [item["alpha_3"] for item in body["data"]]

        @task
        def entity(key: str) -> Any:
            return client.get(f"/languages/{key}").raise_for_status().json()

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=THREADS))  # type: ignore[arg-type]
        def languages() -> tuple[float, int]:
            began = time.perf_counter()
            keys = [key for number in range(1, -(-n // 100) + 1) for key in page(number)]
            found = entity.map(keys[:n]).result()
            return began, len(found)

        began, count = languages()
        ended = time.perf_counter()
    assert count == n
    return {"entities": n / (ended - began), "start": began - started}
