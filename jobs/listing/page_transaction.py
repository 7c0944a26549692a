"""Stores a listed page in one transaction: its jobs, the generation of its records and the cursor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, exists, literal_column, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_codec import encode_all
from jobs.db.json_rows import JsonRows, storable
from jobs.errors import PayloadError
from jobs.fingerprint import content_hash, entity_fingerprints
from jobs.job import Lane
from jobs.listing.listing_claim import ListingClaim, MarkUpdate
from jobs.listing.page_plan import Item, KnownRecord, PagePreview, PageResult, PassJob, plan_page, reason_for
from jobs.listing.progress import Listings
from jobs.schema import job_tables as models
from jobs.schema.job_tables import job, record
from jobs.schema.states import FAILURE_LITERAL, PROCESSING_LITERAL, QUEUED_LITERAL

_IS_TWIN = text("state = 'queued' AND fingerprint IS NOT NULL")


class Pages:
    """Pages of one database."""

    def __init__(self, db: Database, listings: Listings) -> None:
        self._db = db
        self._listings = listings
        # Each row contains the sync, so that SQLite's planner looks up each row by primary key; with the sync as a constant it
        # read all records of the sync once for each row.
        self._keys = keys = JsonRows(db, {"sync": "text", "key": "text"})
        same = and_(record.c.sync == keys.sync, record.c.key == keys.key)
        self._known = (
            select(
                record.c.key, record.c.version, record.c.content_hash, record.c.generation,
                and_(record.c.synced_at.is_not(None), record.c.deleted_at.is_(None)).label("in_sync"),
                case((record.c.is_poison, record.c.last_error), else_="").label("poison"), record.c.poison_version,
                record.c.job_generation, record.c.deleted_at.is_not(None).label("is_deleted"),
            )
            .join_from(keys.table, record, same)
        )  # fmt: skip
        self._see = update(record).where(same).values(generation=bindparam("b_generation"))
        self._confirm = update(record).where(same).values(synced_at=db.now)
        self._new = JsonRows(db, {"key": "text", "fingerprint": "text", "payload": "json"})
        self._enqueue = self._enqueue_statement()
        self._twins = twins = JsonRows(db, {"queue": "text", "key": "text", "fingerprint": "text"})
        of_lane = (
            job.c.queue == bindparam("in_queue"),
            job.c.client == bindparam("of_client"),
            job.c.type == bindparam("of_type"),
        )
        self._is_idle = select(
            ~exists(literal_column("1")).where(job.c.state == QUEUED_LITERAL, *of_lane),
            ~exists(literal_column("1")).where(job.c.state == PROCESSING_LITERAL, *of_lane),
        )
        in_pass = (job.c.type == bindparam("of_type"), job.c.generation == bindparam("b_generation"))
        columns = (job.c.key, job.c.payload, job.c.state)
        twin = and_(job.c.state == QUEUED_LITERAL, job.c.fingerprint == twins.fingerprint, job.c.queue == twins.queue)
        self._begun = (
            select(*columns)
            .join_from(twins.table, job, and_(job.c.key == twins.key, job.c.state == FAILURE_LITERAL))
            .where(*in_pass)
            .union_all(
                select(*columns).join_from(twins.table, job, twin).where(job.c.fingerprint.is_not(None), *in_pass),
                select(*columns).where(job.c.state == PROCESSING_LITERAL, *of_lane, *in_pass),
            )
        )
        self._unfinished = (
            select(twins.key)
            .join_from(
                twins.table,
                job,
                and_(job.c.state == QUEUED_LITERAL, job.c.fingerprint == twins.fingerprint, job.c.queue == twins.queue),
            )
            .where(job.c.fingerprint.is_not(None))
            .union_all(select(job.c.key).where(job.c.state == PROCESSING_LITERAL, *of_lane))
        )

    def _enqueue_statement(self) -> Any:
        insert_into = postgresql.insert if self._db.dialect == "postgresql" else sqlite.insert
        db, rows = self._db, self._new
        payload: ColumnElement[Any] = rows.payload.cast(postgresql.JSON) if db.dialect == "postgresql" else rows.payload
        source = select(
            bindparam("in_queue").cast(models.job.c.queue.type), bindparam("of_client").cast(models.job.c.client.type),
            bindparam("of_type").cast(models.job.c.type.type), rows.key, rows.fingerprint, QUEUED_LITERAL,
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
        # A queued twin gets the newer payload and keeps its place in the queue; one in processing gets a follow-up job.
        return statement.on_conflict_do_update(
            index_elements=["queue", "fingerprint"],
            index_where=_IS_TWIN,
            set_={"payload": new.payload, "generation": new.generation, "priority": new.priority},
        )

    @retry_on_conflict
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
        marked: MarkUpdate | None = None,
        anew: bool = False,
        again: bool = False,
    ) -> PageResult:
        """Store one page: its jobs, the ledger's generation and the cursor, in one transaction.

        Args:
            claim: from `Listings.claim`.
            lane: where the jobs go; its type is the sync.
            items: the page's entities; of two with one key the last counts.
            cursor: where the next page begins, JSON.
            priority: of the jobs.
            item_is_record: the listed item is the whole record, so that its hash can tell whether it changed.
            full: queue each entity, changed or not.
            last: no page follows: the listing is complete with this one, in the same transaction.
            flawed: items of the page that could not become entities, or were left for later.
            marked: the new high-water mark, for incremental listings.
            anew: the listing has started over with this page, in its pass.
            again: the pass may have shown some of these entities before. What it has worked of them is not worked again.

        Raises:
            LostLease: another process runs this sync now; nothing was written.
            PayloadError: an item is not JSON.
        """
        items = _distinct(items)
        with self._db.write() as connection:
            # Before the records: a job that ends between the two reads has written its record by the second one.
            begun = self._begun_of(connection, claim, lane, items) if again else None
            known = self._known_records(connection, claim.sync, items)
            unfinished = self._unfinished_of(connection, lane, known) if item_is_record and known else ()
            todo = plan_page(
                items,
                known,
                generation=claim.generation,
                item_is_record=item_is_record,
                full=full,
                unfinished=unfinished,
                begun=begun,
            )
            if known:
                seen = self._keys.bind([(claim.sync, key) for key in known])
                connection.execute(self._see, {**seen, "b_generation": claim.generation})
            if todo.unchanged:
                connection.execute(self._confirm, self._keys.bind([(claim.sync, item.key) for item in todo.unchanged]))
            if todo.queued:
                keys = [item.key for item in todo.queued]
                rows = list(zip(keys, entity_fingerprints(lane.type, keys), _payloads(todo.queued, full=full), strict=True))
                connection.execute(
                    self._enqueue,
                    {**self._new.bind(rows), **lane.parameters(), "b_priority": priority, "b_generation": claim.generation},
                )
            self._listings.advance(
                connection, claim, cursor=cursor, listed=len(items), last=last, flawed=flawed, marked=marked, anew=anew
            )
        return todo.result

    def preview(self, sync: str, items: Sequence[Item], *, item_is_record: bool = False, full: bool = False) -> PagePreview:
        """Return what `enqueue` would do with a page, and write nothing.

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
        todo = plan_page(items, known, generation=-1, item_is_record=item_is_record, full=full)
        reasons: dict[str, list[str]] = {"created": [], "changed": [], "undecided": []}
        # Raises the error that `enqueue` would raise.
        _payloads(todo.queued, full=full)
        for item in todo.queued:
            reasons[reason_for(item, known.get(item.key), item_is_record=item_is_record)].append(item.key)
        found, (created, changed, undecided) = todo.result, map(tuple, reasons.values())
        return PagePreview(
            listed=found.listed,
            queued=found.queued,
            unchanged=found.unchanged,
            poisonous=found.poisonous,
            settled=found.settled,
            waiting=found.waiting,
            failed=found.failed,
            created=created,
            changed=changed,
            undecided=undecided,
            keys=tuple(item.key for item in items),
        )

    def _unfinished_of(self, connection: Connection, lane: Lane, known: Mapping[str, KnownRecord]) -> set[str]:
        if all(connection.execute(self._is_idle, lane.parameters()).one()):
            return set()
        keys = [key for key, before in known.items() if before.in_sync]
        rows = self._twin_rows(lane, keys)
        return set(connection.execute(self._unfinished, {**self._twins.bind(rows), **lane.parameters()}).scalars())

    def _begun_of(
        self, connection: Connection, claim: ListingClaim, lane: Lane, items: Sequence[Item]
    ) -> dict[str, list[PassJob]]:
        found: dict[str, list[PassJob]] = {}
        if items:
            rows = self._twin_rows(lane, [item.key for item in items])
            values = {**self._twins.bind(rows), **lane.parameters(), "b_generation": claim.generation}
            for key, payload, state in connection.execute(self._begun, values):
                found.setdefault(key, []).append(PassJob(payload.get("version"), payload.get("data"), state))
        return found

    @staticmethod
    def _twin_rows(lane: Lane, keys: list[str]) -> list[tuple[str, str, str]]:
        return [(lane.queue, key, print_) for key, print_ in zip(keys, entity_fingerprints(lane.type, keys), strict=True)]

    def _known_records(self, connection: Connection, sync: str, items: Sequence[Item]) -> dict[str, KnownRecord]:
        if not items:
            return {}
        rows = connection.execute(self._known, self._keys.bind([(sync, item.key) for item in items]))
        return {
            row.key: KnownRecord(
                row.version,
                row.content_hash,
                row.generation,
                in_sync=bool(row.in_sync),
                poison=row.poison or "",
                poison_version=row.poison_version,
                job_generation=row.job_generation or 0,
                is_deleted=bool(row.is_deleted),
            )
            for row in rows
        }


def _distinct(items: Sequence[Item]) -> list[Item]:
    """Keep the last item of each key, under the key that the database will hold."""
    found = {}
    for item in items:
        key = item.key if item.key.isprintable() else storable(item.key)
        found[key] = item if key == item.key else replace(item, key=key)
    return list(found.values())


def why_unstorable(item: Item) -> str:
    """Say why an item cannot be stored; empty if it can."""
    try:
        _payloads([item], full=False)
        content_hash(item.data)
    except PayloadError as error:
        return str(error)
    return ""


def _payloads(items: Sequence[Item], *, full: bool) -> list[str]:
    more = {"full": True} if full else {}
    return encode_all(
        [{"version": item.version, "data": item.data, **more, **({"path": item.path} if item.path else {})} for item in items]
    )
