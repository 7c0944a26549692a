"""Runs of a sync whose client is paused, reopens, or comes into a window: what they send, and what they say."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clients import Cursor, Listing, LocalError
from flows import PausePolicy, Window
from flows.run_result import RunResult
from flows.sync import pause_gate
from flows.sync import run as engine
from jobs import JobStore, Snooze
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.page_plan import Item
from tests.support.fake_remote import meanwhile, pauses, run_out, statements, until
from tests.support.fake_things_api import CLIENT, LANE, Fault, Remote, change, declare, live, query, serving


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system with thirty things."""
    with serving(Remote()) as found:
        found.fill(30)
        yield found


def run(store: JobStore, remote: Remote, *, options: dict[str, Any] | None = None, **fields: Any) -> RunResult:
    """Run the sync of this remote; `options` are the run's."""
    return engine.run(declare(remote.url, **fields), store, **(options or {}))


def pause(store: JobStore, seconds: float = 60) -> None:
    """Pause the client."""
    store.pauses.open(CLIENT, seconds, cause="person", reason="maintenance", set_by="anna")


def queue(store: JobStore, *keys: str) -> None:
    """Queue entities."""
    claim = store.listings.claim(LANE.type, CLIENT, worker="elsewhere:1:1:1", lease=60)
    assert isinstance(claim, ListingClaim)
    store.pages.enqueue(claim, LANE, [Item(key, "1") for key in keys], cursor=None, last=True)
    store.listings.release(claim)


@pytest.mark.rows("SC-20", "T15")
def test_the_first_page_is_the_probe(store: JobStore, remote: Remote) -> None:
    """With nothing due, a run of a client whose pause has run out asks for one page, and goes on when it came."""
    pause(store)
    run_out(store)
    seen: list[str] = []

    def look(_: int) -> None:
        seen.append(store.pause_history.latest()[0].state)

    remote.on_page = remote.on_detail = look
    # What does not wait for the first page is sent before that.
    remote.page_delay = 0.1
    result = run(store, remote)
    assert (result.state, result.succeeded) == ("success", 30)
    assert live(store) == set(remote.things)
    assert pauses(store) == [("person", 0, 1, "probe")]
    assert seen[0] != "ended"
    assert set(seen[1:]) == {"ended"}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(500), ("level", 1, 60)),
        (Fault(401), ("enforced", 0, 900)),
        (Fault(429, headers={"Retry-After": "77"}), ("asked", 0, 77)),
    ],
    ids=["500", "401", "429"],
)
def test_a_first_page_that_fails_is_one_request(store: JobStore, remote: Remote, fault: Fault, expected: Any) -> None:
    """Trouble with the probe pauses again, one level up or for as long as it says; nothing else is asked."""
    pause(store)
    run_out(store)
    remote.page_faults[0] = fault
    result = run(store, remote)
    assert (result.state, result.exit_code) == ("paused", 0)
    assert remote.requests == 1
    (found,) = store.pauses.in_force()
    assert found.until is not None
    assert (found.cause, found.level, round((found.until - found.started_at).total_seconds())) == expected
    assert result.paused_until == found.until
    # A listing that was never begun is no failure, and the next run does it all.
    remote.page_faults.clear()
    run_out(store)
    assert run(store, remote).succeeded == 30


def test_a_listing_that_is_refused_is_an_answer(store: JobStore, remote: Remote) -> None:
    """A page that is not what it should be fails the run, and says that the client is up."""
    pause(store)
    run_out(store)
    remote.page_faults[0] = Fault(400)
    assert run(store, remote).state == "failed"
    assert pauses(store) == [("person", 0, 1, "probe")]


def test_a_due_job_is_the_probe(store: JobStore, remote: Remote) -> None:
    """Where an entity waits, it is asked for first, and the listing only when that went well."""
    queue(store, "k1", "k2")
    pause(store)
    run_out(store)
    # The first page, too: else that is this entity's trouble, and the client is open.
    remote.faults["*"] = remote.page_faults[0] = Fault(503)
    assert run(store, remote).state == "paused"
    assert (remote.details.total(), remote.pages.total()) == (1, 1)
    remote.faults.clear()
    remote.page_faults.clear()
    run_out(store)
    assert run(store, remote).state == "success"
    assert live(store) == set(remote.things)


def test_an_entity_without_a_fetch_tests_nothing(store: JobStore, remote: Remote) -> None:
    """Where the listing brings the records, the first page is the probe, whatever is due."""
    queue(store, "k1")
    pause(store)
    run_out(store)
    remote.page_faults[0] = Fault(500)
    listing = Listing("things", Cursor("next"), items="data", key="id", version="v")
    assert run(store, remote, fetch=None, listing=listing).state == "paused"
    assert (remote.pages.total(), query(store, "SELECT claim_no FROM job")) == (1, [{"claim_no": 0}])
    assert pauses(store)[-1][:2] == ("level", 1)


def test_a_check_goes_before_the_listing(store: JobStore, remote: Remote) -> None:
    """The client's own check is the probe of a run, too."""
    checked: list[int] = []

    def check(http: Any) -> None:
        checked.append(remote.requests)
        http.get_json("things/k0")

    pause(store)
    run_out(store)
    remote.faults["k0"] = Fault(500, times=1)
    assert run(store, remote, client={"check": check}).state == "paused"
    assert remote.requests == 1
    run_out(store)
    assert run(store, remote, client={"check": check}).state == "success"
    assert checked == [0, 1]


@pytest.mark.parametrize("well", [True, False, None])
def test_a_run_waits_a_moment_for_the_probe_of_another(
    store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch, well: bool | None
) -> None:
    """It goes on if that went well, makes the probe itself if nobody answered, and says that it is paused else."""
    monkeypatch.setattr(pause_gate, "WAIT_FOR_PROBE", 60.0)
    monkeypatch.setattr(pause_gate, "POLL", 0.05)
    pause(store)
    run_out(store)
    probe = store.probes.begin(CLIENT, worker="elsewhere:1:1:1", lease=60)
    assert probe is not None
    end = {"durations": [60], "reason": "down", "set_by": "elsewhere:1:1:1"}

    def end_it() -> None:
        # The run has tried three times to make the probe itself.
        until(lambda: len(tries) >= 3)
        assert remote.requests == 0
        store.probes.end(probe, well, **end)  # type: ignore[arg-type]

    with statements(store, "UPDATE pause", "probe_by") as tries, meanwhile(end_it):
        result = run(store, remote)
    assert result.state == ("paused" if well is False else "success")
    assert (remote.requests == 0) == (well is False)


def test_a_run_does_not_wait_long_for_the_probe_of_another(
    store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it takes longer, the run says that the client is being tested, and ends."""
    monkeypatch.setattr(pause_gate, "WAIT_FOR_PROBE", 0.3)
    pause(store)
    run_out(store)
    assert store.probes.begin(CLIENT, worker="elsewhere:1:1:1", lease=60) is not None
    result = run(store, remote)
    assert (result.state, result.exit_code, remote.requests) == ("paused", 0, 0)
    assert "until one request has tested it: maintenance" in result.message


def test_a_dry_run_is_no_probe(store: JobStore, remote: Remote) -> None:
    """It writes nothing, so it cannot reopen a client, and asks it for nothing."""
    pause(store)
    run_out(store)
    assert run(store, remote, options={"dry_run": True}).state == "paused"
    assert remote.requests == 0
    assert pauses(store) == [("person", 0, 0, None)]


def test_a_pause_that_has_run_out_by_another_stops_the_listing(store: JobStore, remote: Remote) -> None:
    """Run out is not over: a run under way asks for nothing more when somebody paused the client and nobody has tested it."""

    def meddle(_: int) -> None:
        pause(store)
        run_out(store)

    remote.on_page = meddle
    result = run(store, remote)
    assert result.state == "paused"
    assert remote.pages.total() == 1


@pytest.mark.rows("SC-20")
def test_runs_hold_to_declared_windows(store: JobStore, remote: Remote) -> None:
    """A run in a window says so and sends nothing; afterwards the first page goes first."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    window = Window(f"{now - timedelta(minutes=1):%H:%M}", f"{now + timedelta(minutes=5):%H:%M}")
    result = run(store, remote, pause=PausePolicy(windows=(window,)))
    assert (result.state, result.exit_code, remote.requests) == ("paused", 0, 0)
    assert f"declared window {window}" in result.message
    # A dry run says the same, and writes nothing.
    store.pauses.resume(CLIENT, by="anna")
    assert len(pauses(store)) == 1
    change(store, "DELETE FROM pause")
    dry = run(store, remote, pause=PausePolicy(windows=(window,)), options={"dry_run": True})
    assert (dry.state, dry.message, remote.requests, pauses(store)) == ("paused", result.message, 0, [])
    run(store, remote, pause=PausePolicy(windows=(window,)))
    assert result.paused_until == now + timedelta(minutes=5)
    run_out(store)
    assert run(store, remote).state == "success"
    assert pauses(store) == [("window", 0, 1, "probe")]


def test_a_window_that_begins_during_a_run(store: JobStore, remote: Remote) -> None:
    """The run ends as paused at its begin, between two entities; the next one goes on behind it."""
    if store.db.dialect != "sqlite":
        pytest.skip("needs a clock that can be set")
    minute = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    policy = PausePolicy(windows=(Window(f"{minute:%H:%M}", f"{minute + timedelta(minutes=5):%H:%M}"),))
    remote.fill(300)
    remote.page_size = 1000
    begins = [float("inf")]
    store.db.clock = lambda: minute + timedelta(seconds=max(-60.0, time.monotonic() - begins[0]))

    def begin(asked: int) -> None:
        if asked == 21:
            begins[0] = time.monotonic()
        if asked > 20:
            until(store.pauses.in_force)
            time.sleep(0.05)

    remote.on_detail = begin
    result = run(JobStore(store.db), remote, pause=policy)
    assert (result.state, result.failed) == ("paused", 0)
    # Hundreds were in hand; what nobody had begun went back.
    assert 20 <= result.succeeded < 100
    assert query(store, "SELECT count(*) AS n FROM job WHERE state = 'processing'") == [{"n": 0}]


def test_late_trouble_of_a_listing_changes_nothing(store: JobStore, remote: Remote) -> None:
    """A person resumes while a page is on its way that is then refused; the answer belongs to the time before."""
    remote.page_faults[0] = Fault(401)

    def meddle(_: int) -> None:
        pause(store)
        store.pauses.resume(CLIENT, by="anna")

    remote.on_page = meddle
    result = run(store, remote)
    assert (result.state, result.message[:8]) == ("failed", "listing:")
    assert pauses(store) == [("person", 0, 0, "anna")]


@pytest.mark.rows("SC-17", "SC-20")
def test_a_page_is_a_success(store: JobStore, remote: Remote) -> None:
    """Trouble with the listing now and then is no trouble in a row, also where nothing has changed and no job is due."""
    assert run(store, remote).succeeded == 30
    for _ in range(4):
        remote.page_faults[0] = Fault(500)
        assert run(store, remote).state == "failed"
        remote.page_faults.clear()
        assert run(store, remote).succeeded == 0
    assert pauses(store) == []
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]


def test_a_page_that_was_never_sent_tests_nothing(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our own process lacks says nothing of the client: it stays to be tested."""
    pause(store)
    run_out(store)
    monkeypatch.setenv("HTTP_PROXY", "what://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    result = run(store, remote)
    assert (remote.requests, result.succeeded) == (0, 0)
    assert pauses(store) == [("person", 0, 1, None)]


def test_a_page_that_is_not_ready_tests_nothing(store: JobStore, remote: Remote) -> None:
    """202 says "not yet": the client stays to be tested."""
    pause(store)
    run_out(store)
    remote.page_faults[0] = Fault(202, b"{}", headers={"Retry-After": "3600"})
    assert run(store, remote).state == "paused"
    assert (remote.requests, pauses(store)) == (1, [("person", 0, 1, None)])


def test_a_probe_without_a_result_is_made_ever_more_seldom(
    store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that is never ready is asked again after 1, 2, 4 … rests."""
    monkeypatch.setattr(pause_gate, "FIRST_REST", 0.05)
    asked: list[float] = []
    stop = threading.Event()

    def check(http: Any) -> Snooze:
        asked.append(time.monotonic())
        if len(asked) == 4:
            stop.set()
        return Snooze(1, "not yet")

    pause(store)
    run_out(store)
    run(store, remote, client={"check": check}, options={"wait": 900.0, "stop": stop})
    assert len(asked) == 4
    assert [after - before > rest for before, after, rest in zip(asked, asked[1:], (0.05, 0.1, 0.2), strict=False)] == [True] * 3


def test_a_stop_ends_the_rest_between_two_probes(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that rests for an hour notices it within a second."""
    monkeypatch.setattr(pause_gate, "FIRST_REST", 3600.0)
    stop = threading.Event()
    asked: list[int] = []

    def check(http: Any) -> Snooze:
        asked.append(1)
        stopping.start()
        return Snooze(1, "not yet")

    pause(store)
    run_out(store)
    stopping = threading.Timer(0.1, stop.set)
    result = run(store, remote, client={"check": check}, options={"wait": 9000.0, "stop": stop})
    stopping.join()
    assert (len(asked), result.seconds < 300) == (1, True)


def test_a_probe_that_cannot_be_sent_is_made_once(store: JobStore, remote: Remote) -> None:
    """A run that waits does not wait for what its own process lacks, also with jobs that are due."""
    asked: list[int] = []

    def check(http: Any) -> None:
        asked.append(1)
        raise LocalError("no proxy")

    queue(store, "k1")
    store.pauses.open(CLIENT, 60, cause="asked", reason="slow down", set_by="w")
    run_out(store)
    result = run(store, remote, client={"check": check}, options={"wait": 900.0})
    assert (result.state, len(asked), remote.requests) == ("paused", 1, 0)
    assert "no proxy" in result.message
