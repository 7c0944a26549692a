"""Turning a listed page into jobs: what needs work, what does not, and the one transaction of it all (law 2). Knows no HTTP."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, exists, literal_column, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs import models
from jobs.contention import again
from jobs.database import Database
from jobs.fingerprint import content_hash, encode, entity_fingerprint
from jobs.job import Lane
from jobs.listing import ListingClaim, Listings, Marked
from jobs.models import job, record
from jobs.rows import Rows, storable
from jobs.settle import PROCESSING, QUEUED

LONGEST_KEY = 2000
"""Bytes of an entity's key. With the sync's id it has to fit into a row of PostgreSQL's index, 2,704 bytes."""

_IS_TWIN = text("state = 'queued' AND fingerprint IS NOT NULL")


def excess(key: str) -> int:
    """Return the size of a key in bytes if it is longer than `LONGEST_KEY`, else 0."""
    # A character has four bytes at most: the common case needs no look at the bytes.
    if len(key) * 4 <= LONGEST_KEY:
        return 0
    size = len(key.encode(errors="replace"))
    return size if size > LONGEST_KEY else 0


@dataclass(frozen=True, slots=True)
class Item:
    """One listed entity: key, version if the remote side tells one, and its data."""

    key: str
    version: str | None = None
    data: Any = None


@dataclass(frozen=True, slots=True)
class PageResult:
    """What a page came to."""

    listed: int
    queued: int
    unchanged: int
    #: Entities that are not queued because they killed their workers: (key, error).
    poisonous: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PagePreview(PageResult):
    """What a page would come to. The queued ones by reason, keys all."""

    #: No record is there, or one that is deleted or was never in sync.
    created: tuple[str, ...] = ()
    #: Version or content is another.
    changed: tuple[str, ...] = ()
    #: Only a fetch tells.
    undecided: tuple[str, ...] = ()
    #: All of the page.
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of a listed entity."""

    version: str | None
    content_hash: str | None
    generation: int
    in_sync: bool
    #: The error of an entity that killed its workers in this version; empty for all others.
    poison: str = ""
    poison_version: str | None = None


def is_unchanged(item: Item, known: Known | None, *, generation: int, item_hash: str | None) -> bool:
    """Decide whether a listed entity needs no job.

    Args:
        item: as listed.
        known: as the ledger has it, `None` for a new one.
        generation: of this listing.
        item_hash: the hash of the item where the item is the record.
    """
    if known is None or not known.in_sync:
        return False
    if item.version is not None:
        return item.version == known.version
    if item_hash is not None:
        return item_hash == known.content_hash
    # Without a version only a fetch could tell. A listing that starts over in its own generation has asked for it already.
    return known.generation == generation


@dataclass(frozen=True, slots=True)
class Plan:
    """What a page comes to, before anything is written."""

    queued: list[Item]
    unchanged: list[Item]
    poisonous: tuple[tuple[str, str], ...]

    @property
    def result(self) -> PageResult:
        """The plan in numbers."""
        listed = len(self.queued) + len(self.unchanged) + len(self.poisonous)
        return PageResult(listed, len(self.queued), len(self.unchanged), self.poisonous)


def plan(
    items: Sequence[Item], known: Mapping[str, Known], *, generation: int, item_is_record: bool, full: bool,
    unfinished: Collection[str] = (),
) -> Plan:  # fmt: skip
    """Decide which entities of a page need a job.

    Args:
        items: no two with one key.
        known: what the ledger has of them.
        generation: of this listing.
        item_is_record: the listed item is the whole record, so that its hash can tell whether it changed.
        full: every entity needs one.
        unfinished: entities that an earlier page has queued, where the item is the record: what that page said is about to be
            saved, so that one which is as the record still is needs a job, too.
    """
    queued, unchanged, poisonous = [], [], []
    for item in items:
        before = None if full else known.get(item.key)
        item_hash = content_hash(item.data) if item_is_record and before is not None else None
        if before is not None and before.poison and before.poison_version == item.version:
            poisonous.append((item.key, before.poison))
        elif is_unchanged(item, before, generation=generation, item_hash=item_hash) and item.key not in unfinished:
            unchanged.append(item)
        else:
            queued.append(item)
    return Plan(queued, unchanged, tuple(poisonous))


class Pages:
    """Pages of one database."""

    def __init__(self, db: Database, listings: Listings) -> None:
        self._db = db
        self._listings = listings
        # The sync stands in each row, so that SQLite's planner starts from the rows and looks each one up by primary key;
        # with the sync as a constant it walked through all records of the sync once for each row.
        self._keys = keys = Rows(db, {"sync": "text", "key": "text"})
        same = and_(record.c.sync == keys.sync, record.c.key == keys.key)
        self._known = (
            select(
                record.c.key, record.c.version, record.c.content_hash, record.c.generation,
                and_(record.c.synced_at.is_not(None), record.c.deleted_at.is_(None)).label("in_sync"),
                case((record.c.is_poison, record.c.last_error), else_="").label("poison"), record.c.poison_version,
            )
            .join_from(keys.table, record, same)
        )  # fmt: skip
        self._see = update(record).where(same).values(generation=bindparam("b_generation"))
        self._confirm = update(record).where(same).values(synced_at=db.now)
        self._new = Rows(db, {"key": "text", "fingerprint": "text", "payload": "json"})
        self._enqueue = self._enqueue_statement()
        self._twins = twins = Rows(db, {"queue": "text", "key": "text", "fingerprint": "text"})
        of_lane = (
            job.c.queue == bindparam("in_queue"),
            job.c.client == bindparam("of_client"),
            job.c.type == bindparam("of_type"),
        )
        self._is_idle = select(
            ~exists(literal_column("1")).where(job.c.state == QUEUED, *of_lane),
            ~exists(literal_column("1")).where(job.c.state == PROCESSING, *of_lane),
        )
        self._unfinished = (
            select(twins.key)
            .join_from(
                twins.table,
                job,
                and_(job.c.state == QUEUED, job.c.fingerprint == twins.fingerprint, job.c.queue == twins.queue),
            )
            .where(job.c.fingerprint.is_not(None))
            .union_all(select(job.c.key).where(job.c.state == PROCESSING, *of_lane))
        )

    def _enqueue_statement(self) -> Any:
        insert_into = postgresql.insert if self._db.dialect == "postgresql" else sqlite.insert
        db, rows = self._db, self._new
        payload: ColumnElement[Any] = rows.payload.cast(postgresql.JSON) if db.dialect == "postgresql" else rows.payload
        source = select(
            bindparam("in_queue").cast(models.job.c.queue.type), bindparam("of_client").cast(models.job.c.client.type),
            bindparam("of_type").cast(models.job.c.type.type), rows.key, rows.fingerprint, QUEUED,
            bindparam("b_priority").cast(models.job.c.priority.type), db.now, db.now, payload,
            bindparam("b_generation").cast(models.job.c.generation.type),
        ).where(rows.key.is_not(None))  # fmt: skip
        statement = insert_into(job).from_select(
            [
                "queue", "client", "type", "key", "fingerprint", "state", "priority", "available_at", "created_at", "payload",
                "generation",
            ],
            source,
        )  # fmt: skip
        new = statement.excluded
        # A queued twin takes the newer listing's word and keeps its place; one in processing gets a follow-up (law 11).
        return statement.on_conflict_do_update(
            index_elements=["queue", "fingerprint"],
            index_where=_IS_TWIN,
            set_={"payload": new.payload, "generation": new.generation, "priority": new.priority},
        )

    @again
    def enqueue(
        self,
        claim: ListingClaim,
        lane: Lane,
        items: Sequence[Item],
        *,
        cursor: Any,
        priority: int = 0,
        item_is_record: bool = False,
        full: bool = False,
        last: bool = False,
        flawed: int = 0,
        marked: Marked | None = None,
    ) -> PageResult:
        """Store one page: its jobs, the ledger's generation and the cursor, in one transaction.

        Args:
            claim: from `Listings.begin`.
            lane: where the jobs go; its type is the sync.
            items: the page's entities; of two with one key the last counts.
            cursor: where the next page begins, JSON.
            priority: of the jobs.
            item_is_record: the listed item is the whole record, so that its hash can tell whether it changed.
            full: ask for a job for each entity, changed or not.
            last: no page follows: the listing is complete with this one, in the same transaction.
            flawed: items of the page that could not become entities, or were left for later.
            marked: what this page means for the mark.

        Raises:
            LostLease: another process runs this sync now; nothing was written.
            PayloadError: an item is not JSON.
        """
        items = _distinct(items)
        with self._db.write() as connection:
            known = self._known_records(connection, claim.sync, items)
            unfinished = self._unfinished_of(connection, lane, known) if item_is_record and known else ()
            todo = plan(
                items, known, generation=claim.generation, item_is_record=item_is_record, full=full, unfinished=unfinished
            )
            if known:
                seen = self._keys.bind([(claim.sync, key) for key in known])
                connection.execute(self._see, {**seen, "b_generation": claim.generation})
            if todo.unchanged:
                connection.execute(self._confirm, self._keys.bind([(claim.sync, item.key) for item in todo.unchanged]))
            if todo.queued:
                rows = [(item.key, entity_fingerprint(lane.type, item.key), _payload(item, full=full)) for item in todo.queued]
                connection.execute(
                    self._enqueue,
                    {**self._new.bind(rows), **lane.parameters(), "b_priority": priority, "b_generation": claim.generation},
                )
            self._listings.advance(connection, claim, cursor=cursor, listed=len(items), last=last, flawed=flawed, marked=marked)
        return todo.result

    def preview(self, sync: str, items: Sequence[Item], *, item_is_record: bool = False, full: bool = False) -> PagePreview:
        """Say what a page would come to, and write nothing.

        Args:
            sync: whose.
            items: the page's entities.
            item_is_record, full: as for `enqueue`.

        Raises:
            PayloadError: an item is not JSON.
        """
        items = _distinct(items)
        with self._db.read() as connection:
            known = self._known_records(connection, sync, items)
        todo = plan(items, known, generation=-1, item_is_record=item_is_record, full=full)
        reasons: dict[str, list[str]] = {"created": [], "changed": [], "undecided": []}
        for item in todo.queued:
            _payload(item, full=full)
            reasons[_reason(item, known.get(item.key), item_is_record=item_is_record)].append(item.key)
        found, (created, changed, undecided) = todo.result, map(tuple, reasons.values())
        return PagePreview(
            found.listed, found.queued, found.unchanged, found.poisonous, created, changed, undecided,
            tuple(item.key for item in items),
        )  # fmt: skip

    def _unfinished_of(self, connection: Connection, lane: Lane, known: Mapping[str, Known]) -> set[str]:
        if all(connection.execute(self._is_idle, lane.parameters()).one()):
            return set()
        rows = [(lane.queue, key, entity_fingerprint(lane.type, key)) for key, before in known.items() if before.in_sync]
        return set(connection.execute(self._unfinished, {**self._twins.bind(rows), **lane.parameters()}).scalars())

    def _known_records(self, connection: Connection, sync: str, items: Sequence[Item]) -> dict[str, Known]:
        if not items:
            return {}
        rows = connection.execute(self._known, self._keys.bind([(sync, item.key) for item in items]))
        return {
            row.key: Known(row.version, row.content_hash, row.generation, bool(row.in_sync), row.poison or "", row.poison_version)
            for row in rows
        }


def _reason(item: Item, known: Known | None, *, item_is_record: bool) -> str:
    """Say why an entity would be queued."""
    if known is None or not known.in_sync:
        return "created"
    if item.version is not None and item.version != known.version:
        return "changed"
    if item.version is None and item_is_record and content_hash(item.data) != known.content_hash:
        return "changed"
    return "undecided"


def _distinct(items: Sequence[Item]) -> list[Item]:
    """Keep the last item of each key, under the key that the database will hold."""
    found = {}
    for item in items:
        key = item.key if item.key.isprintable() else storable(item.key)
        found[key] = item if key == item.key else replace(item, key=key)
    return list(found.values())


def _payload(item: Item, *, full: bool) -> str:
    payload = {"version": item.version, "data": item.data}
    return encode({**payload, "full": True} if full else payload).decode()
