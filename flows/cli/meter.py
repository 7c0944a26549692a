"""The numbers of a run while it runs: a bar on a terminal, a plain line now and then elsewhere. Always on stderr."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.tracker import Progress, SilentTracker

_BAR_SECONDS = 0.1
_LINE_SECONDS = 2.0


class Meter(SilentTracker):
    """A tracker that passes the numbers on, at most every so many seconds.

    Args:
        show: what to do with them.
        every: seconds between two looks.
    """

    def __init__(self, show: Callable[[Progress], None], *, every: float) -> None:
        self._show = show
        self._every = every
        self._next = time.monotonic() + every
        self._showing = threading.Lock()

    def progress(self, progress: Progress) -> None:
        """Pass the numbers on, if it is time."""
        if time.monotonic() < self._next or not self._showing.acquire(blocking=False):
            return
        try:
            self._show(progress)
            self._next = time.monotonic() + self._every
        finally:
            self._showing.release()


@contextmanager
def meter(name: str, *, quiet: bool) -> Iterator[SilentTracker]:
    """Return the tracker that suits the terminal.

    Args:
        name: what runs.
        quiet: show nothing unless someone sits at a terminal.
    """
    if sys.stderr.isatty():
        with _bar(name) as show:
            yield Meter(show, every=_BAR_SECONDS)
    elif quiet:
        yield SilentTracker()
    else:
        yield Meter(lambda progress: print(line(name, progress), file=sys.stderr, flush=True), every=_LINE_SECONDS)


def line(name: str, progress: Progress) -> str:
    """Return the numbers as one line."""
    if not progress.pages and not progress.queued:  # a worker, which lists nothing
        return f"{name}: {progress.worked:,} worked, {progress.failed:,} failed"
    pages = f"{progress.pages:,} page{'s' * (progress.pages != 1)}"
    listed = f"{pages}, {progress.listed:,} listed{'' if progress.listing_ended else ' so far'}"
    return f"{name}: {listed}, {progress.worked:,} of {_known(progress):,} worked, {progress.failed:,} failed"


def _known(progress: Progress) -> int:
    """Return how many jobs there are to work: those queued now, and those that an earlier run left, as they turn up."""
    return max(progress.queued, progress.worked)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Progress], None]]:
    # Here and not at the top: Rich costs 50 ms, and only terminals need it.
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),  # in 80 columns the numbers must not be cut
        TextColumn("{task.completed:,.0f}/{task.fields[of]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    # redirect_stdout off: what commands print there is theirs, and may be a JSON document.
    with Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        task = bars.add_task(name, total=None, of="…", note="")

        def show(progress: Progress) -> None:
            notes = [f"listing, page {progress.pages:,}"] if progress.pages and not progress.listing_ended else []
            if progress.failed:
                notes.append(f"{progress.failed:,} failed")
            known = _known(progress)
            total, of = (known, f"{known:,}") if progress.queued else (None, "…")
            bars.update(task, completed=progress.worked, total=total, of=of, note=", ".join(notes))

        yield show
