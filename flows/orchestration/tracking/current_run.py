"""The run that the present code is in: its Prefect flow run, and the call of this process that it serves.

Does not import Prefect unless something else already has.
"""

import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from flows.declarations.sync import Sync
from flows.progress import Progress
from flows.run_result import RunResult
from flows.sync.history.run_row import PREFECT
from jobs import Queue


def current_flow_run() -> tuple[str, str]:
    """Return the link to the flow run of the present context, and its id; empty texts outside of one."""
    if "prefect.context" not in sys.modules:
        return "", ""
    from prefect.context import FlowRunContext
    from prefect.utilities.urls import url_for

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return "", ""
    return url_for(context.flow_run) or "", str(context.flow_run.id)


@dataclass
class InProcessRun:
    """A run that the process of its flow run asked for: what cannot be a flow parameter, and what came of it."""

    sync: Sync
    queue: Queue
    #: Whether the queue is declared; otherwise it has the defaults.
    is_declared: bool = False
    on_progress: Callable[[Progress], None] | None = None
    stop: threading.Event | None = None
    #: What `syncs runs` says.
    started_by: str = PREFECT
    result: RunResult | None = None
    error: Exception | None = None
    #: Whether the Prefect server stopped answering during the run.
    server_gone: bool = False


current_in_process_run: ContextVar[InProcessRun | None] = ContextVar("current_in_process_run", default=None)
"""Set while a flow runs in the process of its caller; not in a worker's flow runs."""
