"""Which lanes a worker serves, and how many of their jobs at once."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from flows import JobType, Sync, UnknownName
from flows.worker.queue_processing import work
from flows.worker.worker_config import choose
from jobs import JobStore, Queue, Rate
from tests.support.fake_things_api import query, states
from tests.support.worker_bench import CLIENT, OTHER, Daemon, Running, add, declare, eventually, job_type

# -- what is served, and how much of it at once ---------------------------------------------------------------------------------


def phased(running: Any, **options: Any) -> JobType:
    """Declare a job type of two phases."""
    return job_type({"fetch": running, "save": running}, phases=("fetch", "save"), **options)


@pytest.mark.rows("DS-12")
def test_hosts_that_serve_one_phase_each(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """Host A takes two fetches at once and host B one save: each does its phase, and no more of it at once."""
    fetching, saving = Running(gather={"all": 2}), Running()
    kinds = phased(fetching), phased(saving)
    add(store, kinds[0], range(20))
    hosts = [
        Daemon(store, declare(kinds[0]), phases=["fetch"], at_once={"shop.order:fetch": 2}),
        Daemon(open_store(), declare(kinds[1]), phases=["save"], at_once={"shop.order:save": 1}),
    ]
    eventually(lambda: states(store) == {"success": 20})
    for host in hosts:
        host.end()
    assert fetching.most == {"all": 2, "shop.order": 2, "shop.order:fetch": 2}
    assert saving.most == {"all": 1, "shop.order": 1, "shop.order:save": 1}
    assert query(store, "SELECT phase, outcome, count(*) AS n FROM attempt GROUP BY phase, outcome ORDER BY phase") == [
        {"phase": "fetch", "outcome": "phase", "n": 20}, {"phase": "save", "outcome": "success", "n": 20}
    ]  # fmt: skip


@pytest.mark.rows("DS-12")
def test_limit_of_a_phase_holds_for_jobs_that_come_from_the_one_before(store: JobStore) -> None:
    """A job does not slip into a phase that is full because it is in hand already."""
    running = Running(0.02, gather={"shop.order:fetch": 2})
    kind = phased(running)
    add(store, kind, range(30))
    work(store, declare(kind), until_empty=True, at_once={"shop.order:save": 1})
    assert running.most["shop.order:save"] == 1
    assert running.most["shop.order:fetch"] > 1
    assert states(store) == {"success": 30}


@pytest.mark.rows("DS-12")
def test_limit_of_the_first_phase_holds_back_that_phase_only(store: JobStore) -> None:
    """A job that has left the phase with the limit makes room in it, and its next phase runs beside the next job's first."""
    running = Running(0.02)
    kind = phased(running)
    add(store, kind, range(20))
    work(store, declare(kind), until_empty=True, at_once={"shop.order:fetch": 1})
    assert running.most["shop.order:fetch"] == 1
    assert running.most["all"] > 1
    assert states(store) == {"success": 20}


@pytest.mark.rows("DS-12")
def test_limits_of_types(store: JobStore) -> None:
    """Each type keeps to its own number, declared or given, and all of them together to the number of threads."""
    running = Running(0.02, gather={"all": 6, "shop.slow": 2, "shop.fast": 4})
    slow = job_type(running, "shop.slow", concurrency=2)
    fast = job_type(running, "shop.fast", concurrency=6)
    both = declare(slow, fast)
    for kind in (slow, fast):
        add(store, kind, range(40))
    work(store, both, until_empty=True)
    assert (running.most["shop.slow"], running.most["all"]) == (2, 6)
    assert running.most["shop.fast"] >= 4
    running = Running(0.02, gather={"all": 4})
    slow, fast = job_type(running, "shop.slow", concurrency=2), job_type(running, "shop.fast", concurrency=6)
    both = declare(slow, fast)
    for kind in (slow, fast):
        add(store, kind, range(40))
    work(store, both, until_empty=True, concurrency=4, at_once={"shop.fast": 1})
    assert running.most["shop.fast"] == 1
    assert running.most["all"] == 4


def test_only_named_types_and_queues(store: JobStore) -> None:
    """A worker serves what it is told to and leaves the rest; syncs have no phases."""
    running = Running(0)
    one, two, three = job_type(running, "shop.a"), job_type(running, "shop.b", queue="b"), phased(running, queue="c")
    all_three = declare(one, two, three)
    for kind in (one, two, three):
        add(store, kind, range(3))
    assert work(store, all_three, until_empty=True, types=["shop.a"]).processed == 3
    assert work(store, all_three, until_empty=True, queues=["b"]).processed == 3
    assert work(store, all_three, until_empty=True, phases=["save"]).processed == 0
    assert work(store, all_three, until_empty=True, phases=["fetch"]).processed == 3
    assert work(store, all_three, until_empty=True).processed == 3
    assert states(store) == {"success": 9}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queues": ["nope"]}, "no queue is called 'nope'; declared are: declared, shop"),
        ({"types": ["nope"]}, "no sync or job type is called 'nope'; declared are: shop.order"),
        ({"phases": ["nope"]}, "no phase is called 'nope'; declared are: fetch, save"),
        (
            {"at_once": {"nope": 1}},
            "no sync, job type or type:phase served here is called 'nope'; declared are: "
            "shop.order, shop.order:fetch, shop.order:save",
        ),
        ({"at_once": {"shop.order:save": 1}, "phases": ["fetch"]}, "no sync, job type or type:phase served here"),
    ],
    ids=["queue", "type", "phase", "at once", "not served"],
)
def test_unknown_names(options: dict[str, Any], said: str) -> None:
    """What nothing declares is refused, with what there is."""
    with pytest.raises(UnknownName) as refused:
        choose(declare(phased(Running()), Queue("declared")), **options)
    assert str(refused.value).startswith(said)


@pytest.mark.rows("DS-12")
def test_threads() -> None:
    """By default as many threads as the largest number of the types; one that says nothing follows its declared queue."""
    kinds = [job_type(Running(), "a", concurrency=3), job_type(Running(), "b", queue="wide")]
    assert choose(declare(kinds[0])).threads == 3
    assert choose(declare(*kinds)).threads == 8
    assert choose(declare(*kinds, Queue("wide", concurrency=20))).threads == 20
    assert choose(declare(*kinds), concurrency=5).limits == {}
    assert choose(declare(*kinds), at_once={"a": 50}).threads == 50
    # A phase's number stands in place of its type's, and gives its threads.
    ordered = choose(declare(kinds[0], phased(Running(), concurrency=2)), at_once={"shop.order:fetch": 5})
    assert (ordered.threads, ordered.limits) == (5, {"a": 3})
    assert choose(declare()).threads == 1


# -- limits of the fleet --------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-49")
def test_full_queue_is_waited_for(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """`until_empty` waits for its turn in a queue whose places others hold, and the number is never exceeded."""
    running = Running(0.03, gather={"all": 3})
    kind = job_type(running)
    add(store, kind, range(40))
    registry = declare(kind, Queue("shop", concurrency=3))
    workers = [Daemon(one, registry, until_empty=True) for one in (store, open_store())]
    assert sum(one.join().processed for one in workers) == 40
    assert running.most["all"] == 3


def test_rate_is_waited_for(store: JobStore) -> None:
    """`until_empty` waits for the rate of its queue; begins, not only claims, keep to it."""
    running = Running(0)
    kind = job_type(running)
    add(store, kind, range(9))
    began = time.monotonic()
    assert work(store, declare(kind, Queue("shop", rate=Rate(3, 0.6))), until_empty=True).processed == 9
    # The first claim comes after `began`, and the last one two windows after it.
    assert max(running.at)[0] - began > 1.15


def test_limited_queue_does_not_starve_behind_a_free_one(store: JobStore) -> None:
    """Jobs of a queue with limits get threads although another queue has enough for all of them, and the other way round."""
    running = Running(0.005)
    free, limited = job_type(running, "a"), job_type(running, "b", queue="limited", client=OTHER)
    add(store, free, [{"free": n} for n in range(600)])
    add(store, limited, [{"limited": n} for n in range(20)])
    work(store, declare(free, limited, Queue("limited", concurrency=1)), until_empty=True, concurrency=4)
    assert running.most["b"] == 1
    last = max(place for place, (_, payload) in enumerate(running.at) if "limited" in payload)
    assert last < 500


@pytest.mark.parametrize("limited", [False, True], ids=["undeclared", "declared"])
def test_run_of_a_sync_in_a_limited_queue(store: JobStore, limited: bool) -> None:
    """A run keeps to the places of its declared queue and does not end before it had its turn; it does not undo them either."""
    from clients import Entity, Page
    from flows.sync import run as engine

    running = Running(0.01, gather={"all": 2 if limited else 3})

    def fetch(_: Any, entity: Any) -> Any:
        running(_Named(), None)
        return {"id": entity.key}

    sync = Sync(
        "shop.things", CLIENT, listing=lambda *_: iter([Page([Entity(f"k{n}") for n in range(40)])]), fetch=fetch, concurrency=8
    )
    result = engine.run(sync, store, queue=Queue("shop", concurrency=2), declared=limited)
    assert (result.state, result.succeeded, result.pending) == ("success", 40, 0)
    assert (running.most["all"] == 2) == limited
    assert query(store, "SELECT slots AS s FROM queue WHERE id = 'shop'") == [{"s": 2 if limited else None}]


def test_run_waits_for_its_turn_in_a_full_queue(store: JobStore, open_store: Callable[..., JobStore], daemon: Any) -> None:
    """A run whose queue is full of somebody else's job does not end before its own jobs had their turn."""
    from clients import Entity, Page
    from flows.sync import run as engine

    running = Running(1.5)
    kind = job_type(running)
    queue = Queue("shop", concurrency=1)
    add(store, kind, [1])
    daemon(open_store(), declare(kind, queue))
    eventually(lambda: running.now["all"] == 1)
    sync = Sync("shop.things", CLIENT, listing=lambda *_: iter([Page([Entity(f"k{n}") for n in range(5)])]))
    result = engine.run(sync, store, queue=queue, declared=True)
    assert (result.state, result.succeeded, result.pending) == ("success", 5, 0)


class _Named:
    """Stands for a job where an entity is worked."""

    type, phase, payload = "x", "", None
