"""Puts clients and jobs together and runs them: what a file in `syncs/` declares comes from here.

Importing this package brings neither Prefect nor SQLAlchemy.
"""

import sys

import sync_clients

# Before the imports below fail at a name that a package of the user's does not have.
if _line := sync_clients.hidden(("clients", "jobs")):
    if sys.orig_argv[1:3] == ["-m", "flows"]:
        sync_clients.refuse(_line)
    raise ImportError(_line)

from flows.database_token_store import stored_tokens
from flows.declarations.alter import Alter
from flows.declarations.client import Client
from flows.declarations.into import Into
from flows.declarations.job_type import JobType
from flows.declarations.notify import Notify
from flows.declarations.pause_policy import PausePolicy
from flows.declarations.schedule import Cron, Every
from flows.declarations.since import Since
from flows.declarations.sync import Sync
from flows.declarations.window import Window
from flows.enqueue import enqueue, enqueue_many
from flows.errors import DeclarationError, FlowsError, SettingsError, UnknownName, UsageError
from flows.execution.save_from_job import save_record
from flows.lock import lock
from flows.orchestration.python_run import arun, run
from flows.run_result import RunResult

__all__ = [
    "Alter",
    "Client",
    "Cron",
    "DeclarationError",
    "Every",
    "FlowsError",
    "Into",
    "JobType",
    "Notify",
    "PausePolicy",
    "RunResult",
    "SettingsError",
    "Since",
    "Sync",
    "UnknownName",
    "UsageError",
    "Window",
    "arun",
    "enqueue",
    "enqueue_many",
    "lock",
    "run",
    "save_record",
    "stored_tokens",
]
