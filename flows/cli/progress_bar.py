"""Shows the progress of a run on stderr: a bar on a terminal, elsewhere a line every two seconds."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.cli.output import echo
from flows.progress import Progress, SilentTracker
from flows.project.printable_text import printable

_BAR_SECONDS = 0.1
_LINE_SECONDS = 2.0


class ThrottledTracker(SilentTracker):
    """A tracker that passes progress on, at most once in `every` seconds.

    Args:
        show: called with the progress.
        every: seconds.
    """

    def __init__(self, show: Callable[[Progress], None], *, every: float) -> None:
        self._show = show
        self._every = every
        self._next = time.monotonic() + every
        self._showing = threading.Lock()

    def progress(self, progress: Progress) -> None:
        """Pass the progress on if it is time."""
        if time.monotonic() < self._next or not self._showing.acquire(blocking=False):
            return
        try:
            self._show(progress)
            self._next = time.monotonic() + self._every
        finally:
            self._showing.release()


@contextmanager
def show_progress(name: str, *, quiet: bool) -> Iterator[SilentTracker]:
    """Return a tracker that shows progress in the way that suits stderr.

    Args:
        name: of what runs.
        quiet: show nothing unless stderr is a terminal.
    """
    if sys.stderr.isatty():
        with _bar(name) as show:
            yield ThrottledTracker(show, every=_BAR_SECONDS)
    elif quiet:
        yield SilentTracker()
    else:
        said = [""]

        def say(progress: Progress) -> None:
            text = line(name, progress)
            # While a run waits, nothing changes.
            if not progress.waiting or text != said[0]:
                echo(text, err=True)
            said[0] = text

        yield ThrottledTracker(say, every=_LINE_SECONDS)


def line(name: str, progress: Progress) -> str:
    """Return progress as one line."""
    if progress.waiting and not progress.pages and not progress.worked:
        return f"{name}: {progress.waiting}"
    if not progress.pages and not progress.queued:  # a worker, which lists nothing
        return f"{name}: {progress.worked:,} worked, {progress.failed:,} failed"
    pages = f"{progress.pages:,} page{'s' * (progress.pages != 1)}"
    listed = f"{pages}, {progress.listed:,} listed{'' if progress.listing_ended else ' so far'}"
    waiting = f"; {progress.waiting}" if progress.waiting else ""
    return f"{name}: {listed}, {progress.worked:,} of {_known_jobs(progress):,} worked, {progress.failed:,} failed{waiting}"


def _known_jobs(progress: Progress) -> int:
    """Return the number of jobs known so far: those queued by this run, and those of earlier runs once they are worked."""
    return max(progress.queued, progress.worked)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Progress], None]]:
    # Imported here: Rich costs 50 ms, and only terminals need it.
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
    # redirect_stdout=False: stdout belongs to the command, and may be a JSON document.
    with Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bars:
        task = bars.add_task(name, total=None, of="…", note="")

        def show(progress: Progress) -> None:
            notes = [f"listing, page {progress.pages:,}"] if progress.pages and not progress.listing_ended else []
            if progress.failed:
                notes.append(f"{progress.failed:,} failed")
            if progress.waiting:
                notes = [progress.waiting]
            known = _known_jobs(progress)
            total, of = (known, f"{known:,}") if progress.queued else (None, "…")
            bars.update(task, completed=progress.worked, total=total, of=of, note=printable(", ".join(notes)))

        yield show
