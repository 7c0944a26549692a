"""Notices under hostile conditions: flapping, many letters at an end, what is declared no more, odd words."""

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

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))
sys.path.insert(0, str(Path(__file__).parent))

from kit import HandClock, change, environment, query
from mailroom import Reader, reading
from test_notices import HOUR, House

from clients import Entity, Page
from flows import Client, Notify, engine
from flows.desk import Desk
from flows.errors import DeclarationError
from flows.files import Broken
from flows.recipients import Recipients
from flows.registry import Registry
from flows.settings import Settings
from flows.told import Told
from jobs import JobStore


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


def test_who_was_told_of_the_beginning_is_told_of_the_end(store: JobStore) -> None:
    """A warning that becomes an error goes to other people; its end goes to both."""
    with reading() as chat, reading() as night:
        house = House(store, notify=Notify(warning=[chat.url], error=[night.url]))
        house.pause()
        house.pause(seconds=None, cause="enforced", reason="GET https://shop.example/rows: 401")
        house.resume()
        assert night.whats == [("more", "error"), ("recovered", "error")]
        assert [what for what, _ in chat.whats] == ["opened", "recovered"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_worse_pause_of_a_client_that_comes_and_goes_is_told_at_once(
    open_store: Callable[..., JobStore], reader: Reader
) -> None:
    """The sixth pause in an hour waits for a person: that is no matter for a digest."""
    clock = HandClock()
    house = House(open_store(clock=clock), reader.url)
    for _ in range(6):
        house.pause()
        clock.forward(60)
        house.resume()
        clock.forward(60)
    assert len(reader.posts) == 10
    house.pause(seconds=None, cause="enforced", reason="GET https://shop.example/rows: 401")
    assert reader.whats[10:] == [("opened", "error")]
    assert "401" in reader.posts[10]["body"]
    clock.forward(60)
    house.resume()
    assert reader.whats[11:] == [("recovered", "error")]
    for _ in range(3):
        house.pause(seconds=None, cause="enforced", reason="GET https://shop.example/rows: 401")
        clock.forward(60)
        house.resume()
        clock.forward(60)
    assert len(reader.posts) == 12


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_digest_is_told_although_the_next_trouble_comes_first(open_store: Callable[..., JobStore], reader: Reader) -> None:
    """Nobody looked between the end of the hour and the next pause: what was counted is told before that."""
    clock = HandClock()
    house = House(open_store(clock=clock), reader.url)
    for _ in range(8):
        house.pause()
        clock.forward(120)
        house.resume()
        clock.forward(120)
    assert len(reader.posts) == 10
    clock.forward(HOUR)
    house.pause()
    assert reader.whats[10:] == [("digest", "warning"), ("opened", "warning")]
    assert "open now" in reader.posts[10]["subject"], reader.posts[10]["subject"]
    house.resume()
    assert reader.whats[12:] == [("recovered", "warning")]
    assert house.store.notices.stirred(["shop"], window=HOUR) == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_sync_that_comes_and_goes_is_a_digest(open_store: Callable[..., JobStore], reader: Reader) -> None:
    """A sync that fails each other minute is told five times in an hour, and then in one message."""
    clock = HandClock()
    house = House(open_store(clock=clock), reader.url)
    for _ in range(12):
        house.listing_error = RuntimeError("x")
        house.run()
        clock.forward(60)
        house.listing_error = None
        house.run()
        clock.forward(60)
    assert reader.whats == [("opened", "error"), ("recovered", "error")] * 5
    clock.forward(HOUR)
    house.look()
    house.look()
    assert reader.whats[10:] == [("digest", "error")]
    assert "well" in reader.posts[10]["subject"], reader.posts[10]["subject"]


def test_all_letters_go_out_at_the_end_of_a_process(store: JobStore, reader: Reader) -> None:
    """A worker that ends with three messages to say says three, if they are taken at once."""
    clients = {
        name: Client(name, connect=lambda _: nullcontext(), notify=Notify(warning=[reader.url])) for name in ("a", "b", "c")
    }
    registry = Registry(clients=clients)
    with Told(store, registry) as teller:
        for name in clients:
            store.pause(name, 60, cause="level", reason="r", set_by="w")
        teller.look()
    assert sorted(post["client"] for post in reader.posts) == ["a", "b", "c"]


def test_a_run_that_a_person_stops_is_no_trouble(store: JobStore, reader: Reader) -> None:
    """Ctrl-C, or a worker that is restarted: whoever did it knows."""
    house = House(store, reader.url, keys=300)
    stop = threading.Event()
    fetch = house._fetch

    def slow(connection: Any, entity: Any) -> Any:
        stop.set()
        time.sleep(0.05)
        return fetch(connection, entity)

    object.__setattr__(house.sync, "fetch", slow)
    result = engine.run(house.sync, store, stop=stop)
    assert result.state == "partial"
    assert reader.settle() == []


def test_odd_words(store: JobStore, reader: Reader) -> None:
    """A key with control characters, newlines and a header is one printable line."""
    house = House(store, reader.url, keys=1)
    house.errors = {"*": ValueError("x")}
    key = "a\r\nBcc: evil@example.org\x1b[31m\x07 \u202egnp"
    house._list = lambda connection, since: iter([Page([Entity(key)])])  # type: ignore[method-assign]
    object.__setattr__(house.sync, "listing", house._list)
    house.run()
    (post,) = reader.settle()
    assert all(letter.isprintable() or letter == "\n" for letter in post["body"])


def test_a_channel_that_is_back_gets_all_that_waits_at_once(store: JobStore) -> None:
    """It was down for hours, and each letter waits for its own hour: the first that is taken brings the others."""
    with reading() as reader:
        reader.status = 503
        house = House(store, reader.url)
        for _ in range(3):
            house.pause()
            house.resume()
        assert reader.posts == []
        assert len(query(store, "SELECT * FROM delivery WHERE state = 'waiting'")) == 6
        change(store, "UPDATE delivery SET next_at = '2030-01-01 00:00:00.000000+00', attempts = 9")
        reader.status = 200
        house.pause()
        assert reader.settle()[0]["what"] == "opened"
        house.deliver()
        assert sorted(what for what, _ in reader.whats) == ["opened"] * 4 + ["recovered"] * 3


def test_what_nobody_sends_does_not_wait_for_ever(store: JobStore) -> None:
    """The client is declared no more: its letters are given up after two weeks, and go with its trouble after ninety days."""
    house = House(store, "https://127.0.0.1:1/x")
    house.errors = {"*": ValueError("x")}
    house.run()
    assert len(store.letters.views(waiting=True)) == 1
    store.letters.prune()
    assert len(store.letters.views(waiting=True)) == 1
    old = "'2026-01-01 00:00:00.000000+00'"
    change(store, f"UPDATE delivery SET created_at = {old}")
    store.letters.prune()
    assert store.letters.views(waiting=True) == []
    assert [one["state"] for one in store.letters.views()[0].deliveries] == ["failed"]
    assert len(store.letters.notices()) == 1
    change(store, f"UPDATE letter SET created_at = {old}")
    change(store, f"UPDATE notice SET updated_at = {old}")
    store.letters.prune()
    assert (store.letters.views(), store.letters.notices()) == ([], [])


@pytest.mark.parametrize("wrong", ["mailto:a@b.c", [5], [None], {"mailto:a@b.c"}, b"x"])
def test_recipients_are_a_list_of_texts(wrong: Any) -> None:
    """A text alone would be read letter by letter, and anything else would break whoever writes a letter."""
    with pytest.raises(DeclarationError, match=r"Notify\(error=…\) must be a list of recipients"):
        Notify(error=wrong)
    assert Notify(error=("mailto:a@b.c",)).error == ("mailto:a@b.c",)


@pytest.mark.parametrize("is_broken", [True, False])
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_sync_that_is_declared_no_more_is_let_go(open_store: Callable[..., JobStore], reader: Reader, is_broken: bool) -> None:
    """Its trouble ends silently after a window; not while a file cannot be read, for it may be declared there."""
    clock = HandClock()
    house = House(open_store(clock=clock), reader.url)
    house.listing_error = RuntimeError("x")
    house.run()
    kept = house.registry
    house.registry = Registry(clients=kept.clients, broken=(Broken("shop.py", "SyntaxError"),) if is_broken else ())
    clock.forward(2 * HOUR)
    house.look()
    assert len(reader.posts) == 1
    assert len(house.store.letters.notices()) == is_broken
    house.registry, house.listing_error = kept, None
    house.run()
    assert reader.whats == [("opened", "error"), ("recovered", "error")][: 1 + is_broken]


def test_a_run_that_died_after_its_listing_had_failed_is_told(store: JobStore, reader: Reader) -> None:
    """What it had found is stored at once: whoever looks next tells it, in the same words; the next good run ends it."""
    house = House(store, reader.url)
    script = f"""
        import os, sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "jobs")!r}]
        from test_notices import House
        from jobs import JobStore
        house = House(JobStore.open(sys.argv[1]), {reader.url!r})
        house.listing_error = RuntimeError("Payl0ad")
        house.store.release_listing = lambda *_: os._exit(9)
        house.run()
    """
    url = store.db.url.render_as_string(hide_password=False)
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script), url], env=environment(), timeout=60, check=False)
    assert died.returncode == 9
    house.look()
    assert reader.posts == [], "it may still be at it, for all that anybody knows"
    change(store, "UPDATE listing SET lease_until = NULL")
    house.look()
    house.look()
    (post,) = reader.posts
    assert (post["sync"], post["kind"], post["level"], post["count"]) == ("shop.rows", "api", "error", 1)
    assert post["subject"] == "[error] shop.rows: the listing failed"
    assert post["causes"][0]["text"] == "listing: RuntimeError"
    house.listing_error = RuntimeError("x")
    house.run()
    assert len(reader.posts) == 1, "the same cause again"
    house.listing_error = None
    house.run()
    assert reader.whats == [("opened", "error"), ("recovered", "error")]
    assert store.notices.news("shop") == []


def test_many_that_look_at_once_say_it_once(store: JobStore, open_store: Callable[..., JobStore], reader: Reader) -> None:
    """Four that pause, resume and look at the same time: each pause that began is told once, and so is each end."""
    house = House(store, reader.url)
    stores = [open_store() for _ in range(4)]
    begun: list[int] = []

    def trouble(mine: JobStore, number: int) -> None:
        desk = Desk(mine, house.registry, {"shop": house.client}, recipients=Recipients({}, Settings(notify_window=0.001)))
        for round_ in range(8):
            pausing = mine.pause("shop", 60, cause="level", reason="GET https://shop.example/: 503", set_by=f"w{number}")
            assert pausing is not None
            begun.append(pausing.id)
            desk.look(gather=0)
            time.sleep(0.01)
            mine.resume("shop", by=f"p{number}.{round_}")
            desk.look(gather=0)

    threads = [threading.Thread(target=trouble, args=(one, number)) for number, one in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    house.look(window=0.001)
    notices = query(store, "SELECT id, closed_at FROM notice ORDER BY id")
    letters = query(store, "SELECT notice, what FROM letter ORDER BY id")
    assert notices
    assert all(one["closed_at"] is not None for one in notices)
    for one in notices:
        whats = [letter["what"] for letter in letters if letter["notice"] == one["id"]]
        assert (whats.count("opened"), whats.count("recovered")) == (1, 1), whats
    assert len(reader.settle()) == len(letters)
    assert sorted(post["id"] for post in reader.posts) == sorted({post["id"] for post in reader.posts})
