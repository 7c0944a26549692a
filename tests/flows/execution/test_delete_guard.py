"""How many records a pass may lose to 404 and 410, over all workers."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from clients import Entity, Page
from flows import Client, Sync
from flows.execution.delete_guard import DeleteGuard
from flows.sync import run as engine
from jobs import JobStore
from tests.support.fake_things_api import change


def pages(conn: Any, since: Any) -> Iterator[Page]:
    """List twenty things."""
    yield Page([Entity(f"k{number}", None, {"n": number}) for number in range(20)])


SYNC = Sync(
    "guarded.things",
    Client("guarded", connect=lambda settings: nullcontext(object())),
    listing=pages,
)


def lose(store: JobStore, *keys: str) -> None:
    """Mark as gone, as another worker does."""
    for key in keys:
        change(store, "UPDATE record SET deleted_at = :now WHERE key = :key", now=_now(store), key=key)


def _now(store: JobStore) -> object:
    now = store.views.now()
    return now if store.db.dialect == "postgresql" else now.replace(tzinfo=None).isoformat(" ", "microseconds")


def allowed(guard: DeleteGuard) -> int:
    """Count how many it lets go, at most 30."""
    return sum(guard.refusal() is None for _ in range(30))


def test_workers_share_what_a_pass_may_lose(store: JobStore) -> None:
    """What others have lost counts, at once or a few seconds later; with a new pass it may lose as much again."""
    engine.run(SYNC, store)
    store.listings.claim(SYNC.id, "guarded", worker="w", lease=60)
    assert allowed(DeleteGuard(SYNC, store)) == 4
    lose(store, "k1")
    one = DeleteGuard(SYNC, store)
    assert one.refusal() is None
    lose(store, "k2", "k3")
    assert allowed(DeleteGuard(SYNC, store)) == 1
    one._look_at = 0.0  # A few seconds later.
    assert allowed(one) == 1
    change(store, "UPDATE listing SET worker = NULL")
    store.listings.claim(SYNC.id, "guarded", worker="w", lease=60, new_pass=True)
    one._look_at = 0.0
    assert allowed(one) == 3


def test_a_sync_that_was_never_listed(store: JobStore) -> None:
    """One may go."""
    assert allowed(DeleteGuard(SYNC, store)) == 1
    assert allowed(DeleteGuard(SYNC, store, allow=True)) == 30
