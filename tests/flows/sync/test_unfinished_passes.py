"""Passes that were interrupted: what is continued, what is begun anew, and that nothing gets two outcomes."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from clients import Cursor, Entity, Listing, Page
from flows import PausePolicy, Since
from flows.progress import SilentTracker
from flows.run_result import RunResult
from flows.sync import listing_thread
from flows.sync import run as engine
from flows.sync.listing_digest import listing_digest
from jobs import JobStore, Retry
from tests.support.fake_things_api import Fault, Remote, change, declare, live, query, serving

CALM = PausePolicy(after=1000)
WITHOUT_VERSION = Listing("things", Cursor("next"), items="data", key="id")


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A remote system with thirty things in three pages."""
    monkeypatch.setattr(listing_thread, "PAGE_RETRY", Retry(max_retries=3, delay=0.01, jitter=False))
    with serving(Remote()) as found:
        found.fill(30)
        yield found


def run(store: JobStore, remote: Remote, *, options: dict[str, Any] | None = None, **fields: Any) -> RunResult:
    """Run the sync of this remote."""
    return engine.run(declare(remote.url, **{"pause": CALM, **fields}), store, **(options or {}))


def plain(http: Any, _: Any, version: bool = False) -> Iterator[Page]:
    """List with a plain generator."""
    cursor: int | None = 0
    while cursor is not None:
        found = http.get_json("things", {"cursor": str(cursor)})
        cursor = found["next"]
        yield Page([Entity(one["id"], str(one["v"]) if version else None, one) for one in found["data"]])


def with_version(http: Any, since: Any) -> Iterator[Page]:
    """List with a plain generator that has versions."""
    return plain(http, since, version=True)


LISTINGS = {
    "cursor, version": Listing("things", Cursor("next"), items="data", key="id", version="v"),
    "cursor": WITHOUT_VERSION,
    "generator, version": with_version,
    "generator": plain,
}


@pytest.mark.parametrize("full", [False, True], ids=["", "full"])
@pytest.mark.parametrize("name", LISTINGS)
def test_what_has_its_outcome_is_not_fetched_again(store: JobStore, remote: Remote, name: str, full: bool) -> None:
    """Also what was gone, and what failed for good."""
    del remote.things["k1"]
    remote.things = {"k1": {"id": "k1", "v": 1}, **remote.things}
    remote.faults |= {"k1": Fault(404), "k2": Fault(422)}
    remote.page_faults[20] = Fault(500, times=1)
    how: dict[str, Any] = {"listing": LISTINGS[name], "options": {"full": full}, "max_delete_share": 1.0}
    first = run(store, remote, **how)
    assert (first.state, first.stopped, first.listed) == ("failed", "error", 20)
    assert sum(remote.details.values()) == 20
    second = run(store, remote, **how)
    assert second.stopped == "end"
    assert set(remote.details.values()) == {1}
    assert len(remote.details) == 30
    assert live(store) == set(remote.things) - {"k1", "k2"}
    # The pass is over: the next one looks at everything again, as far as the listing does not tell that it is the same.
    remote.forget()
    run(store, remote, **how)
    assert len(remote.details) == (30 if full or "version" not in name else 2)


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_a_pause_in_a_run_that_waits(store: JobStore, remote: Remote, listing: Any) -> None:
    """Within one run nothing is fetched twice either, and everything is counted once."""
    remote.page_faults[20] = Fault(500, times=2)
    result = run(store, remote, listing=listing, options={"wait": 30, "full": True})
    assert (result.state, result.listed, result.distinct) == ("success", 30, 30)
    assert (result.succeeded, result.unchanged, result.queued) == (30, 0, 30)
    assert set(remote.details.values()) == {1}


def test_a_change_in_a_pass_is_news(store: JobStore, remote: Remote) -> None:
    """An entity that a listing shows again in another version is fetched again."""
    remote.page_faults[20] = Fault(500, times=1)
    run(store, remote, listing=with_version)
    remote.change("k3")
    run(store, remote, listing=with_version)
    assert {key for key, n in remote.details.items() if n > 1} == {"k3"}


def test_an_ended_listing_is_not_continued(store: JobStore, remote: Remote) -> None:
    """The next run lists anew, and takes over what is still queued."""
    remote.faults["k5"] = Fault(500, times=1)
    slow = Retry(max_retries=1, delay=3600, jitter=False)
    assert run(store, remote, retry=slow).pending == 1
    change(store, "UPDATE job SET available_at = created_at WHERE state = 'queued'")
    remote.forget()
    second = run(store, remote, retry=slow)
    assert (second.pages, second.pending, set(remote.details)) == (3, 0, {"k5"})


def interrupt(store: JobStore, remote: Remote, **how: Any) -> None:
    """Leave a listing that has shown two of three pages."""
    remote.page_faults[20] = Fault(500, times=1)
    assert run(store, remote, **how).pages == 2
    assert query(store, "SELECT state FROM listing") == [{"state": "listing"}]
    remote.forget()


def test_full_replaces_an_unfinished_one(store: JobStore, remote: Remote) -> None:
    """One that would have left out what did not change."""
    interrupt(store, remote)
    result = run(store, remote, options={"full": True})
    assert (result.pages, sum(remote.details.values())) == (3, 30)


def test_an_incremental_one_is_replaced_by_full(store: JobStore, remote: Remote) -> None:
    """And continued without it."""
    since = Since("v", "since")
    run(store, remote, incremental=since)
    for replaced in (False, True):
        interrupt(store, remote, incremental=since)
        assert run(store, remote, incremental=since, options={"full": replaced}).pages == (3 if replaced else 1)


def test_a_new_pass(store: JobStore, remote: Remote) -> None:
    """`new_pass` begins anew, whatever there is."""
    interrupt(store, remote, listing=WITHOUT_VERSION)
    result = run(store, remote, listing=WITHOUT_VERSION, options={"new_pass": True})
    assert (result.pages, sum(remote.details.values())) == (3, 30)


@pytest.mark.parametrize("how", ["ended", "interrupted"])
def test_a_limited_run_leaves_nothing_to_continue(store: JobStore, remote: Remote, how: str) -> None:
    """Whether it came to its limit or not."""
    if how == "interrupted":
        remote.page_faults[10] = Fault(500, times=1)
    run(store, remote, options={"limit": 15})
    assert query(store, "SELECT state FROM listing") == [{"state": "abandoned"}]
    assert run(store, remote).pages == 3


def test_a_changed_declaration_begins_anew(store: JobStore, remote: Remote) -> None:
    """A cursor of another listing says nothing."""
    interrupt(store, remote)
    assert run(store, remote, listing=WITHOUT_VERSION).pages == 3


def test_a_day_later_it_begins_anew(store: JobStore, remote: Remote) -> None:
    """However often it was continued meanwhile."""
    interrupt(store, remote)
    change(store, "UPDATE listing SET began_at = '2020-01-01 00:00:00.000000+00'")
    assert run(store, remote).pages == 3
    interrupt(store, remote)
    assert run(store, remote).pages == 1


@pytest.mark.parametrize("wait", [0.0, 30.0])
def test_a_page_that_always_fails(store: JobStore, remote: Remote, wait: float) -> None:
    """It is tried, the listing starts over, it is tried again; then that is it. What stands before it stays in step."""
    remote.page_faults[20] = Fault(500)
    pause = PausePolicy(after=3, durations=(0.05,))
    runs = [run(store, remote, pause=pause, options={"wait": wait})]
    while not runs[-1].message.count("given up") and len(runs) < 12:
        change(store, "UPDATE pause SET until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL")
        runs.append(run(store, remote, pause=pause, options={"wait": wait}))
    assert len(runs) == (1 if wait else 6)
    last = runs[-1]
    assert (last.state, last.exit_code) == ("failed", 1)
    assert "also after the listing had started over" in last.message
    assert dict(remote.pages) == {0: 2, 10: 2, 20: 6}
    assert query(store, "SELECT state FROM listing") == [{"state": "abandoned"}]
    # Next time it begins at the first page, and finds what has changed there.
    remote.change("k1")
    remote.forget()
    change(store, "UPDATE pause SET until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL")
    remote.page_faults.clear()
    assert run(store, remote, pause=pause).state == "success"
    assert remote.details["k1"] == 1


def test_a_cursor_that_fails_for_a_while_is_kept(store: JobStore, remote: Remote) -> None:
    """If the first page does not come either, the client is to blame, and the cursor stays."""
    interrupt(store, remote)
    remote.page_faults |= {0: Fault(500), 20: Fault(500)}
    for _ in range(4):
        assert run(store, remote).state == "failed"
    change(store, "UPDATE listing SET failures = 0")
    remote.page_faults.clear()
    result = run(store, remote)
    assert (result.state, result.pages) == ("success", 1)


def test_a_stop_between_pages(store: JobStore, remote: Remote) -> None:
    """A stopped run leaves the rest, and a later one does just that."""
    stop = threading.Event()

    class Stopping(SilentTracker):
        def page(self, number: int, work: Any) -> Any:
            if number == 2:
                stop.set()
            return work()

    run(store, remote, options={"stop": stop, "full": True, "tracker": Stopping()})
    assert query(store, "SELECT state FROM listing") == [{"state": "listing"}]
    assert remote.pages.total() == 2
    result = run(store, remote, options={"full": True})
    assert result.state == "success"
    assert set(remote.details.values()) == {1}
    assert live(store) == set(remote.things)


def test_the_digest_of_a_listing() -> None:
    """It is the same for the same declaration, made anew, and another one where anything differs."""

    def made(path: str = "things", **fields: Any) -> Any:
        return declare("http://x/", listing=Listing(path, Cursor("next"), items="data", key="id", **fields))

    def generator(path: str) -> Any:
        calls = [0]

        def pages(http: Any, since: Any) -> Any:
            calls[0] += 1
            return http.get_json(path)

        return declare("http://x/", listing=pages)

    same = listing_digest(made())
    assert listing_digest(made()) == same
    assert (
        listing_digest(declare("http://y/", listing=Listing("things", Cursor("next"), items="data", key="id"), fetch=None))
        == same
    )
    others = [
        made("other"),
        made(version="v"),
        generator("a"),
        generator("b"),
        declare("http://x/", incremental=Since("v", "since")),
    ]
    assert len({same, *map(listing_digest, others)}) == 6
    assert listing_digest(generator("a")) == listing_digest(generator("a"))


def test_what_our_own_process_lacks_ends_no_pass(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken proxy says nothing of the cursor: whoever can send goes on behind it."""
    remote.page_faults[20] = Fault(500, times=1)
    run(store, remote)
    (before,) = query(store, "SELECT generation, state, cursor FROM listing")
    with monkeypatch.context() as ours:
        ours.setenv("HTTP_PROXY", "what://127.0.0.1:1")
        ours.setenv("NO_PROXY", "")
        result = run(store, remote)
    assert (result.state, result.stopped) == ("failed", "error")
    assert "proxy" in result.message.lower()
    assert query(store, "SELECT generation, state, cursor FROM listing") == [before]
    remote.forget()
    assert run(store, remote).state == "success"
    assert dict(remote.pages) == {20: 1}


@pytest.mark.parametrize("name", ["generator", "generator, version"])
def test_what_failed_before_in_a_pass_counts_as_failed(store: JobStore, remote: Remote, name: str) -> None:
    """A continued pass that shows only entities that have failed in it is no success, and asks for none of them again."""
    remote.faults["*"] = Fault(422)
    remote.page_faults[20] = Fault(500, times=1)
    assert run(store, remote, listing=LISTINGS[name]).failed == 20
    for key in [f"k{n}" for n in range(20, 30)]:
        del remote.things[key]
    remote.forget()
    result = run(store, remote, listing=LISTINGS[name])
    assert (result.state, result.failed, result.succeeded, result.unchanged) == ("failed", 20, 0, 0)
    assert remote.details.total() == 0
    assert "has failed before" in dict(result.failures)["k3"]
