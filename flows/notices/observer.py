"""The interface through which working code reports pauses and failures; `Notifier` implements it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flows.declarations.client import Client
    from jobs.pauses.pause import OpenPause


class Observer(Protocol):
    """Hears of pauses and failures. Its methods return at once and never raise."""

    def paused(self, client: Client, pausing: OpenPause) -> None:
        """A pause began, or replaced another one."""
        ...

    def resumed(self, client: Client, *, by: str) -> None:
        """A client is open again."""
        ...

    def failed(self) -> None:
        """A job failed for good."""
        ...


class NullObserver:
    """Ignores everything, for code that runs without a registry and for tests."""

    def paused(self, client: Client, pausing: OpenPause) -> None:
        """Do nothing."""

    def resumed(self, client: Client, *, by: str) -> None:
        """Do nothing."""

    def failed(self) -> None:
        """Do nothing."""


NULL_OBSERVER = NullObserver()
