"""Measures a run against an API with a budget: how long it takes beside what the budget allows, and what was refused."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from urllib.request import urlopen

API = Path(__file__).with_name("budget_api.py")


@contextmanager
def serving(mode: str, n: int) -> Iterator[str]:
    """Run the API; yield its base URL."""
    with Popen([sys.executable, str(API), mode, str(n)], stdout=PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def figures(url: str, *, done: int, n: int) -> dict[str, float]:
    """Return the time over the ideal one, and the share that was refused, in percent."""
    with urlopen(f"{url}/stats") as answer:
        stats = json.load(answer)
    assert done == n, f"{done} of {n} entities"
    refused = 100 * stats["refused"] / (stats["good"] + stats["refused"])
    return {"time/ideal": stats["took"] / stats["ideal"], "refused": refused, "seconds": stats["took"]}


def engine(url: str, *, mode: str, n: int) -> dict[str, float]:
    """Run a sync that gets each entity, with eight threads, until it is done."""
    from clients import HttpClient, Listing, TotalPages
    from flows import Client, Sync
    from flows.sync import run as engine
    from jobs.store import JobStore

    store = JobStore.open(url)
    with serving(mode, n) as base_url:
        client = Client("budget", connect=lambda _: HttpClient(base_url))
        listing = Listing("items", TotalPages(path="pages"), items="data", key="id", total="total")
        sync = Sync("budget.items", client, listing=listing, fetch=lambda http, entity: http.get_json(f"items/{entity.key}"))
        result = engine.run(sync, store, wait=900.0)
        assert result.state == "success", result
        found = figures(base_url, done=result.succeeded, n=n)
    store.close()
    return found
