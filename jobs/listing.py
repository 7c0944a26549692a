"""How far a listing has come: the run's lock, the page transaction, the cursor. Knows no HTTP and no paginator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, and_, bindparam, case, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs import models
from jobs.contention import again
from jobs.database import Database
from jobs.errors import LostLease
from jobs.fingerprint import content_hash, encode, entity_fingerprint
from jobs.job import Lane
from jobs.models import job, listing, record
from jobs.rows import Rows
from jobs.settle import QUEUED
from jobs.worker import is_gone

LISTING, COMPLETE, ABANDONED = "listing", "complete", "abandoned"
_IS_TWIN = text("state = 'queued' AND fingerprint IS NOT NULL")


@dataclass(frozen=True, slots=True)
class ListingClaim:
    """The right to run a sync, fenced like a claimed job."""

    sync: str
    claim_no: int
    generation: int
    #: Where to resume; `None` starts at the first page.
    cursor: Any
    #: Whether an interrupted listing goes on.
    resumed: bool
    pages: int
    listed: int
    mark: Any
    #: Every entity is queued, changed or not.
    full: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    """Another process runs this sync."""

    worker: str
    since: Any


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


class Listings:
    """Listings of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        self._open = (
            insert_into(listing)
            .values(
                sync=bindparam("b_sync"), client=bindparam("b_client"), state=COMPLETE, generation=0,
                started_at=db.now, updated_at=db.now,
            )
            .on_conflict_do_nothing(index_elements=["sync"])
        )  # fmt: skip
        self._read = (
            select(listing, (listing.c.lease_until > db.now).label("leased"))
            .where(listing.c.sync == bindparam("b_sync"))
            .with_for_update(of=listing)
        )
        self._take = (
            update(listing)
            .where(listing.c.sync == bindparam("b_sync"))
            .values(
                claim_no=listing.c.claim_no + 1, worker=bindparam("by"), lease_until=db.from_now("lease"), updated_at=db.now,
                state=LISTING, generation=bindparam("b_generation"), cursor=bindparam("b_cursor", type_=JSON(none_as_null=True)),
                pages=bindparam("b_pages"), listed=bindparam("b_listed"), client=bindparam("b_client"), started_at=db.now,
                is_full=bindparam("b_full"),
            )
            .returning(listing.c.claim_no)
        )  # fmt: skip
        held = and_(listing.c.sync == bindparam("b_sync"), listing.c.claim_no == bindparam("b_claim"))
        self._advance = (
            update(listing)
            .where(held, listing.c.state == LISTING)
            .values(
                cursor=bindparam("b_cursor", type_=JSON(none_as_null=True)), pages=listing.c.pages + 1,
                listed=listing.c.listed + bindparam("b_listed"), updated_at=db.now,
            )
        )  # fmt: skip
        self._abandon = update(listing).where(held).values(state=ABANDONED, cursor=None, updated_at=db.now)
        self._complete = update(listing).where(held).values(
            state=COMPLETE, cursor=None, completed_at=db.now, updated_at=db.now
        )  # fmt: skip
        self._renew = update(listing).where(held).values(lease_until=db.from_now("lease"))
        self._release = update(listing).where(held).values(worker=None, lease_until=None, updated_at=db.now)
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
        self._enqueue = self._enqueue_statement(insert_into)

    def _enqueue_statement(self, insert_into: Callable[..., Any]) -> Any:
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
    def begin(self, sync: str, client: str, *, worker: str, lease: float, full: bool = False) -> ListingClaim | Busy:
        """Take the right to run a sync: go on with an interrupted listing, or begin the next generation.

        Args:
            sync, client: ids.
            worker: who takes it.
            lease: seconds until others may take it, unless renewed.
            full: list every entity as changed; an interrupted listing that did not is begun anew, and one that did goes on so.

        Returns:
            The claim, or who has it.
        """
        with self._db.write() as connection:
            connection.execute(self._open, {"b_sync": sync, "b_client": client})
            row = connection.execute(self._read, {"b_sync": sync}).one()
            if row.worker is not None and row.leased and not is_gone(row.worker):
                return Busy(row.worker, row.started_at)
            resumed = row.state == LISTING and (row.is_full or not full)
            generation = row.generation if resumed else row.generation + 1
            cursor, pages, listed = (row.cursor, row.pages, row.listed) if resumed else (None, 0, 0)
            claim_no = connection.execute(
                self._take,
                {
                    "b_sync": sync, "by": worker, "lease": lease, "b_generation": generation, "b_cursor": cursor,
                    "b_pages": pages, "b_listed": listed, "b_client": client,
                    "b_full": full or (resumed and row.is_full),
                },
            ).scalar_one()  # fmt: skip
        return ListingClaim(
            sync, claim_no, generation, cursor, resumed, pages, listed, row.mark, full or (resumed and row.is_full)
        )

    @again
    def enqueue_page(
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
    ) -> PageResult:
        """Store one page: its jobs, the ledger's generation and the cursor, in one transaction (law 2).

        Args:
            claim: from `begin`.
            lane: where the jobs go; its type is the sync.
            items: the page's entities; of two with one key the last counts.
            cursor: where the next page begins, JSON.
            priority: of the jobs.
            item_is_record: the listed item is the whole record, so that its hash can tell whether it changed.
            full: ask for a job for each entity, changed or not.
            last: no page follows: the listing is complete with this one, in the same transaction.

        Raises:
            LostLease: another process runs this sync now; nothing was written.
            PayloadError: an item is not JSON.
        """
        items = list({item.key: item for item in items}.values())
        hashes = {item.key: _hash(item) for item in items} if item_is_record else {}
        keys = self._keys.bind([(claim.sync, item.key) for item in items])
        with self._db.write() as connection:
            known = self._known_records(connection, keys) if items else {}
            unchanged = [
                item
                for item in items
                if not full
                and is_unchanged(item, known.get(item.key), generation=claim.generation, item_hash=hashes.get(item.key))
            ]
            if known:
                seen = self._keys.bind([(claim.sync, key) for key in known])
                connection.execute(self._see, {**seen, "b_generation": claim.generation})
            if unchanged:
                confirmed = self._keys.bind([(claim.sync, item.key) for item in unchanged])
                connection.execute(self._confirm, confirmed)
            poisonous = tuple(
                (item.key, known[item.key].poison)
                for item in items
                if not full and item.key in known and known[item.key].poison and known[item.key].poison_version == item.version
            )
            skip = {item.key for item in unchanged} | {key for key, _ in poisonous}
            queued = [item for item in items if item.key not in skip]
            if queued:
                rows = [(item.key, entity_fingerprint(lane.type, item.key), _payload(item, full=full)) for item in queued]
                connection.execute(
                    self._enqueue,
                    {**self._new.bind(rows), **lane.parameters(), "b_priority": priority, "b_generation": claim.generation},
                )
            moved = connection.execute(
                self._advance,
                {"b_sync": claim.sync, "b_claim": claim.claim_no, "b_cursor": cursor, "b_listed": len(items)},
            )
            if moved.rowcount != 1:
                raise LostLease(f"another process runs {claim.sync} now")
            if last:
                connection.execute(self._complete, _claim(claim))
        return PageResult(len(items), len(queued), len(unchanged), poisonous)

    def preview(self, sync: str, items: Sequence[Item], *, item_is_record: bool = False) -> PageResult:
        """Say what a page would come to, and write nothing.

        Args:
            sync: whose.
            items: the page's entities.
            item_is_record: as for `enqueue_page`.
        """
        items = list({item.key: item for item in items}.values())
        with self._db.read() as connection:
            known = self._known_records(connection, self._keys.bind([(sync, item.key) for item in items])) if items else {}
        unchanged = sum(
            is_unchanged(item, known.get(item.key), generation=-1, item_hash=_hash(item) if item_is_record else None)
            for item in items
        )
        return PageResult(len(items), len(items) - unchanged, unchanged)

    def _known_records(self, connection: Connection, keys: dict[str, str]) -> dict[str, Known]:
        rows = connection.execute(self._known, keys)
        return {
            row.key: Known(row.version, row.content_hash, row.generation, bool(row.in_sync), row.poison or "", row.poison_version)
            for row in rows
        }

    def complete(self, claim: ListingClaim) -> None:
        """Mark the listing as complete: its generation has seen every entity.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(self._complete, claim)

    def abandon(self, claim: ListingClaim) -> None:
        """Give up an incomplete listing: the next run begins a new generation at the first page.

        Raises:
            LostLease: another process runs this sync now.
        """
        self._fenced(self._abandon, claim)

    def renew(self, claim: ListingClaim, *, lease: float) -> bool:
        """Extend the right to run; tell whether it is still held."""
        with self._db.write() as connection:
            return connection.execute(self._renew, {**_claim(claim), "lease": lease}).rowcount == 1

    def release(self, claim: ListingClaim) -> None:
        """Give the right to run back; does nothing where it is another's by now."""
        with self._db.write() as connection:
            connection.execute(self._release, _claim(claim))

    def _fenced(self, statement: Any, claim: ListingClaim) -> None:
        with self._db.write() as connection:
            if connection.execute(statement, _claim(claim)).rowcount != 1:
                raise LostLease(f"another process runs {claim.sync} now")


def _claim(claim: ListingClaim) -> dict[str, Any]:
    return {"b_sync": claim.sync, "b_claim": claim.claim_no}


def _payload(item: Item, *, full: bool) -> str:
    payload = {"version": item.version, "data": item.data}
    return encode({**payload, "full": True} if full else payload).decode()


def _hash(item: Item) -> str:
    return content_hash(item.data)
