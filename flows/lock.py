"""`lock`: lets one process at a time do something, among all processes and machines of the project."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.locks import Lock


def lock(name: str, *, lease: float = 30.0, wait: float = 0) -> "AbstractContextManager[Lock]":
    """Hold a named lock of the project for the time of a `with` block, renewed while it lasts, released however it ends.

    Args:
        name: of any length, in any letters.
        lease: seconds for which it stays taken if this process goes silent.
        wait: seconds to wait for another holder; 0 does not wait.

    Returns:
        A context manager that gives a `Lock`: `token` is higher than that of any earlier holder, `is_held()` asks the database.

    Raises:
        LockHeld: somebody else has it.
        LockLost: at the end of the block: it went to somebody else in between.
        JobsError: the database cannot be used.
    """
    from flows.enqueue import own_store

    return own_store().locks.hold(name, lease=lease, wait=wait)
