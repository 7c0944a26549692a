"""Makes the requests for entities conditional: offers the stored validators, and keeps new ones until the entity is saved.

Validators are stored only for an entity that was fetched with one request. With several requests, a 304 to the first would say
nothing about the others.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from clients import Validator
from flows.declarations.sync import Sync
from jobs.job import Job, StoredValidator
from jobs.outcome import Outcome, Unchanged
from jobs.store import JobStore

FORGOTTEN = 10_000


@dataclass(slots=True)
class Offer:
    """The validators of one entity, as `clients.Validators`."""

    _known: dict[tuple[str, str, str], Validator]
    _came: list[StoredValidator] = field(default_factory=list)

    def get(self, identity: str, method: str, url: str) -> Validator | None:
        """Return the validator of the answer that the record was made of."""
        return self._known.get((identity, method, url))

    def put(self, identity: str, method: str, url: str, validator: Validator) -> None:
        """Set a validator aside."""
        self._came.append(StoredValidator(identity, method, url, validator.etag, validator.modified))

    def stored(self, outcome: Outcome, *, requests: int) -> Sequence[StoredValidator] | None:
        """Return what is to be stored with the entity; `None` leaves what is there.

        Args:
            outcome: of its job.
            requests: how many its job has sent.
        """
        if isinstance(outcome, Unchanged) and not self._came:
            return None
        return self._came if requests == 1 else ()


class Conditions:
    """The validators of the entities that are being worked.

    Args:
        sync: whose.
        store: where they are.
    """

    def __init__(self, sync: Sync, store: JobStore) -> None:
        self._sync = sync
        self._store = store
        self._prepared: dict[tuple[int, int], list[StoredValidator]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, sync: Sync, store: JobStore) -> Self | None:
        """Return the conditions of a sync; `None` where it makes none."""
        return cls(sync, store) if sync.conditional else None

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Look up the validators of claimed jobs, of those whose record is in sync."""
        found = self._store.etags.of(self._sync.id, [job.key for job in jobs if job.key is not None])
        with self._lock:
            if len(self._prepared) > FORGOTTEN:
                # Jobs that went back before their turn leave theirs here.
                self._prepared.clear()
            for job in jobs:
                if job.key in found:
                    self._prepared[job.id, job.claim_no] = found[job.key]

    def offer(self, job: Job) -> Offer:
        """Return what makes the requests of a job conditional; one that was not prepared is asked for without conditions."""
        with self._lock:
            known = self._prepared.pop((job.id, job.claim_no), [])
        return Offer({one[:3]: Validator(one.etag, one.modified) for one in known})
