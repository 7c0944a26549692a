"""The result of a run as text for people."""

import click

from flows.cli.output import first_line
from flows.run_result import RunResult

SHOWN_FAILURES = 10


def summary(result: RunResult, *, colour: bool = False) -> str:
    """Return the result of a run as text: the counts, up to ten failed entities, and the next command to type."""
    state = click.style(result.state, fg=_COLOURS.get(result.state), bold=True) if colour else result.state
    counts = [
        f"{getattr(result, name):,} {name}"
        for name in ("listed", "queued", "succeeded", "unchanged", "gone", "failed", "retrying", "snoozed", "deleted")
        if getattr(result, name) or name in ("listed", "queued", "succeeded", "unchanged", "failed")
    ]
    stopped = _STOPPED.get(result.stopped, result.stopped)
    waited = f", {result.waited:,.1f} of them in pauses" if result.waited >= 0.1 else ""
    lines = [f"{result.sync}: {state}. {', '.join(counts)} in {result.seconds:,.1f} s{waited}; {stopped}."]
    for name, verb in _WOULD.items():
        count = getattr(result, name)
        if count:
            keys = result.examples.get(name, ())
            more = ", …" if count > len(keys) else ""
            lines.append(f"  {count:,} would be {verb}: {', '.join(map(first_line, keys))}{more}")
    if result.message:
        lines.append(first_line(result.message, limit=500))
    if result.pending:
        left = "1 job waits" if result.pending == 1 else f"{result.pending:,} jobs wait"
        lines.append(f"{left} for later; the next run or `syncs work` takes {'it' if result.pending == 1 else 'them'} up")
    for key, message in result.retries[:SHOWN_FAILURES]:
        lines.append(f"  failed, to be tried again: {first_line(key)}: {first_line(message)}")
    if result.retrying > SHOWN_FAILURES:
        lines.append(f"  and {result.retrying - min(SHOWN_FAILURES, len(result.retries)):,} more to be tried again")
    for key, message in result.failures[:SHOWN_FAILURES]:
        lines.append(f"  failed {first_line(key)}: {first_line(message)}")
    if result.failed > SHOWN_FAILURES:
        lines.append(f"  and {result.failed - min(SHOWN_FAILURES, len(result.failures)):,} more")
    return "\n".join([*lines, *_next(result)])


def _next(result: RunResult) -> list[str]:
    """Return the commands to type next."""
    commands = []
    if result.state == "paused":
        commands.append(f"next: syncs pauses {result.client}; when the cause is gone, syncs resume {result.client}")
    if result.failed > result.flawed:
        commands.append(f"next: syncs jobs --type {result.sync} --state failure")
    return commands


_WOULD = {
    "created": "created",
    "changed": "changed",
    "undecided": "fetched, to see whether they changed",
    "would_delete": "deleted",
}

_COLOURS = {"success": "green", "skipped": "yellow", "paused": "yellow", "partial": "yellow", "failed": "red"}

_STOPPED = {
    "end": "listing ended at the end",
    "limit": "listing ended at the limit",
    "loop": "listing stopped because a page came twice",
    "short": "listing ended short of the total it announced",
    "error": "listing ended with an error",
    "paused": "listing stopped because the client is paused",
    "stop": "listing was stopped; the next run continues it",
    "keys": "without a listing",
    "running": "another process runs this sync",
}
