"""A process that forks workers and listers on command, for the kill tests. Not a test.

Each line on standard input is JSON and answered by one line of JSON: `{"role": …, "fault": …, "options": {…}}` by the process id
of a new child, `{"reap": [ids]}`, when they have ended, by their exit statuses. A fault is `point` or `point:n`: the child is
killed when it comes to that point for the nth time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from sqlalchemy import event

from jobs import Database, Failure, JobStore, Retry, Success
from jobs.db.json_codec import encode
from jobs.fingerprint import content_hash
from jobs.job import Content, Job, JobResult, Lane, Verdict
from jobs.listing.listing_claim import ListingBusy
from jobs.listing.page_plan import Item
from jobs.pauses.probe import Probe
from jobs.process_identity import this_worker

LANE = Lane("default", "api", "api.things")
OPTIONS: dict[str, Any] = {}
NO_PAUSE: dict[str, Any] = {"durations": [60], "reason": "", "set_by": "test"}


class Fault:
    """The point at which this process dies, if any."""

    def __init__(self, text: str) -> None:
        self.point, _, count = text.partition(":")
        self.left = int(count or 1)

    def pass_by(self, point: str) -> None:
        """Die here if it is the time."""
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, db: Database) -> None:
        """Die inside a transaction: before one of its statements, or before its commit."""
        points = {"INSERT INTO attempt": "finish_open", "UPDATE listing": "page_open", "claim_no=(job.claim_no": "claim_open"}

        def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            for part, point in points.items():
                if part in statement:
                    self.pass_by(point)

        event.listen(db.engine, "before_cursor_execute", before)
        event.listen(db.engine, "commit", lambda _connection: self.pass_by("before_commit"))


class BatchRunner:
    """The jobs in hand, and the thread that renews their leases (M5)."""

    def __init__(self, store: JobStore, lease: float) -> None:
        self._store, self._lease = store, lease
        self._claims: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._renew, daemon=True).start()

    def take(self, jobs: list[Job]) -> None:
        """Keep these alive."""
        with self._lock:
            self._claims |= {(job.id, job.claim_no) for job in jobs}

    def drop(self, jobs: list[Job]) -> None:
        """Keep these alive no longer."""
        with self._lock:
            self._claims -= {(job.id, job.claim_no) for job in jobs}

    def _renew(self) -> None:
        while True:
            time.sleep(self._lease / 3)
            with self._lock:
                claims = list(self._claims)
            try:
                self._store.renew(claims, lease=self._lease)
            except Exception:  # noqa: BLE001  # the test must see it
                traceback.print_exc()
                os._exit(3)


def work(fault: Fault) -> None:
    """Work until nothing is left."""
    store = JobStore(Database(OPTIONS["url"]), max_rescues=int(OPTIONS.get("max_rescues", 3)))
    fault.watch(store.db)
    lease, pace, batch = float(OPTIONS.get("lease", 60)), float(OPTIONS.get("pace", 0.002)), int(OPTIONS.get("batch", 8))
    lanes = [Lane(*lane) for lane in OPTIONS.get("lanes", [LANE])]
    me, runner = this_worker(), BatchRunner(store, lease)
    effects = os.open(OPTIONS["effects"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        fault.pass_by("between")
        # Suspects one at a time, so that a batch's poison shows.
        jobs = store.claim(lanes, 1, worker=me, lease=lease, suspects=True) or store.claim(lanes, batch, worker=me, lease=lease)
        probe = None if jobs or not OPTIONS.get("probes") else begin_probe(store, lanes, me, lease)
        if probe is not None:
            fault.pass_by("probing")
            jobs = store.probes.claim_job(probe, lanes, worker=me, lease=lease)
            fault.pass_by("after_probe_claim")
        if not jobs:
            if probe is not None:
                store.probes.end(probe, None, **NO_PAUSE)
            if not any(left.due + left.delayed + left.processing for left in map(store.views.lane, lanes)):
                break
            time.sleep(0.02)
            continue
        runner.take(jobs)
        fault.pass_by("after_claim")
        dones = []
        for job in jobs:
            if job.key == "poison":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(pace)
            os.write(effects, f"{job.id} {job.claim_no} {me}\n".encode())
            fault.pass_by("after_effect")
            data = {"claim_no": job.claim_no}
            flaky = job.key is not None and job.key.endswith("7") and job.attempts == 0
            outcome = Failure("not this time") if flaky else Success()
            dones.append(
                JobResult(
                    job, Verdict(outcome), Retry(delay=0, jitter=False), Content(None, content_hash(data), encode(data).decode())
                )
            )
        fault.pass_by("before_finish")
        store.finish(dones)
        runner.drop(jobs)
        fault.pass_by("after_finish")
        if probe is not None:
            fault.pass_by("before_probe_end")
            store.probes.end(probe, True, **NO_PAUSE)
    store.close()


def begin_probe(store: JobStore, lanes: list[Lane], me: str, lease: float) -> Probe | None:
    """Take the right to probe one of the clients whose pause has run out."""
    for pausing in store.probes.due({lane.client for lane in lanes}):
        if (probe := store.probes.begin(pausing.client, worker=me, lease=lease)) is not None:
            return probe
    return None


def list_pages(fault: Fault) -> None:
    """List 5 pages of 20 entities, from where the last one stopped."""
    store = JobStore(Database(OPTIONS["url"]))
    claim = store.listings.claim(LANE.type, LANE.client, worker=this_worker(), lease=60)
    assert not isinstance(claim, ListingBusy), claim
    fault.watch(store.db)
    for page in range(claim.cursor or 0, 5):
        fault.pass_by("between_pages")
        items = [Item(f"{page}-{number}") for number in range(20)]
        store.pages.enqueue(claim, LANE, items, cursor=page + 1)
    fault.pass_by("before_complete")
    store.listings.complete(claim)
    store.listings.release(claim)
    store.close()


def main() -> None:
    """Fork on command."""
    for line in sys.stdin:
        command = json.loads(line)
        if "reap" in command:
            print(json.dumps([os.waitpid(pid, 0)[1] for pid in command["reap"]]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                os.close(0)
                OPTIONS.update(command["options"])
                {"work": work, "list": list_pages}[command["role"]](Fault(command["fault"]))
            except BaseException:  # noqa: BLE001  # the test must see it
                traceback.print_exc()
                code = 3
            os._exit(code)
        print(pid, flush=True)


main()
