"""`Client`: a remote system, as a file in `syncs/` declares it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clients.auth import Auth, Secret
from clients.environment import Env
from flows.declarations.http_connect import HttpConnect
from flows.declarations.notify import Notify
from flows.declarations.pause_policy import PausePolicy
from flows.declarations.validation import check_arguments, check_id, keep_queue
from flows.errors import DeclarationError
from jobs import Queue


def _no_connect(settings: Any) -> AbstractContextManager[Any]:
    """Stand for a `connect` that was not given."""
    raise NotImplementedError


@dataclass(frozen=True)
class Client:
    """A remote system. Pauses and recipients of notices belong to it.

    An HTTP API has a `url`, and what its requests carry. Anything else has `connect`.

    Args:
        id: its name, e.g. `petstore`.
        url: of an HTTP API. Here, in `auth` and in `headers`, `env("PETSTORE_URL")` stands for what is read when it connects.
        auth: how to sign in, such as `Bearer(env("PETSTORE_TOKEN"))`; only with `url`.
        headers: sent with every request; only with `url`.
        timeout: seconds for each phase of a request, as for `HttpClient` (30 by default); only with `url`.
        connect: in place of `url`, `(settings) -> connection`; a connection is a context manager such as `HttpClient`.
        settings: a pydantic-settings class, read when the client is used; what `connect` gets.
        queue: the queue of its jobs, by its id or itself; by default one named after the client.
        pause: which errors pause it, and for how long.
        notify: the recipients of its notices.
        check: `(connection) -> anything`, called by `syncs check` and before the client reopens; by default the first page of its
            first listing is read.

    Raises:
        DeclarationError: a field has the wrong form.
    """

    id: str
    url: str | Env | None = field(default=None, kw_only=True)
    auth: Auth | None = field(default=None, kw_only=True)
    headers: Mapping[str, str | Secret] | None = field(default=None, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    connect: Callable[[Any], AbstractContextManager[Any]] = field(default=_no_connect, kw_only=True)
    settings: type[Any] | None = field(default=None, kw_only=True)
    queue: str | Queue | None = field(default=None, kw_only=True)
    pause: PausePolicy = field(default=PausePolicy(), kw_only=True)
    notify: Notify = field(default=Notify(), kw_only=True)
    check: Callable[[Any], Any] | None = field(default=None, kw_only=True)

    #: The queue, where it was given itself.
    own_queue: ClassVar[Queue | None] = None

    def __post_init__(self) -> None:
        check_id("client", self.id)
        for name, kind in (("pause", PausePolicy), ("notify", Notify)):
            if not isinstance(getattr(self, name), kind):
                raise DeclarationError(
                    f"client {self.id!r}: {name} must be a {kind.__name__}, got {type(getattr(self, name)).__name__}"
                )
        if self.check is not None:
            check_arguments(f"client {self.id!r}: check", self.check, ["connection"])
        self._check_connection()
        keep_queue(self, f"client {self.id!r}")

    @property
    def queue_id(self) -> str:
        """The queue of its jobs, unless a sync or job type has another one."""
        return str(self.queue or self.id)

    def _check_connection(self) -> None:
        # `dataclasses.replace` passes on the function that was made from the URL.
        given = self.connect is not _no_connect and not isinstance(self.connect, HttpConnect)
        if self.url is not None:
            if given or self.settings is not None:
                raise self._wrong(f"give url, or {'connect' if given else 'settings and connect'}, not both")
            http = HttpConnect(self.url, self.auth, self.headers, self.timeout)
            try:
                http.check()
            except (TypeError, ValueError) as error:
                raise self._wrong(str(error)) from None
            object.__setattr__(self, "connect", http)
            return
        if not given:
            raise self._wrong('it needs url="https://…", or connect=lambda settings: … for anything but HTTP')
        for name in ("auth", "headers", "timeout"):
            if getattr(self, name) is not None:
                raise self._wrong(f"{name} goes with url; with connect, give it to the adapter")
        if not callable(self.connect):
            raise self._wrong(f"connect must be callable, got {type(self.connect).__name__}")
        check_arguments(f"client {self.id!r}: connect", self.connect, ["settings"])

    def _wrong(self, what: str) -> DeclarationError:
        return DeclarationError(f"client {self.id!r}: {what}")
