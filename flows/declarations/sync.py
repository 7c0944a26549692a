"""`Sync`: one kind of entity of a client, kept in step, as a file in `syncs/` declares it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from clients import Entity, Page
from clients.quoted_path import watching
from flows.declarations.client import Client
from flows.declarations.into import targets_of
from flows.declarations.path_fetch import PathFetch
from flows.declarations.schedule import Cron, Every, as_schedule
from flows.declarations.since import Since
from flows.declarations.validation import check_arguments, check_id, is_duration, keep_queue
from flows.errors import DeclarationError, UsageError
from flows.time_text import parse_duration
from jobs import Queue, Retry

_ARGUMENTS = {
    "listing": ("connection", "since"),
    "fetch": ("connection", "entity"),
    "save": ("session", "entity", "record"),
    "delete": ("session", "entity"),
}

Listing = Callable[[Any, Any], Iterator[Page]]
"""`(connection, since) -> pages`, such as `clients.Listing`."""


@dataclass(frozen=True)
class Sync:
    """One kind of entity of a client, kept in step with our copy.

    Args:
        id: its name, e.g. `petstore.pets`.
        client: the remote system.
        listing: `(connection, since) -> Iterator[Page]`.
        fetch: `(connection, entity) -> record`, or the path of the record, such as `"pets/{key}"`, with `{parent}` for entities
            of `Nested`; without it, the listed item is the record.
        save: `(session, entity, record) -> None`, in the transaction of the job; by default the `record` table.
        into: in place of `save`: a SQLModel table class, or `Into(…)`, or a list of them. Each record is upserted there, and
            deleted with the entity; the `record` row has no data then.
        delete: `(session, entity) -> None`; by default stamps `deleted_at`.
        retry: how often and when a failed entity is tried again.
        queue: the queue of its jobs, by its id or itself; by default the client's.
        priority: higher goes first.
        timeout: seconds that `fetch` may take for one entity; then the attempt fails, and `retry` applies.
        delete_missing: delete what a complete listing no longer contains.
        max_delete_share: a sweep that would delete more than this share of the records is refused.
        incremental: list only what is new. Such a listing deletes nothing; `--full` lists everything.
        conditional: send `If-None-Match` and `If-Modified-Since` with the validators of the last answer; an entity that answers
            304 is `unchanged`. Only for a `fetch` that returns the answer to one `get_json`.
        batch: jobs per claim and per Prefect task run.
        concurrency: fetches at the same time.
        entity_task_runs: up to this number of entities, each gets a Prefect task run of its own.
        schedule: when it runs by itself: cron text such as `"0 3 * * *"` (UTC), `Cron("0 3 * * *", zone="Europe/Berlin")`, or
            `Every(300)` seconds. `syncs up` and `syncs setup` put it on the Prefect server.
        late_after: a duration such as `"26h"`, a timedelta or seconds: people get a notice when no run has succeeded for so long,
            and `syncs list --late` exits 1. Kept as seconds. `None` expects nothing.

    Raises:
        DeclarationError: a field has the wrong form.
    """

    id: str
    client: Client
    listing: Listing = field(kw_only=True)
    fetch: Callable[[Any, Entity], Any] | str | None = field(default=None, kw_only=True)
    save: Callable[[Any, Entity, Any], None] | None = field(default=None, kw_only=True)
    into: Any = field(default=None, kw_only=True)
    delete: Callable[[Any, Entity], None] | None = field(default=None, kw_only=True)
    retry: Retry = field(default=Retry(), kw_only=True)
    queue: str | Queue | None = field(default=None, kw_only=True)
    priority: int = field(default=0, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    delete_missing: bool = field(default=False, kw_only=True)
    max_delete_share: float = field(default=0.2, kw_only=True)
    incremental: Since | None = field(default=None, kw_only=True)
    conditional: bool = field(default=False, kw_only=True)
    batch: int = field(default=100, kw_only=True)
    concurrency: int = field(default=8, kw_only=True)
    entity_task_runs: int = field(default=200, kw_only=True)
    schedule: str | Cron | Every | None = field(default=None, kw_only=True)
    late_after: str | float | timedelta | None = field(default=None, kw_only=True)

    #: The queue, where it was given itself.
    own_queue: ClassVar[Queue | None] = None

    def __post_init__(self) -> None:
        check_id("sync", self.id)
        keep_queue(self, f"sync {self.id!r}")
        if not isinstance(self.client, Client):
            raise DeclarationError(f"sync {self.id!r}: client must be a Client, got {type(self.client).__name__}")
        if isinstance(self.fetch, str):
            object.__setattr__(self, "fetch", PathFetch(self.id, self.fetch))
        object.__setattr__(self, "schedule", as_schedule(f"sync {self.id!r}", self.schedule))
        self._check_functions()
        self._set_targets()
        for name, kind in (("retry", Retry), ("incremental", Since)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name == "retry"):
                raise DeclarationError(f"sync {self.id!r}: {name} must be a {kind.__name__}, got {type(value).__name__}")
        if self.conditional and self.fetch is None:
            raise DeclarationError(f"sync {self.id!r}: conditional needs fetch, and there is none")
        if self.timeout is not None and not self.timeout > 0:
            raise DeclarationError(f"sync {self.id!r}: timeout must be more than 0 seconds, got {self.timeout}")
        if self.batch < 1 or self.concurrency < 1 or self.entity_task_runs < 0:
            raise DeclarationError(f"sync {self.id!r}: batch and concurrency must be at least 1, entity_task_runs at least 0")
        object.__setattr__(self, "late_after", _seconds(self.id, self.late_after))
        if not 0 <= self.max_delete_share <= 1:
            raise DeclarationError(f"sync {self.id!r}: max_delete_share must be from 0 to 1, got {self.max_delete_share}")

    def _set_targets(self) -> None:
        if self.into is None:
            return
        if self.save is not None:
            raise DeclarationError(f"sync {self.id!r}: save and into exclude each other; `Into(…, to_row=…)` shapes the rows")
        object.__setattr__(self, "into", targets_of(self.id, self.into))

    def _check_functions(self) -> None:
        for name, arguments in _ARGUMENTS.items():
            value = getattr(self, name)
            if not callable(value) and (value is not None or name == "listing"):
                raise DeclarationError(f"sync {self.id!r}: {name} must be callable, got {type(value).__name__}")
            if value is not None:
                check_arguments(f"sync {self.id!r}: {name}", value, arguments)

    @property
    def queue_id(self) -> str:
        """The queue of its jobs."""
        return str(self.queue or self.client.queue_id)

    def is_late(self, seconds: float | None) -> bool:
        """Tell whether its last success is too long ago; seconds ago, `None` if it never had one."""
        return isinstance(self.late_after, float) and (seconds is None or seconds > self.late_after)

    def fetch_entity(self, connection: Any, entity: Entity) -> Any:
        """Return what `fetch` returns; a request with the entity's key in its path must have it quoted.

        Raises:
            RejectedError: it has not, and would ask for something else.
        """
        assert callable(self.fetch)
        with watching(entity):
            return self.fetch(connection, entity)


def _seconds(sync: str, late_after: Any) -> float | None:
    """Return a `late_after` as seconds."""
    if late_after is None:
        return None
    try:
        found = parse_duration(late_after) if isinstance(late_after, str) else late_after
    except UsageError as error:
        raise DeclarationError(f"sync {sync!r}: late_after: {error}") from None
    found = found.total_seconds() if isinstance(found, timedelta) else found
    if not is_duration(found):
        raise DeclarationError(
            f"sync {sync!r}: late_after must be a duration such as '26h', a timedelta or seconds, got {found!r}"
        )
    return float(found)
