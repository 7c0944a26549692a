"""`flows.events`: who hears what happens to jobs, when, and how little harm they can do."""

import importlib
import sys
from typing import Any

import pytest

from clients import GoneError, Page
from flows import Sync, UsageError, events
from flows.enqueue import enqueue
from flows.events import KINDS, PAUSED, ClientEvent, Event, on, publish, subscribe
from flows.execution.delete_guard import DeleteGuard
from flows.execution.entity_executor import EntityExecutor
from flows.execution.failure_report import report_poisoned
from flows.project.redaction import Mask
from flows.project.registry import load
from jobs import Failure, JobStore, Pause, Retry, Snooze, Success
from jobs.claiming.poison import PoisonJob
from jobs.job import Job, Lane
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from jobs.schema.job_tables import MaintenanceRow
from tests.support.job_bench import CLIENT, Bench, write


@pytest.fixture
def bench(store: JobStore) -> Bench:
    """A bench on a fresh database."""
    return Bench(store)


@pytest.fixture
def heard() -> list[Event]:
    """Every event that happens."""
    found: list[Event] = []
    subscribe(found.append)
    return found


def kinds(heard: list[Event]) -> list[str]:
    """Return what happened."""
    return [event.kind for event in heard]


@pytest.mark.rows("AQ-54", "E-29")
@pytest.mark.parametrize(
    ("came", "kind", "state"),
    [
        (None, "success", "success"),
        (Failure("no"), "retry", "queued"),
        (Failure("no", retry=False), "failure", "failure"),
        (Snooze(1, "later"), "snooze", "queued"),
        (Pause(1, "down"), "snooze", "queued"),
    ],
)
def test_events_in_their_order(bench: Bench, heard: list[Event], came: Any, kind: str, state: str) -> None:
    """Before, after, and what was committed."""
    settled = bench.run(lambda job, connection: came)
    assert kinds(heard) == ["before", "after", kind]
    last = heard[-1]
    assert (last.job_id, last.type, last.client, last.queue) == (settled.job.id, "shop.order", "shop", "shop")
    assert (last.key, last.phase, last.attempt, last.state) == (None, None, 1, state)
    assert last.message == (getattr(came, "message", None) or getattr(came, "reason", None) or "success")
    assert last.at.tzinfo is not None


@pytest.mark.rows("AQ-54")
def test_superseded_is_an_event(bench: Bench, heard: list[Event]) -> None:
    """A retry that meets a queued twin gives way to it."""
    work = bench.work_of(lambda job, connection: Failure("no"), duplicates="discard")
    bench.queue(work, 1)
    job = bench.claim(work)
    bench.queue(work, 1)
    bench.finish(work, work.execute(job))
    assert kinds(heard) == ["before", "after", "superseded"]


@pytest.mark.rows("AQ-54")
def test_events_come_after_the_commit(bench: Bench) -> None:
    """Whoever hears of a success finds it in the database; whoever hears `after` does not yet."""
    seen: dict[str, str] = {}

    def look(event: Event) -> None:
        seen[event.kind] = bench.store.views.job(event.job_id).job.state

    subscribe(look, "after", "success")
    bench.run(lambda job, connection: None)
    assert seen == {"after": "processing", "success": "success"}


@pytest.mark.rows("AQ-54")
def test_a_subscriber_changes_the_outcome(bench: Bench, heard: list[Event]) -> None:
    """A failure becomes a success, and a success a failure, whose rows then go; the database has what they said."""

    @on("after")
    def turn(event: Event) -> Any:
        return Success("never mind") if isinstance(event.outcome, Failure) else Failure("on second thoughts", retry=False)

    settled = bench.run(lambda job, connection: Failure("no", retry=False))
    assert (settled.state, bench.store.views.job(settled.job.id).job.message) == ("success", "never mind")
    settled = bench.run(lambda job, connection: write(job, "a"))
    assert (settled.state, bench.store.views.job(settled.job.id).job.message) == ("failure", "on second thoughts")
    assert bench.tables() == []
    assert kinds(heard) == ["before", "after", "success", "before", "after", "failure"]


@pytest.mark.rows("AQ-54", "DS-08")
def test_what_the_database_refuses_is_the_outcome(bench: Bench) -> None:
    """The session is flushed before the outcome is told: `after` hears of the failure, and of no success before it."""
    bench.run(lambda job, connection: write(job, "a"))
    found: list[Event] = []
    subscribe(found.append)
    moment = bench.store.views.now()
    bench.run(lambda job, connection: job.session.add(MaintenanceRow(name="a", next_at=moment)))
    assert [(event.kind, type(event.outcome).__name__) for event in found[1:]] == [("after", "Failure"), ("failure", "Failure")]
    assert "IntegrityError" in found[-1].message


def test_what_a_subscriber_says_is_masked(bench: Bench) -> None:
    """Its text goes where every outcome's goes."""
    subscribe(lambda event: Failure("t0p-secret", retry=False), "after")
    settled = bench.run(lambda job, connection: None)
    assert bench.store.views.job(settled.job.id).job.message == "***"


@pytest.mark.rows("AQ-55")
@pytest.mark.parametrize("came", [None, Failure("no", retry=False)])
def test_a_subscriber_queues_a_follow_up(bench: Bench, came: Any) -> None:
    """The documented use: notifications and further jobs, also at `after` of a job that wrote, and of one that failed."""
    other = bench.work_of(lambda job, connection: None)
    subscribe(lambda event: enqueue(other.job_type, event.kind).id, "after", "success", "failure")

    def process(job: Any, connection: Any) -> Any:
        write(job, "a")
        return came

    bench.run(process)
    assert bench.query("SELECT payload FROM job WHERE state = 'queued' ORDER BY id") == [
        {"payload": payload} for payload in _as_read(bench, "after", "success" if came is None else "failure")
    ]
    assert bench.tables() == (["a"] if came is None else [])


def _as_read(bench: Bench, *texts: str) -> list[str]:
    # A plain query has JSON as SQLite keeps it.
    return [f'"{text}"' for text in texts] if bench.store.db.dialect == "sqlite" else list(texts)


@pytest.mark.rows("E-10", "DS-06")
@pytest.mark.parametrize("kind", KINDS)
def test_a_subscriber_that_raises(bench: Bench, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """It is logged; the job's end is the same, and other subscribers hear of it."""
    others: list[Event] = []

    @on(kind)
    def bad(event: Event) -> None:
        raise SystemExit(1) if event.kind == "after" else LookupError("nobody there")

    subscribe(others.append, kind)
    answers = iter([None, Failure("no"), Failure("no", retry=False), Snooze(1)])
    states = [bench.run(lambda job, connection: next(answers)).state for _ in range(4)]
    assert states == ["success", "queued", "failure", "queued"]
    assert len(others) == {"before": 4, "after": 4, "superseded": 0}.get(kind, 1)
    raised = [record.getMessage() for record in caplog.records if record.name == "syncs.events"]
    assert len(raised) == len(others)
    assert all("bad raised at " in line and "(shop.order)" in line for line in raised)


@pytest.mark.rows("AQ-54", "DS-04")
def test_phases_have_their_events(bench: Bench, heard: list[Event]) -> None:
    """Before and after each phase; the success is the whole job's."""
    process = {"one": lambda job, connection: None, "two": lambda job, connection: None}
    work = bench.work_of(process, phases=("one", "two"))
    bench.queue(work)
    bench.turn(work)
    told = [(event.kind, event.phase) for event in heard]
    assert told == [("before", "one"), ("after", "one"), ("before", "two"), ("after", "two"), ("success", "two")]


@pytest.mark.rows("AQ-54", "DS-07")
def test_a_timeout_has_its_events(bench: Bench, heard: list[Event]) -> None:
    """It is an outcome like any other; a job that is only put back has none."""
    work = bench.work_of(lambda job, connection: None, retry=Retry(0))
    bench.queue(work)
    job = bench.claim(work)
    work.timed_out(job, 0.0)
    assert heard == []
    bench.finish(work, work.timed_out(job, 5))
    assert kinds(heard) == ["failure"]


@pytest.mark.rows("E-04")
def test_poison_is_a_failure(bench: Bench, heard: list[Event]) -> None:
    """Whoever rescues a job for the last time tells."""
    work = bench.work_of(lambda job, connection: None)
    poisoned = PoisonJob(7, "shop", "shop", "shop.order", "", None, None, {}, None, 0, "poison: 5 workers died")
    report_poisoned(poisoned, work.job_type)
    (event,) = heard
    assert (event.kind, event.job_id, event.message) == ("failure", 7, "poison: 5 workers died")


def test_a_lost_finish_is_no_event(bench: Bench, heard: list[Event]) -> None:
    """What another worker does with the job, it tells itself."""
    work = bench.work_of(lambda job, connection: None)
    bench.queue(work)
    job = bench.claim(work)
    bench.store.release([job], reason="taken")
    bench.finish(work, work.execute(job))
    assert kinds(heard) == ["before", "after"]


# -- entities of syncs -----------------------------------------------------------------------------------------------------------


def worked(bench: Bench, fetch: Any, key: str = "1") -> str:
    """Queue, work and finish one entity; return its state."""
    sync = Sync("shop.pets", CLIENT, listing=lambda conn, since: iter([Page([])]), fetch=fetch)
    lane = Lane("shop", "shop", sync.id)
    claim = bench.store.listings.claim(sync.id, "shop", worker="elsewhere:1:1:1", lease=60, full=True)
    assert isinstance(claim, ListingClaim)
    bench.store.pages.enqueue(claim, lane, [Item(key)], cursor=None, full=True)
    bench.store.listings.release(claim)
    (job,) = bench.store.claim([lane], 1, worker="elsewhere:1:1:1", lease=60)
    work = EntityExecutor(sync, bench.connections, Mask(), DeleteGuard(sync, bench.store))
    settled = bench.store.finish([work.execute(job)])[0]
    work.on_settled([settled])
    return settled.state


@pytest.mark.rows("AQ-54")
def test_entities_have_events_too(bench: Bench, heard: list[Event]) -> None:
    """With their key; unchanged and gone are successes."""

    def gone(conn: Any, entity: Any) -> Any:
        raise GoneError("gone", status=404)

    assert worked(bench, lambda conn, entity: {"a": 1}) == "success"
    assert worked(bench, lambda conn, entity: {"a": 1}) == "success"
    assert worked(bench, gone) == "success"
    assert kinds(heard) == ["before", "after", "success"] * 3
    assert {event.key for event in heard} == {"1"}
    assert [event.message for event in heard if event.kind == "success"] == ["success", "success", "gone"]


def test_a_subscriber_changes_the_outcome_of_an_entity(bench: Bench) -> None:
    """What was fetched is not stored when it says that it is bad; a failure that it waives is a success."""
    answers = iter([Failure("bad record", retry=False), Success("waived")])
    subscribe(lambda event: next(answers), "after")
    assert worked(bench, lambda conn, entity: {"a": 1}, "bad") == "failure"
    assert bench.query("SELECT data FROM record WHERE data IS NOT NULL") == []
    assert worked(bench, lambda conn, entity: 1 / 0, "odd") == "success"
    assert bench.query("SELECT key FROM record WHERE synced_at IS NOT NULL") == [{"key": "odd"}]


# -- who hears -------------------------------------------------------------------------------------------------------------------


def test_subscriptions_end(bench: Bench) -> None:
    """The function that comes back ends them, and ending them twice does no harm."""
    first: list[Event] = []
    second: list[Event] = []
    end = subscribe(first.append)
    subscribe(second.append, "success")
    end()
    end()
    bench.run(lambda job, connection: None)
    assert (first, kinds(second)) == ([], ["success"])


def test_one_function_hears_of_each_event_once(bench: Bench) -> None:
    """However often it subscribes."""
    found: list[Event] = []

    def hear(event: Event) -> None:
        found.append(event)

    subscribe(hear, "success", "failure")
    subscribe(hear, "success")
    bench.run(lambda job, connection: None)
    assert kinds(found) == ["success"]


@pytest.mark.parametrize(("handler", "kind"), [(print, "succes"), (None, "success")])
def test_mistakes_are_told(handler: Any, kind: str) -> None:
    """A kind that there is not, and a subscriber that cannot be called."""
    with pytest.raises(UsageError, match=r"no event is called 'succes'; there are before, after|must be callable"):
        subscribe(handler, kind)
    with pytest.raises(UsageError, match="no event is called"):
        on(print)  # type: ignore[arg-type]
    assert events._subscribed == {}


FILE = """
from flows.events import on, subscribe
from jobs import Failure

heard = []

@on("success")
def hear(event):
    heard.append(event.kind)

for kind in ("before", "after"):
    subscribe(lambda event, kind=kind: heard.append(kind), kind)
"""


@pytest.mark.rows("AQ-54")
def test_a_file_that_is_read_twice_subscribes_once(bench: Bench, project: Any) -> None:
    """Reading it again, unchanged or changed, takes the place of what it said before; so do loops and lambdas in it."""
    project.write("syncs/heard.py", FILE)
    load()
    assert sum(map(len, events._subscribed.values())) == 3
    load()
    assert sum(map(len, events._subscribed.values())) == 3
    project.write("syncs/heard.py", FILE.replace('("before", "after")', '("before", "failure")') + "\n# changed\n")
    load()
    assert {kind: len(ones) for kind, ones in events._subscribed.items()} == {"success": 1, "before": 1, "failure": 1}
    namespace = events._subscribed["success"][0].namespace
    assert namespace is not None
    bench.run(lambda job, connection: None)
    assert namespace["heard"] == ["before", "success"]


def test_nobody_listens_and_nothing_is_made(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """The hot path makes no event that nobody wants."""

    def never(*_: Any) -> Any:
        raise AssertionError("an event was made")

    subscribe(lambda event: None, "superseded")
    monkeypatch.setattr(events, "_event", never)
    assert bench.run(lambda job, connection: None).state == "success"
    job = Job(1, Lane("a", "a", "a"), None, None, None, None, 1, 0, 0, 0)
    events.before(job)


@pytest.mark.rows("E-10", "AQ-54")
def test_a_subscriber_that_raises_tells_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises may quote anybody's token (law 9): the log says the class and the place."""

    @on("success")
    def tell(event: Event) -> None:
        try:
            raise ValueError("t0p-secret")
        except ValueError as error:
            raise LookupError("https://hook/?token=t0p-secret") from error

    bench.run(lambda job, connection: None)
    assert "LookupError" in caplog.text
    assert "test_events.py" in caplog.text
    assert "in tell" in caplog.text
    assert "t0p-secret" not in caplog.text


def test_the_old_module_still_subscribes() -> None:
    """`flows.told.subscribe` warns at its import, and subscribes to events of clients."""
    sys.modules.pop("flows.told", None)
    with pytest.warns(DeprecationWarning, match=r"use flows\.events\.subscribe"):
        told = importlib.import_module("flows.told")
    found: list[ClientEvent] = []
    end = told.subscribe(found.append)
    event = ClientEvent(PAUSED, CLIENT)
    publish(event)
    end()
    publish(event)
    assert found == [event]
    assert "failure" not in events._subscribed
