"""Makes the executors of a worker and opens their clients."""

import logging
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from flows.declarations.client import Client
from flows.declarations.job_type import JobType
from flows.declarations.settings_argument import bound
from flows.declarations.sync import Sync
from flows.errors import SettingsError
from flows.execution.conditional_fetch import Conditions
from flows.execution.connections import Connections
from flows.execution.delete_guard import DeleteGuard
from flows.execution.entity_executor import EntityExecutor
from flows.execution.executor_protocol import Executor, JobControl
from flows.execution.job_executor import JobExecutor
from flows.execution.typed_rows import TypedRows
from flows.pauses.pace_exchange import PaceExchange
from flows.project.env_values import env_values
from flows.project.redaction import Mask
from flows.project.settings import client_settings
from flows.worker.worker_config import WorkerConfig
from jobs.db.database import Database
from jobs.errors import TableMismatch
from jobs.store import JobStore
from jobs.typed_tables.make_tables import has_records, make_tables

log = logging.getLogger("syncs.work")


class OpenClients:
    """The clients of one worker with their settings and connections, which are closed at the end of its `with` block.

    Args:
        store: where processes share the budgets of clients.
        stop: set when the process begins to end.
    """

    def __init__(self, store: JobStore, *, stop: threading.Event) -> None:
        self._stack = ExitStack()
        self._paces = PaceExchange(store, stop=stop)
        self._stack.callback(self._paces.close)
        self._opened: dict[str, tuple[Connections, Any]] = {}

    def __enter__(self) -> "OpenClients":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def open(self, client: Client, *declared: Any) -> tuple[Connections, Mask]:
        """Return the connections of a client, and what removes its secrets from texts.

        Args:
            client: the declaration.
            declared: what else may have `env(…)` in it, such as a listing.

        Raises:
            SettingsError: a setting is missing or wrong.
        """
        if client.id not in self._opened:
            settings = client_settings(client)
            self._opened[client.id] = (
                self._stack.enter_context(Connections(client, settings, on_open=self._paces.opened)),
                settings,
            )
        connections, settings = self._opened[client.id]
        return connections, Mask((settings, env_values(client, *declared)))


def entity_executor(
    sync: Sync, store: JobStore, clients: OpenClients, *, allow_deletes: bool = False, dry_run: bool = False
) -> EntityExecutor:
    """Make the executor of a sync, and the tables of its `into` that are missing.

    Args:
        sync: the declaration.
        store: where the jobs are.
        clients: opens its client.
        allow_deletes: whether a person has allowed any number of deletions.
        dry_run: make no tables.

    Raises:
        SettingsError: a setting of its client is missing or wrong.
        TableMismatch: a table of `into` does not fit its class.
    """
    connections, mask = clients.open(sync.client, sync.listing)
    sync = bound(sync, connections.settings)
    guard = DeleteGuard(sync, store, allow=allow_deletes)
    typed_rows = None
    if sync.into is not None:
        typed_rows = TypedRows(sync.into, mask, store.db.dialect)
        if not dry_run:
            make_tables_of(sync, store.db)
    return EntityExecutor(sync, connections, mask, guard, Conditions.of(sync, store), typed_rows)


def make_tables_of(sync: Sync, db: Database) -> list[tuple[str, str]]:
    """Make the tables of the `into` of a sync that are missing, and columns; say so, and what that means for what is there.

    Returns:
        What was done: (table, change).

    Raises:
        TableMismatch: a table does not fit its class, or may not be changed.
    """
    done = make_tables(db, [one.core_table for one in sync.into or ()])
    for table, change in done:
        log.info("table %s: %s", table, change)
    if done and has_records(db, sync.id):
        log.warning("`syncs run %s --full` fills %s for what has not changed", sync.id, ", ".join({table for table, _ in done}))
    return done


def make_executors(config: WorkerConfig, store: JobStore, clients: OpenClients, *, control: JobControl) -> dict[str, Executor]:
    """Make the executors of a worker, by type. A type whose client lacks settings has none: its jobs wait.

    Args:
        config: what is served.
        store: where the jobs are.
        clients: opens the clients.
        control: what executors may ask their worker.

    Raises:
        SettingsError, TableMismatch: no client has the settings or tables it needs.
    """
    made: dict[str, Executor] = {}
    missing: dict[str, Exception] = {}
    for one in _served(config):
        if one.client.id in missing:
            continue
        try:
            if isinstance(one, Sync):
                made[one.id] = entity_executor(one, store, clients)
            else:
                connections, mask = clients.open(one.client)
                job_type = bound(one, connections.settings)
                made[one.id] = JobExecutor(job_type, connections, mask, store, phases=config.stays[one.id], control=control)
        except (SettingsError, TableMismatch) as error:
            missing[one.client.id] = error
    if missing and not made:
        raise next(iter(missing.values()))
    for reason in missing.values():
        log.warning("%s; its jobs wait", reason)
    return made


def _served(config: WorkerConfig) -> Iterable[Sync | JobType]:
    yield from config.syncs
    yield from config.job_types
