"""`JobType`: one kind of job that code or people enqueue, as a file in `syncs/` declares it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from types import MappingProxyType
from typing import Any, ClassVar

from flows.declarations.client import Client
from flows.declarations.validation import check_arguments, check_id, check_priority, keep_queue
from flows.errors import DeclarationError
from flows.plain_json import plain_json, refuse_secrets
from jobs import PayloadError, Queue, Retry

Process = Callable[[Any, Any], Any]
"""`(job, connection) -> Outcome or None`; an exception becomes an outcome too."""

_PROCESS = ("job", "connection")

DUPLICATES = ("allow", "reject", "discard", "replace")
"""The duplicate policies that have a name; a function `(new, old) -> payload` is a policy too."""


@dataclass(frozen=True)
class JobType:
    """One kind of job, queued by hand with `enqueue` and worked by `syncs work`.

    Args:
        id: its name, e.g. `petstore.order`; no sync has the same.
        client: the remote system; these jobs wait while it is paused.
        process: `(job, connection) -> Outcome or None`; with `phases`, a mapping from phase to such a function. A test can
            call it without a queue or a store.
        schema: pydantic model of the payload; checked when a job is enqueued and again before it is processed.
        retry: how often and when a failed job is tried again; by default three times.
        duplicates: what happens when a queued job has the same fingerprint: `allow` (keep both), `reject` (raise
            `DuplicateJob`), `discard` (keep the old one), `replace` (the new payload replaces the old one), or a function
            `(new payload, old payload) -> payload`. A job that is being processed is no duplicate, for the new one may be about
            a later change.
        fingerprint: `(payload) -> value`; jobs with the same value are duplicates. By default the whole payload counts.
        queue: the queue of its jobs, by its id or itself; by default the client's.
        priority: higher goes first.
        timeout: seconds one attempt may take.
        phases: names, in order. Each phase succeeds, fails and is resumed by itself; retries are counted for the whole job.
        on_failure: `(job) -> None`, called once when a job has failed and will not be retried.
        verify: `(job, connection) -> Outcome or None`, for jobs that change something on the remote side. Called first when an
            earlier attempt was sent and not answered, or its worker died. An outcome ends the job; `None`, or a 404, means that
            the remote side does not have the change, so `process` sends it again.
        serial: `(payload) -> key or None`; jobs with one key in one queue run one at a time, in the order they were enqueued.
        concurrency: jobs of this type that one worker processes at the same time.

    Raises:
        DeclarationError: a field has the wrong form.
    """

    id: str
    client: Client
    process: Process | Mapping[str, Process] = field(kw_only=True)
    schema: type[Any] | None = field(default=None, kw_only=True)
    retry: Retry = field(default=Retry(), kw_only=True)
    duplicates: str | Callable[[Any, Any], Any] = field(default="allow", kw_only=True)
    fingerprint: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    queue: str | Queue | None = field(default=None, kw_only=True)
    priority: int = field(default=0, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    phases: tuple[str, ...] = field(default=(), kw_only=True)
    on_failure: Callable[[Any], None] | None = field(default=None, kw_only=True)
    verify: Process | None = field(default=None, kw_only=True)
    serial: Callable[[Any], str | None] | None = field(default=None, kw_only=True)
    concurrency: int = field(default=8, kw_only=True)

    #: The queue, where it was given itself.
    own_queue: ClassVar[Queue | None] = None

    def __post_init__(self) -> None:
        check_id("job type", self.id)
        if not isinstance(self.client, Client):
            raise self._wrong(f"client must be a Client, got {type(self.client).__name__}")
        if not isinstance(self.retry, Retry):
            raise self._wrong(f"retry must be a Retry, got {type(self.retry).__name__}")
        keep_queue(self, f"job type {self.id!r}")
        for name in ("fingerprint", "on_failure", "verify", "serial"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise self._wrong(f"{name} must be callable, got {type(value).__name__}")
        if self.schema is not None and not (isinstance(self.schema, type) and hasattr(self.schema, "model_validate")):
            raise self._wrong(f"schema must be a pydantic model class, got {self.schema!r}")
        if not callable(self.duplicates) and self.duplicates not in DUPLICATES:
            raise self._wrong(
                f"duplicates must be {', '.join(DUPLICATES)} or a function (new, old) -> payload, got {self.duplicates!r}"
            )
        self._check_numbers()
        self._check_phases()

    def _check_numbers(self) -> None:
        check_priority(f"job type {self.id!r}: priority", self.priority, DeclarationError)
        if self.timeout is not None and (isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float)):
            raise self._wrong(f"timeout must be seconds, got {self.timeout!r}")
        if self.timeout is not None and not self.timeout > 0:
            raise self._wrong(f"timeout must be more than 0 seconds, got {self.timeout}")
        if isinstance(self.concurrency, bool) or not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise self._wrong(f"concurrency must be a whole number from 1, got {self.concurrency!r}")

    def _check_phases(self) -> None:
        if isinstance(self.phases, str) or not isinstance(self.phases, list | tuple):
            raise self._wrong(f"phases must be a tuple of names, got {self.phases!r}")
        phases = tuple(self.phases)
        for phase in phases:
            check_id(f"job type {self.id!r}: phase", phase)
        if len(set(phases)) < len(phases):
            raise self._wrong(f"phases must differ from each other, got {', '.join(phases)}")
        object.__setattr__(self, "phases", phases)
        if isinstance(self.process, Mapping):
            self._check_processes(self.process, phases)
            object.__setattr__(self, "process", MappingProxyType(dict(self.process)))
        elif phases:
            raise self._wrong(f"with phases, process must be a mapping phase -> function, got {type(self.process).__name__}")
        elif not callable(self.process):
            raise self._wrong(f"process must be callable, got {type(self.process).__name__}")
        else:
            check_arguments(f"job type {self.id!r}: process", self.process, _PROCESS)

    def _check_processes(self, processes: Mapping[str, Process], phases: tuple[str, ...]) -> None:
        if not phases:
            raise self._wrong("process is a mapping; name its keys in order in phases=(…)")
        if set(processes) != set(phases):
            raise self._wrong(
                f"phases and the keys of process must be the same, got {', '.join(phases)} "
                f"and {', '.join(map(str, processes)) or 'none'}"
            )
        for phase, function in processes.items():
            if not callable(function):
                raise self._wrong(f"process of phase {phase!r} must be callable, got {type(function).__name__}")
            check_arguments(f"job type {self.id!r}: process of phase {phase!r}", function, _PROCESS)

    def _wrong(self, what: str) -> DeclarationError:
        return DeclarationError(f"job type {self.id!r}: {what}")

    @property
    def queue_id(self) -> str:
        """The queue of its jobs."""
        return str(self.queue or self.client.queue_id)

    @property
    def first_phase(self) -> str:
        """The phase that a new job begins with; empty without phases."""
        return self.phases[0] if self.phases else ""

    def next_phase(self, phase: str) -> str | None:
        """Return the phase after this one, or `None` after the last.

        Raises:
            DeclarationError: there is no such phase.
        """
        if not self.phases and not phase:
            return None
        index = self._index(phase) + 1
        return self.phases[index] if index < len(self.phases) else None

    def process_of(self, phase: str) -> Process:
        """Return the function of a phase; without phases, that of the empty name.

        Raises:
            DeclarationError: there is no such phase, for instance because it was removed while a job waited in it.
        """
        if isinstance(self.process, Mapping):
            return self.process[self.phases[self._index(phase)]]
        if phase:
            self._index(phase)
        return self.process

    def _index(self, phase: str) -> int:
        if phase not in self.phases:
            known = f"its phases: {', '.join(self.phases)}" if self.phases else "it has none"
            raise self._wrong(f"no phase is called {phase!r}; {known}")
        return self.phases.index(phase)

    def validated(self, payload: Any) -> Any:
        """Return the payload as a plain JSON value, checked against the schema if there is one.

        With a schema, the result has the schema's form: defaults filled in, numbers in text converted. The result is itself
        valid, so that a job reads what was enqueued.

        Args:
            payload: anything with a JSON form: dicts, lists, texts, numbers, dataclasses, pydantic models.

        Raises:
            PayloadError: it has no JSON form or does not match the schema; the message names the type and the field.
        """
        try:
            return plain_json(payload) if self.schema is None else _through(self.schema, payload)
        except PayloadError as error:
            raise PayloadError(f"job type {self.id!r}: {error}") from error


def _through(schema: type[Any], payload: Any) -> Any:
    # Imported here: a declaration without a schema needs no pydantic.
    from pydantic import ValidationError

    if hasattr(payload, "model_dump"):
        payload = payload.model_dump(by_alias=True, round_trip=True, warnings="none")
    elif hasattr(payload, "__dataclass_fields__") and not isinstance(payload, type):
        payload = {part.name: getattr(payload, part.name) for part in fields_of(payload)}
    try:
        model = schema.model_validate(payload)
    except ValidationError as error:
        raise PayloadError(_explain(error)) from None
    try:
        document = model.model_dump(mode="json", by_alias=True, round_trip=True)
    except ValueError as error:
        # Also raised by pydantic, and for bytes that are not UTF-8.
        raise PayloadError(f"payload has no JSON form: {str(error).splitlines()[0]}") from None
    try:
        again = schema.model_validate(document)
    except ValidationError as error:
        raise PayloadError(f"what would be stored does not fit the schema again: {_explain(error)}") from None
    if again != model:
        refuse_secrets(model)
    return plain_json(document)


def _explain(error: Any) -> str:
    # Without the values: one may be a password in the wrong field.
    first, *more = error.errors(include_url=False, include_input=False, include_context=False)
    field_ = ".".join(map(str, first["loc"]))
    what = f"payload field {field_!r}" if field_ else "payload"
    return f"{what}: {first['msg']}" + (f" (and {len(more)} more)" if more else "")
