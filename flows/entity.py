"""Working one entity: fetch it, judge what came, and say what a finish would store. Knows no batch and no thread."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from clients import Entity, IncompleteError
from clients.exchange import recording
from clients.validators import offering
from flows import events
from flows.conditional import Conditions
from flows.declaration import Client, Sync
from flows.evidence import evidence
from flows.gone import GoneGuard
from flows.mask import Mask
from flows.verdict import OUTCOMES, attempt, judge, masked, verdict_of
from jobs import PayloadError
from jobs.fingerprint import content_hash, encode
from jobs.job import Content, Done, Job, Settled, Verdict
from jobs.outcome import Failure, Gone, Success, Unchanged
from jobs.poison import Poisoned


@dataclass(frozen=True, slots=True)
class EntityWork:
    """How the jobs of one sync are worked.

    Args:
        sync: the declaration.
        connect: gives the calling thread a connection.
        mask: takes secrets out of what is kept.
        gone: how many entities may still go.
        drop: gives the thread's connection up after trouble with it.
        conditions: makes requests conditional, where the sync says so.
    """

    sync: Sync
    connect: Callable[[], Any]
    mask: Mask
    gone: GoneGuard
    drop: Callable[[], None] = lambda: None
    conditions: Conditions | None = None

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Look up what the requests of these jobs are conditional on."""
        if self.conditions is not None:
            self.conditions.prepare([job for job in jobs if not _is_full(job)])

    def work(self, job: Job) -> Done:
        """Work one job. Never raises: whatever happens is this job's own outcome."""
        events.before(job)
        offer = None if self.conditions is None else self.conditions.offer(job)
        with recording() as recorder, offering(offer) if offer is not None else nullcontext():
            done = self._judged(job)
        if offer is not None:
            done = done._replace(validators=offer.stored(done.verdict.outcome, requests=len(recorder.exchanges)))
        if not isinstance(done.verdict.outcome, Success | Unchanged) and (found := evidence(recorder, self.mask)):
            # A success of an entity is told by its record; for 10,000 of them a day their requests would be much.
            return done._replace(exchanges=found)
        return done

    def _judged(self, job: Job) -> Done:
        entity = entity_of(job)
        done = self._work(job, entity)
        verdict = events.after(job, done.verdict)
        return done if verdict is done.verdict else self._done(job, entity, masked(verdict, self.mask))

    def _work(self, job: Job, entity: Entity) -> Done:
        found = attempt(lambda: self._fetch(entity), self.judge)
        if isinstance(found, Verdict) and found.trouble:
            self.drop()
        if isinstance(found, (Verdict, *OUTCOMES)):
            return self._done(job, entity, masked(verdict_of(found), self.mask))
        content = attempt(lambda: self._content(entity, found), self.judge)
        if isinstance(content, Verdict):
            return self._done(job, entity, content)
        return Done(job, Verdict(Success()), self.sync.retry, content, self._saver(entity, found), force=_is_full(job))

    @property
    def client(self) -> Client:
        """The remote side."""
        return self.sync.client

    @property
    def timeout(self) -> float | None:
        """Seconds for one entity."""
        return self.sync.timeout

    def timed_out(self, job: Job, seconds: float) -> Done:
        """Say what becomes of a job whose `fetch` hangs: a failure that may be tried again (DS-07).

        Args:
            job: the claim.
            seconds: how long it was given; 0 where it is put back for another reason.
        """
        verdict = Verdict(Failure(f"timed out after {seconds:g} s"), trouble=True)
        if seconds > 0:
            verdict = masked(events.after(job, verdict), self.mask)
        return self._done(job, entity_of(job), verdict)

    def settled(self, settled: Settled) -> None:
        """Tell subscribers what was committed."""
        events.settled(settled)

    def poisoned(self, poisoned: Poisoned) -> None:
        """Tell subscribers of a job that ended because it keeps killing its workers."""
        events.poisoned(poisoned)

    def judge(self, error: Exception) -> Verdict:
        """Judge an exception by this sync's client and retry policy."""
        return judge(error, policy=self.sync.client.pause, retry_on=self.sync.retry.on, mask=self.mask)

    def judge_page(self, error: Exception) -> Verdict:
        """Judge an exception of the listing; its own end before its end (a loop, a limit) goes on to the caller.

        Raises:
            IncompleteError: it was one.
        """
        if isinstance(error, IncompleteError):
            raise error
        return self.judge(error)

    def _fetch(self, entity: Entity) -> Any:
        if self.sync.fetch is None:
            return entity.data
        return self.sync.fetch(self.connect(), entity)

    def _content(self, entity: Entity, record: Any) -> Content:
        plain = _plain(record)
        # A custom save may take objects that are no JSON; their content cannot be compared, so they are always saved.
        if self.sync.save is not None and not _is_json(plain):
            return Content(entity.version, None, None)
        data = None if self.sync.save is not None else encode(plain).decode()
        return Content(entity.version, content_hash(plain), data)

    def deletes(self) -> Callable[[Any, str], str | None] | None:
        """Return what deletes an entity by key in a session and says what went wrong; `None` without a `delete` of the sync."""
        if self.sync.delete is None:
            return None

        def delete(session: Any, key: str) -> str | None:
            outcome = self._deleter(Entity(key))(session).outcome
            return outcome.message if isinstance(outcome, Failure) else None

        return delete

    def _done(self, job: Job, entity: Entity, verdict: Verdict) -> Done:
        if isinstance(verdict.outcome, Success | Unchanged):
            # The `fetch` dealt with it by itself; the ledger still learns the version, or each run would queue it again.
            return Done(job, verdict, self.sync.retry, Content(entity.version, None, None))
        save = self._deleter(entity) if isinstance(verdict.outcome, Gone) and self.sync.delete is not None else None
        return Done(job, verdict, self.sync.retry, None, save, may_go=self.gone.refusal)

    def _saver(self, entity: Entity, record: Any) -> Callable[[Any], Verdict] | None:
        save = self.sync.save
        if save is None:
            return None
        return lambda session: self._in_session(session, lambda: save(session, entity, record), Verdict(Success()))

    def _deleter(self, entity: Entity) -> Callable[[Any], Verdict]:
        delete = self.sync.delete
        assert delete is not None
        return lambda session: self._in_session(session, lambda: delete(session, entity), Verdict(Gone()))

    def _in_session(self, session: Any, work: Callable[[], Any], verdict: Verdict) -> Verdict:
        def run() -> Verdict:
            work()
            session.flush()
            return verdict

        return attempt(run, self.judge)


def entity_of(job: Job) -> Entity:
    """Return the entity that a job of a sync is about."""
    payload = job.payload if isinstance(job.payload, dict) else {}
    return Entity(job.key or "", payload.get("version"), payload.get("data"))


def _is_full(job: Job) -> bool:
    return isinstance(job.payload, dict) and job.payload.get("full") is True


def _plain(record: Any) -> Any:
    dump = getattr(record, "model_dump", None)
    return dump(mode="json") if callable(dump) else record


def _is_json(value: Any) -> bool:
    try:
        encode(value)
    except PayloadError:
        return False
    return True
