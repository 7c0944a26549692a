"""Notices under hostile conditions: flapping, many messages at an end, what is no longer declared, odd words."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from clients import Entity, Page
from flows import Client, Notify
from flows.errors import DeclarationError
from flows.notices.collector import Collector
from flows.notices.notifier import Notifier
from flows.notices.recipients import Recipients
from flows.project.discovery import Broken
from flows.project.registry import Registry
from flows.project.settings import Settings
from flows.sync import run as engine
from jobs import JobStore
from tests.support.fake_recipients import Recipient, receiving
from tests.support.notice_bench import HOUR, Shop
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


def test_who_was_told_of_the_beginning_is_told_of_the_end(store: JobStore) -> None:
    """A warning that becomes an error goes to other people; its end goes to both."""
    with receiving() as chat, receiving() as night:
        shop = Shop(store, notify=Notify(warning=[chat.url], error=[night.url]))
        shop.pause()
        shop.pause(seconds=None, cause="enforced", reason="GET https://shop.example/rows: 401")
        shop.resume()
        assert night.whats == [("more", "error"), ("recovered", "error")]
        assert [what for what, _ in chat.whats] == ["opened", "recovered"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_worse_pause_of_a_client_that_comes_and_goes_is_told_at_once(
    open_store: Callable[..., JobStore], recipient: Recipient
) -> None:
    """The sixth pause in an hour waits for a person: that is no matter for a digest."""
    clock = ManualClock()
    shop = Shop(open_store(clock=clock), recipient.url)
    for _ in range(6):
        shop.pause()
        clock.forward(60)
        shop.resume()
        clock.forward(60)
    assert len(recipient.posts) == 10
    shop.pause(seconds=None, cause="enforced", reason="GET https://shop.example/rows: 401")
    assert recipient.whats[10:] == [("opened", "error")]
    assert "401" in recipient.posts[10]["body"]
    clock.forward(60)
    shop.resume()
    assert recipient.whats[11:] == [("recovered", "error")]
    for _ in range(3):
        shop.pause(seconds=None, cause="enforced", reason="GET https://shop.example/rows: 401")
        clock.forward(60)
        shop.resume()
        clock.forward(60)
    assert len(recipient.posts) == 12


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_digest_is_told_although_the_next_trouble_comes_first(
    open_store: Callable[..., JobStore], recipient: Recipient
) -> None:
    """Nobody looked between the end of the hour and the next pause: what was counted is told before that."""
    clock = ManualClock()
    shop = Shop(open_store(clock=clock), recipient.url)
    for _ in range(8):
        shop.pause()
        clock.forward(120)
        shop.resume()
        clock.forward(120)
    assert len(recipient.posts) == 10
    clock.forward(HOUR)
    shop.pause()
    assert recipient.whats[10:] == [("digest", "warning"), ("opened", "warning")]
    assert "open now" in recipient.posts[10]["subject"], recipient.posts[10]["subject"]
    shop.resume()
    assert recipient.whats[12:] == [("recovered", "warning")]
    assert shop.store.unreported.clients(["shop"], window=HOUR) == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_sync_that_comes_and_goes_is_a_digest(open_store: Callable[..., JobStore], recipient: Recipient) -> None:
    """A sync that fails each other minute is told five times in an hour, and then in one message."""
    clock = ManualClock()
    shop = Shop(open_store(clock=clock), recipient.url)
    for _ in range(12):
        shop.listing_error = RuntimeError("x")
        shop.run()
        clock.forward(60)
        shop.listing_error = None
        shop.run()
        clock.forward(60)
    assert recipient.whats == [("opened", "error"), ("recovered", "error")] * 5
    clock.forward(HOUR)
    shop.look()
    shop.look()
    assert recipient.whats[10:] == [("digest", "error")]
    assert "well" in recipient.posts[10]["subject"], recipient.posts[10]["subject"]


def test_all_messages_go_out_at_the_end_of_a_process(store: JobStore, recipient: Recipient) -> None:
    """A worker that ends with three messages to say says three, if they are taken at once."""
    clients = {
        name: Client(name, connect=lambda _: nullcontext(), notify=Notify(warning=[recipient.url])) for name in ("a", "b", "c")
    }
    registry = Registry(clients=clients)
    with Notifier(store, registry) as notifier:
        for name in clients:
            store.pauses.open(name, 60, cause="level", reason="r", set_by="w")
        notifier.catch_up()
    assert sorted(post["client"] for post in recipient.posts) == ["a", "b", "c"]


def test_a_run_that_a_person_stops_is_no_trouble(store: JobStore, recipient: Recipient) -> None:
    """Ctrl-C, or a worker that is restarted: whoever did it knows."""
    shop = Shop(store, recipient.url, keys=300)
    stop = threading.Event()
    fetch = shop._fetch

    def slow(connection: Any, entity: Any) -> Any:
        stop.set()
        time.sleep(0.05)
        return fetch(connection, entity)

    object.__setattr__(shop.sync, "fetch", slow)
    result = engine.run(shop.sync, store, stop=stop)
    assert result.state == "partial"
    assert recipient.settle() == []


def test_odd_words(store: JobStore, recipient: Recipient) -> None:
    """A key with control characters, newlines and a header is one printable line."""
    shop = Shop(store, recipient.url, keys=1)
    shop.errors = {"*": ValueError("x")}
    key = "a\r\nBcc: evil@example.org\x1b[31m\x07 \u202egnp"
    shop._list = lambda connection, since: iter([Page([Entity(key)])])  # type: ignore[method-assign]
    object.__setattr__(shop.sync, "listing", shop._list)
    shop.run()
    (post,) = recipient.settle()
    assert all(letter.isprintable() or letter == "\n" for letter in post["body"])


def test_a_channel_that_is_back_gets_all_that_waits_at_once(store: JobStore) -> None:
    """It was down for hours, and each message waits for its own hour: the first that is taken brings the others."""
    with receiving() as recipient:
        recipient.status = 503
        shop = Shop(store, recipient.url)
        for _ in range(3):
            shop.pause()
            shop.resume()
        assert recipient.posts == []
        assert len(query(store, "SELECT * FROM delivery WHERE state = 'waiting'")) == 6
        change(store, "UPDATE delivery SET next_at = '2030-01-01 00:00:00.000000+00', attempts = 9")
        recipient.status = 200
        shop.pause()
        assert recipient.settle()[0]["what"] == "opened"
        shop.deliver()
        assert sorted(what for what, _ in recipient.whats) == ["opened"] * 4 + ["recovered"] * 3


def test_what_nobody_sends_does_not_wait_for_ever(store: JobStore) -> None:
    """The client is declared no more: its messages are given up after two weeks, and go with its trouble after ninety days."""
    shop = Shop(store, "https://127.0.0.1:1/x")
    shop.errors = {"*": ValueError("x")}
    shop.run()
    assert len(store.notice_views.messages(waiting=True)) == 1
    store.outbox.prune()
    assert len(store.notice_views.messages(waiting=True)) == 1
    old = "'2026-01-01 00:00:00.000000+00'"
    change(store, f"UPDATE delivery SET created_at = {old}")
    store.outbox.prune()
    assert store.notice_views.messages(waiting=True) == []
    assert [one["state"] for one in store.notice_views.messages()[0].deliveries] == ["failed"]
    assert len(store.notice_views.notices()) == 1
    change(store, f"UPDATE letter SET created_at = {old}")
    change(store, f"UPDATE notice SET updated_at = {old}")
    store.outbox.prune()
    assert (store.notice_views.messages(), store.notice_views.notices()) == ([], [])


@pytest.mark.parametrize("wrong", ["mailto:a@b.c", [5], [None], {"mailto:a@b.c"}, b"x"])
def test_recipients_are_a_list_of_texts(wrong: Any) -> None:
    """A text alone would be read letter by letter, and anything else would break whoever writes a letter."""
    with pytest.raises(DeclarationError, match=r"Notify\(error=…\) must be a list of recipients"):
        Notify(error=wrong)
    assert Notify(error=("mailto:a@b.c",)).error == ("mailto:a@b.c",)


@pytest.mark.parametrize("is_broken", [True, False])
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_sync_that_is_declared_no_more_is_let_go(
    open_store: Callable[..., JobStore], recipient: Recipient, is_broken: bool
) -> None:
    """Its trouble ends silently after a window; not while a file cannot be read, for it may be declared there."""
    clock = ManualClock()
    shop = Shop(open_store(clock=clock), recipient.url)
    shop.listing_error = RuntimeError("x")
    shop.run()
    kept = shop.registry
    shop.registry = Registry(clients=kept.clients, broken=(Broken("shop.py", "SyntaxError"),) if is_broken else ())
    clock.forward(2 * HOUR)
    shop.look()
    assert len(recipient.posts) == 1
    assert len(shop.store.notice_views.notices()) == is_broken
    shop.registry, shop.listing_error = kept, None
    shop.run()
    assert recipient.whats == [("opened", "error"), ("recovered", "error")][: 1 + is_broken]


def test_a_run_that_died_after_its_listing_had_failed_is_told(store: JobStore, recipient: Recipient) -> None:
    """What it had found is stored at once: whoever looks next tells it, in the same words; the next good run ends it."""
    shop = Shop(store, recipient.url)
    script = f"""
        import os, sys
        from tests.support.notice_bench import Shop
        from jobs import JobStore
        shop = Shop(JobStore.open(sys.argv[1]), {recipient.url!r})
        shop.listing_error = RuntimeError("Payl0ad")
        shop.store.listings.release = lambda *_: os._exit(9)
        shop.run()
    """
    url = store.db.url.render_as_string(hide_password=False)
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script), url], env=environment(), timeout=60, check=False)
    assert died.returncode == 9
    shop.look()
    assert recipient.posts == [], "it may still be at it, for all that anybody knows"
    change(store, "UPDATE listing SET lease_until = NULL")
    shop.look()
    shop.look()
    (post,) = recipient.posts
    assert (post["sync"], post["kind"], post["level"], post["count"]) == ("shop.rows", "api", "error", 1)
    assert post["subject"] == "[error] shop.rows: the listing failed"
    assert post["causes"][0]["text"] == "listing: RuntimeError"
    shop.listing_error = RuntimeError("x")
    shop.run()
    assert len(recipient.posts) == 1, "the same cause again"
    shop.listing_error = None
    shop.run()
    assert recipient.whats == [("opened", "error"), ("recovered", "error")]
    assert store.unreported.failures("shop") == []


def test_many_that_look_at_once_say_it_once(store: JobStore, open_store: Callable[..., JobStore], recipient: Recipient) -> None:
    """Four that pause, resume and look at the same time: each pause that began is told once, and so is each end."""
    shop = Shop(store, recipient.url)
    stores = [open_store() for _ in range(4)]
    begun: list[int] = []

    def trouble(mine: JobStore, number: int) -> None:
        collector = Collector(
            mine, shop.registry, {"shop": shop.client}, recipients=Recipients({}, Settings(notify_window=0.001))
        )
        for round_ in range(8):
            pausing = mine.pauses.open("shop", 60, cause="level", reason="GET https://shop.example/: 503", set_by=f"w{number}")
            assert pausing is not None
            begun.append(pausing.id)
            collector.collect(gather=0)
            time.sleep(0.01)
            mine.pauses.resume("shop", by=f"p{number}.{round_}")
            collector.collect(gather=0)

    threads = [threading.Thread(target=trouble, args=(one, number)) for number, one in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shop.look(window=0.001)
    notices = query(store, "SELECT id, closed_at FROM notice ORDER BY id")
    letters = query(store, "SELECT notice, what FROM letter ORDER BY id")
    assert notices
    assert all(one["closed_at"] is not None for one in notices)
    for one in notices:
        whats = [letter["what"] for letter in letters if letter["notice"] == one["id"]]
        assert (whats.count("opened"), whats.count("recovered")) == (1, 1), whats
    assert len(recipient.settle()) == len(letters)
    assert sorted(post["id"] for post in recipient.posts) == sorted({post["id"] for post in recipient.posts})
