"""Puts clients and jobs together and runs them: what a file in `syncs/` declares comes from here.

Importing this package brings neither Prefect nor SQLAlchemy.
"""

from flows.declaration import Client, Sync
from flows.enqueue import enqueue, enqueue_many
from flows.errors import DeclarationError, FlowsError, SettingsError, UnknownName, UsageError
from flows.job_type import JobType
from flows.lock import lock
from flows.policy import Notify, PausePolicy, Since
from flows.record import save_record
from flows.tokens import stored_tokens
from flows.window import Window

__all__ = [
    "Client",
    "DeclarationError",
    "FlowsError",
    "JobType",
    "Notify",
    "PausePolicy",
    "SettingsError",
    "Since",
    "Sync",
    "UnknownName",
    "UsageError",
    "Window",
    "enqueue",
    "enqueue_many",
    "lock",
    "save_record",
    "stored_tokens",
]
