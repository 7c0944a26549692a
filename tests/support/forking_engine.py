"""A process that forks runs of the real engine on command, so that a run lives within milliseconds. Not a test.

Each line on standard input is JSON: `url` of the remote, `database`, `result` (the file for the run's result), and what the run
should do. It is answered by the child's process id. At the end of the input the children are waited for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import psycopg

# Warm what a run would import, so that a child begins at once.
import clients.http.client
import clients.http.transport
from flows.progress import Judged, Progress, SilentTracker
from flows.sync import run as engine
from flows.worker import queue_processing as work
from jobs import Database, JobStore, Queue
from tests.support.fake_things_api import declare, fetch

WARM = (clients.http.client, clients.http.transport, psycopg)


class Dying(SilentTracker):
    """A tracker that kills its own process at a point: `listed` (no page is to come), `page:n`, `batch:n`, `batch_done:n`."""

    def __init__(self, point: str) -> None:
        self.name, _, number = point.partition(":")
        self.number = int(number or 1)
        self.seen: dict[str, int] = {}

    def _pass_by(self, name: str) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1
        if name == self.name and self.seen[name] == self.number:
            os.kill(os.getpid(), signal.SIGKILL)

    def page(self, number: int, work: Any) -> Any:
        """Pass a page by, before and after it."""
        self._pass_by("page")
        found = work()
        self._pass_by("page_done")
        return found

    def batch(self, keys: list[str], work: Any) -> Judged:
        """Pass a batch by, before and after it."""
        self._pass_by("batch")
        found: Judged = work()
        self._pass_by("batch_done")
        return found

    def progress(self, progress: Progress) -> None:
        """Pass the end of the listing by."""
        if progress.listing_ended:
            self._pass_by("listed")


def run(order: dict[str, Any]) -> None:
    """Run the engine as the order says."""
    effects, poison = order.get("effects"), order.get("poison")

    def fetching(http: Any, entity: Any) -> Any:
        if entity.key == poison:
            # So that what is in hand beside it is under way.
            time.sleep(order.get("dying", 0.05))
            os.kill(os.getpid(), signal.SIGKILL)
        if effects:
            with Path(effects).open("a") as file:
                file.write(f"{entity.key}\n")
        return fetch(http, entity)

    sync = declare(order["url"], **{**order.get("sync", {}), "fetch": fetching})
    store = JobStore(Database(order["database"]))
    tracker = Dying(order.get("die", ""))
    if order.get("role") == "work":
        from flows.project.registry import Registry

        registry = Registry(clients={sync.client.id: sync.client}, syncs={sync.id: sync})
        document: Any = {"processed": work.work(store, registry, until_empty=True, tracker=tracker).processed}
    else:
        queue = Queue(sync.queue_id, lease=order.get("lease", 60))
        document = engine.run(sync, store, tracker=tracker, queue=queue).as_json()
    store.close()
    Path(order["result"]).write_text(json.dumps(document))


def main() -> None:
    """Fork on command."""
    children = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                os.close(0)
                run(json.loads(line))
            except BaseException:  # noqa: BLE001  # the test must see it
                traceback.print_exc()
                code = 3
            os._exit(code)
        children.append(pid)
        print(pid, flush=True)
    for pid in children:
        os.waitpid(pid, 0)


main()
