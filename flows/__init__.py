"""Puts clients and jobs together and runs them: what a file in `syncs/` declares comes from here.

Importing this package brings neither Prefect nor SQLAlchemy.
"""

from flows.declaration import Client, Sync
from flows.errors import DeclarationError, FlowsError, SettingsError, UnknownName, UsageError
from flows.policy import Notify, PausePolicy, Since

__all__ = [
    "Client",
    "DeclarationError",
    "FlowsError",
    "Notify",
    "PausePolicy",
    "SettingsError",
    "Since",
    "Sync",
    "UnknownName",
    "UsageError",
]
