"""What people are told, by real webhooks on loopback: once for each piece of trouble, and never too much."""

import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows import Notify
from flows.cli.program import program
from flows.enqueue import enqueue_many, using
from flows.events import CLIENT_EVENTS, FAILED, PAUSED, RECOVERED, RESUMED, ClientEvent, subscribe
from flows.notices.collector import Collector
from flows.notices.delivery import Deliverer
from flows.notices.notifier import Notifier
from flows.notices.process_carrier import use_carrier
from flows.notices.recipients import Recipients
from flows.project.settings import Settings
from flows.worker.queue_processing import work
from jobs import JobStore
from jobs.listing.runs import COUNTS
from tests.support.fake_recipients import TOKEN, Recipient, receiving
from tests.support.notice_bench import HOUR, Shop, due
from tests.support.store_helpers import ManualClock, change, environment, query


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No recipient of this machine hears of it, and no file in `syncs/` is read."""
    for name in list(os.environ):
        if name.startswith("SYNCS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Recipients._warned.clear()


@pytest.fixture
def recipient() -> Iterator[Recipient]:
    """Somebody who reads webhooks."""
    with receiving() as found:
        yield found


# -- processing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.rows("E-94", "SC-24", "SC-07")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_ten_thousand_failures_are_one_message(store: JobStore, recipient: Recipient) -> None:
    """Each of 10,000 entities fails with a text of its own; one message says how many, why, and names the first."""
    shop = Shop(store, recipient.url, keys=10_000)
    shop.errors = {f"key-{n}": ValueError(f"key-{n} has the value {n} of {n * 7}") for n in range(10_000)}
    assert shop.run() == "failed"
    (post,) = recipient.settle()
    assert (post["event"], post["kind"], post["level"], post["what"]) == ("sync.run.failed", "processing", "error", "opened")
    assert "10,000 of 10,000 entities failed" in post["subject"]
    assert post["causes"] == [{"text": "ValueError", "count": 10_000, "keys": post["causes"][0]["keys"]}]
    assert len(post["causes"][0]["keys"]) == 5
    assert {key.partition("-")[0] for key in post["causes"][0]["keys"]} == {"key"}
    assert shop.store.unreported.failures("shop") == []


@pytest.mark.rows("SC-07", "SC-24", "SC-25")
def test_one_bad_entity_is_one_warning_until_it_is_well(store: JobStore, recipient: Recipient) -> None:
    """A run with one failure in twelve is a warning; the same again is silent; a good run says so, once, and then nothing."""
    shop = Shop(store, recipient.url, keys=12)
    shop.errors = {"key-7": ValueError("no")}
    assert shop.run() == "partial"
    assert [(post["what"], post["level"], post["event"]) for post in recipient.posts] == [
        ("opened", "warning", "sync.run.partial")
    ]
    assert recipient.posts[0]["causes"] == [{"text": "ValueError", "count": 1, "keys": ["key-7"]}]
    assert shop.run() == "partial"
    assert len(recipient.posts) == 1
    shop.errors.clear()
    assert shop.run() == "success"
    assert recipient.whats == [("opened", "warning"), ("recovered", "warning")]
    recovered = recipient.posts[1]
    assert (recovered["event"], recovered["count"], recovered["by"]) == ("sync.run.recovered", 2, "run")
    assert recovered["seconds"] > 0
    shop.run()
    assert len(recipient.posts) == 2


@pytest.mark.rows("SC-25", "E-94")
def test_another_error_is_another_message(store: JobStore, recipient: Recipient) -> None:
    """In one window the same error is told once, another one at once, and so is a worse level; numbers make no other error."""
    shop = Shop(store, recipient.url, keys=30)
    shop.errors = {"key-1": TimeoutError("after 3 s")}
    shop.run()
    shop.errors = {"key-1": TimeoutError("after 17 s"), "key-2": KeyError("x")}
    shop.run()
    shop.errors = {"*": KeyError("x")}
    shop.run()
    assert recipient.whats == [("opened", "warning"), ("more", "warning"), ("more", "error")]
    assert "KeyError" in recipient.posts[1]["body"]
    assert "TimeoutError" not in recipient.posts[1]["body"]
    shop.run()
    assert len(recipient.posts) == 3


@pytest.mark.rows("SC-24")
def test_a_listing_that_fails_is_trouble_with_the_api(store: JobStore, recipient: Recipient) -> None:
    """Kind and event tell the two apart: here nothing was processed."""
    shop = Shop(store, recipient.url)
    shop.listing_error = RuntimeError("listed Payl0ad")
    assert shop.run() == "failed"
    (post,) = recipient.posts
    assert (post["kind"], post["event"], post["level"]) == ("api", "sync.run.failed", "error")
    assert "the listing failed" in post["subject"]
    assert "RuntimeError" in post["body"]
    shop.listing_error = None
    shop.run()
    assert recipient.whats == [("opened", "error"), ("recovered", "error")]


@pytest.mark.rows("SC-19", "SC-13")
def test_failed_jobs_of_a_worker_are_one_message(store: JobStore, recipient: Recipient) -> None:
    """A job type says itself that its jobs have failed; a worker gathers them; nothing of their payloads is told."""
    shop = Shop(store, recipient.url)
    with using(store, shop.registry):
        enqueue_many(shop.orders, [{"name": f"Payl0ad{number}", "number": number} for number in range(50)])
    work(store, shop.registry, until_empty=True)
    (post,) = recipient.settle()
    assert (post["sync"], post["kind"], post["level"], post["count"]) == ("shop.order", "processing", "error", 50)
    assert post["causes"][0]["text"] == "no room for …, order …"
    assert "shop.order: 50 jobs failed" in post["subject"]
    assert "syncs retry --type shop.order --state failure" in post["body"]
    assert "Payl0ad" not in str(post)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_was_counted_is_one_digest(open_store: Callable[..., JobStore], recipient: Recipient) -> None:
    """What follows in a window is told at its end in one message; a job type that is quiet for a window is let go silently."""
    clock = ManualClock()
    shop = Shop(open_store(clock=clock), recipient.url)

    def fail(count: int) -> None:
        with using(shop.store, shop.registry):
            enqueue_many(shop.orders, [{"name": "a", "number": number} for number in range(count)])
        work(shop.store, shop.registry, until_empty=True)

    fail(3)
    for _ in range(4):
        clock.forward(600)
        fail(5)
    assert recipient.whats == [("opened", "error")]
    clock.forward(1300)
    shop.look()
    shop.look()
    assert recipient.whats == [("opened", "error"), ("digest", "error")]
    assert "20 more" in recipient.posts[1]["subject"]
    clock.forward(3700)
    shop.look()
    assert len(recipient.posts) == 2
    assert shop.store.notice_views.notices() == []
    fail(1)
    assert recipient.whats[2:] == [("opened", "error")]


def test_a_run_that_died_is_told_by_the_next_one(store: JobStore, recipient: Recipient) -> None:
    """The failures of a process that was killed are rows; whoever looks next tells them, as no run's."""
    shop = Shop(store, recipient.url, keys=2)
    script = f"""
        import os, sys
        from tests.support.notice_bench import Shop
        from jobs import JobStore
        shop = Shop(JobStore.open(sys.argv[1]), {recipient.url!r}, keys=2)
        shop.errors = {{"key-0": ValueError("no")}}
        shop.store.listings.release = lambda *_: os._exit(9)
        shop.run()
    """
    url = store.db.url.render_as_string(hide_password=False)
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script), url], env=environment(), timeout=60, check=False)
    assert died.returncode == 9
    assert recipient.posts == []
    change(store, "UPDATE listing SET lease_until = NULL")
    shop.look()
    (post,) = recipient.posts
    assert (post["sync"], post["level"], post["count"]) == ("shop.rows", "warning", 1)


# -- pauses --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-24", "SC-25", "SC-20")
def test_a_pause_and_its_end_are_one_message_each(store: JobStore, recipient: Recipient) -> None:
    """However often it is said, by however many: one message at the beginning, one at the end, with how long and what waited."""
    shop = Shop(store, recipient.url)
    with using(store, shop.registry):
        enqueue_many(shop.orders, [{"name": "a", "number": 1}, {"name": "b", "number": 2}])
    shop.pause()
    (post,) = recipient.posts
    assert (post["event"], post["kind"], post["level"], post["what"]) == ("sync.client.paused", "api", "warning", "opened")
    for word in ("503", "shop.rows", "shop.order", "syncs resume shop", "one request tests shop", "Since", post["until"][:10]):
        assert word in post["body"], word
    shop.look()
    with Notifier(store, shop.registry) as notifier:
        standing = store.pauses.current("shop")
        assert standing is not None
        notifier.paused(shop.client, standing)
    assert len(recipient.posts) == 1
    shop.resume()
    assert recipient.whats == [("opened", "warning"), ("recovered", "warning")]
    recovered = recipient.posts[1]
    assert (recovered["event"], recovered["by"], recovered["waiting"]) == ("sync.client.resumed", "anna", 2)
    assert "resumed by anna" in recovered["subject"]
    assert "2 jobs waited" in recovered["body"]
    shop.look()
    assert len(recipient.posts) == 2


@pytest.mark.rows("SC-25")
def test_a_pause_that_goes_on_is_told_once(store: JobStore, recipient: Recipient) -> None:
    """A probe that fails pauses again, longer: the same trouble. Another cause is another message; one end ends it all."""
    shop = Shop(store, recipient.url)
    shop.pause(seconds=60)
    shop.pause(seconds=120, reason="GET https://shop.example/rows: 503")
    shop.pause(seconds=240, reason="GET https://shop.example/rows: 503")
    assert len(recipient.posts) == 1
    shop.pause(seconds=900, cause="enforced", reason="GET https://shop.example/rows: 401")
    assert recipient.whats == [("opened", "warning"), ("more", "error")]
    assert "401" in recipient.posts[1]["body"]
    shop.resume()
    assert recipient.whats[2:] == [("recovered", "error")]
    assert recipient.posts[2]["count"] == 4


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
    store: JobStore, recipient: Recipient, cause: str, seconds: float | None, level: str | None
) -> None:
    """By cause and length; an API's own ten minutes are no news, and neither is their end. The level stands in the subject."""
    shop = Shop(store, recipient.url)
    shop.pause(cause=cause, seconds=seconds)
    shop.resume()
    assert recipient.whats == ([] if level is None else [("opened", level), ("recovered", level)])
    assert all(post["subject"].startswith(f"[{level}] ") for post in recipient.posts)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_client_that_comes_and_goes_is_a_digest(open_store: Callable[..., JobStore], recipient: Recipient) -> None:
    """Five pauses in an hour are told with their ends; further ones in one message at the end of the hour."""
    clock = ManualClock()
    shop = Shop(open_store(clock=clock), recipient.url)
    for _ in range(8):
        shop.pause()
        clock.forward(120)
        shop.resume()
        clock.forward(120)
    assert recipient.whats == [("opened", "warning"), ("recovered", "warning")] * 5
    clock.forward(HOUR)
    shop.look()
    shop.look()
    assert recipient.whats[10:] == [("digest", "warning")]
    assert "open now" in recipient.posts[10]["subject"]
    shop.pause()
    assert recipient.whats[11:] == [("opened", "warning")]


@pytest.mark.rows("E-93")
def test_a_pause_that_nobody_told_is_found(store: JobStore, recipient: Recipient) -> None:
    """The process that paused, or resumed, died before it could say so: the next look tells it from the table."""
    shop = Shop(store, recipient.url)
    store.pauses.open("shop", None, cause="enforced", reason="GET https://shop.example/: 401", set_by="w1")
    shop.look()
    assert recipient.whats == [("opened", "error")]
    assert "until a person resumes it" in recipient.posts[0]["subject"]
    store.pauses.resume("shop", by="bert")
    store.pauses.open("shop", 60, cause="level", reason="GET https://shop.example/: 503", set_by="w2")
    time.sleep(1.1)
    store.pauses.resume("shop", by="bert")
    shop.look()
    assert recipient.whats[1:] == [("recovered", "error"), ("opened", "warning"), ("recovered", "warning")]


# -- who is told ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-23")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_recipients_are_the_client_s_or_everybody_s(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client names counts in place of what the settings name, level by level; an empty list is nobody."""
    with receiving() as own, receiving() as all_:
        for level in ("NOTICE", "WARNING", "ERROR"):
            monkeypatch.setenv(f"SYNCS_NOTIFY_{level}", all_.url)
        shop = Shop(store, notify=Notify(error=[own.url], notice=[]))
        shop.pause(cause="enforced")
        shop.resume()
        assert (own.whats, all_.whats) == ([("opened", "error"), ("recovered", "error")], [])
        shop.pause()
        shop.resume()
        assert (len(own.posts), all_.whats) == (2, [("opened", "warning"), ("recovered", "warning")])
        shop.pause(cause="person")
        shop.resume()
        assert (len(own.posts), len(all_.posts)) == (2, 2)
        assert [view.deliveries for view in store.notice_views.messages(limit=2)] == [[], []]


def test_nobody_to_tell_is_no_trouble(store: JobStore) -> None:
    """Without any recipient runs and pauses are what they are, and the notices can be looked at."""
    shop = Shop(store, notify=Notify())
    shop.errors = {"*": ValueError("no")}
    assert shop.run() == "failed"
    shop.pause()
    assert [(one.sync, one.level) for one in store.notice_views.notices()] == [("", "warning"), ("shop.rows", "error")]
    assert query(store, "SELECT * FROM delivery") == []


def test_an_unknown_recipient_is_a_warning_once(store: JobStore, recipient: Recipient, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be used is named without its secrets, and keeps nobody else from being told."""
    shop = Shop(store, recipient.url, "carrier-pigeon://s3cret@coop")
    with caplog.at_level(logging.WARNING):
        shop.pause()
        shop.resume()
    assert recipient.whats == [("opened", "warning"), ("recovered", "warning")]
    named = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(named) == 1
    assert named[0].startswith("shop: a recipient for warning cannot be used")
    assert "s3cret" not in caplog.text


# -- sending -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-98", "SC-26")
def test_a_broken_channel_fails_nothing_else(store: JobStore, recipient: Recipient, caplog: pytest.LogCaptureFixture) -> None:
    """One of two channels refuses: the other has the message, the run is what it is, the message waits for the broken one."""
    with receiving() as broken:
        broken.status = 500
        shop = Shop(store, broken.url, recipient.url)
        shop.errors = {"key-1": ValueError("no")}
        with caplog.at_level(logging.WARNING):
            assert shop.run() == "failed"
        assert recipient.whats == [("opened", "error")]
        assert [(row["state"], row["attempts"]) for row in query(store, "SELECT * FROM delivery ORDER BY id")] == [
            ("waiting", 1), ("sent", 1),
        ]  # fmt: skip
        assert "status 500" in caplog.text
        assert TOKEN not in caplog.text
        shop.errors.clear()
        assert shop.run() == "success"
        # The end of it does not overtake the beginning.
        assert broken.asked == 1
        broken.status = 200
        due(store)
        shop.deliver()
        shop.deliver()
        assert broken.whats == recipient.whats == [("opened", "error"), ("recovered", "error")]


@pytest.mark.rows("E-98")
def test_a_channel_that_is_gone_is_not_asked_again_and_again(store: JobStore, recipient: Recipient) -> None:
    """In one round it is asked once, however many messages wait for it; the others get theirs."""
    with receiving() as broken:
        broken.status = 503
        shop = Shop(store, broken.url, recipient.url)
        for number in range(6):
            store.pauses.open("shop", 60, cause="enforced", reason="r", set_by="w")
            Collector(store, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings())).collect(gather=0)
            store.pauses.resume("shop", by=f"p{number}")
            Collector(store, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings())).collect(gather=0)
        delivered = shop.deliver()
        assert broken.asked == 1
        assert len(recipient.posts) == delivered.sent == 10
        assert delivered.failed >= 1


@pytest.mark.rows("E-98")
def test_a_channel_that_was_down_gets_it_after_a_restart_once(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """The process that had it to tell is gone; another one sends it when the time has come, and then nobody does."""
    with receiving() as recipient:
        url = recipient.url
        recipient.status = 503
        Shop(store, url).pause()
        assert (recipient.asked, recipient.posts) == (1, [])
        recipient.status = 200
        later = Shop(open_store(), url)
        later.deliver()
        assert recipient.posts == []
        due(store)
        for _ in range(3):
            work(later.store, later.registry, until_empty=True)
        assert [post["what"] for post in recipient.settle()] == ["opened"]


_DELIVERER = """
    import sys, time
    from tests.support.notice_bench import Shop
    from jobs import JobStore
    shop = Shop(JobStore.open(sys.argv[1]), {url!r})
    print("ready", flush=True)
    sys.stdin.readline()
    print(shop.deliver().sent, flush=True)
"""


def deliverer(store: JobStore, url: str) -> "subprocess.Popen[str]":
    """Start a process that sends what is due when it is told to."""
    script = textwrap.dedent(_DELIVERER.format(url=url))
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


@pytest.mark.slow
@pytest.mark.rows("E-98")
def test_two_processes_send_nothing_twice(store: JobStore, recipient: Recipient) -> None:
    """Two processes at once, twenty messages: each goes out once."""
    shop = Shop(store, recipient.url)
    collector = Collector(store, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings(notify_window=0.001)))
    for number in range(10):
        store.pauses.open("shop", 60, cause="level", reason="r", set_by="w")
        collector.collect(gather=0)
        store.pauses.resume("shop", by=f"p{number}")
        collector.collect(gather=0)
    processes = [deliverer(store, recipient.url) for _ in range(2)]
    for process in processes:
        go(process)
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == len(recipient.posts) == 20
    assert len({post["id"] for post in recipient.posts}) == 20


def test_a_crash_between_sending_and_noting_is_one_repetition(store: JobStore, recipient: Recipient) -> None:
    """A process is killed when the channel has the message and before it could note that: nobody sends it before its lease has
    ended, and then it goes out once more, under the same id.
    """
    shop = Shop(store, recipient.url)
    store.pauses.open("shop", 60, cause="level", reason="r", set_by="w")
    Collector(store, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings())).collect(gather=0)
    recipient.goes_on.clear()
    process = deliverer(store, recipient.url)
    go(process)
    recipient.wait(1)
    process.kill()
    process.communicate()
    recipient.goes_on.set()
    for _ in range(2):
        shop.deliver()
    assert len(recipient.posts) == 1
    change(store, "UPDATE delivery SET lease_until = '2000-01-01 00:00:00.000000+00'")
    for _ in range(3):
        shop.deliver()
    assert len(recipient.posts) == 2
    assert recipient.posts[0]["id"] == recipient.posts[1]["id"]


def test_a_message_waits_for_a_process_that_knows_its_recipient(store: JobStore, recipient: Recipient) -> None:
    """A process whose declaration names other people sends nobody else's message; it waits for one that does."""
    shop = Shop(store, recipient.url)
    store.pauses.open("shop", 60, cause="level", reason="r", set_by="w")
    Collector(store, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings())).collect(gather=0)
    with receiving() as other:
        Shop(store, other.url).deliver()
        assert other.posts == []
    (view,) = store.notice_views.messages(waiting=True)
    assert "nothing here declares" in view.deliveries[0]["error"]
    due(store)
    shop.deliver()
    assert recipient.whats == [("opened", "warning")]


# -- a carrier -----------------------------------------------------------------------------------------------------------------


class FakeCarrier:
    """A carrier that can be silent, refuse, or confirm what it delivers to a recipient."""

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
    store: JobStore, recipient: Recipient, monkeypatch: pytest.MonkeyPatch, taken: bool, says: bool | None, posts: int
) -> None:
    """What it confirms is sent; what it refuses, fails or says nothing of goes out directly, once, in the same round."""
    monkeypatch.setattr("flows.notices.delivery.CONFIRM_WITHIN", 0.3)
    shop, fake = Shop(store, recipient.url), FakeCarrier(taken, says)
    end = use_carrier(lambda: fake)
    try:
        shop.pause()
    finally:
        end()
    assert len(fake.carried) == 1
    assert len(recipient.posts) == posts
    assert [one["via"] for one in store.notice_views.messages()[0].deliveries] == ["direct" if posts else "prefect"]
    shop.resume()
    assert len(fake.carried) == 1


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_a_carrier_had_is_asked_for_after_a_crash(store: JobStore, recipient: Recipient) -> None:
    """A process died after it had handed a message over: the next one asks what became of it, and sends nothing twice."""
    shop, fake = Shop(store, recipient.url), FakeCarrier()
    store.pauses.open("shop", 60, cause="level", reason="r", set_by="w")
    Collector(store, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings())).collect(gather=0)
    assert store.outbox.claim(["shop"]) is not None
    change(store, "UPDATE delivery SET lease_until = '2000-01-01 00:00:00.000000+00'")
    Deliverer(store, {"shop": shop.client}, fake, settings=Settings()).deliver()
    assert (fake.carried, recipient.posts) == ([], [])
    assert [one["state"] for one in store.notice_views.messages()[0].deliveries] == ["sent"]


# -- secrets -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-23")
def test_no_secret_and_no_payload_stands_in_a_notice(
    store: JobStore, recipient: Recipient, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the message, the rows, the log: neither what a job carries, nor what was fetched, nor a webhook's token."""
    caplog.set_level(logging.DEBUG, "syncs")
    shop = Shop(store, recipient.url, keys=3)
    shop.errors = {
        "key-0": ValueError("bad {'name': 'Payl0ad 0'}"),
        "key-1": KeyError("Payl0ad 1"),
        "key-2": RuntimeError("fetched Payl0ad-fetched"),
    }
    shop.run()
    with using(store, shop.registry):
        enqueue_many(shop.orders, [{"name": "Payl0ad", "number": 4711}, {"name": "Payl0ad again", "number": 4712}])
    work(store, shop.registry, until_empty=True)
    shop.listing_error = LookupError("Payl0ad listed")
    shop.run()
    rows = [query(store, f"SELECT * FROM {table}") for table in ("notice", "letter", "delivery")]
    said = [str(recipient.settle()), str(rows), "".join(line for line in caplog.text.splitlines() if "syncs.notices" in line)]
    assert len(recipient.posts) >= 3
    for text in said:
        for secret in ("Payl0ad", "4711", TOKEN):
            assert secret not in text, (secret, text)
    assert all(word in said[0] for word in ("ValueError", "KeyError", "RuntimeError", "key-0", "key-1"))


# -- subscribers ---------------------------------------------------------------------------------------------------------------


def test_subscribers_hear_of_pauses_and_runs(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """Each event once, in order, with what it is about; one that raises harms nobody; whoever has ended hears nothing more."""
    heard: list[ClientEvent] = []

    def fall(_: ClientEvent) -> None:
        raise RuntimeError("s3cret")

    ends = [subscribe(fall, PAUSED), subscribe(heard.append, *CLIENT_EVENTS)]
    shop = Shop(store, notify=Notify())
    try:
        shop.pause()
        shop.resume()
        shop.errors = {"*": ValueError("no")}
        shop.run()
        shop.errors.clear()
        shop.run()
    finally:
        for end in ends:
            end()
    shop.pause()
    assert [one.event for one in heard] == [PAUSED, RESUMED, FAILED, RECOVERED]
    paused, resumed, failed, _ = heard
    assert (paused.client, paused.payload["cause"], round(paused.payload["seconds"])) == (shop.client, "level", 60)
    assert (resumed.payload["by"], resumed.payload["cause"]) == ("anna", "level")
    assert resumed.payload["seconds"] > 0
    assert (failed.sync, failed.payload["failed"]) == ("shop.rows", 3)
    assert "fall" in caplog.text
    assert "s3cret" not in caplog.text
    with pytest.raises(Exception, match=r"no event is called 'sync\.client\.exploded'"):
        subscribe(heard.append, "sync.client.exploded")


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
def test_a_run_of_the_command_line_tells(project: Any, recipient: Recipient) -> None:
    """`syncs run` tells without a server; `syncs notices` shows it; `syncs check` names a recipient that cannot be used."""
    project.write("syncs/shop.py", SHOP.replace("{url}", recipient.url))
    ran = project.syncs("run", "shop.rows")
    assert ran.returncode == 1, ran.stderr
    (post,) = recipient.wait(1)
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
    assert "no client is called 'nobody'" in CliRunner().invoke(program, ["notices", "nobody"]).output
    checked = project.syncs("check")
    assert checked.returncode == 1
    assert "shop: notify.warning: smoke:" in checked.stdout


@pytest.mark.rows("E-98")
def test_maintain_sends_what_waits(project: Any) -> None:
    """What a channel did not take goes out with `syncs maintain`, by another process, when its time has come."""
    with receiving() as recipient:
        recipient.status = 503
        project.write("syncs/shop.py", SHOP.replace("{url}", recipient.url))
        assert project.syncs("run", "shop.rows").returncode == 1
        recipient.status = 200
        assert listed("maintain")["notices"] == 0
        store = JobStore.open(f"sqlite:///{project.folder}/data/syncs.db")
        try:
            due(store)
        finally:
            store.close()
        assert json.loads(project.syncs("maintain", "--json").stdout)["notices"] == 1
        assert listed("maintain")["notices"] == 0
        assert recipient.whats == [("opened", "error")]


# -- late syncs ----------------------------------------------------------------------------------------------------------------


def test_a_sync_that_is_late_is_one_message_until_it_succeeds(store: JobStore, recipient: Recipient) -> None:
    """It counts from the last success, however often anybody looks; a success ends it, a failed run does not."""
    shop = Shop(store, recipient.url)
    shop.sync = shop.registry.syncs["shop.rows"] = replace(shop.sync, late_after="26h")
    shop.look()
    assert recipient.posts == []  # Never run: the time counts from now.
    change(store, "UPDATE maintenance SET next_at = '2000-01-01 00:00:00.000000'")
    shop.look()
    shop.look()
    (post,) = recipient.settle()
    assert (post["what"], post["level"], post["sync"]) == ("opened", "warning", "shop.rows")
    assert "shop.rows is late" in post["subject"]
    assert post["causes"][0]["text"] == "no run has succeeded yet; it is late after 1 day 2 hours"
    shop.errors = {"*": ValueError("no")}
    shop.run()
    assert recipient.whats == [("opened", "warning"), ("more", "error")]
    shop.errors = {}
    shop.run()
    assert recipient.whats[2:] == [("recovered", "error")]
    shop.look()
    change(store, "UPDATE run SET ended_at = '2000-01-01 00:00:00.000000'")
    work(store, shop.registry, until_empty=True)
    assert (
        recipient.settle()[3]["causes"][0]["text"]
        == "no run has succeeded since 2000-01-01 00:00 UTC; it is late after 1 day 2 hours"
    )
    # A worker that continues a listing ends it, too.
    run = store.runs.begin("shop.rows", "shop", "shop", worker="w", started_by="work")
    store.runs.end(run, {"state": "success", "stopped": "end", "message": "", **dict.fromkeys(COUNTS, 0)})
    shop.look()
    assert recipient.whats[4:] == [("recovered", "warning")]
