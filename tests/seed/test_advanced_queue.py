"""Advanced Queue, row by row: what its users saw is here too, on both databases. What other tests prove is marked there."""

import re
import signal
from collections import Counter
from dataclasses import asdict

import pytest
from sqlalchemy.exc import IntegrityError

from flows.project.registry import load
from flows.worker.queue_processing import work
from jobs import FilterError, JobStore, KeepPolicy, Queue, Rate
from jobs.admin.filters import Filter
from jobs.schema.states import STATES
from tests.support.fake_remote import run_out
from tests.support.seed_helpers import (
    Log,
    Project,
    add,
    change,
    declare,
    drain,
    eventually,
    kind,
    lane,
    move,
    query,
    states,
    take,
)

ORDERS = """
from flows import Client, JobType
from jobs import Queue, Retry

shop = Client("shop", connect=lambda _: __import__("contextlib").nullcontext())
orders = JobType("shop.order", shop, process=lambda job, _: None, retry=Retry(max_retries=0))
"""

SLOW = """
import time
from contextlib import nullcontext
from pathlib import Path
from flows import Client, JobType

def process(job, _):
    Path("began").touch()
    while not Path("go").exists():
        time.sleep(0.01)

shop = Client("shop", connect=lambda _: nullcontext())
orders = JobType("shop.order", shop, process=process)
"""


@pytest.mark.rows("AQ-01")
def test_states_are_these_and_no_others(store: JobStore) -> None:
    """A job is in one of Advanced Queue's four states or of our two; the table itself refuses any other, and so does a filter."""
    (job_id,) = add(store, kind(), 1)
    assert STATES == ("queued", "processing", "success", "failure", "superseded", "cancelled")
    for state in STATES:
        change(store, "UPDATE job SET state = :state WHERE id = :id", state=state, id=job_id)
        assert [one.state for one in store.views.jobs(Filter(state=state))] == [state]
    with pytest.raises(IntegrityError):
        change(store, "UPDATE job SET state = 'foo' WHERE id = :id", id=job_id)
    with pytest.raises(FilterError):
        store.views.jobs(Filter(state="foo"))


@pytest.mark.rows("AQ-02")
def test_a_new_job_has_all_its_fields(store: JobStore) -> None:
    """Id, queue, type, payload, state, message, retries, time and fingerprint are there with their first values; times in UTC."""
    before = store.views.now()
    (job_id,) = add(store, kind(duplicates="reject", priority=2, serial=lambda order: order["of"]), {"of": "Ann", "n": 1})
    detail = asdict(store.views.job(job_id))
    view = detail.pop("job")
    assert before <= view.pop("created_at") == view.pop("available_at") <= store.views.now()
    assert view == {
        "id": job_id, "queue": "shop", "client": "shop", "type": "shop.order", "key": None, "state": "queued", "attempts": 0,
        "retries": 0, "message": "", "finished_at": None,
    }  # fmt: skip
    assert len(detail.pop("fingerprint")) > 16
    assert detail == {
        "payload": {"of": "Ann", "n": 1}, "phase": "", "checkpoint_bytes": None, "serial_key": "Ann", "priority": 2,
        "claim_no": 0, "worker": None, "lease_until": None, "snoozes": 0, "rescues": 0, "generation": None,
        "superseded_by": None, "twin": None, "next_try_at": None, "attempts": [],
    }  # fmt: skip


@pytest.mark.rows("AQ-09")
def test_a_queue_holds_jobs_of_any_type(store: JobStore) -> None:
    """Two types wait in one queue: of each what came first is worked first, and neither waits for the other."""
    log = Log()
    mails, notes = kind(log, "shop.mail", queue="all"), kind(log, "shop.note", queue="all")
    for n in range(4):
        add(store, mails, ["mail", n])
    for n in range(4):
        add(store, notes, ["note", n])
    assert drain(store, mails, notes).succeeded == 8
    assert [n for what, n in log.payloads if what == "mail"] == [0, 1, 2, 3]
    assert [n for what, n in log.payloads if what == "note"] == [0, 1, 2, 3]
    assert {what for what, _ in log.payloads[:2]} == {"mail", "note"}
    assert [view.queue for view in store.views.queues()] == ["all"]


@pytest.mark.rows("AQ-23")
def test_a_queue_goes_from_its_file_to_the_table_and_back(here: Project) -> None:
    """A queue has defaults for everything but its name; what is declared is what stands in the table, and comes back the same."""
    here.write(
        "from jobs import KeepPolicy, Queue, Rate\n"
        "plain = Queue('plain')\n"
        "own = Queue('own', lease=300, concurrency=3, time_limit=0, rate=Rate(5, 2.5),\n"
        "            keep=KeepPolicy(success_days=None, failure_days=365.5, max_items=1000))\n"
    )
    found = dict(load().queues)
    assert found["plain"] == Queue("plain", lease=60, concurrency=8, time_limit=90, keep=KeepPolicy(7, 30, None), rate=None)
    for queue in found.values():
        here.store.queues.register(queue, declared=True)
    back = {
        row["id"]: Queue(
            row["id"], row["lease"], row["concurrency"], row["time_limit"],
            KeepPolicy(row["keep_success_days"], row["keep_failure_days"], row["keep_max_items"]),
            Rate(row["rate_n"], row["rate_seconds"]) if row["rate_n"] else None,
        )
        for row in query(here.store, "SELECT * FROM queue")
    }  # fmt: skip
    assert back == found
    with pytest.raises(ValueError, match="lease > 0"):
        Queue("wrong", lease=0)


@pytest.mark.rows("AQ-25", "E-02")
def test_a_queue_rests_while_its_client_is_paused(here: Project) -> None:
    """`pause` for a time: no job is claimed and none is lost, the list shows it, and then the work goes on by itself."""
    here.write(ORDERS)
    here.syncs("enqueue", "shop.order", "1")
    here.syncs("enqueue", "shop.order", "2")
    assert here.syncs("pause", "shop", "--for", "2h", "--reason", "they move")[0] == 0
    assert here.document("work", "--until-empty")["processed"] == 0
    (queue,) = here.document("queues")
    assert (queue["queued"], queue["paused"]) == (2, True)
    assert queue["paused_until"] is not None
    run_out(here.store)
    assert here.document("work", "--until-empty")["succeeded"] == 2
    assert here.document("queues")[0]["paused_until"] is None


@pytest.mark.rows("AQ-35")
def test_an_empty_queue_is_counted_with_zeros(here: Project) -> None:
    """A queue without a job is in the list, with nought in every state."""
    here.store.queues.register(Queue("empty"), declared=True)
    (queue,) = here.document("queues")
    assert {name: queue[name] for name in ("queue", "queued", "delayed", "processing", "success", "failure")} == {
        "queue": "empty", "queued": 0, "delayed": 0, "processing": 0, "success": 0, "failure": 0,
    }  # fmt: skip


@pytest.mark.rows("AQ-38")
def test_a_lease_is_as_long_as_its_queue_says(store: JobStore) -> None:
    """A job in hand is nobody else's until its lease has ended; then it is."""
    leases: list[float] = []

    def process(job: object, _: object) -> None:
        detail = store.views.job(job.id)  # type: ignore[attr-defined]
        assert detail.lease_until is not None
        leases.append((detail.lease_until - store.views.now()).total_seconds())
        assert take(store, orders) == []

    orders = kind(process)
    add(store, orders, 1)
    assert drain(store, orders, Queue("shop", lease=300)).succeeded == 1
    assert 200 < leases[0] <= 300
    (job_id,) = add(store, orders, 2)
    take(store, orders, lease=300)
    move(store, job_id, "lease_until", 200)
    assert store.rescues.run(["shop"]) == 0
    assert take(store, orders) == []
    move(store, job_id, "lease_until", -1)
    assert store.rescues.run(["shop"]) == 1
    assert [one.id for one in take(store, orders)] == [job_id]


@pytest.mark.rows("AQ-50")
def test_a_scheduled_worker_comes_to_all_queues(store: JobStore) -> None:
    """As the deployment `work` does it: every queue is worked, each at most for its own time; named ones are worked alone."""
    log = Log(0.1)
    types = [kind(log, f"shop.{name}", queue=name) for name in ("a", "b", "c")]
    for one in types:
        add(store, one, *[one.id] * 12)
    registry = declare(*types, Queue("a", time_limit=0.6), Queue("b", time_limit=0.6))
    work(store, registry, until_empty=True, concurrency=1, by_queue=True)
    done = Counter(log.payloads)
    # Twelve take 1.2 s at least; none are done where the machine stalls.
    assert done["shop.a"] < 12
    assert done["shop.b"] < 12
    assert done["shop.c"] == 12
    assert work(store, registry, until_empty=True, queues=["a"]).processed == 12 - done["shop.a"]
    assert Counter(log.payloads) == Counter({"shop.a": 12, "shop.b": done["shop.b"], "shop.c": 12})


@pytest.mark.rows("AQ-51")
def test_sigterm_finishes_the_job_in_hand(here: Project) -> None:
    """SIGTERM in job 1 of 5: exit 0, one success, four queued, none in processing."""
    here.write(SLOW)
    here.syncs("enqueue", "shop.order", "[1, 2, 3, 4, 5]", "--many")
    process = here.start("work", "--concurrency", "1", "--json")
    eventually((here.folder / "began").exists)
    process.send_signal(signal.SIGTERM)
    (here.folder / "go").touch()
    out, err = process.communicate(timeout=100)
    assert (process.returncode, states(here.store)) == (0, {"success": 1, "queued": 4}), err
    assert '"processed": 1' in out
    assert here.store.views.lane(lane(kind())).processing == 0


@pytest.mark.rows("AQ-56", "DR-03")
def test_a_queue_is_processed_by_hand(here: Project) -> None:
    """`work Q` says how many jobs in how many seconds; a queue that there is not is one line, with those that there are."""
    here.write(ORDERS)
    here.syncs("enqueue", "shop.order", "[1, 2, 3]", "--many")
    code, out, _ = here.syncs("work", "shop", "--until-empty", "--time-limit", "90")
    assert code == 0
    assert re.fullmatch(r"Processed 3 jobs from the shop queue in \d+\.\d\d seconds: 3 succeeded, 0 failed\.\n", out)
    assert here.syncs("work", "nope") == (2, "", "syncs: no queue is called 'nope'; declared are: shop\n")


@pytest.mark.rows("AQ-57", "DR-04")
def test_queues_are_listed(here: Project) -> None:
    """`queues` shows each queue with its counts by state, as a table and as JSON."""
    here.write(ORDERS)
    here.syncs("enqueue", "shop.order", "[1, 2, 3, 4]", "--many")
    take(here.store, kind())
    here.syncs("work", "--max-jobs", "1")
    (queue,) = here.document("queues")
    assert [queue[name] for name in ("queue", "queued", "processing", "success", "failure")] == ["shop", 2, 1, 1, 0]
    head, line = here.syncs("queues")[1].splitlines()
    assert head.split()[:7] == ["QUEUE", "CLIENTS", "QUEUED", "DELAYED", "PROCESSING", "SUCCESS", "FAILURE"]
    assert line.split()[:7] == ["shop", "shop", "2", "0", "1", "1", "0"]
