"""What the working code says of its clients, and to whom. Knows nothing of what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flows.declaration import Client
    from jobs.pause import Pausing


class Teller(Protocol):
    """What the working code needs of `Told`."""

    def paused(self, client: Client, pausing: Pausing) -> None:
        """Say that a pause began, or took the place of another one."""
        ...

    def resumed(self, client: Client, *, by: str) -> None:
        """Say that a client is open again."""
        ...

    def failed(self) -> None:
        """Say that a job has failed for good."""
        ...


class Silent:
    """Tells nobody: for code that is used without a registry, and for tests."""

    def paused(self, client: Client, pausing: Pausing) -> None:
        """Say nothing."""

    def resumed(self, client: Client, *, by: str) -> None:
        """Say nothing."""

    def failed(self) -> None:
        """Say nothing."""


SILENT = Silent()
