"""Works the jobs of a sync: fetches one entity, decides what came of it, and prepares what its finish stores."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from json import JSONDecodeError
from typing import Any

from clients import Entity, IncompleteError, RateLimitedError
from clients.exchange_recorder import recording
from clients.http.conditional import offering
from clients.http.rate_limits.rate_limit_headers import retry_after
from clients.http.rate_limits.throttle import MIN_WAIT
from flows import events
from flows.declarations.client import Client
from flows.declarations.sync import Sync
from flows.execution.conditional_fetch import Conditions
from flows.execution.delete_guard import DeleteGuard
from flows.execution.executor_protocol import ConnectionSource
from flows.execution.outcomes import NOT_READY, NOT_READY_DELAY, OUTCOMES, bounded_wait, judge, masked_verdict_of, published
from flows.execution.typed_rows import TypedRows
from flows.project.redaction import Mask, masked_exchanges
from flows.user_code import attempt
from jobs import PayloadError
from jobs.db.json_codec import document
from jobs.fingerprint import content_hash
from jobs.job import Content, Job, JobResult, Verdict
from jobs.outcome import Failure, Gone, Pause, Snooze, Success, Unchanged
from jobs.typed_tables.table_writer import EntityRows, TableWriter

_UNCONDITIONAL = nullcontext()
_SUCCESS = Verdict(Success())
_NO_RECORD = Failure("`fetch` returned None, and nothing was stored: does it return the record?", retry=False)
"""A function without `return`, or a remote `null`; stored, it would replace a good record by nothing."""

_NOT_READY = "202 Accepted, not ready yet"


@dataclass(frozen=True, slots=True)
class EntityExecutor:
    """Works the jobs of one sync; an `Executor`.

    Args:
        sync: the declaration.
        connections: to its client.
        mask: removes secrets from what is kept.
        delete_guard: limits how many records may be lost.
        conditions: makes requests conditional, where the sync says so.
        typed_rows: makes the rows of the tables of `into`, where the sync has some.
    """

    sync: Sync
    connections: ConnectionSource
    mask: Mask
    delete_guard: DeleteGuard
    conditions: Conditions | None = None
    typed_rows: TypedRows | None = None

    @property
    def client(self) -> Client:
        """The remote side."""
        return self.sync.client

    @property
    def timeout(self) -> float | None:
        """Seconds for one entity."""
        return self.sync.timeout

    @property
    def sends_requests(self) -> bool:
        """Whether entities are fetched; without `fetch` the listing has brought everything already."""
        return self.sync.fetch is not None

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Read the validators that the requests of these jobs are conditional on."""
        if self.conditions is not None:
            self.conditions.prepare([job for job in jobs if not _is_full(job)])

    def execute(self, job: Job) -> JobResult:
        """Work one job. Never raises: whatever happens is this job's own outcome."""
        if "before" in events.subscribed:
            events.before(job)
        entity = entity_of(job, self.sync)
        fetch = partial(self._fetch, job, entity, _is_full(job))
        offer = None if self.conditions is None else self.conditions.offer(job)
        with recording() as recorder, _UNCONDITIONAL if offer is None else offering(offer):
            found = attempt(fetch, self.judge)
            if (later := recorder.unready) is not None and _is_record_or_failure(found):
                # A `fetch` that reads by POST, or by `request`: what came is no record yet, and lacks what `fetch` looks for.
                reason = self.mask(f"{later.request}: {_NOT_READY}")
                asked = retry_after(later.delay_headers)
                found = Verdict(Snooze(NOT_READY_DELAY if asked is None else max(asked, MIN_WAIT), reason), cause=NOT_READY)
            done = found if isinstance(found, JobResult) else self._without_record(job, entity, found)
            if "after" in events.subscribed:
                done = self._after(job, entity, done)
        outcome = done.verdict.outcome
        if offer is not None:
            done = done._replace(validators=offer.stored(outcome, requests=len(recorder.exchanges)))
        if not isinstance(outcome, Success | Unchanged) and (found := masked_exchanges(recorder, self.mask)):
            # Of a success the record tells enough; the requests of 10,000 entities a day would be much.
            return done._replace(exchanges=found)
        return done

    def timed_out(self, job: Job, seconds: float) -> JobResult:
        """Return the result of a job whose `fetch` hangs: a failure that may be retried; `seconds` is 0 where it is put back."""
        verdict = Verdict(Failure(f"timed out after {seconds:g} s"), trouble=True)
        done = self._result(job, entity_of(job, self.sync), verdict)
        return self._after(job, entity_of(job, self.sync), done) if seconds > 0 else done

    def on_settled(self, settled: Sequence[JobResult]) -> None:
        """Inform subscribers of finishes."""
        if events.subscribed:
            for one in settled:
                events.settled(one)

    def judge(self, error: Exception) -> Verdict:
        """Decide what an exception means, by this sync's client and retry policy."""
        verdict = judge(error, policy=self.sync.client.pause, retry_on=self.sync.retry.on, mask=self.mask)
        if isinstance(error, JSONDecodeError) and isinstance(verdict.outcome, Failure):
            # A `fetch` that decodes the answer by itself: a broken body, which may be whole the next time.
            return verdict._replace(outcome=Failure(verdict.outcome.message), trouble=True)
        return verdict

    def judge_page(self, error: Exception) -> Verdict:
        """Decide what an exception of the listing means; a listing's own end before its end (a loop, a limit) is raised again.

        Raises:
            IncompleteError: it was one.
        """
        if isinstance(error, IncompleteError):
            raise error
        verdict = self.judge(error)
        if isinstance(verdict.outcome, Gone):
            # A listing that is gone is no entity's end: its path is wrong, or has moved, and the error has the URL.
            return verdict._replace(outcome=Failure(self.mask(str(error)), retry=False))
        if isinstance(error, RateLimitedError) and isinstance(verdict.outcome, Snooze):
            # A listing cannot be put back like a job: it goes on when the client does.
            return Verdict(Pause(verdict.outcome.when, verdict.outcome.reason), cause="asked")
        return verdict

    def deleter(self) -> Callable[[Any, str], str | None] | None:
        """Return what deletes an entity by key in a session and returns an error message; `None` without the sync's `delete`."""
        if self.sync.delete is None:
            return None

        def delete(session: Any, key: str) -> str | None:
            outcome = self._delete(Entity(key, path=_path(self.sync, key)), session).outcome
            return outcome.message if isinstance(outcome, Failure) else None

        return delete

    @property
    def row_deleter(self) -> TableWriter | None:
        """What deletes the typed rows of entities; `None` without any, and where the sync deletes by itself."""
        return None if self.typed_rows is None or self.sync.delete is not None else self.typed_rows.writer

    # -- one entity ------------------------------------------------------------------------------------------------------------

    def _fetch(self, job: Job, entity: Entity, full: bool) -> Any:
        """Return the finished fetch, or the outcome that `fetch` returned in place of a record. Raises whatever `fetch` does."""
        sync = self.sync
        if sync.fetch is None:
            record = entity.data
        else:
            connection = self.connections.shared
            record = sync.fetch_entity(self.connections.get() if connection is None else connection, entity)
            if record is None:
                return _NO_RECORD
        if isinstance(record, OUTCOMES):
            return record
        dump = getattr(record, "model_dump", None)
        plain = dump(mode="json") if callable(dump) else record
        if self.typed_rows is not None:
            rows = self.typed_rows.of(entity, record, plain)
            if isinstance(rows, Failure):
                return rows
            content = _ledger_content(entity, plain)._replace(row_key=rows.row_key)
            return JobResult(job, _SUCCESS, sync.retry, content, rows=rows, force=full)
        if sync.save is None:
            content = Content(entity.version, content_hash(plain), document(plain))
            return JobResult(job, _SUCCESS, sync.retry, content, force=full)
        save = partial(self._save, sync.save, entity, record)
        return JobResult(job, _SUCCESS, sync.retry, _ledger_content(entity, plain), save, force=full)

    def _without_record(self, job: Job, entity: Entity, found: Any) -> JobResult:
        verdict = bounded_wait(job, masked_verdict_of(found, self.mask))
        if verdict.trouble:
            self.connections.drop()
        return self._result(job, entity, verdict)

    def _after(self, job: Job, entity: Entity, done: JobResult) -> JobResult:
        """Let subscribers see the outcome, and replace it."""
        verdict = published(job, done.verdict, self.mask)
        return done if verdict is done.verdict else self._result(job, entity, verdict)

    def _result(self, job: Job, entity: Entity, verdict: Verdict) -> JobResult:
        if isinstance(verdict.outcome, Success | Unchanged):
            # `fetch` stored it by itself; the ledger still needs the version, or each run would queue the entity again.
            return JobResult(job, verdict, self.sync.retry, Content(entity.version, None, None))
        delete = rows = None
        if isinstance(verdict.outcome, Gone):
            delete = None if self.sync.delete is None else partial(self._delete, entity)
            rows = None if (writer := self.row_deleter) is None else EntityRows(writer, entity.key)
        return JobResult(job, verdict, self.sync.retry, None, delete, rows, may_go=self.delete_guard.refusal)

    # -- in the finish's transaction -------------------------------------------------------------------------------------------

    def _save(self, save: Callable[..., Any], entity: Entity, record: Any, session: Any) -> Verdict:
        return self._in_session(session, partial(save, session, entity, record), _SUCCESS)

    def _delete(self, entity: Entity, session: Any) -> Verdict:
        delete = self.sync.delete
        assert delete is not None
        return self._in_session(session, partial(delete, session, entity), Verdict(Gone()))

    def _in_session(self, session: Any, work: Callable[[], Any], verdict: Verdict) -> Verdict:
        def run() -> Verdict:
            work()
            session.flush()
            return verdict

        return attempt(run, self.judge)


def entity_of(job: Job, sync: Sync) -> Entity:
    """Return the entity that a job of a sync is about."""
    payload = job.payload if isinstance(job.payload, dict) else {}
    key = job.key or ""
    return Entity(key, payload.get("version"), payload.get("data"), path=tuple(payload.get("path") or _path(sync, key)))


def _is_record_or_failure(found: Any) -> bool:
    """Tell whether `fetch` returned a record, or nothing, or raised; and no outcome of its own."""
    return (
        found is _NO_RECORD or isinstance(found, JobResult) or (isinstance(found, Verdict) and isinstance(found.outcome, Failure))
    )


def _path(sync: Sync, key: str) -> tuple[str, ...]:
    """Return the keys that a key was made of, where nothing but the key is known of an entity."""
    path_of = getattr(sync.listing, "path_of", None)
    return () if path_of is None else path_of(key)


def _is_full(job: Job) -> bool:
    return isinstance(job.payload, dict) and job.payload.get("full") is True


def _ledger_content(entity: Entity, plain: Any) -> Content:
    """Return what the ledger keeps of an entity that the sync's own `save` stores."""
    try:
        # A custom save may take objects that are no JSON; their content cannot be compared, so they are always saved.
        return Content(entity.version, content_hash(plain), None)
    except PayloadError:
        return Content(entity.version, None, None)
