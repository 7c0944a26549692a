"""`Client`: a remote system, as a file in `syncs/` declares it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from flows.declarations.notify import Notify
from flows.declarations.pause_policy import PausePolicy
from flows.declarations.validation import check_id
from flows.errors import DeclarationError


@dataclass(frozen=True)
class Client:
    """A remote system. Pauses and recipients of notices belong to it.

    Args:
        id: its name, e.g. `petstore`.
        connect: `(settings) -> connection`; a connection is a context manager such as `HttpClient`.
        settings: a pydantic-settings class, read when the client is used.
        queue: the queue of its jobs; by default one named after the client.
        pause: which errors pause it, and for how long.
        notify: the recipients of its notices.
        check: `(connection) -> anything`, called by `syncs check` and before the client reopens; by default the first page of its
            first listing is read.

    Raises:
        DeclarationError: a field has the wrong form.
    """

    id: str
    connect: Callable[[Any], AbstractContextManager[Any]] = field(kw_only=True)
    settings: type[Any] | None = field(default=None, kw_only=True)
    queue: str | None = field(default=None, kw_only=True)
    pause: PausePolicy = field(default=PausePolicy(), kw_only=True)
    notify: Notify = field(default=Notify(), kw_only=True)
    check: Callable[[Any], Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_id("client", self.id)
        for name, kind in (("pause", PausePolicy), ("notify", Notify)):
            if not isinstance(getattr(self, name), kind):
                raise DeclarationError(
                    f"client {self.id!r}: {name} must be a {kind.__name__}, got {type(getattr(self, name)).__name__}"
                )
        if not callable(self.connect):
            raise DeclarationError(f"client {self.id!r}: connect must be callable, got {type(self.connect).__name__}")
        if self.queue is not None:
            check_id("queue", self.queue)
