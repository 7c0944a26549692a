"""Renews single entities of a sync, by their keys and without a listing: `syncs run SYNC --key K`."""

import threading
import time
from collections.abc import Sequence

from flows.declarations.sync import Sync
from flows.errors import UnknownName, UsageError
from flows.progress import Progress, Tracker
from flows.project.registry import Registry
from flows.run_result import RunResult
from flows.sync.conclusion import paused_text
from flows.sync.history.run_row import PYTHON, RunHistory
from flows.sync.run_state import run_state
from flows.worker.single_job import Processed, process
from jobs.job import Lane
from jobs.store import JobStore

KEYS = "keys"
"""Why the listing ended: there was none. Such a success is none of the whole sync."""


def renew(
    sync: Sync,
    keys: Sequence[str],
    store: JobStore,
    registry: Registry,
    *,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    started_by: str = PYTHON,
) -> RunResult:
    """Fetch and store these entities now, one after the other, whether they changed or not.

    Only what the sync's `fetch` needs besides the key and the known version can be missing: `entity.data`, what was listed, is
    `None` where no job still has it.

    Args:
        sync: the declaration.
        keys: of entities that are known: stored, failed or queued.
        store: where jobs and records are.
        registry: what is declared.
        tracker: sees the progress.
        stop: set it to end before the next entity.
        started_by: what `syncs runs` says.

    Raises:
        UnknownName: a key is not known; nothing was done.
        UsageError: the sync has no `fetch`: only a listing brings its records.
        SettingsError: a setting of the client is missing or wrong.
    """
    if sync.fetch is None:
        raise UsageError(f"{sync.id} has no fetch: its records come with the listing; run it without --key")
    lane, keys = Lane(sync.queue_id, sync.client.id, sync.id), list(dict.fromkeys(keys))
    if unknown := store.renewals.unknown(lane, keys):
        raise UnknownName(f"{sync.id} has no entity {', '.join(map(repr, unknown))}; `syncs records {sync.id}` lists them")
    store.queues.register(registry.queue(sync.queue_id), declared=sync.queue_id in registry.queues)
    began, progress = time.monotonic(), Progress(queued=len(keys), listing_ended=True)
    refused = ""
    history = RunHistory(sync, store, started_by=started_by, lease=registry.queue(sync.queue_id).lease)
    with history:
        history.begin()
        for key in keys:
            if stop is not None and stop.is_set():
                break
            done = process(store, registry, store.renewals.queue(lane, key, priority=sync.priority), stop=stop)
            _count(progress, key, done)
            refused = refused or done.refused or (done.message if done.outcome in ("released", "snooze", "pause") else "")
            if tracker is not None:
                tracker.progress(progress)
            if done.refused:
                # So would the others be: the client is paused, or the queue may start nothing more.
                break
        result = _result(sync, store, lane, progress, refused, seconds=time.monotonic() - began)
        history.ended(result)
    return result


def _count(progress: Progress, key: str, done: Processed) -> None:
    match done.outcome:
        case "success" if done.state == "success":
            progress.succeeded += 1
        case "unchanged" if done.state == "success":
            progress.unchanged += 1
        case "gone" if done.state == "success":
            progress.gone += 1
        case "failure" if done.state == "queued":
            progress.retrying[done.id] = (key, done.message)
        case "failure":
            progress.fail(key, done.message)
        case "snooze" | "pause":
            progress.snoozed += 1


def _result(sync: Sync, store: JobStore, lane: Lane, progress: Progress, refused: str, *, seconds: float) -> RunResult:
    left = store.views.lane(lane)
    pausing = store.pauses.state(sync.client.id).pausing if refused else None
    retrying, good = len(progress.retrying), progress.succeeded + progress.unchanged + progress.gone
    state = run_state(
        failed=progress.failed + retrying, worked=progress.dealt_with, listing_failed=False, paused=pausing is not None
    )
    if state == "success" and good < progress.queued:
        state = "partial" if good else "failed"
    message = refused if pausing is None else paused_text(pausing.until, pausing.reason)
    if not message and progress.failed + retrying:
        message = f"{progress.failed + retrying} of {progress.queued} failed"
    return RunResult(
        sync=sync.id,
        client=sync.client.id,
        state=state,
        queued=progress.queued,
        succeeded=progress.succeeded,
        unchanged=progress.unchanged,
        gone=progress.gone,
        failed=progress.failed,
        retrying=retrying,
        snoozed=progress.snoozed,
        pending=left.due + left.delayed + left.processing,
        seconds=seconds,
        stopped=KEYS,
        paused_until=None if pausing is None else pausing.until,
        message=message,
        failures=tuple(progress.failures),
        retries=tuple(progress.retrying.values()),
    )
