"""Runs a sync in this process as a flow run of the Prefect server, for the command line and for `flows.run`."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

from flows.declarations.sync import Sync
from flows.orchestration.server_environment import HEARTBEAT_SECONDS
from flows.orchestration.server_names import BY_HAND_TAG
from flows.orchestration.tracking.current_run import InProcessRun, current_in_process_run
from flows.progress import Progress, SilentTracker
from flows.project.loopback import is_loopback, without_proxy
from flows.project.prefect_auth import auth_string_for
from flows.run_result import RunResult
from flows.sync.history.run_row import PYTHON

log = logging.getLogger(__name__)


class _ProgressTracker(SilentTracker):
    def __init__(self, on_progress: Callable[[Progress], None] | None) -> None:
        self._on_progress = on_progress

    def progress(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)


def run_sync(
    sync: str | Sync,
    *,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    wait: float | None = None,
    new_pass: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    url: str | None = None,
    started_by: str = PYTHON,
    quiet: bool = True,
) -> RunResult:
    """Run a sync in this process as a flow run of the Prefect server, and return its result.

    The result is the engine's, the same as without Prefect. A server that fails during the run is logged and changes nothing.

    Args:
        sync: its id, or its declaration.
        full: list everything, also where the sync is incremental.
        limit: the most entities to list.
        dry_run: list and compare, and write nothing.
        allow_deletes: delete also more than the allowed share.
        wait: seconds; pauses and retries that end within it are waited for, and another run of the sync. `None` waits as long as
            the flow does by default, and not for another run.
        new_pass: begin a new listing, also if there is an unfinished one.
        on_progress: is called with the numbers, from the engine's threads; it must be cheap.
        stop: ends the run when set. Without it, the first SIGINT or SIGTERM ends the run.
        url: of the Prefect API; by default what Prefect's own settings say.
        started_by: what `syncs runs` says.
        quiet: keep Prefect's own log lines off the terminal.

    Raises:
        UnknownName: no sync has this name; no flow run is made.
        FlowsError: a setting or declaration cannot work.
        JobsError: the database cannot be used.
    """
    from flows.project import registry
    from flows.project.settings import open_store
    from flows.sync import run as engine

    declared = registry.load() if isinstance(sync, str) else registry.registry_of(sync)
    wanted = declared.sync(sync) if isinstance(sync, str) else sync
    is_declared = wanted.queue_id in declared.queues
    run = InProcessRun(wanted, declared.queue(wanted.queue_id), is_declared, on_progress, stop, started_by)
    parameters: dict[str, Any] = {
        "full": full,
        "limit": limit,
        "dry_run": dry_run,
        "allow_deletes": allow_deletes,
        "wait": wait,
        "new_pass": new_pass,
    }
    _run_as_flow(run, url, {"name": wanted.id, **parameters}, quiet=quiet)
    if run.error is not None:
        raise run.error
    if run.result is not None:
        return run.result
    # Prefect failed before the engine began.
    with closing(open_store()) as store:
        tracker = _ProgressTracker(on_progress)
        return engine.run(run.sync, store, **parameters, tracker=tracker, stop=stop, queue=run.queue, started_by=started_by)


def _run_as_flow(run: InProcessRun, url: str | None, parameters: dict[str, Any], *, quiet: bool) -> None:
    # In the environment, since Prefect's threads see no temporary settings. A server that is gone is retried for 14 s instead of
    # 62 s (3.9.1).
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")
    if url is not None and is_loopback(url):
        os.environ.update(without_proxy(os.environ))
    if auth_string := auth_string_for(url):
        os.environ["PREFECT_API_AUTH_STRING"] = auth_string
    from prefect import tags
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    from flows.orchestration.prefect_client import sign_in
    from flows.orchestration.runs import sync as sync_flow

    updates: dict[Any, Any] = {
        # An ephemeral server loses its queued events when this process ends (3.9.1).
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
    }
    if url is not None:
        updates[PREFECT_API_URL] = url
        updates |= sign_in(url)
    if PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() is None:
        # Without heartbeats, a run whose process was killed stays `Running` for ever.
        updates[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = HEARTBEAT_SECONDS
    token = current_in_process_run.set(run)
    try:
        with (
            temporary_settings(updates=updates),
            quiet_console(run) if quiet else nullcontext(),
            tags(BY_HAND_TAG + run.sync.client.id),
        ):
            asyncio.run(_await(sync_flow(**parameters, return_state=True)))
    except Exception as error:  # noqa: BLE001 - a failure of Prefect must not change the result of the run
        if run.error is None:
            log.warning("Prefect does not show all of this run: %s: %s", type(error).__name__, error)
    finally:
        current_in_process_run.reset(token)


async def _await(running: Any) -> None:
    await running


@contextmanager
def quiet_console(run: InProcessRun) -> Iterator[None]:
    """Keep Prefect's own log lines off the terminal, which the command line uses. They still reach the server."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in loggers for handler in logger.handlers if isinstance(handler, logging.StreamHandler)}
    for handler in handlers:
        handler.addFilter(_not_prefect)
    try:
        yield
    finally:
        # With a server that is gone, Prefect logs errors until the process ends; our own warning is enough.
        if not run.server_gone:
            for handler in handlers:
                handler.removeFilter(_not_prefect)


def _not_prefect(record: logging.LogRecord) -> bool:
    return not record.name.startswith("prefect")
