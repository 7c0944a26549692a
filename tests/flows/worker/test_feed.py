"""What a run waits for once its listing has ended and it has no job in hand."""

import pytest

from flows import Client
from flows.pauses.client_health import Health
from flows.progress import Progress, SilentTracker
from flows.worker import feed as feeding
from flows.worker.feed import Feed
from jobs import JobStore
from tests.support.store_helpers import LANE, done, enqueue, finish, run_out, take_one


def test_jobs_in_the_hands_of_others_are_awaited_during_a_pause(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause sends them back, so the run goes on with them after it; without a pause they are awaited for a moment only."""
    monkeypatch.setattr(feeding, "OTHERS", 600.0)
    client = Client(LANE.client, connect=lambda _: None)
    health = Health(store, {LANE.type: client}, worker="here:1:1:1", retry_database=lambda work: work())
    feed = Feed(client.id, Progress(), SilentTracker(), store.views.now, wait=900)
    enqueue(store, ["a"])
    job = take_one(store)
    assert feed.awaits(store, health, [LANE])
    monkeypatch.setattr(feeding, "OTHERS", 0.0)
    assert not feed.awaits(store, health, [LANE])
    store.pauses.open(client.id, 60, cause="asked", reason="429", set_by="there")
    assert feed.awaits(store, health, [LANE])
    assert feed.progress.waiting.startswith("paused until ")
    run_out(store)
    assert feed.awaits(store, health, [LANE])
    finish(store, done(job))
    assert not feed.awaits(store, health, [LANE])


def test_a_pause_of_a_person_is_not_waited_for(store: JobStore) -> None:
    """It has no end."""
    client = Client(LANE.client, connect=lambda _: None)
    health = Health(store, {LANE.type: client}, worker="here:1:1:1", retry_database=lambda work: work())
    feed = Feed(client.id, Progress(), SilentTracker(), store.views.now, wait=900)
    enqueue(store, ["a"])
    take_one(store)
    store.pauses.open(client.id, None, cause="person", reason="", set_by="anna")
    assert not feed.awaits(store, health, [LANE])
