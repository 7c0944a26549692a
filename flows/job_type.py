"""What a file in `syncs/` declares besides syncs: job types. Making one has no effect; it knows no store and no worker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from types import MappingProxyType
from typing import Any

from flows.declaration import Client, check_id
from flows.errors import DeclarationError
from flows.plain import plain, refuse_secrets
from jobs import PayloadError, Retry

Process = Callable[[Any, Any], Any]
"""`(job, connection) -> Outcome or None`; what it raises becomes an outcome too."""

DUPLICATES = ("allow", "reject", "discard", "replace")
"""The policies for duplicates that have a name; the fifth is a function `(new, old) -> payload`."""

_INT = 2**31


@dataclass(frozen=True)
class JobType:
    """One kind of job, queued by hand with `enqueue` and worked by `syncs work`.

    Args:
        id: its name, e.g. `petstore.order`; no sync has the same.
        client: the remote system; its pauses hold these jobs back too.
        process: `(job, connection) -> Outcome or None`; with `phases` a mapping from phase to such a function. Called by
            itself it needs neither queue nor store (AQ-53).
        schema: pydantic model of the payload, checked when a job is queued and again before it is worked.
        retry: how often a failed job is tried again. Advanced Queue's default was none; ours is three (AQ-10).
        duplicates: what becomes of a job whose twin is queued already: `allow` (both stay), `reject` (`DuplicateJob` is
            raised), `discard` (the old one stays), `replace` (the new payload takes the old one's place), or a function
            `(new payload, old payload) -> payload`. A twin in process is no duplicate: its world has changed (law 11).
        fingerprint: payload → the value that makes two jobs duplicates; by default the whole payload.
        queue: in place of the client's.
        priority: higher goes first.
        timeout: seconds one attempt may take.
        phases: names, in order; each succeeds and fails and is resumed by itself; the retries are the job's.
        on_failure: `(job) -> None`, called once when a job has failed for good.
        verify: `(job, connection) -> Outcome or None`, for jobs that change something over there: asked first when an earlier
            attempt was sent and not answered, or its worker died. An outcome is the job's; `None`, and an error that says
            that it is gone, mean that the remote side does not have it, so that `process` sends it again.
        serial: payload → key, or `None`; jobs of one key in one queue run one at a time, in the order they came.
        concurrency: jobs of this type that one worker has in hand at once.

    Raises:
        DeclarationError: a field cannot work.
    """

    id: str
    client: Client
    process: Process | Mapping[str, Process] = field(kw_only=True)
    schema: type[Any] | None = field(default=None, kw_only=True)
    retry: Retry = field(default=Retry(), kw_only=True)
    duplicates: str | Callable[[Any, Any], Any] = field(default="allow", kw_only=True)
    fingerprint: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    queue: str | None = field(default=None, kw_only=True)
    priority: int = field(default=0, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    phases: tuple[str, ...] = field(default=(), kw_only=True)
    on_failure: Callable[[Any], None] | None = field(default=None, kw_only=True)
    verify: Process | None = field(default=None, kw_only=True)
    serial: Callable[[Any], str | None] | None = field(default=None, kw_only=True)
    concurrency: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        check_id("job type", self.id)
        if not isinstance(self.client, Client):
            raise self._wrong(f"client must be a Client, got {type(self.client).__name__}")
        if not isinstance(self.retry, Retry):
            raise self._wrong(f"retry must be a Retry, got {type(self.retry).__name__}")
        if self.queue is not None:
            check_id("queue", self.queue)
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

    def _wrong(self, what: str) -> DeclarationError:
        return DeclarationError(f"job type {self.id!r}: {what}")

    @property
    def queue_id(self) -> str:
        """The queue its jobs wait in."""
        return self.queue or self.client.queue or self.client.id

    @property
    def first_phase(self) -> str:
        """The phase that a new job begins with; empty where there are none."""
        return self.phases[0] if self.phases else ""

    def next_phase(self, phase: str) -> str | None:
        """Return what comes after a phase, or `None` after the last one.

        Raises:
            DeclarationError: there is no such phase.
        """
        if not self.phases and not phase:
            return None
        index = self._index(phase) + 1
        return self.phases[index] if index < len(self.phases) else None

    def process_of(self, phase: str) -> Process:
        """Return the function of a phase; of the empty one where there are none.

        Raises:
            DeclarationError: there is no such phase, as for a job that waits in one that was since taken out of the file.
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

        With a schema it comes back in the schema's own form: defaults filled in, numbers in text as numbers. What it
        returned is valid again, so that a job reads what was queued.

        Args:
            payload: anything with a JSON form: dicts, lists, texts, numbers, dataclasses, pydantic models.

        Raises:
            PayloadError: it has no JSON form, or does not fit the schema; the text names the type and the field.
        """
        try:
            return plain(payload) if self.schema is None else _through(self.schema, payload)
        except PayloadError as error:
            raise PayloadError(f"job type {self.id!r}: {error}") from error


def _through(schema: type[Any], payload: Any) -> Any:
    # Only here: a declaration without a schema needs no pydantic.
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
        # pydantic's own error is one, and so is what bytes that are no text raise.
        raise PayloadError(f"payload has no JSON form: {str(error).splitlines()[0]}") from None
    try:
        again = schema.model_validate(document)
    except ValidationError as error:
        raise PayloadError(f"what would be stored does not fit the schema again: {_explain(error)}") from None
    if again != model:
        refuse_secrets(model)
    return plain(document)


def _explain(error: Any) -> str:
    # Without the values: what is wrong may be a password in the wrong field.
    first, *more = error.errors(include_url=False, include_input=False, include_context=False)
    field_ = ".".join(map(str, first["loc"]))
    what = f"payload field {field_!r}" if field_ else "payload"
    return f"{what}: {first['msg']}" + (f" (and {len(more)} more)" if more else "")


def check_priority(what: str, value: Any, error: type[Exception]) -> None:
    """Refuse a priority that the tables cannot hold.

    Raises:
        Exception: of the type asked for.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT <= value < _INT:
        raise error(f"{what} must be a whole number from {-_INT:,} to {_INT - 1:,}, got {value!r}")
