"""A sync as a flow run of this very process, for the command line: what goes to the flow past Prefect, and what comes back."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flows.orchestration.call import TAG, Call, current_call
from flows.orchestration.environment import HEARTBEAT_SECONDS
from flows.result import RunResult
from flows.tracker import Progress, SilentTracker

log = logging.getLogger(__name__)


class _Watching(SilentTracker):
    def __init__(self, on_progress: Callable[[Progress], None] | None) -> None:
        self._on_progress = on_progress

    def progress(self, progress: Progress) -> None:
        if self._on_progress is not None:
            self._on_progress(progress)


def run_sync(
    name: str,
    *,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    url: str | None = None,
) -> RunResult:
    """Run a sync in this process as a flow run of the Prefect server, and return what it came to.

    The result is the engine's, as without Prefect. A server that fails on the way is named in the log and changes nothing.

    Args:
        name: the sync's id.
        full: list everything.
        limit: at most so many entities.
        dry_run: write nothing.
        allow_deletes: delete also more than the allowed share.
        on_progress: is called with the numbers, from the engine's threads; it must be cheap.
        stop: ends the run when set. Without it, the first SIGINT or SIGTERM does that.
        url: of the Prefect API; by default what Prefect's own settings say.

    Raises:
        UnknownName: nothing declared has this name; no flow run is made.
        FlowsError: a setting or declaration cannot work.
        JobsError: the database cannot be used.
    """
    from flows import engine, registry
    from flows.settings import open_store

    declared = registry.load()
    wanted = declared.sync(name)
    is_declared = wanted.queue_id in declared.queues
    call = Call(wanted, declared.queue(wanted.queue_id), is_declared, on_progress=on_progress, stop=stop)
    _run_as_flow(call, url, {"name": name, "full": full, "limit": limit, "dry_run": dry_run, "allow_deletes": allow_deletes})
    if call.error is not None:
        raise call.error
    if call.result is not None:
        return call.result
    # Prefect failed before the engine began.
    store = open_store()
    try:
        return engine.run(
            call.sync, store, full=full, limit=limit, dry_run=dry_run, allow_deletes=allow_deletes,
            tracker=_Watching(on_progress), stop=stop, queue=call.queue,
        )  # fmt: skip
    finally:
        store.close()


def _run_as_flow(call: Call, url: str | None, parameters: dict[str, Any]) -> None:
    # For Prefect's threads, which see no temporary settings: a server that is gone is asked again for 14 s in place of 62.
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")
    from prefect import tags
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    from flows.orchestration.runs import sync as sync_flow

    updates: dict[Any, Any] = {
        # An ephemeral server would forget what it was told when this process ends.
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
    }
    if url is not None:
        updates[PREFECT_API_URL] = url
    if PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() is None:
        # Without it, a run whose process was killed is `Running` for ever.
        updates[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = HEARTBEAT_SECONDS
    token = current_call.set(call)
    try:
        with temporary_settings(updates=updates), quiet_console(call), tags(TAG + call.sync.client.id):
            asyncio.run(_await(sync_flow(**parameters, return_state=True)))
    except Exception as error:  # noqa: BLE001 - law 14: what Prefect does is not what the run came to
        if call.error is None:
            log.warning("Prefect does not show this run whole: %s: %s", type(error).__name__, error)
    finally:
        current_call.reset(token)


async def _await(running: Any) -> None:
    await running


@contextmanager
def quiet_console(call: Call) -> Iterator[None]:
    """Keep Prefect's own log lines off the terminal, which belongs to the command line. They still reach the server."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in loggers for handler in logger.handlers if isinstance(handler, logging.StreamHandler)}
    for handler in handlers:
        handler.addFilter(_not_prefect)
    try:
        yield
    finally:
        # With a server that is gone, Prefect complains until the process has ended; one line of ours says it.
        if not call.server_gone:
            for handler in handlers:
                handler.removeFilter(_not_prefect)


def _not_prefect(record: logging.LogRecord) -> bool:
    return not record.name.startswith("prefect")
