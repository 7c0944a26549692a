"""A dry run stops when told to."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from remote import declare

from clients import Entity, Page
from flows import engine
from flows.tracker import Progress, SilentTracker
from jobs import JobStore


def test_stop(store: JobStore) -> None:
    """A dry run of an endless listing ends soon after its stop."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        for number in range(10**9):
            yield Page([Entity(str(number))], cursor=number)

    stop, seen = threading.Event(), []

    class Watching(SilentTracker):
        def progress(self, progress: Progress) -> None:
            seen.append(progress.pages)
            if progress.pages == 5:
                stop.set()

    sync = declare("http://127.0.0.1:9/", listing=listing)
    result = engine.run(sync, store, dry_run=True, stop=stop, tracker=Watching())
    assert (result.stopped, result.pages, result.listed) == ("stop", 5, 5)
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_limit_cuts_a_page(store: JobStore, limit: int) -> None:
    """A limit counts entities and not pages."""

    def listing(conn: Any, since: Any) -> Iterator[Page]:
        yield Page([Entity("a"), Entity("b")])
        yield Page([Entity("c"), Entity("d")])

    result = engine.run(declare("http://127.0.0.1:9/", listing=listing), store, dry_run=True, limit=limit)
    assert (result.listed, result.stopped) == (min(limit, 4), "limit" if limit < 4 else "end")
