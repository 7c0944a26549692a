"""Declarations that cannot work are refused where they are made."""

from typing import Any

import pytest

from clients import Listing
from flows import Client, DeclarationError, Sync
from jobs import Retry


def client(**fields: Any) -> Client:
    """Make a client that is never connected."""
    return Client(**{"id": "shop", "connect": lambda _: None, **fields})


def sync(**fields: Any) -> Sync:
    """Make a sync that is never run."""
    return Sync(**{"id": "shop.things", "client": client(), "listing": Listing("things"), **fields})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\\b", "a:b", "a*", 'a"', "a'", "a\n", "x" * 201, None, 7])
def test_bad_ids(name: Any) -> None:
    """An id without a shape that files, URLs and shells take is refused, with its value in the text."""
    with pytest.raises(DeclarationError, match="id"):
        client(id=name)
    with pytest.raises(DeclarationError, match="id"):
        sync(id=name)
    if name is not None:
        with pytest.raises(DeclarationError, match="id"):
            client(queue=name)


@pytest.mark.parametrize("name", ["a", "shop.things", "shop-2_x", "ünïcode", "x" * 200])
def test_good_ids(name: str) -> None:
    """Dots, dashes and letters of any script are fine."""
    assert sync(id=name, client=client(id=name)).queue_id == name


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"client": "shop"}, "client must be a Client, got str"),
        ({"listing": None}, "listing must be callable, got NoneType"),
        ({"fetch": 1}, "fetch must be callable, got int"),
        ({"fetch": "things"}, "and it has no {key}"),
        ({"fetch": "things/{id}"}, "may have {key} and {parent}, and {id} is not known"),
        ({"fetch": "things/{key}/{}"}, "may have {key} and {parent}, and {} is not known"),
        ({"save": 1}, "save must be callable, got int"),
        ({"delete": []}, "delete must be callable, got list"),
        ({"batch": 0}, "batch and concurrency must be at least 1"),
        ({"concurrency": 0}, "batch and concurrency must be at least 1"),
        ({"entity_task_runs": -1}, "entity_task_runs at least 0"),
        ({"max_delete_share": 1.5}, "max_delete_share must be from 0 to 1, got 1.5"),
        ({"max_delete_share": -0.1}, "max_delete_share must be from 0 to 1"),
    ],
)
def test_bad_fields(fields: dict[str, Any], said: str) -> None:
    """A field that cannot work is refused in one line that names the sync, the field and the value."""
    with pytest.raises(DeclarationError, match=r"^sync 'shop.things': ") as raised:
        sync(**fields)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_connect_must_be_callable() -> None:
    """A client without a way to connect is refused."""
    with pytest.raises(DeclarationError, match="connect must be callable, got str"):
        client(connect="https://api.example")


@pytest.mark.parametrize(
    ("of_client", "of_sync", "queue"),
    [(None, None, "shop"), ("slow", None, "slow"), ("slow", "fast", "fast"), (None, "fast", "fast")],
)
def test_queue(of_client: str | None, of_sync: str | None, queue: str) -> None:
    """The queue is the sync's, else the client's, else named after the client."""
    assert sync(client=client(queue=of_client), queue=of_sync).queue_id == queue


def test_defaults_are_the_contract() -> None:
    """The defaults are those of contract.md."""
    found = sync()
    assert (found.retry, found.priority, found.timeout, found.delete_missing) == (Retry(), 0, None, False)
    assert (found.max_delete_share, found.batch, found.concurrency, found.entity_task_runs) == (0.2, 100, 8, 200)
    assert (found.fetch, found.save, found.delete, found.queue, found.incremental) == (None,) * 5
    pause = client().pause
    assert (pause.after, pause.durations, dict(pause.enforced)) == (3, (60, 300, 1800, 7200), {401: 900, 403: 900, 407: 900})
