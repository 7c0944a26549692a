"""Decides which entities of a listed page need a job. Pure functions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jobs.fingerprint import content_hash
from jobs.schema.states import FAILURE, PROCESSING, QUEUED, SUCCESS

LONGEST_KEY = 2000
"""Bytes of an entity's key. With the sync's id it has to fit into a row of PostgreSQL's index, 2,704 bytes."""


def excess_key_length(key: str) -> int:
    """Return the size of a key in bytes if it is longer than `LONGEST_KEY`, else 0."""
    # A character has at most four bytes, so that most keys need not be encoded.
    if len(key) * 4 <= LONGEST_KEY:
        return 0
    size = len(key.encode(errors="replace"))
    return size if size > LONGEST_KEY else 0


@dataclass(frozen=True, slots=True)
class Item:
    """One listed entity: its key, its version if the remote side gives one, its data, and the keys that its own is made of."""

    key: str
    version: str | None = None
    data: Any = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PageResult:
    """What became of a page: numbers of entities."""

    listed: int
    queued: int
    unchanged: int
    #: Entities that are not queued because they killed their workers before: (key, error).
    poisonous: tuple[tuple[str, str], ...] = ()
    #: Entities that are not queued because this pass has worked them already, or has a job of them that is not done.
    settled: int = 0
    waiting: int = 0
    #: The keys of those that are not queued because they have failed in this pass.
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PagePreview(PageResult):
    """What would become of a page, with the keys of the queued entities by reason."""

    #: No record exists, or it is deleted or was never in sync.
    created: tuple[str, ...] = ()
    #: Version or content differ.
    changed: tuple[str, ...] = ()
    #: Only a fetch can tell.
    undecided: tuple[str, ...] = ()
    #: All keys of the page.
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """What the ledger knows of a listed entity."""

    version: str | None
    content_hash: str | None
    generation: int
    in_sync: bool
    #: The error of an entity that killed its workers in this version; empty for all others.
    poison: str = ""
    poison_version: str | None = None
    #: The generation of the job that wrote it last, and whether that found it gone.
    job_generation: int = 0
    is_deleted: bool = False


def is_unchanged(item: Item, known: KnownRecord | None, *, generation: int, item_hash: str | None) -> bool:
    """Decide whether a listed entity needs no job.

    Args:
        item: the listed item.
        known: its record, `None` for a new entity.
        generation: of this listing.
        item_hash: the hash of the item where the item is the record.
    """
    if known is None or not known.in_sync:
        return False
    if item.version is not None:
        return item.version == known.version
    if item_hash is not None:
        return item_hash == known.content_hash
    # Without a version only a fetch can tell. A listing that was restarted in its own generation has queued it already.
    return known.generation == generation


class PassJob(NamedTuple):
    """A job of an entity in the present pass that is not done, or has failed: what was listed, and the job's state."""

    version: str | None
    data: Any
    state: str


def settled_by(
    item: Item, known: KnownRecord | None, *, generation: int, item_hash: str | None, jobs: Sequence[PassJob]
) -> str | None:
    """Return the state of what this pass has done of an entity as it is listed now; `None` if it has done nothing.

    Args:
        item: the listed item.
        known: its record, `None` for a new entity.
        generation: of the pass.
        item_hash: the hash of the item where the item is the record.
        jobs: those of the entity in this pass.
    """
    for version, data, state in jobs:
        if version == item.version and (item_hash is None or data == item.data):
            return state
    if known is None or known.job_generation != generation:
        return None
    is_same = item.version in (None, known.version) and item_hash in (None, known.content_hash)
    return SUCCESS if known.is_deleted or is_same else None


@dataclass(frozen=True, slots=True)
class PagePlan:
    """Which entities of a page are queued, which are not."""

    queued: list[Item]
    unchanged: list[Item]
    poisonous: tuple[tuple[str, str], ...]
    #: Entities that need no job because of what this pass has done: (key, state).
    settled: list[tuple[str, str]] = field(default_factory=list)

    @property
    def result(self) -> PageResult:
        """Return the plan in numbers."""
        listed = len(self.queued) + len(self.unchanged) + len(self.poisonous) + len(self.settled)
        settled = sum(state == SUCCESS for _, state in self.settled)
        waiting = sum(state in (QUEUED, PROCESSING) for _, state in self.settled)
        failed = tuple(key for key, state in self.settled if state == FAILURE)
        return PageResult(
            listed=listed,
            queued=len(self.queued),
            unchanged=len(self.unchanged),
            poisonous=self.poisonous,
            settled=settled,
            waiting=waiting,
            failed=failed,
        )


def plan_page(
    items: Sequence[Item],
    known: Mapping[str, KnownRecord],
    *,
    generation: int,
    item_is_record: bool,
    full: bool,
    unfinished: Collection[str] = (),
    begun: Mapping[str, Sequence[PassJob]] | None = None,
) -> PagePlan:
    """Decide which entities of a page need a job.

    Args:
        items: no two with one key.
        known: what the ledger has of them.
        generation: of this listing.
        item_is_record: the listed item is the whole record, so that its hash can tell whether it changed.
        full: every entity needs a job.
        unfinished: entities that an earlier page has queued, where the item is the record. Their older content is about to be
            saved, so that they need a job even if the item equals the record.
        begun: for a pass that may show an entity twice: its jobs that have failed or are not done, by key. An entity gets no
            second job in this pass as long as it is listed in the same way, also if the listing is `full`.
    """
    queued, unchanged, poisonous, settled = [], [], [], []
    for item in items:
        if begun is not None:
            record_hash = content_hash(item.data) if item_is_record else None
            jobs, before = begun.get(item.key, ()), known.get(item.key)
            state = settled_by(item, before, generation=generation, item_hash=record_hash, jobs=jobs)
            if state is not None:
                settled.append((item.key, state))
                continue
        before = None if full else known.get(item.key)
        item_hash = content_hash(item.data) if item_is_record and before is not None else None
        if before is not None and before.poison and before.poison_version == item.version:
            poisonous.append((item.key, before.poison))
        elif is_unchanged(item, before, generation=generation, item_hash=item_hash) and item.key not in unfinished:
            unchanged.append(item)
        else:
            queued.append(item)
    return PagePlan(queued, unchanged, tuple(poisonous), settled)


def reason_for(item: Item, known: KnownRecord | None, *, item_is_record: bool) -> str:
    """Say why an entity would be queued."""
    if known is None or not known.in_sync:
        return "created"
    if item.version is not None and item.version != known.version:
        return "changed"
    if item.version is None and item_is_record and content_hash(item.data) != known.content_hash:
        return "changed"
    return "undecided"
