"""A client with a sync and a job type that fail as they are told to, and what is sent of it."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from clients import Entity, Page
from flows import Client, JobType, Notify, PausePolicy, Sync
from flows.notices.collector import Collector
from flows.notices.delivery import Deliverer
from flows.notices.notifier import Notifier
from flows.notices.recipients import Recipients
from flows.project.registry import Registry
from flows.project.settings import Settings
from flows.sync import run as engine
from jobs import Failure, JobStore, Retry
from tests.support.store_helpers import change

NEVER = Retry(max_retries=0)
HOUR = 3600.0


class Shop:
    """A client with a sync and a job type, whose entities fail as they are told to."""

    def __init__(self, store: JobStore, *to: str, notify: Notify | None = None, keys: int = 3) -> None:
        self.store = store
        everybody = list(to)
        self.client = Client(
            "shop", connect=lambda settings: nullcontext(object()), pause=PausePolicy(after=2, durations=(60,)),
            notify=notify or Notify(notice=everybody, warning=everybody, error=everybody),
        )  # fmt: skip
        #: Raised by the fetch of an entity, by key, and by the listing.
        self.errors: dict[str, Exception] = {}
        self.listing_error: Exception | None = None
        self.keys = keys
        self.sync = Sync("shop.rows", self.client, listing=self._list, fetch=self._fetch, retry=NEVER)
        self.orders = JobType("shop.order", self.client, process=self._order, retry=NEVER)
        self.registry = Registry(
            clients={"shop": self.client}, syncs={self.sync.id: self.sync}, job_types={self.orders.id: self.orders}
        )

    def _list(self, connection: Any, since: Any) -> Iterator[Page]:
        if self.listing_error is not None:
            raise self.listing_error
        yield Page([Entity(f"key-{number}", None, {"name": f"Payl0ad {number}"}) for number in range(self.keys)])

    def _fetch(self, connection: Any, entity: Entity) -> Any:
        if (error := self.errors.get(entity.key, self.errors.get("*"))) is not None:
            raise error
        return {"key": entity.key}

    def _order(self, job: Any, connection: Any) -> Any:
        return Failure(f"no room for {job.payload['name']}, order {job.payload['number']}")

    def run(self) -> str:
        """Run the sync; return its state."""
        return engine.run(self.sync, self.store).state

    def pause(
        self, *, cause: str = "level", reason: str = "GET https://shop.example/rows: 503", seconds: float | None = 60
    ) -> None:
        """Pause the client and say so."""
        with Notifier(self.store, self.registry) as notifier:
            pausing = self.store.pauses.open("shop", seconds, cause=cause, reason=reason, set_by="w1")
            assert pausing is not None
            notifier.paused(self.client, pausing)

    def resume(self, by: str = "anna") -> None:
        """Resume it and say so."""
        with Notifier(self.store, self.registry) as notifier:
            assert self.store.pauses.resume("shop", by=by)
            notifier.resumed(self.client, by=by)

    def look(self, *, window: float = HOUR, gather: float = 0.0) -> None:
        """Take in what is new, and send what is due, in this thread."""
        settings = Settings(notify_window=window)
        Collector(self.store, self.registry, {"shop": self.client}, recipients=Recipients({}, settings)).collect(gather=gather)
        self.deliver()

    def deliver(self) -> Any:
        """Send what is due."""
        return Deliverer(self.store, {"shop": self.client}, settings=Settings()).deliver()


def due(store: JobStore) -> None:
    """Let the wait of what did not go out be over."""
    change(store, "UPDATE delivery SET next_at = '2000-01-01 00:00:00.000000+00'")
