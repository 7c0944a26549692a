"""What goes past Prefect between the command line and a flow run of its own process. Knows no Prefect."""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from flows.declaration import Sync
from flows.result import RunResult
from flows.tracker import Progress
from jobs import Queue

TAG = "sync-clients.by-hand."
"""With the client's id behind it the tag of flow runs that a person starts: no work queue would say whose they are."""


@dataclass
class Call:
    """What the caller wants of its flow run, and what became of it."""

    sync: Sync
    queue: Queue
    #: Whether somebody declared the queue, or nobody and it has the defaults.
    is_declared: bool = False
    on_progress: Callable[[Progress], None] | None = None
    stop: threading.Event | None = None
    begun: bool = False
    result: RunResult | None = None
    error: Exception | None = None
    #: Whether the Prefect server went away under the run.
    server_gone: bool = False


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
"""Set while a flow runs in the process of its caller; a worker's flow runs have none."""
