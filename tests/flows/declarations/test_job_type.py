"""Job types: what a declaration takes, refuses and makes of a payload."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field, field_validator

from flows import Client, DeclarationError, JobType
from flows.plain_json import plain_json
from jobs import PayloadError, Retry, Success

shop = Client("shop", connect=lambda _: None)


def work(job: Any, connection: Any) -> Any:
    """Do nothing."""
    return Success(f"{job.payload} {connection}")


def declare(**fields: Any) -> JobType:
    """Make a job type that is never worked."""
    return JobType(**{"id": "shop.mail", "client": shop, "process": work, **fields})


# -- the declaration -------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-10")
def test_a_bare_job_type_has_these_defaults() -> None:
    """Advanced Queue allowed duplicates and retried never, after 10 seconds; ours retries three times."""
    bare = JobType("shop.mail", shop, process=work)
    assert (bare.id, bare.client, bare.queue, bare.queue_id) == ("shop.mail", shop, None, "shop")
    assert bare.retry == Retry() == Retry(max_retries=3, delay=10)
    assert (bare.duplicates, bare.fingerprint, bare.serial, bare.schema, bare.on_failure) == ("allow", None, None, None, None)
    assert (bare.priority, bare.timeout, bare.concurrency) == (0, None, 8)
    assert (bare.phases, bare.first_phase, bare.next_phase("")) == ((), "", None)
    assert bare.process_of("") is work


def test_id_and_client_are_all_that_goes_without_a_name() -> None:
    """Everything else would be a guess."""
    with pytest.raises(TypeError):
        JobType("shop.mail", shop, work)  # type: ignore[misc, call-arg]
    with pytest.raises(TypeError):
        JobType("shop.mail", shop)  # type: ignore[call-arg]


@pytest.mark.rows("AQ-53")
def test_process_can_be_called_alone() -> None:
    """Without queue, store and worker."""
    assert declare().process(SimpleNamespace(payload={"n": 1}), "connection") == Success("{'n': 1} connection")  # type: ignore[operator]


def test_the_queue_is_its_own_or_the_client_s() -> None:
    """The nearest one counts."""
    other = Client("other", connect=lambda _: None, queue="slow")
    assert declare(queue="own", client=other).queue_id == "own"
    assert declare(client=other).queue_id == "slow"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"id": "a b"}, "job type id 'a b' must be"),
        ({"client": "shop"}, "'shop.mail': client must be a Client, got str"),
        ({"process": None}, "process must be callable, got NoneType"),
        ({"process": {"a": work}}, "process is a mapping; name its keys in order"),
        ({"process": work, "phases": ("a",)}, "with phases, process must be a mapping"),
        ({"process": {"a": work}, "phases": ("a", "b")}, "must be the same, got a, b and a"),
        ({"process": {"a": work, "b": work}, "phases": ("a",)}, "must be the same, got a and a, b"),
        ({"process": {}, "phases": ("a",)}, "must be the same, got a and none"),
        ({"process": {"a": 1}, "phases": ("a",)}, "process of phase 'a' must be callable, got int"),
        ({"process": {"a": work}, "phases": "a"}, "phases must be a tuple of names, got 'a'"),
        ({"process": {"a": work}, "phases": ("a", "a")}, "phases must differ"),
        ({"process": {"": work}, "phases": ("",)}, "phase id '' must be"),
        ({"process": {1: work}, "phases": (1,)}, "phase id 1 must be"),
        ({"schema": dict}, "schema must be a pydantic model class"),
        ({"schema": {"to": "str"}}, "schema must be a pydantic model class"),
        ({"retry": 3}, "retry must be a Retry, got int"),
        ({"duplicates": "drop"}, r"duplicates must be allow, reject, discard, replace or a function .* got 'drop'"),
        ({"duplicates": True}, "duplicates must be"),
        ({"fingerprint": "to"}, "fingerprint must be callable, got str"),
        ({"on_failure": "mail"}, "on_failure must be callable, got str"),
        ({"serial": "to"}, "serial must be callable, got str"),
        ({"queue": ""}, "queue id '' must be"),
        ({"priority": 1.5}, "priority must be a whole number"),
        ({"priority": True}, "priority must be a whole number"),
        ({"priority": 2**31}, "priority must be a whole number from"),
        ({"timeout": 0}, "timeout must be more than 0 seconds"),
        ({"timeout": float("nan")}, "timeout must be more than 0 seconds"),
        ({"timeout": "5"}, "timeout must be seconds, got '5'"),
        ({"concurrency": 0}, "concurrency must be a whole number from 1"),
        ({"concurrency": 1.5}, "concurrency must be a whole number from 1"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], text: str) -> None:
    """One line with the type and the field, where it is made."""
    with pytest.raises(DeclarationError, match=text) as caught:
        declare(**fields)
    assert "\n" not in str(caught.value)


def test_phases_in_order() -> None:
    """Each has its function and its successor; an unknown one is named with the known ones."""

    def second(job: Any, connection: Any) -> None: ...

    functions = {"b": second, "a": work}
    phased = declare(process=functions, phases=["a", "b"])
    functions["a"] = second
    assert phased.phases == ("a", "b")
    assert phased.first_phase == "a"
    assert (phased.next_phase("a"), phased.next_phase("b")) == ("b", None)
    assert (phased.process_of("a"), phased.process_of("b")) == (work, second), "it is a copy"
    for phase in ("", "c"):
        with pytest.raises(DeclarationError, match=f"'shop.mail': no phase is called '{phase}'; its phases: a, b"):
            phased.process_of(phase)
        with pytest.raises(DeclarationError, match="no phase is called"):
            phased.next_phase(phase)
    with pytest.raises(DeclarationError, match="no phase is called 'a'; it has none"):
        declare().process_of("a")
    with pytest.raises(DeclarationError, match="it has none"):
        declare().next_phase("a")


def test_a_declaration_is_frozen() -> None:
    """Nobody changes it behind a worker's back."""
    with pytest.raises(AttributeError):
        declare().priority = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        declare(process={"a": work}, phases=("a",)).process["a"] = work  # type: ignore[index]


# -- payloads --------------------------------------------------------------------------------------------------------------------


class Colour(Enum):
    """A colour."""

    RED = "red"


class Level(IntEnum):
    """A level."""

    HIGH = 3


@dataclass
class Line:
    """A line of an order."""

    pet: int
    note: str | None = None


@dataclass
class Order:
    """An order."""

    lines: list[Line]
    at: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    tags: dict[str, Any] = field(default_factory=dict)


class Mail(BaseModel):
    """A mail."""

    to: str
    copies: int = 1
    at: datetime | None = None


class Text(str):
    """A text of another class."""

    __slots__ = ()


@pytest.mark.rows("QA-10", "E-17")
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, {}),
        (None, None),
        ([], []),
        ("", ""),
        (0, 0),
        ({"a": [1, 2.5, True, None, "x", {"b": 2**70}]}, {"a": [1, 2.5, True, None, "x", {"b": 2**70}]}),
        ((1, (2, 3)), [1, [2, 3]]),
        (Line(1), {"pet": 1, "note": None}),
        (
            Order([Line(1, "x")], tags={"m": Mail(to="a")}),
            {
                "lines": [{"pet": 1, "note": "x"}],
                "at": "2030-01-01T00:00:00+00:00",
                "tags": {"m": {"to": "a", "copies": 1, "at": None}},
            },
        ),
        (Mail(to="a", at=datetime(2030, 1, 1, tzinfo=UTC)), {"to": "a", "copies": 1, "at": "2030-01-01T00:00:00Z"}),
        ([Colour.RED, Level.HIGH, UUID(int=1), Decimal("1.10"), date(2030, 1, 2)],
         ["red", 3, "00000000-0000-0000-0000-000000000001", "1.10", "2030-01-02"]),
        ({Text("a"): Text("b")}, {"a": "b"}),
        (RootModel[list[int]]([1, 2]), [1, 2]),
    ],
)  # fmt: skip
def test_payloads_become_plain(payload: Any, expected: Any) -> None:
    """Dataclasses and models are objects, their values JSON; what comes out goes through again unchanged."""
    found = declare().validated(payload)
    assert found == expected
    assert type(found) is type(expected)
    assert declare().validated(found) == found


def test_a_plain_payload_is_a_copy() -> None:
    """What the caller changes later changes no job."""
    payload = {"a": [1]}
    found = declare().validated(payload)
    payload["a"].append(2)
    assert found == {"a": [1]}


loop: list[Any] = []
loop.append(loop)


@pytest.mark.rows("QA-10")
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (object(), "payload is a object, which has no JSON form"),
        ({"a": [1, {2, 3}]}, r"payload\.a\[1\] is a set"),
        ({"a": {1: 2}}, r"payload\.a has the key 1; keys in JSON are text"),
        ({"a": b"x"}, r"payload\.a is a bytes"),
        ({"a": float("nan")}, r"payload\.a is nan"),
        ([float("-inf")], r"payload\[0\] is -inf"),
        (Order, "payload is the class Order"),
        (Mail, "payload is the class Mail"),
        (loop, "nested more than 200 deep, or contains itself"),
        (Line(pet=object()), r"payload\.pet is a object"),  # type: ignore[arg-type]
    ],
)
def test_what_has_no_json_form(payload: Any, text: str) -> None:
    """One line with the type and the place."""
    with pytest.raises(PayloadError, match=f"job type 'shop.mail': .*{text}") as caught:
        declare().validated(payload)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "payload", [{"to": "a", "copies": "2"}, Mail(to="a", copies=2), SimpleNamespace, {"to": "a", "copies": 2.0, "more": 1}]
)
def test_a_schema_gives_its_own_form(payload: Any) -> None:
    """Defaults are filled in, numbers are numbers; a second pass changes nothing."""
    mail = declare(schema=Mail)
    if payload is SimpleNamespace:
        payload = Line(1)
        with pytest.raises(PayloadError, match="payload field 'to': Field required"):
            mail.validated(payload)
        return
    found = mail.validated(payload)
    assert found == {"to": "a", "copies": 2, "at": None}
    assert mail.validated(found) == found


def test_a_schema_takes_dataclasses() -> None:
    """By the names of their fields, nested ones too."""

    class Paid(BaseModel):
        lines: list[dict[str, Any]]
        tags: dict[str, Mail]

    found = declare(schema=Paid).validated(Order([], tags={"m": Mail(to="a")}))
    assert found == {"lines": [], "tags": {"m": {"to": "a", "copies": 1, "at": None}}}


def test_a_changed_model_is_checked_again() -> None:
    """A model may be changed after it was checked."""
    changed = Mail(to="a")
    changed.copies = "many"  # type: ignore[assignment]
    with pytest.raises(PayloadError, match="payload field 'copies'"):
        declare(schema=Mail).validated(changed)


class Aliased(BaseModel):
    """A model whose JSON has other names than its fields."""

    model_config = ConfigDict(extra="forbid")
    to: str = Field(alias="recipient")

    @computed_field
    def length(self) -> int:
        """Say how long it is."""
        return len(self.to)


def test_aliases_and_computed_fields_survive() -> None:
    """What is stored can be read again."""
    typed = declare(schema=Aliased)
    assert typed.validated({"recipient": "a"}) == {"recipient": "a"} == typed.validated(typed.validated(Aliased(recipient="a")))


class OneWay(BaseModel):
    """A model that reads one name and writes another."""

    to: str = Field(validation_alias="in", serialization_alias="out")


class Guarded(BaseModel):
    """A model with a secret, and a validator that quotes what it refuses."""

    token: SecretStr
    kind: Literal["a", "b"] = "a"
    pin: int = 0

    @field_validator("pin")
    @classmethod
    def _small(cls, value: int) -> int:
        if value > 9:
            raise ValueError("too large")
        return value


class Bytes(BaseModel):
    """A model with bytes."""

    data: bytes = b""
    number: float = 0


@pytest.mark.parametrize(
    ("schema", "payload", "text"),
    [
        (Mail, {"to": 5}, "payload field 'to': Input should be a valid string"),
        (Mail, {}, "payload field 'to': Field required"),
        (Mail, {"copies": "x"}, r"payload field 'to': .* \(and 1 more\)"),
        (Mail, None, "payload: Input should be"),
        (Mail, [1], "payload: Input should be"),
        (Aliased, {"recipient": "a", "more": 1}, "payload field 'more': Extra inputs"),
        (OneWay, {"in": "a"}, "what would be stored does not fit the schema again: payload field 'in': Field required"),
        (Guarded, {"token": "s3cret"}, "payload.token is a secret"),
        (Guarded, {"token": "s3cret", "kind": "s3cret"}, "payload field 'kind': Input should be 'a' or 'b'"),
        (Guarded, {"token": "s3cret", "pin": 77}, "payload field 'pin': Value error, too large"),
        (Bytes, {"data": b"\xff"}, "payload has no JSON form"),
        (Bytes, {"number": float("nan")}, r"payload\.number is nan"),
    ],
)
def test_what_does_not_fit_the_schema(schema: type[BaseModel], payload: Any, text: str) -> None:
    """One line with type and field, and without the value, which may be secret."""
    with pytest.raises(PayloadError, match=f"job type 'shop.mail': {text}") as caught:
        declare(schema=schema).validated(payload)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "77" not in str(caught.value)


class Inner(BaseModel):
    """A model with a secret, to be put into another one."""

    token: SecretStr | None = None


class Outer(BaseModel):
    """A model with models in it."""

    inner: Inner = Inner()
    many: list[Inner] = []
    named: dict[str, Any] = {}


HIDDEN = Inner(token=SecretStr("s3cret"))


@pytest.mark.parametrize("schema", [None, Outer])
@pytest.mark.parametrize(
    ("payload", "where"),
    [
        (Outer(inner=HIDDEN), "inner.token"),
        (Outer(many=[Inner(), HIDDEN]), "many[1].token"),
        (Outer(named={"a": {"b": HIDDEN}}), "named.a.b.token"),
        (Outer(named={"a": SecretStr("s3cret")}), "named.a"),
    ],
)
def test_secrets_are_refused_at_any_depth(payload: Any, where: str, schema: type[BaseModel] | None) -> None:
    """A stored secret would be asterisks, or a secret in a row (law 9)."""
    with pytest.raises(PayloadError) as caught:
        declare(schema=schema).validated(payload)
    assert f"{where}" in str(caught.value)
    assert "is a secret" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert plain_json(Outer(many=[Inner()]))["many"] == [{"token": None}]


def test_a_model_with_a_secret_in_a_plain_payload_is_refused() -> None:
    """Also where a dict holds the model."""
    with pytest.raises(PayloadError, match=r"payload\.a\[0\]\.token is a secret"):
        declare().validated({"a": [HIDDEN]})
