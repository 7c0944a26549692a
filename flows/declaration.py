"""What a file in `syncs/` declares: clients and syncs, as frozen values. Making one has no effect and opens nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from clients import Entity, Page
from flows.errors import DeclarationError
from flows.policy import Notify, PausePolicy, Since
from jobs import Retry

Listing = Callable[[Any, Any], Iterator[Page]]
"""`(connection, since) -> pages`; the ready ones are `clients.Listing` and its kin."""

_FORBIDDEN = frozenset("/\\:*?\"'<>| \t\n")


def check_id(kind: str, name: str) -> None:
    """Refuse an id that would not survive a URL, a command line or a message.

    Raises:
        DeclarationError: it cannot serve as one.
    """
    if not isinstance(name, str) or not name or len(name) > 200 or _FORBIDDEN & set(name):
        raise DeclarationError(f"{kind} id {name!r} must be 1 to 200 characters without spaces, slashes, colons and quotes")


@dataclass(frozen=True)
class Client:
    """A remote system. Pauses and recipients belong to it.

    Args:
        id: its name, e.g. `petstore`.
        connect: makes a connection from the settings; a context manager such as `HttpClient`.
        settings: a pydantic-settings class, read when the client is used and not before.
        queue: where its jobs wait; by default a queue named after the client.
        pause: when trouble pauses it, and how long.
        notify: who hears of it.
        check: what `syncs check` does with a connection; by default the first page of its first listing.

    Raises:
        DeclarationError: the id cannot serve as one.
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


@dataclass(frozen=True)
class Sync:
    """One kind of entity of a client, kept in step.

    Args:
        id: its name, e.g. `petstore.pets`.
        client: the remote system.
        listing: `(connection, since) -> Iterator[Page]`.
        fetch: `(connection, entity) -> record`; without it the listed item is the record.
        save: `(session, entity, record) -> None`, in the transaction of the job; by default the `record` table.
        delete: `(session, entity) -> None`; by default stamps `deleted_at`.
        retry: how often a failed entity is tried again.
        queue: in place of the client's.
        priority: higher goes first.
        timeout: seconds one entity's `fetch` may take; then it fails, and is tried again as `retry` says.
        delete_missing: whether a complete listing deletes what it no longer has.
        max_delete_share: no sweep above this share of the records.
        incremental: ask only for what is new. Such a listing deletes nothing; `--full` lists all.
        conditional: ask for an entity with what the last answer said of its version (`ETag`, `Last-Modified`); one that is
            still the same answers 304 and is `unchanged`. For a `fetch` whose record is the answer to one `get_json`.
        batch: jobs in one claim and one task run.
        concurrency: fetches at once.
        entity_task_runs: so many entities of a run get a Prefect task run of their own.

    Raises:
        DeclarationError: a field cannot work.
    """

    id: str
    client: Client
    listing: Listing = field(kw_only=True)
    fetch: Callable[[Any, Entity], Any] | None = field(default=None, kw_only=True)
    save: Callable[[Any, Entity, Any], None] | None = field(default=None, kw_only=True)
    delete: Callable[[Any, Entity], None] | None = field(default=None, kw_only=True)
    retry: Retry = field(default=Retry(), kw_only=True)
    queue: str | None = field(default=None, kw_only=True)
    priority: int = field(default=0, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    delete_missing: bool = field(default=False, kw_only=True)
    max_delete_share: float = field(default=0.2, kw_only=True)
    incremental: Since | None = field(default=None, kw_only=True)
    conditional: bool = field(default=False, kw_only=True)
    batch: int = field(default=100, kw_only=True)
    concurrency: int = field(default=8, kw_only=True)
    entity_task_runs: int = field(default=200, kw_only=True)

    def __post_init__(self) -> None:
        check_id("sync", self.id)
        if not isinstance(self.client, Client):
            raise DeclarationError(f"sync {self.id!r}: client must be a Client, got {type(self.client).__name__}")
        for name in ("listing", "fetch", "save", "delete"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name == "listing"):
                raise DeclarationError(f"sync {self.id!r}: {name} must be callable, got {type(value).__name__}")
        for name, kind in (("retry", Retry), ("incremental", Since)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name == "retry"):
                raise DeclarationError(f"sync {self.id!r}: {name} must be a {kind.__name__}, got {type(value).__name__}")
        if self.conditional and self.fetch is None:
            raise DeclarationError(f"sync {self.id!r}: conditional is about fetch, and there is none")
        if self.timeout is not None and not self.timeout > 0:
            raise DeclarationError(f"sync {self.id!r}: timeout must be more than 0 seconds, got {self.timeout}")
        if self.batch < 1 or self.concurrency < 1 or self.entity_task_runs < 0:
            raise DeclarationError(f"sync {self.id!r}: batch and concurrency must be at least 1, entity_task_runs at least 0")
        if not 0 <= self.max_delete_share <= 1:
            raise DeclarationError(f"sync {self.id!r}: max_delete_share must be from 0 to 1, got {self.max_delete_share}")

    @property
    def queue_id(self) -> str:
        """The queue its jobs wait in."""
        return self.queue or self.client.queue or self.client.id
