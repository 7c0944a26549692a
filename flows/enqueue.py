"""`enqueue` and `enqueue_many`: queue jobs of declared types, from any program. Imports neither store nor settings until used."""

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flows.declarations.job_type import JobType
from flows.declarations.validation import check_priority
from flows.plain_json import plain_json
from jobs import PayloadError

if TYPE_CHECKING:
    from flows.project.registry import Registry
    from jobs.enqueueing.duplicates import Enqueued, NewJob, Policy
    from jobs.store import JobStore


def enqueue(
    job_type_id: str | JobType,
    payload: Any,
    *,
    delay: float | None = None,
    available_at: datetime | None = None,
    priority: int | None = None,
    session: Any = None,
) -> "Enqueued":
    """Queue one job.

    Args:
        job_type_id: the id of a declared job type, or the declaration itself.
        payload: what `JobType.validated` takes: JSON, dataclasses, pydantic models; at most 1 MiB of JSON.
        delay: seconds before it may be claimed. A twin that the policy `replace` or a merge changes keeps its time unless one
            is given here: jobs without a delay throttle, jobs with one debounce.
        available_at: the moment from which it may be claimed, with a zone; wins over `delay`.
        priority: higher goes first; by default the job type's.
        session: a SQLAlchemy or SQLModel session or connection on the database of the jobs. The job is then part of its
            transaction: nobody sees it before the commit, and a rollback leaves none. Inside a job that has written through
            `job.session`, on SQLite, that one is used even if not passed: it holds the one write lock.

    Returns:
        `id` of the job, and `duplicate_of`, the same id where it was queued already.

    Raises:
        UnknownName: no such job type is declared.
        PayloadError: the payload does not fit, or `fingerprint`, `serial` or the merge raised something at it.
        DuplicateJob: the type rejects duplicates, and this is one.
        ScheduleError: the delay or the moment cannot be.
        NaiveTime: the moment has no zone.
        ForeignSession: the session is on another database.
        JobsError: the database cannot be used.
    """
    options: dict[str, Any] = {"delay": delay, "available_at": available_at, "priority": priority, "session": session}
    return enqueue_many(job_type_id, [payload], **options)[0]


def enqueue_many(
    job_type_id: str | JobType,
    payloads: Iterable[Any],
    *,
    delay: float | None = None,
    available_at: datetime | None = None,
    priority: int | None = None,
    session: Any = None,
) -> list["Enqueued"]:
    """Queue one job for each payload, in one transaction: all of them, or, when an error is raised, none.

    Args:
        job_type_id: as for `enqueue`.
        payloads: in the order in which their ids ascend.
        delay: of all.
        available_at: of all.
        priority: of all.
        session: as for `enqueue`.

    Returns:
        One answer for each payload, in their order.

    Raises:
        FlowsError: as for `enqueue`.
        JobsError: as for `enqueue`; the text tells which payload is meant.
    """
    job_type = job_type_id if isinstance(job_type_id, JobType) else _declared(job_type_id)
    jobs = new_jobs(job_type, list(payloads), delay=delay, available_at=available_at, priority=priority)
    store = own_store()
    if session is None:
        from jobs.db.job_session import current_session

        # On SQLite a job that has written through `job.session` would wait for itself.
        session = current_session(store.db)
    return store.enqueue(jobs, _policy(job_type), serial=lambda payload: _serial_key(job_type, payload), session=session)


def new_jobs(
    job_type: JobType,
    payloads: Sequence[Any],
    *,
    delay: float | None = None,
    available_at: datetime | None = None,
    priority: int | None = None,
) -> list["NewJob"]:
    """Return the jobs of a type as a store takes them.

    Raises:
        PayloadError: a payload does not fit, or a function of the type raised something at it; the text tells which.
    """
    from jobs.enqueueing.duplicates import NewJob
    from jobs.fingerprint import fingerprint
    from jobs.job import Lane

    if priority is not None:
        check_priority(f"{job_type.id}: priority", priority, PayloadError)
    lane = Lane(job_type.queue_id, job_type.client.id, job_type.id, job_type.first_phase)
    priority = job_type.priority if priority is None else priority
    found = []
    for number, raw in enumerate(payloads, 1):
        try:
            payload = job_type.validated(raw)
            identity = None
            if job_type.duplicates != "allow":
                value = payload
                if (chosen := job_type.fingerprint) is not None:
                    value = plain_json(_asked(job_type, "fingerprint", chosen, payload), "fingerprint")
                if value is not None or chosen is None:
                    identity = fingerprint(job_type.id, value)
            serial_key = _serial_key(job_type, payload)
        except PayloadError as error:
            if len(payloads) == 1:
                raise
            raise PayloadError(f"job {number} of {len(payloads)}: {error}") from (error.__cause__ or error)
        job = NewJob(
            lane,
            payload,
            fingerprint=identity,
            priority=priority,
            delay=delay,
            available_at=available_at,
            serial_key=serial_key,
        )
        found.append(job)
    return found


def _asked(job_type: JobType, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a declaration; what it raises becomes a payload error."""
    # Not at the top: a program that only imports `enqueue` needs neither.
    from flows.user_code import attempt, describe

    def refuse(error: Exception) -> NoReturn:
        raise PayloadError(f"job type {job_type.id!r}: {name} raised {' '.join(describe(error).split())}") from error

    return attempt(lambda: function(*arguments), refuse)


def _policy(job_type: JobType) -> "Policy":
    merge = job_type.duplicates
    if callable(merge):
        return lambda new, old: job_type.validated(_asked(job_type, "duplicates", merge, new, old))
    return merge


def _serial_key(job_type: JobType, payload: Any) -> str | None:
    key = None if job_type.serial is None else _asked(job_type, "serial", job_type.serial, payload)
    if key is None:
        return None
    if not isinstance(key, str | int):
        raise PayloadError(f"job type {job_type.id!r}: serial must return text or None, got {type(key).__name__}")
    from jobs.listing.page_plan import LONGEST_KEY, excess_key_length

    key = str(key)
    # PostgreSQL's index takes no longer keys; checked here, so that both databases behave the same.
    if size := excess_key_length(key):
        raise PayloadError(f"job type {job_type.id!r}: serial returned a key of {size:,} bytes; {LONGEST_KEY:,} is the most")
    return key


class _Process:
    """The store and registry that this process has open for its calls of `enqueue`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.registry: Registry | None = None
        self.store: JobStore | None = None
        self.of: tuple[int, str | None, str] | None = None
        #: Stores and registries of the workers in this process, the innermost last.
        self.used: list[tuple[JobStore, Registry | None]] = []

    def close(self) -> None:
        # A forked child must not close its parent's connections.
        if self.store is not None and self.of is not None and self.of[0] == os.getpid():
            self.store.close()
        self.store = self.of = None


_process = _Process()
atexit.register(_process.close)


@contextmanager
def using(store: "JobStore", registry: "Registry | None" = None) -> Iterator[None]:
    """Let `enqueue` use this store and registry while jobs are worked in this process.

    A second store on the same SQLite file would be a second writer, which would wait for the first one.

    Args:
        store: in place of the one in the settings.
        registry: in place of one read from the files.
    """
    entry = (store, registry)
    with _process.lock:
        _process.used.append(entry)
    try:
        yield
    finally:
        with _process.lock:
            # By identity, from the end: two workers of one process may end in any order.
            index = max(place for place, one in enumerate(_process.used) if one is entry)
            del _process.used[index]


def _declared(name: str) -> JobType:
    with _process.lock:
        for registry in (*(used for _, used in reversed(_process.used)), _process.registry):
            if registry is not None and name in registry.job_types:
                return registry.job_types[name]
        # Read at the first call, and again for an unknown name: its file may be new.
        from flows.project.registry import load

        _process.registry = load()
        return _process.registry.job_type(name)


def own_store() -> "JobStore":
    """Return the store of the worker in this process, else the one in the settings, which stays open.

    Raises:
        SettingsError: a setting is wrong.
        JobsError: the database cannot be used.
    """
    with _process.lock:
        if _process.used:
            return _process.used[-1][0]
        # Reading the settings takes a millisecond; comparing the variable shows whether they have changed.
        of = (os.getpid(), os.environ.get("SYNCS_DATABASE_URL"), str(Path.cwd()))
        if _process.store is None or _process.of != of:
            from flows.project.settings import open_store

            _process.close()
            _process.store, _process.of = open_store(), of
        return _process.store
