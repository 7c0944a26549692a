"""What went wrong in the ancestors, or was complained about, row by row: here it holds."""

import ast
import json
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from flows.project.registry import load
from jobs import Failure, JobNotFound, JobStore, Queue, Snooze
from jobs.admin.filters import Filter
from tests import ROOT
from tests.support.seed_helpers import (
    AT_ONCE,
    Log,
    Project,
    add,
    change,
    drain,
    eventually,
    kind,
    lane,
    move,
    query,
    states,
    take,
    together,
    wait,
)

FAILING = """
from contextlib import nullcontext
from flows import Client, JobType
from jobs import Failure

def process(job, _):
    with open("worked", "a") as file:
        print(job.payload, file=file)
    if job.payload == "bad":
        return Failure("no such order", retry=False)

shop = Client("shop", connect=lambda _: nullcontext())
orders = JobType("shop.order", shop, process=process)
"""


@pytest.mark.rows("E-06")
def test_a_job_may_take_longer_than_its_lease(store: JobStore, open_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes three leases runs once, although others look for work all the time: its lease is renewed."""
    renew, renewals, log, over = store.renew, list[float](), Log(), threading.Event()

    def keep(claims: Any, *, lease: float) -> Any:
        # For longer than asked, so that a machine that stalls does not lose it.
        kept = renew(claims, lease=lease + 600)
        renewals.extend([lease] if kept else [])
        return kept

    def process(job: Any, connection: Any) -> None:
        log(job, connection)
        eventually(lambda: len(renewals) >= 9)

    monkeypatch.setattr(store, "renew", keep)
    orders = kind(process)
    (job_id,) = add(store, orders, 1)

    def vulture() -> int:
        found = 0
        other = open_store(check_every=0.05)
        while not over.wait(0.05):
            found += other.rescues.run(["shop"]) + len(take(other, orders))
        return found

    def worker() -> None:
        try:
            drain(store, orders, Queue("shop", lease=0.6))
        finally:
            over.set()

    # Renewed first: what waits is for whoever comes.
    claimed = threading.Thread(target=worker)
    claimed.start()
    while not renewals:
        assert not over.wait(0.01)
    assert vulture() == 0
    claimed.join(60)
    assert set(renewals) == {0.6}
    found = store.views.job(job_id)
    assert (found.job.state, found.claim_no, found.rescues, log.payloads) == ("success", 1, 0, [1])


@pytest.mark.rows("E-07")
def test_rescue_of_one_queue_leaves_the_others(store: JobStore) -> None:
    """What is taken back is of the queues that were named."""
    a, b = kind(queue="a"), kind(name="shop.b", queue="b")
    for one in (a, b):
        (job_id,) = add(store, one, 1)
        take(store, one)
        move(store, job_id, "lease_until", -1)
    assert store.rescues.run(["a"]) == 1
    assert {one.queue: one.state for one in store.views.jobs()} == {"a": "queued", "b": "processing"}


@pytest.mark.rows("E-19")
def test_priority_overtakes(store: JobStore) -> None:
    """What is urgent goes before what came earlier, by job and by type; that nothing starves is proved in tests/jobs."""
    log = Log()
    orders = kind(log)
    add(store, orders, "normal", "normal too")
    add(store, orders, "urgent", priority=10)
    add(store, orders, "whenever", priority=-10)
    add(store, orders, "last of the normal")
    drain(store, orders)
    assert log.payloads == ["urgent", "normal", "normal too", "last of the normal", "whenever"]


@pytest.mark.rows("E-25", "E-37")
def test_every_field_comes_back(here: Project) -> None:
    """`job --json` has what stands in the row, number of attempts and of retries among it, after an eventful life."""
    answers = [Snooze(0), Failure("once"), Failure("twice", delay=600)]

    def process(job: Any, _: Any) -> Any:
        job.save_checkpoint({"page": 3})
        return answers.pop(0)

    orders = kind(process, retry=AT_ONCE, priority=3, serial=lambda _: "k", duplicates="reject")
    (job_id,) = add(here.store, orders, {"of": "Ann"})
    drain(here.store, orders)
    found = here.document("job", job_id)
    assert (found["attempts"], found["retries"], found["snoozes"], found["message"]) == (2, 2, 1, "twice")
    (row,) = query(here.store, "SELECT * FROM job")
    # A checkpoint may be large, and when an attempt began stands with the attempt.
    missing = set(row) - set(found)
    assert missing == {"checkpoint", "started_at"}
    assert (found["checkpoint_bytes"], len(found["tries"])) == (10, 3)
    assert found["tries"][0]["started_at"] is not None
    same = [name for name in set(row) - missing if not name.endswith("_at") and name != "payload"]
    assert {name: found[name] for name in same} == {name: row[name] for name in same}
    assert found["payload"] == {"of": "Ann"}


@pytest.mark.rows("E-39")
def test_order_is_finer_than_seconds(store: JobStore) -> None:
    """Of jobs that are due within one millisecond the one that is due first goes first; of equals the one that came first."""
    log = Log()
    orders = kind(log)
    moment = (store.views.now() - timedelta(hours=1)).replace(microsecond=500)
    for name, microseconds in (("third", 3), ("first", 1), ("second", 2), ("second too", 2), ("fourth", 4)):
        add(store, orders, name, available_at=moment + timedelta(microseconds=microseconds))
    drain(store, orders)
    assert log.payloads == ["first", "second", "second too", "third", "fourth"]


@pytest.mark.rows("E-42")
def test_what_is_shipped_is_valid() -> None:
    """The files of `syncs/` can be read, and each deployment of `prefect.yaml` names a flow with the parameters it is given."""
    registry = load([ROOT / "syncs"])
    assert (registry.broken, bool(registry.syncs)) == ((), True)
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        path = ROOT / f"{module.replace('.', '/')}.py"
        flows = {one.name: one for one in ast.parse(path.read_text()).body if isinstance(one, ast.AsyncFunctionDef)}
        given = deployment.get("parameters", {})
        assert set(given) <= {argument.arg for argument in flows[name].args.args}, deployment["name"]
        if name == "sync" and given:
            assert given["name"] in registry.syncs


@pytest.mark.rows("E-59")
def test_a_delayed_job_returns_by_itself(store: JobStore) -> None:
    """Nobody collects anything: a claim after its time finds it, one before does not."""
    orders = kind()
    add(store, orders, 1, delay=0.4)
    assert take(store, orders) == []
    began = store.views.now()
    while not (found := take(store, orders)):
        assert store.views.now() - began < timedelta(seconds=10)
    assert found[0].payload == 1
    assert (store.views.now() - store.views.job(found[0].id).job.available_at).total_seconds() >= 0


@pytest.mark.rows("E-65")
def test_starts_at_the_same_time_have_ids_of_their_own(store: JobStore, open_store: Any) -> None:
    """Eight callers at once get as many ids as they queue jobs; an id that there is not is an error that names it."""
    orders = kind()
    calls = [lambda own=own: [add(own, orders, n)[0] for n in range(10)] for own in (store, *(open_store() for _ in range(7)))]
    ids = [one for found in together(*calls) for one in found]
    assert len(set(ids)) == 80 == len(store.views.jobs(limit=1000))
    with pytest.raises(JobNotFound, match="4711"):
        store.views.job(4711)


@pytest.mark.rows("E-65")
def test_a_job_is_done_after_its_last_phase_and_not_before(store: JobStore) -> None:
    """In each phase but after the last it is in processing; then it is a success."""
    seen: list[tuple[str, str]] = []

    def process(job: Any, _: Any) -> None:
        seen.append((job.phase, store.views.job(job.id).job.state))

    phases = ("one", "two", "three")
    orders = kind(dict.fromkeys(phases, process), phases=phases)
    add(store, orders, 1)
    drain(store, orders)
    assert seen == [(phase, "processing") for phase in phases]
    assert states(store) == {"success": 1}


@pytest.mark.rows("E-66")
def test_one_job_has_nothing_to_do_with_the_one_before(here: Project) -> None:
    """A job processed by hand works itself alone; where it fails the exit code says so, and the next one is not touched by it."""
    here.write(FAILING)
    bad, good = (here.document("enqueue", "shop.order", json.dumps(payload))["id"] for payload in ("bad", "good"))
    assert here.syncs("process", bad)[0] == 1
    assert (here.folder / "worked").read_text().split() == ["bad"]
    assert here.syncs("process", good)[0] == 0
    assert (here.folder / "worked").read_text().split() == ["bad", "good"]
    assert states(here.store) == {"failure": 1, "success": 1}


@pytest.mark.rows("E-72")
def test_a_position_is_kept_and_not_a_list(store: JobStore) -> None:
    """A checkpoint that grows with the data is refused at 1 MiB, with the advice; the job fails and the one before stays."""

    def process(job: Any, _: Any) -> None:
        job.save_checkpoint({"last": 17})
        job.save_checkpoint({"all": ["x" * 100] * 11_000})

    orders = kind(process)
    (job_id,) = add(store, orders, 1)
    drain(store, orders)
    found = store.views.job(job_id)
    assert found.job.state == "failure"
    assert "at most 1,048,576 are kept, so note a position" in found.job.message
    assert found.checkpoint_bytes == len('{"last":17}')


@dataclass
class TaskSpec:
    """The payload as an earlier version of a program had it."""

    number: int


class Purchase(BaseModel):
    """The same in a later version: another class, one more field."""

    number: int
    currency: str = "EUR"


@pytest.mark.rows("E-80")
def test_a_payload_outlives_the_class_that_made_it(store: JobStore) -> None:
    """What is stored is plain JSON: after the class was renamed and has grown, the job is worked with the new one."""
    models: list[Any] = []
    (job_id,) = add(store, kind(), TaskSpec(17))
    (row,) = query(store, "SELECT payload FROM job")
    assert row["payload"] in ('{"number":17}', '{"number": 17}', {"number": 17})
    drain(store, kind(lambda job, _: models.append(job.model), schema=Purchase))
    assert store.views.job(job_id).job.state == "success"
    assert models == [Purchase(number=17, currency="EUR")]


@pytest.mark.rows("E-44")
def test_a_job_whose_type_is_gone_waits_for_its_return(store: JobStore) -> None:
    """Nothing fails while no file declares the type; when it is back, the job is worked."""
    orders, others = kind(), kind(name="shop.other")
    add(store, orders, 1)
    assert drain(store, others).processed == 0
    assert states(store) == {"queued": 1}
    assert drain(store, orders).succeeded == 1


@pytest.mark.rows("E-70")
def test_nothing_to_do_is_done(store: JobStore) -> None:
    """A job over an empty list ends with its first call."""

    def process(job: Any, _: Any) -> Any:
        calls.append(1)
        return None if not job.payload["ids"] else Snooze(0)

    calls: list[int] = []
    orders = kind(process)
    add(store, orders, {"ids": []})
    drain(store, orders)
    assert (states(store), calls) == ({"success": 1}, [1])


@pytest.mark.rows("E-70")
def test_a_job_that_gets_nowhere_is_counted_and_can_be_ended(store: JobStore) -> None:
    """One that puts itself back for ever keeps no other from its turn, says how often it did, and is ended by `cancel`."""
    log = Log(answer=lambda job: Snooze(0, "again") if job.payload == "stuck" else None)
    orders = kind(log)
    (stuck,) = add(store, orders, "stuck")
    add(store, orders, *range(20))
    drain(store, orders, max_jobs=40)
    assert states(store) == {"success": 20, "queued": 1}
    assert store.views.job(stuck).snoozes == 20
    assert store.commands.cancel([stuck]).done == 1
    assert drain(store, orders).processed == 0


@pytest.mark.rows("E-60")
def test_a_delay_of_nought_is_none(store: JobStore) -> None:
    """It is due at once, for the very next claim."""
    orders = kind()
    (job_id,) = add(store, orders, 1, delay=0)
    assert wait(store, job_id) <= 0
    assert [one.id for one in take(store, orders)] == [job_id]


@pytest.mark.rows("E-58", "E-35")
def test_counts_and_lists_are_by_state_on_either_database(store: JobStore) -> None:
    """What waits, what is put off and what is in hand are three numbers, and each list is of one state."""
    orders = kind()
    add(store, orders, *range(4))
    add(store, orders, "later", delay=60)
    take(store, orders)
    change(store, "UPDATE job SET state = 'failure', finished_at = created_at WHERE payload IS NOT NULL AND id = 2")
    (queue,) = store.views.queues()
    assert (queue.queued, queue.delayed, queue.processing, queue.failure) == (2, 1, 1, 1)
    assert [len(store.views.jobs(Filter(state=state))) for state in ("queued", "processing", "failure", "success")] == [
        3,
        1,
        1,
        0,
    ]
    assert store.views.lane(lane(orders)).delayed == 1
