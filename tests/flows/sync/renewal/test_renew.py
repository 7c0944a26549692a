"""Entities that are renewed by their keys: fetched whatever their version, and nothing else is. On both databases."""

from collections.abc import Iterator
from typing import Any

import pytest

from clients import Cursor, Listing
from flows import PausePolicy, UnknownName, UsageError
from flows.project.registry import Registry
from flows.run_result import RunResult
from flows.sync import run as engine
from flows.sync.renewal.renew import renew
from jobs import JobStore, Retry
from jobs.reading.records import find_record
from tests.support.fake_things_api import CLIENT, SYNC, Fault, Remote, declare, query, serving
from tests.support.store_helpers import reading, runs

FIELDS: dict[str, Any] = {
    "listing": Listing("things", Cursor("next"), items="data", key="id", version="v"),
    "pause": PausePolicy(after=1000),
    "retry": Retry(max_retries=0),
}


@pytest.fixture
def remote(store: JobStore) -> Iterator[Remote]:
    """A remote system with five things, which are all in step."""
    with serving(Remote()) as found:
        found.fill(5)
        assert engine.run(declare(found.url, **FIELDS), store).state == "success"
        found.forget()
        yield found


def again(store: JobStore, remote: Remote, *keys: str, **fields: Any) -> RunResult:
    """Renew these."""
    sync = declare(remote.url, **{**FIELDS, **fields})
    return renew(sync, keys, store, Registry(clients={CLIENT: sync.client}, syncs={SYNC: sync}))


def test_only_these_are_fetched(store: JobStore, remote: Remote) -> None:
    """Without a page, also where the listing's version is as before; and the whole sync has not succeeded by that."""
    first, second = sorted(remote.things)[:2]
    remote.things[first]["name"] = "renamed"
    result = again(store, remote, first, second, first)
    assert (result.state, result.stopped, result.queued, result.listed) == ("success", "keys", 2, 0)
    assert result.succeeded + result.unchanged == 2
    assert (dict(remote.pages), dict(remote.details)) == ({}, {first: 1, second: 1})
    with reading(store) as reader:
        record = find_record(reader, SYNC, first)
    assert record is not None
    assert record.data["name"] == "renamed"
    assert [(one.state, one.stopped) for one in runs(store)] == [("success", "keys"), ("success", "end")]
    # The next listing finds nothing to do.
    remote.forget()
    assert engine.run(declare(remote.url, **FIELDS), store).unchanged == 5


def test_one_that_fails_and_one_that_is_gone(store: JobStore, remote: Remote) -> None:
    """The result says so; a failed one that was never stored can be renewed."""
    first, second, third = sorted(remote.things)[:3]
    remote.faults[first] = Fault(422, times=1)
    del remote.things[second]
    result = again(store, remote, first, second, third, max_delete_share=1)
    assert (result.state, result.failed, result.gone, result.succeeded + result.unchanged) == ("failed", 1, 1, 1)
    assert result.failures[0][0] == first
    query_failed = query(store, "SELECT count(*) AS n FROM record WHERE last_error IS NOT NULL")
    assert query_failed == [{"n": 1}]
    assert again(store, remote, first).state == "success"
    assert query(store, "SELECT count(*) AS n FROM record WHERE last_error IS NOT NULL") == [{"n": 0}]


def test_names_and_syncs_that_cannot_be_renewed(store: JobStore, remote: Remote) -> None:
    """A key that nobody knows, and a sync whose records come with the listing; nothing is written."""
    with pytest.raises(UnknownName, match="no entity 'nix'"):
        again(store, remote, "nix", *remote.things)
    with pytest.raises(UsageError, match="no fetch"):
        again(store, remote, *remote.things, fetch=None)
    assert len(runs(store)) == 1


def test_a_paused_client(store: JobStore, remote: Remote) -> None:
    """It is not asked, and the result says until when."""
    store.pauses.open(CLIENT, 600, cause="person", reason="moving", set_by="anna")
    result = again(store, remote, *remote.things)
    assert (result.state, result.pending, remote.requests) == ("paused", 1, 0)
    assert "moving" in result.message
