"""`run` and `arun`: run a sync from Python, inside or outside of a Prefect flow, as `syncs run` does."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flows.declarations.sync import Sync
from flows.errors import UsageError
from flows.run_result import RunResult

if TYPE_CHECKING:
    from jobs.store import JobStore

T = TypeVar("T")


def run(
    sync: str | Sync,
    *,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    wait: float | None = None,
    new_pass: bool = False,
    keys: Sequence[str] = (),
    database: str | None = None,
) -> RunResult:
    """Run a sync here and now, and return what came of it; a sync that fails is a result, too.

    Goes through Prefect if a server is configured or up: within a flow as its subflow, elsewhere as a flow run. Else, or with
    `database`, the engine runs it, with the same result. SIGINT and SIGTERM let the running jobs end first.

    Args:
        sync: the id of a declared sync, or a `Sync`, which need not be declared in `syncs/`.
        full: list everything, and process each listed entity, also if it did not change.
        limit: the most entities to list.
        dry_run: list and compare, and write nothing.
        allow_deletes: delete also more than the sync's max_delete_share.
        wait: seconds; pauses and retries that end within it are waited for, and another run of the sync. By default 900, and
            another run is not waited for.
        new_pass: begin a new listing, also if there is an unfinished one.
        keys: only these entities, without a listing; they have been stored, failed or queued before.
        database: the URL of another database than the project's, for tests; its tables are made where there are none.

    Raises:
        UnknownName: no sync has this id.
        FlowsError: a setting or declaration cannot work.
        JobsError: the database cannot be used.
        KeyboardInterrupt: a signal has ended the run; what it has done stands, and the next run continues.
    """
    from flows.orchestration.cancellation import stop_on_signals

    how = {"full": full, "limit": limit, "dry_run": dry_run, "allow_deletes": allow_deletes, "wait": wait, "new_pass": new_pass}
    stop = threading.Event()
    with stop_on_signals(stop):
        result = _outside_of_loops(_Call(sync, how, keys, database, stop))
    if stop.is_set():
        raise KeyboardInterrupt
    return result


async def arun(
    sync: str | Sync,
    *,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    wait: float | None = None,
    new_pass: bool = False,
    keys: Sequence[str] = (),
    database: str | None = None,
) -> RunResult:
    """Run a sync as `run` does, in a thread, while the event loop goes on.

    If the caller is cancelled, the running jobs end first.

    Args:
        sync: the id of a declared sync, or a `Sync`.
        full: list everything, and process each listed entity, also if it did not change.
        limit: the most entities to list.
        dry_run: list and compare, and write nothing.
        allow_deletes: delete also more than the sync's max_delete_share.
        wait: seconds; pauses and retries that end within it are waited for, and another run of the sync. By default 900, and
            another run is not waited for.
        new_pass: begin a new listing, also if there is an unfinished one.
        keys: only these entities, without a listing; they have been stored, failed or queued before.
        database: the URL of another database than the project's, for tests; its tables are made where there are none.

    Raises:
        UnknownName: no sync has this id.
        FlowsError: a setting or declaration cannot work.
        JobsError: the database cannot be used.
    """
    from flows.orchestration.cancellation import in_thread

    how = {"full": full, "limit": limit, "dry_run": dry_run, "allow_deletes": allow_deletes, "wait": wait, "new_pass": new_pass}
    stop = threading.Event()
    return await in_thread(_Call(sync, how, keys, database, stop), stop)


@dataclass(frozen=True)
class _Call:
    """One call of `run` or `arun`."""

    sync: str | Sync
    how: dict[str, Any]
    keys: Sequence[str]
    database: str | None
    stop: threading.Event

    def __call__(self) -> RunResult:
        from flows.project import registry
        from flows.project.env_file import load_env_file
        from flows.project.env_values import env_values
        from flows.project.prefect_address import api_url, is_reachable
        from flows.project.settings import client_settings

        if self.keys and any(self.how[name] for name in ("full", "limit", "dry_run", "allow_deletes", "new_pass")):
            raise UsageError("keys renews entities without a listing; leave the arguments about listings out")
        load_env_file()
        declared = registry.load() if isinstance(self.sync, str) else registry.registry_of(self.sync)
        wanted = declared.sync(self.sync) if isinstance(self.sync, str) else self.sync
        # Before anything is opened, so that a missing setting leaves no trace.
        env_values(wanted.client, wanted.listing)
        client_settings(wanted.client)
        if not self.keys and self.database is None and (url := api_url()) is not None and is_reachable(url):
            from flows.orchestration.in_process_run import run_sync

            return run_sync(self.sync, **self.how, stop=self.stop, url=url, quiet=False)
        with closing(self._open_store()) as store:
            if self.keys:
                from flows.sync.renewal.renew import renew

                return renew(wanted, self.keys, store, declared, stop=self.stop)
            from flows.sync import run as engine

            queue, is_declared = declared.queue(wanted.queue_id), wanted.queue_id in declared.queues
            return engine.run(wanted, store, **self.how, stop=self.stop, queue=queue, declared=is_declared)

    def _open_store(self) -> "JobStore":
        if self.database is None:
            from flows.project.settings import open_store

            return open_store()
        from jobs.store import JobStore

        return JobStore.open(self.database)


def _outside_of_loops(call: Callable[[], T]) -> T:
    """Call it where no event loop runs: in this thread, or from within a coroutine in another one, with the same context."""
    if _running_loop() is None:
        return call()
    with ThreadPoolExecutor(1, thread_name_prefix="sync-run") as pool:
        return pool.submit(contextvars.copy_context().run, call).result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
