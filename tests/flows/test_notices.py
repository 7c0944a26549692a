"""What people are told, by real webhooks on loopback: once for each piece of trouble, and never too much."""

import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from kit import HandClock, change, environment, query
from mailroom import TOKEN, Reader, reading

from clients import Entity, Page
from flows import Client, JobType, Notify, Sync, engine, told
from flows.cli.program import program
from flows.declaration import PausePolicy
from flows.desk import Desk
from flows.enqueue import enqueue_many, using
from flows.postman import Postman
from flows.recipients import Recipients
from flows.registry import Registry
from flows.settings import Settings
from flows.told import Tidings, Told
from flows.work import work
from jobs import Failure, JobStore, Retry

NEVER = Retry(max_retries=0)
HOUR = 3600.0


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No recipient of this machine hears of it, and no file in `syncs/` is read."""
    for name in list(os.environ):
        if name.startswith("SYNCS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Recipients._warned.clear()


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Somebody who reads webhooks."""
    with reading() as found:
        yield found


class House:
    """A client with a sync and a job type, whose entities fail as they are told to."""

    def __init__(self, store: JobStore, *to: str, notify: Notify | None = None, keys: int = 3) -> None:
        self.store = store
        everybody = list(to)
        self.client = Client(
            "shop", connect=lambda settings: nullcontext(object()), pause=PausePolicy(after=2, durations=(60,)),
            notify=notify or Notify(notice=everybody, warning=everybody, error=everybody),
        )  # fmt: skip
        #: Raised by the fetch of an entity, by key, and by the listing.
        self.errors: dict[str, Exception] = {}
        self.listing_error: Exception | None = None
        self.keys = keys
        self.sync = Sync("shop.rows", self.client, listing=self._list, fetch=self._fetch, retry=NEVER)
        self.orders = JobType("shop.order", self.client, process=self._order, retry=NEVER)
        self.registry = Registry(
            clients={"shop": self.client}, syncs={self.sync.id: self.sync}, job_types={self.orders.id: self.orders}
        )

    def _list(self, connection: Any, since: Any) -> Iterator[Page]:
        if self.listing_error is not None:
            raise self.listing_error
        yield Page([Entity(f"key-{number}", None, {"name": f"Payl0ad {number}"}) for number in range(self.keys)])

    def _fetch(self, connection: Any, entity: Entity) -> Any:
        if (error := self.errors.get(entity.key, self.errors.get("*"))) is not None:
            raise error
        return {"key": entity.key}

    def _order(self, job: Any, connection: Any) -> Any:
        return Failure(f"no room for {job.payload['name']}, order {job.payload['number']}")

    def run(self) -> str:
        """Run the sync; return its state."""
        return engine.run(self.sync, self.store).state

    def pause(
        self, *, cause: str = "level", reason: str = "GET https://shop.example/rows: 503", seconds: float | None = 60
    ) -> None:
        """Pause the client and say so."""
        with Told(self.store, self.registry) as teller:
            pausing = self.store.pause("shop", seconds, cause=cause, reason=reason, set_by="w1")
            assert pausing is not None
            teller.paused(self.client, pausing)

    def resume(self, by: str = "anna") -> None:
        """Resume it and say so."""
        with Told(self.store, self.registry) as teller:
            assert self.store.resume("shop", by=by)
            teller.resumed(self.client, by=by)

    def look(self, *, window: float = HOUR, gather: float = 0.0) -> None:
        """Take in what is new, and send what is due, in this thread."""
        settings = Settings(notify_window=window)
        Desk(self.store, self.registry, {"shop": self.client}, recipients=Recipients({}, settings)).look(gather=gather)
        self.deliver()

    def deliver(self) -> Any:
        """Send what is due."""
        return Postman(self.store, {"shop": self.client}, settings=Settings()).deliver()


def due(store: JobStore) -> None:
    """Let the wait of what did not go out be over."""
    change(store, "UPDATE delivery SET next_at = '2000-01-01 00:00:00.000000+00'")


# -- processing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-94", "SC-24", "SC-07")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_ten_thousand_failures_are_one_message(store: JobStore, reader: Reader) -> None:
    """Each of 10,000 entities fails with a text of its own; one message says how many, why, and names the first."""
    house = House(store, reader.url, keys=10_000)
    house.errors = {f"key-{n}": ValueError(f"key-{n} has the value {n} of {n * 7}") for n in range(10_000)}
    assert house.run() == "failed"
    (post,) = reader.settle()
    assert (post["event"], post["kind"], post["level"], post["what"]) == ("sync.run.failed", "processing", "error", "opened")
    assert "10,000 of 10,000 entities failed" in post["subject"]
    assert post["causes"] == [{"text": "ValueError", "count": 10_000, "keys": post["causes"][0]["keys"]}]
    assert len(post["causes"][0]["keys"]) == 5
    assert {key.partition("-")[0] for key in post["causes"][0]["keys"]} == {"key"}
    assert house.store.notices.news("shop") == []


@pytest.mark.rows("SC-07", "SC-24", "SC-25")
def test_one_bad_entity_is_one_warning_until_it_is_well(store: JobStore, reader: Reader) -> None:
    """A run with one failure in twelve is a warning; the same again is silent; a good run says so, once, and then nothing."""
    house = House(store, reader.url, keys=12)
    house.errors = {"key-7": ValueError("no")}
    assert house.run() == "partial"
    assert [(post["what"], post["level"], post["event"]) for post in reader.posts] == [("opened", "warning", "sync.run.partial")]
    assert reader.posts[0]["causes"] == [{"text": "ValueError", "count": 1, "keys": ["key-7"]}]
    assert house.run() == "partial"
    assert len(reader.posts) == 1
    house.errors.clear()
    assert house.run() == "success"
    assert reader.whats == [("opened", "warning"), ("recovered", "warning")]
    recovered = reader.posts[1]
    assert (recovered["event"], recovered["count"], recovered["by"]) == ("sync.run.recovered", 2, "run")
    assert recovered["seconds"] > 0
    house.run()
    assert len(reader.posts) == 2


@pytest.mark.rows("SC-25", "E-94")
def test_another_error_is_another_message(store: JobStore, reader: Reader) -> None:
    """In one window the same error is told once, another one at once, and so is a worse level; numbers make no other error."""
    house = House(store, reader.url, keys=30)
    house.errors = {"key-1": TimeoutError("after 3 s")}
    house.run()
    house.errors = {"key-1": TimeoutError("after 17 s"), "key-2": KeyError("x")}
    house.run()
    house.errors = {"*": KeyError("x")}
    house.run()
    assert reader.whats == [("opened", "warning"), ("more", "warning"), ("more", "error")]
    assert "KeyError" in reader.posts[1]["body"]
    assert "TimeoutError" not in reader.posts[1]["body"]
    house.run()
    assert len(reader.posts) == 3


@pytest.mark.rows("SC-24")
def test_a_listing_that_fails_is_trouble_with_the_api(store: JobStore, reader: Reader) -> None:
    """Kind and event tell the two apart: here nothing was processed."""
    house = House(store, reader.url)
    house.listing_error = RuntimeError("listed Payl0ad")
    assert house.run() == "failed"
    (post,) = reader.posts
    assert (post["kind"], post["event"], post["level"]) == ("api", "sync.run.failed", "error")
    assert "the listing failed" in post["subject"]
    assert "RuntimeError" in post["body"]
    house.listing_error = None
    house.run()
    assert reader.whats == [("opened", "error"), ("recovered", "error")]


@pytest.mark.rows("SC-19", "SC-13")
def test_failed_jobs_of_a_worker_are_one_message(store: JobStore, reader: Reader) -> None:
    """A job type says itself that its jobs have failed; a worker gathers them; nothing of their payloads is told."""
    house = House(store, reader.url)
    with using(store, house.registry):
        enqueue_many(house.orders, [{"name": f"Payl0ad{number}", "number": number} for number in range(50)])
    work(store, house.registry, until_empty=True)
    (post,) = reader.settle()
    assert (post["sync"], post["kind"], post["level"], post["count"]) == ("shop.order", "processing", "error", 50)
    assert post["causes"][0]["text"] == "no room for …, order …"
    assert "shop.order: 50 jobs failed" in post["subject"]
    assert "syncs retry --type shop.order --state failure" in post["body"]
    assert "Payl0ad" not in str(post)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_was_counted_is_one_digest(open_store: Callable[..., JobStore], reader: Reader) -> None:
    """What follows in a window is told at its end in one message; a job type that is quiet for a window is let go silently."""
    clock = HandClock()
    house = House(open_store(clock=clock), reader.url)

    def fail(count: int) -> None:
        with using(house.store, house.registry):
            enqueue_many(house.orders, [{"name": "a", "number": number} for number in range(count)])
        work(house.store, house.registry, until_empty=True)

    fail(3)
    for _ in range(4):
        clock.forward(600)
        fail(5)
    assert reader.whats == [("opened", "error")]
    clock.forward(1300)
    house.look()
    house.look()
    assert reader.whats == [("opened", "error"), ("digest", "error")]
    assert "20 more" in reader.posts[1]["subject"]
    clock.forward(3700)
    house.look()
    assert len(reader.posts) == 2
    assert house.store.letters.notices() == []
    fail(1)
    assert reader.whats[2:] == [("opened", "error")]


def test_a_run_that_died_is_told_by_the_next_one(store: JobStore, reader: Reader) -> None:
    """The failures of a process that was killed are rows; whoever looks next tells them, as no run's."""
    house = House(store, reader.url, keys=2)
    script = f"""
        import os, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "jobs")!r}]
        from test_notices import House, engine
        from jobs import JobStore
        house = House(JobStore.open(sys.argv[1]), {reader.url!r}, keys=2)
        house.errors = {{"key-0": ValueError("no")}}
        house.store.release_listing = lambda *_: os._exit(9)
        house.run()
    """
    url = store.db.url.render_as_string(hide_password=False)
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script), url], env=environment(), timeout=60, check=False)
    assert died.returncode == 9
    assert reader.posts == []
    change(store, "UPDATE listing SET lease_until = NULL")
    house.look()
    (post,) = reader.posts
    assert (post["sync"], post["level"], post["count"]) == ("shop.rows", "warning", 1)


# -- pauses --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-24", "SC-25", "SC-20")
def test_a_pause_and_its_end_are_one_message_each(store: JobStore, reader: Reader) -> None:
    """However often it is said, by however many: one message at the beginning, one at the end, with how long and what waited."""
    house = House(store, reader.url)
    with using(store, house.registry):
        enqueue_many(house.orders, [{"name": "a", "number": 1}, {"name": "b", "number": 2}])
    house.pause()
    (post,) = reader.posts
    assert (post["event"], post["kind"], post["level"], post["what"]) == ("sync.client.paused", "api", "warning", "opened")
    for word in ("503", "shop.rows", "shop.order", "syncs resume shop", "one request tries shop", "Since", post["until"][:10]):
        assert word in post["body"], word
    house.look()
    with Told(store, house.registry) as teller:
        standing = store.paused("shop")
        assert standing is not None
        teller.paused(house.client, standing)
    assert len(reader.posts) == 1
    house.resume()
    assert reader.whats == [("opened", "warning"), ("recovered", "warning")]
    recovered = reader.posts[1]
    assert (recovered["event"], recovered["by"], recovered["waiting"]) == ("sync.client.resumed", "anna", 2)
    assert "resumed by anna" in recovered["subject"]
    assert "2 jobs waited" in recovered["body"]
    house.look()
    assert len(reader.posts) == 2


@pytest.mark.rows("SC-25")
def test_a_pause_that_goes_on_is_told_once(store: JobStore, reader: Reader) -> None:
    """A probe that fails pauses again, longer: the same trouble. Another cause is another message; one end ends it all."""
    house = House(store, reader.url)
    house.pause(seconds=60)
    house.pause(seconds=120, reason="GET https://shop.example/rows: 503")
    house.pause(seconds=240, reason="GET https://shop.example/rows: 503")
    assert len(reader.posts) == 1
    house.pause(seconds=900, cause="enforced", reason="GET https://shop.example/rows: 401")
    assert reader.whats == [("opened", "warning"), ("more", "error")]
    assert "401" in reader.posts[1]["body"]
    house.resume()
    assert reader.whats[2:] == [("recovered", "error")]
    assert reader.posts[2]["count"] == 4


@pytest.mark.rows("SC-22")
@pytest.mark.parametrize(
    ("cause", "seconds", "level"),
    [
        ("level", 60, "warning"), ("enforced", 900, "error"), ("enforced", None, "error"), ("asked", 30, None),
        ("asked", 600, None), ("asked", 630, "notice"), ("asked", None, "error"), ("person", 60, "notice"),
        ("person", None, "notice"),
        ("window", 7200, "notice"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_level_says_how_bad_it_is(
    store: JobStore, reader: Reader, cause: str, seconds: float | None, level: str | None
) -> None:
    """By cause and length; an API's own ten minutes are no news, and neither is their end. The level stands in the subject."""
    house = House(store, reader.url)
    house.pause(cause=cause, seconds=seconds)
    house.resume()
    assert reader.whats == ([] if level is None else [("opened", level), ("recovered", level)])
    assert all(post["subject"].startswith(f"[{level}] ") for post in reader.posts)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_client_that_comes_and_goes_is_a_digest(open_store: Callable[..., JobStore], reader: Reader) -> None:
    """Five pauses in an hour are told with their ends; further ones in one message at the end of the hour."""
    clock = HandClock()
    house = House(open_store(clock=clock), reader.url)
    for _ in range(8):
        house.pause()
        clock.forward(120)
        house.resume()
        clock.forward(120)
    assert reader.whats == [("opened", "warning"), ("recovered", "warning")] * 5
    clock.forward(HOUR)
    house.look()
    house.look()
    assert reader.whats[10:] == [("digest", "warning")]
    assert "open now" in reader.posts[10]["subject"]
    house.pause()
    assert reader.whats[11:] == [("opened", "warning")]


@pytest.mark.rows("E-93")
def test_a_pause_that_nobody_told_is_found(store: JobStore, reader: Reader) -> None:
    """The process that paused, or resumed, died before it could say so: the next look tells it from the table."""
    house = House(store, reader.url)
    store.pause("shop", None, cause="enforced", reason="GET https://shop.example/: 401", set_by="w1")
    house.look()
    assert reader.whats == [("opened", "error")]
    assert "until a person resumes it" in reader.posts[0]["subject"]
    store.resume("shop", by="bert")
    store.pause("shop", 60, cause="level", reason="GET https://shop.example/: 503", set_by="w2")
    time.sleep(1.1)
    store.resume("shop", by="bert")
    house.look()
    assert reader.whats[1:] == [("recovered", "error"), ("opened", "warning"), ("recovered", "warning")]


# -- who is told ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-23")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_recipients_are_the_client_s_or_everybody_s(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client names counts in place of what the settings name, level by level; an empty list is nobody."""
    with reading() as own, reading() as all_:
        for level in ("NOTICE", "WARNING", "ERROR"):
            monkeypatch.setenv(f"SYNCS_NOTIFY_{level}", all_.url)
        house = House(store, notify=Notify(error=[own.url], notice=[]))
        house.pause(cause="enforced")
        house.resume()
        assert (own.whats, all_.whats) == ([("opened", "error"), ("recovered", "error")], [])
        house.pause()
        house.resume()
        assert (len(own.posts), all_.whats) == (2, [("opened", "warning"), ("recovered", "warning")])
        house.pause(cause="person")
        house.resume()
        assert (len(own.posts), len(all_.posts)) == (2, 2)
        assert [view.deliveries for view in store.letters.views(limit=2)] == [[], []]


def test_nobody_to_tell_is_no_trouble(store: JobStore) -> None:
    """Without any recipient runs and pauses are what they are, and the notices can be looked at."""
    house = House(store, notify=Notify())
    house.errors = {"*": ValueError("no")}
    assert house.run() == "failed"
    house.pause()
    assert [(one.sync, one.level) for one in store.letters.notices()] == [("", "warning"), ("shop.rows", "error")]
    assert query(store, "SELECT * FROM delivery") == []


def test_an_unknown_recipient_is_a_warning_once(store: JobStore, reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be used is named without its secrets, and keeps nobody else from being told."""
    house = House(store, reader.url, "carrier-pigeon://s3cret@coop")
    with caplog.at_level(logging.WARNING):
        house.pause()
        house.resume()
    assert reader.whats == [("opened", "warning"), ("recovered", "warning")]
    named = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(named) == 1
    assert named[0].startswith("shop: a recipient for warning cannot be used")
    assert "s3cret" not in caplog.text


# -- sending -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-98", "SC-26")
def test_a_broken_channel_fails_nothing_else(store: JobStore, reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """One of two channels refuses: the other has the message, the run is what it is, the message waits for the broken one."""
    with reading() as broken:
        broken.status = 500
        house = House(store, broken.url, reader.url)
        house.errors = {"key-1": ValueError("no")}
        with caplog.at_level(logging.WARNING):
            assert house.run() == "failed"
        assert reader.whats == [("opened", "error")]
        assert [(row["state"], row["attempts"]) for row in query(store, "SELECT * FROM delivery ORDER BY id")] == [
            ("waiting", 1), ("sent", 1),
        ]  # fmt: skip
        assert "status 500" in caplog.text
        assert TOKEN not in caplog.text
        house.errors.clear()
        assert house.run() == "success"
        # The end of it does not overtake the beginning.
        assert broken.asked == 1
        broken.status = 200
        due(store)
        house.deliver()
        house.deliver()
        assert broken.whats == reader.whats == [("opened", "error"), ("recovered", "error")]


@pytest.mark.rows("E-98")
def test_a_channel_that_is_gone_is_not_asked_again_and_again(store: JobStore, reader: Reader) -> None:
    """In one round it is asked once, however many letters wait for it; the others get theirs."""
    with reading() as broken:
        broken.status = 503
        house = House(store, broken.url, reader.url)
        for number in range(6):
            store.pause("shop", 60, cause="enforced", reason="r", set_by="w")
            Desk(store, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings())).look(gather=0)
            store.resume("shop", by=f"p{number}")
            Desk(store, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings())).look(gather=0)
        delivered = house.deliver()
        assert broken.asked == 1
        assert len(reader.posts) == delivered.sent == 10
        assert delivered.failed >= 1


@pytest.mark.rows("E-98")
def test_a_channel_that_was_down_gets_it_after_a_restart_once(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """The process that had it to tell is gone; another one sends it when the time has come, and then nobody does."""
    with reading() as reader:
        url = reader.url
        reader.status = 503
        House(store, url).pause()
        assert (reader.asked, reader.posts) == (1, [])
        reader.status = 200
        later = House(open_store(), url)
        later.deliver()
        assert reader.posts == []
        due(store)
        for _ in range(3):
            work(later.store, later.registry, until_empty=True)
        assert [post["what"] for post in reader.settle()] == ["opened"]


_POSTMAN = """
    import sys, time
    sys.path[:0] = [{here!r}, {jobs!r}]
    from test_notices import House
    from jobs import JobStore
    house = House(JobStore.open(sys.argv[1]), {url!r})
    print("ready", flush=True)
    sys.stdin.readline()
    print(house.deliver().sent, flush=True)
"""


def postman(store: JobStore, url: str) -> "subprocess.Popen[str]":
    """Start a process that sends what is due when it is told to."""
    script = textwrap.dedent(
        _POSTMAN.format(here=str(Path(__file__).parent), jobs=str(Path(__file__).parents[1] / "jobs"), url=url)
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, store.db.url.render_as_string(hide_password=False)],
        env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    """Tell it to."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.rows("E-98")
def test_two_postmen_send_nothing_twice(store: JobStore, reader: Reader) -> None:
    """Two processes at once, twenty letters: each goes out once."""
    house = House(store, reader.url)
    desk = Desk(store, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings(notify_window=0.001)))
    for number in range(10):
        store.pause("shop", 60, cause="level", reason="r", set_by="w")
        desk.look(gather=0)
        store.resume("shop", by=f"p{number}")
        desk.look(gather=0)
    processes = [postman(store, reader.url) for _ in range(2)]
    for process in processes:
        go(process)
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == len(reader.posts) == 20
    assert len({post["id"] for post in reader.posts}) == 20


def test_a_crash_between_sending_and_noting_is_one_repetition(store: JobStore, reader: Reader) -> None:
    """A postman is killed when the channel has the message and before it could note that: nobody sends it before its lease has
    ended, and then it goes out once more, under the same id.
    """
    house = House(store, reader.url)
    store.pause("shop", 60, cause="level", reason="r", set_by="w")
    Desk(store, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings())).look(gather=0)
    reader.slow = 0.3
    process = postman(store, reader.url)
    go(process)
    reader.wait(1)
    process.kill()
    process.communicate()
    reader.slow = 0.0
    for _ in range(2):
        house.deliver()
    assert len(reader.posts) == 1
    change(store, "UPDATE delivery SET lease_until = '2000-01-01 00:00:00.000000+00'")
    for _ in range(3):
        house.deliver()
    assert len(reader.posts) == 2
    assert reader.posts[0]["id"] == reader.posts[1]["id"]


def test_a_letter_waits_for_a_process_that_knows_its_reader(store: JobStore, reader: Reader) -> None:
    """A process whose declaration names other people sends nobody else's letter; it waits for one that does."""
    house = House(store, reader.url)
    store.pause("shop", 60, cause="level", reason="r", set_by="w")
    Desk(store, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings())).look(gather=0)
    with reading() as other:
        House(store, other.url).deliver()
        assert other.posts == []
    (view,) = store.letters.views(waiting=True)
    assert "nothing here declares" in view.deliveries[0]["error"]
    due(store)
    house.deliver()
    assert reader.whats == [("opened", "warning")]


# -- a carrier -----------------------------------------------------------------------------------------------------------------


class Pigeons:
    """A carrier that can be silent, refuse, or confirm what it delivers to a reader."""

    def __init__(self, taken: bool = True, says: bool | None = True) -> None:
        self.taken, self.says = taken, says
        self.carried: list[Any] = []

    def carry(self, message: Any, recipients: Any) -> frozenset[str]:
        """Take it, or not."""
        self.carried.append(message.data["id"])
        return frozenset(recipients if self.taken else ())

    def outcome(self, message: Any, recipients: Any) -> dict[str, bool]:
        """Confirm, or not."""
        return {} if self.says is None else dict.fromkeys(recipients, self.says)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("taken", "says", "posts"), [(True, True, 0), (True, False, 1), (True, None, 1), (False, None, 1)])
def test_a_carrier_goes_first(
    store: JobStore, reader: Reader, monkeypatch: pytest.MonkeyPatch, taken: bool, says: bool | None, posts: int
) -> None:
    """What it confirms is sent; what it refuses, fails or says nothing of goes out directly, once, in the same round."""
    monkeypatch.setattr("flows.postman.CARRYING", 0.3)
    house, pigeons = House(store, reader.url), Pigeons(taken, says)
    end = told.route(pigeons)
    try:
        house.pause()
    finally:
        end()
    assert len(pigeons.carried) == 1
    assert len(reader.posts) == posts
    assert [one["via"] for one in store.letters.views()[0].deliveries] == ["direct" if posts else "prefect"]
    house.resume()
    assert len(pigeons.carried) == 1


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_a_carrier_had_is_asked_for_after_a_crash(store: JobStore, reader: Reader) -> None:
    """A process died after it had handed a letter over: the next one asks what became of it, and sends nothing twice."""
    house, pigeons = House(store, reader.url), Pigeons()
    store.pause("shop", 60, cause="level", reason="r", set_by="w")
    Desk(store, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings())).look(gather=0)
    assert store.letters.take(["shop"]) is not None
    change(store, "UPDATE delivery SET lease_until = '2000-01-01 00:00:00.000000+00'")
    Postman(store, {"shop": house.client}, pigeons, settings=Settings()).deliver()
    assert (pigeons.carried, reader.posts) == ([], [])
    assert [one["state"] for one in store.letters.views()[0].deliveries] == ["sent"]


# -- secrets -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-23")
def test_no_secret_and_no_payload_stands_in_a_notice(store: JobStore, reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the message, the rows, the log: neither what a job carries, nor what was fetched, nor a webhook's token."""
    caplog.set_level(logging.DEBUG, "syncs")
    house = House(store, reader.url, keys=3)
    house.errors = {
        "key-0": ValueError("bad {'name': 'Payl0ad 0'}"),
        "key-1": KeyError("Payl0ad 1"),
        "key-2": RuntimeError("fetched Payl0ad-fetched"),
    }
    house.run()
    with using(store, house.registry):
        enqueue_many(house.orders, [{"name": "Payl0ad", "number": 4711}, {"name": "Payl0ad again", "number": 4712}])
    work(store, house.registry, until_empty=True)
    house.listing_error = LookupError("Payl0ad listed")
    house.run()
    rows = [query(store, f"SELECT * FROM {table}") for table in ("notice", "letter", "delivery")]
    said = [str(reader.settle()), str(rows), "".join(line for line in caplog.text.splitlines() if "syncs.notices" in line)]
    assert len(reader.posts) >= 3
    for text in said:
        for secret in ("Payl0ad", "4711", TOKEN):
            assert secret not in text, (secret, text)
    assert all(word in said[0] for word in ("ValueError", "KeyError", "RuntimeError", "key-0", "key-1"))


# -- subscribers ---------------------------------------------------------------------------------------------------------------


def test_subscribers_hear_of_pauses_and_runs(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """Each event once, in order, with what it is about; one that raises harms nobody; whoever has ended hears nothing more."""
    heard: list[Tidings] = []

    def fall(_: Tidings) -> None:
        raise RuntimeError("s3cret")

    ends = [told.subscribe(fall, told.PAUSED), told.subscribe(heard.append)]
    house = House(store, notify=Notify())
    try:
        house.pause()
        house.resume()
        house.errors = {"*": ValueError("no")}
        house.run()
        house.errors.clear()
        house.run()
    finally:
        for end in ends:
            end()
    house.pause()
    assert [one.event for one in heard] == [told.PAUSED, told.RESUMED, told.FAILED, told.RECOVERED]
    paused, resumed, failed, _ = heard
    assert (paused.client, paused.payload["cause"], round(paused.payload["seconds"])) == (house.client, "level", 60)
    assert (resumed.payload["by"], resumed.payload["cause"]) == ("anna", "level")
    assert resumed.payload["seconds"] > 0
    assert (failed.sync, failed.payload["failed"]) == ("shop.rows", 3)
    assert "fall" in caplog.text
    assert "s3cret" not in caplog.text
    with pytest.raises(Exception, match=r"no event is called 'sync\.client\.exploded'"):
        told.subscribe(heard.append, "sync.client.exploded")


# -- commands ------------------------------------------------------------------------------------------------------------------

SHOP = """
from contextlib import nullcontext
from clients import Entity, Page
from flows import Client, Notify, Sync
from jobs import Retry
shop = Client("shop", connect=lambda s: nullcontext(object()), notify=Notify(error=["{url}"], warning=["smoke://signal"]))
def fetch(connection, entity):
    raise ValueError("Payl0ad")
rows = Sync("shop.rows", shop, listing=lambda connection, since: iter([Page([Entity("key-1")])]), fetch=fetch, retry=Retry(0))
"""


def listed(*arguments: str) -> Any:
    """Return what a command says in JSON."""
    return json.loads(CliRunner().invoke(program, [*arguments, "--json"]).stdout)


@pytest.mark.rows("SC-22", "SC-24")
def test_a_run_of_the_command_line_tells(project: Any, reader: Reader) -> None:
    """`syncs run` tells without a server; `syncs notices` shows it; `syncs check` names a recipient that cannot be used."""
    project.write("syncs/shop.py", SHOP.replace("{url}", reader.url))
    ran = project.syncs("run", "shop.rows")
    assert ran.returncode == 1, ran.stderr
    (post,) = reader.wait(1)
    assert (post["level"], post["causes"][0]["keys"]) == ("error", ["key-1"])
    shown = CliRunner().invoke(program, ["notices"])
    assert "shop.rows: 1 of 1 entities failed" in shown.output
    assert "sent" in shown.output
    assert TOKEN not in shown.output
    (document,) = listed("notices")
    assert (document["what"], document["deliveries"][0]["via"]) == ("opened", "direct")
    (open_,) = listed("notices", "--open")
    assert (open_["client"], open_["sync"], open_["count"]) == ("shop", "shop.rows", 1)
    assert listed("notices", "--waiting") == []
    assert "nothing waits" in CliRunner().invoke(program, ["notices", "--waiting"]).output
    assert "nobody was told" in CliRunner().invoke(program, ["notices", "nobody"]).output
    checked = project.syncs("check")
    assert checked.returncode == 1
    assert "shop: notify.warning: smoke:" in checked.stdout


@pytest.mark.rows("E-98")
def test_maintain_sends_what_waits(project: Any) -> None:
    """What a channel did not take goes out with `syncs maintain`, by another process, when its time has come."""
    with reading() as reader:
        reader.status = 503
        project.write("syncs/shop.py", SHOP.replace("{url}", reader.url))
        assert project.syncs("run", "shop.rows").returncode == 1
        reader.status = 200
        assert listed("maintain")["notices"] == 0
        store = JobStore.open(f"sqlite:///{project.folder}/data/syncs.db")
        try:
            due(store)
        finally:
            store.close()
        assert json.loads(project.syncs("maintain", "--json").stdout)["notices"] == 1
        assert listed("maintain")["notices"] == 0
        assert reader.whats == [("opened", "error")]
