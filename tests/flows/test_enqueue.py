"""`enqueue` and `enqueue_many`: from a declaration and a payload to a job in the project's database."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlmodel import Session

from flows import Client, JobType, UnknownName, enqueue, enqueue_many
from flows.enqueue import _process, new_jobs, own_store, using
from jobs import DuplicateJob, JobStore, PayloadError, ScheduleError
from jobs.db.job_session import UnitOfWork, as_current_unit
from jobs.fingerprint import fingerprint
from jobs.job import Job, Lane
from jobs.schema.job_tables import job as table

if TYPE_CHECKING:
    from tests.flows.conftest import Project

shop = Client("shop", connect=lambda _: None)


class Mail(BaseModel):
    """A mail."""

    to: str
    copies: int = 1


@dataclass
class Letter:
    """A letter."""

    to: str
    copies: int = 2


def declare(**fields: Any) -> JobType:
    """Make a job type."""
    return JobType(**{"id": "shop.mail", "client": shop, "process": lambda job, connection: None, **fields})


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Forget what a test let this process open and load."""
    path = list(sys.path)
    _process.registry = None
    yield
    _process.close()
    _process.registry = None
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("syncs_files.") or name in ("shop", "letter", "broken")]:
        del sys.modules[name]


@pytest.fixture
def used(store: JobStore) -> Iterator[JobStore]:
    """Return a fresh store, on either database, that `enqueue` uses."""
    with using(store):
        yield store


def rows(store: JobStore) -> list[Any]:
    """Return all jobs."""
    with store.db.read() as connection:
        return list(connection.execute(select(table).order_by(table.c.id)))


def claim(store: JobStore, job_type: JobType) -> list[Job]:
    """Claim all jobs of a type that are due."""
    lane = Lane(job_type.queue_id, job_type.client.id, job_type.id, job_type.first_phase)
    return store.claim([lane], 100, worker="far:1:1:1", lease=60)


# -- what is stored ------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-03", "AQ-10")
def test_the_job_is_what_the_declaration_says(used: JobStore) -> None:
    """Queue, client, type, first phase, priority and serial key come from it."""
    functions = {"first": print, "second": print}
    mail = declare(queue="post", priority=7, phases=("first", "second"), process=functions, serial=lambda payload: payload["to"])
    found = enqueue(mail, {"to": "a"})
    (row,) = rows(used)
    assert (row.id, found.duplicate_of) == (found.id, None)
    assert (row.queue, row.client, row.type, row.phase) == ("post", "shop", "shop.mail", "first")
    assert (row.priority, row.serial_key, row.fingerprint, row.key) == (7, "a", None, None)
    assert [one.payload for one in claim(used, mail)] == [{"to": "a"}]


@pytest.mark.rows("QA-10")
@pytest.mark.parametrize("payload", [{"to": "a", "copies": "2"}, Mail(to="a", copies=2), Letter("a")])
def test_payloads_go_through_the_schema(used: JobStore, payload: Any) -> None:
    """Dicts, models and dataclasses are stored alike."""
    mail = declare(schema=Mail)
    enqueue(mail, payload)
    assert [one.payload for one in claim(used, mail)] == [{"to": "a", "copies": 2}]


@pytest.mark.rows("QA-10")
def test_a_dataclass_comes_back(used: JobStore) -> None:
    """What went in as an object comes back as what makes an equal one."""
    mail = declare()
    enqueue(mail, Letter("a", 3))
    assert Letter(**claim(used, mail)[0].payload) == Letter("a", 3)


@pytest.mark.rows("AQ-28", "AQ-29")
def test_delay_moment_and_priority(used: JobStore) -> None:
    """They hold for all jobs of the call; a moment wins over a delay."""
    mail, moment = declare(priority=1), datetime(2035, 1, 1, tzinfo=UTC)
    enqueue_many(mail, [1, 2], delay=3600, priority=-5)
    enqueue(mail, 3, delay=3600, available_at=moment)
    enqueue(mail, 4, available_at=datetime(2001, 1, 1, tzinfo=UTC), priority=0)
    found = rows(used)
    assert [row.priority for row in found] == [-5, -5, 1, 0]
    assert abs(found[0].available_at - used.views.now() - timedelta(hours=1)) < timedelta(minutes=1)
    assert found[1].available_at - found[0].available_at < timedelta(seconds=1)
    assert found[2].available_at == moment
    assert [one.payload for one in claim(used, mail)] == [4]


@pytest.mark.rows("AQ-29", "E-34")
def test_many_are_all_or_none(used: JobStore) -> None:
    """The third of five is wrong: nothing is stored, and the error names it."""
    mail = declare(schema=Mail)
    payloads: list[Any] = [{"to": str(n)} for n in range(5)]
    payloads[2] = {"to": 2}
    with pytest.raises(PayloadError, match=r"job 3 of 5: job type 'shop.mail': payload field 'to'"):
        enqueue_many(mail, payloads)
    with pytest.raises(PayloadError, match=r"shop.mail: the payload of job 2 of 2 has 1,048,\d+ bytes"):
        enqueue_many(declare(), ["a", "x" * 1024 * 1024])
    with pytest.raises(ScheduleError):
        enqueue_many(mail, [{"to": "a"}], delay=-1)
    with pytest.raises(PayloadError, match="priority must be a whole number"):
        enqueue(mail, {"to": "a"}, priority=1.5)  # type: ignore[arg-type]
    assert rows(used) == []
    found = enqueue_many(mail, ({"to": str(n)} for n in range(5)))
    assert [one.id for one in found] == [row.id for row in rows(used)] == sorted(one.id for one in found)
    assert enqueue_many(mail, []) == []


# -- duplicates ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-17", "E-15")
def test_the_fingerprint_is_of_type_and_payload(used: JobStore) -> None:
    """Whatever the order of keys, and in the schema's own form."""
    mail = declare(duplicates="discard", schema=Mail)
    first = enqueue(mail, {"to": "a", "copies": 1})
    for payload in ({"copies": "1", "to": "a"}, {"to": "a"}, Mail(to="a")):
        assert enqueue(mail, payload) == (first.id, first.id)
    others = [
        enqueue(mail, {"to": "b"}),
        enqueue(declare(id="shop.letter", duplicates="discard", schema=Mail), {"to": "a"}),
        enqueue(declare(queue="other", duplicates="discard", schema=Mail), {"to": "a"}),
    ]
    assert [one.duplicate_of for one in others] == [None, None, None]
    assert rows(used)[0].fingerprint == fingerprint("shop.mail", {"to": "a", "copies": 1})


@pytest.mark.rows("AQ-17", "E-15")
def test_a_fingerprint_of_chosen_fields(used: JobStore) -> None:
    """What the function returns makes two jobs the same; nothing, and the job has no twins."""
    mail = declare(duplicates="discard", fingerprint=lambda payload: payload.get("to"))
    first = enqueue(mail, {"to": "a", "text": "x"})
    assert enqueue(mail, {"text": "y", "to": "a"}).duplicate_of == first.id
    assert enqueue(mail, {"to": "b"}).duplicate_of is None
    assert [enqueue(mail, {"text": "x"}).duplicate_of for _ in range(2)] == [None, None]
    made = declare(duplicates="discard", fingerprint=lambda payload: Letter(payload["to"]))
    assert enqueue(made, {"to": "c", "n": 1}).id == enqueue(made, {"to": "c", "n": 2}).duplicate_of
    with pytest.raises(PayloadError, match="fingerprint is a set"):
        enqueue(declare(duplicates="discard", fingerprint=set), {"to": "c"})


@pytest.mark.rows("AQ-19", "AQ-20", "E-11", "SC-31")
@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [
        ("allow", [{"to": "a", "n": 1}, {"to": "a", "n": 2}]),
        ("reject", [{"to": "a", "n": 1}]),
        ("discard", [{"to": "a", "n": 1}]),
        ("replace", [{"to": "a", "n": 2}]),
        (lambda new, old: {**new, "n": new["n"] + old["n"]}, [{"to": "a", "n": 3}]),
    ],
    ids=["allow", "reject", "discard", "replace", "merge"],
)
def test_duplicate_policies(used: JobStore, duplicates: Any, expected: list[Any]) -> None:
    """Each leaves what it says."""
    mail = declare(duplicates=duplicates, fingerprint=lambda payload: payload["to"])
    first = enqueue(mail, {"to": "a", "n": 1})
    if duplicates == "reject":
        with pytest.raises(DuplicateJob, match=f"shop.mail: the job duplicates job {first.id}, which is queued") as caught:
            enqueue(mail, {"to": "a", "n": 2})
        assert caught.value.job.payload == {"to": "a", "n": 2}
        assert caught.value.duplicates == ((first.id, {"to": "a", "n": 1}),)
    else:
        second = enqueue(mail, {"to": "a", "n": 2})
        assert second.duplicate_of == (None if duplicates == "allow" else first.id)
    assert [one.payload for one in claim(used, mail)] == expected


@pytest.mark.rows("AQ-19")
def test_what_a_merge_returns_is_checked(used: JobStore) -> None:
    """It goes through the schema, and gives the serial key."""
    results: list[Any] = [Mail(to="merged"), {"to": 5}, {"to": "x", "copies": {1}}]
    mail = declare(
        duplicates=lambda new, old: results.pop(0), fingerprint=lambda _: 1, schema=Mail, serial=lambda payload: payload["to"]
    )
    enqueue(mail, {"to": "a"})
    enqueue(mail, {"to": "b"})
    for _ in range(2):
        with pytest.raises(PayloadError, match=r"job type 'shop.mail'"):
            enqueue(mail, {"to": "c"})
    (row,) = rows(used)
    assert (row.payload, row.serial_key) == ({"to": "merged", "copies": 1}, "merged")


def test_serial_keys(used: JobStore) -> None:
    """Text or a number, or nothing; anything else is refused."""
    keys: list[Any] = ["a", 7, None]
    for key in keys:
        enqueue(declare(serial=lambda _, key=key: key), 1)
    assert [row.serial_key for row in rows(used)] == ["a", "7", None]
    with pytest.raises(PayloadError, match="serial must return text or None, got list"):
        enqueue(declare(serial=lambda _: []), 1)


def test_a_serial_key_that_is_too_long(used: JobStore) -> None:
    """Said where it is queued, alike on both databases: PostgreSQL's index takes no longer ones."""
    digits = random.Random(1)
    longest = "".join(digits.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(2000))
    enqueue(declare(serial=lambda _: longest), 1)
    for key in (longest + "a", "é" * 1001):
        with pytest.raises(PayloadError, match=r"serial returned a key of 2,00\d bytes; 2,000 is the most"):
            enqueue(declare(serial=lambda _, key=key: key), 1)
    assert [row.serial_key for row in rows(used)] == [longest]


# -- the caller's transaction ----------------------------------------------------------------------------------------------------


@pytest.mark.rows("T22", "M24")
def test_a_session_decides(used: JobStore) -> None:
    """Its rollback leaves no job, its commit one."""
    mail = declare(duplicates="discard")
    with Session(used.db.engine) as session:
        enqueue(mail, 1, session=session)
        session.rollback()
        assert enqueue_many(mail, [1, 2, 1], session=session)[2].duplicate_of is not None
        session.commit()
    assert [one.payload for one in claim(used, mail)] == [1, 2]


@pytest.mark.rows("M24")
@pytest.mark.parametrize("ends", ["commit", "discard"])
def test_inside_a_job_that_has_written(used: JobStore, ends: str) -> None:
    """On SQLite the job's own session is used, since it holds the one write lock: otherwise the job would wait for itself."""
    unit = UnitOfWork(used.db, "job 1")
    mail = declare(duplicates="discard")
    with as_current_unit(unit):
        unit.session.execute(text("UPDATE client SET errors = 0"))
        enqueue(mail, 1)
        enqueue(mail, 2, session=unit.session)
    if ends == "commit":
        unit.commit(lambda _: None)
    else:
        unit.discard()
    left = [1, 2] if ends == "commit" else [] if used.db.dialect == "sqlite" else [1]
    assert [row.payload for row in rows(used)] == left


# -- names, stores and files -----------------------------------------------------------------------------------------------------

SHOP = """
from flows import Client, JobType
shop = Client("shop", connect=lambda s: None)
mail = JobType("shop.mail", shop, process=lambda job, connection: None, duplicates="discard")
"""


def test_a_type_is_found_by_its_id(project: Project) -> None:
    """In the files of the project; read once, and again for a name that is new."""
    project.write("syncs/shop.py", SHOP)
    first = enqueue("shop.mail", {"n": 1})
    assert enqueue("shop.mail", {"n": 1}).duplicate_of == first.id
    registry = _process.registry
    with pytest.raises(UnknownName, match=r"no job type is called 'shop.letter'; did you mean 'shop.mail'"):
        enqueue("shop.letter", {})
    assert _process.registry is not registry
    project.write("syncs/letter.py", SHOP.replace("shop", "post").replace("mail", "letter"))
    enqueue_many("post.letter", [1, 2])
    registry = _process.registry
    enqueue("shop.mail", {"n": 2})
    assert _process.registry is registry
    assert Path("data/syncs.db").exists()
    assert len(rows(own_store())) == 4


def test_wrong_names(project: Project) -> None:
    """The error says what the name is, or in which broken file it stands; no database is made."""
    project.write(
        "syncs/shop.py",
        SHOP + "from flows import Sync\nfrom clients import Listing\ns = Sync('shop.s', shop, listing=Listing('x'))\n",
    )
    project.write("syncs/broken.py", "import nothing\nX = 'other.mail'")
    with pytest.raises(UnknownName, match=r"no job type is called 'shop.s', but a sync is; `syncs run` runs it"):
        enqueue("shop.s", {})
    with pytest.raises(UnknownName, match=r"job type 'other.mail' is in a file that cannot be used: syncs/broken.py"):
        enqueue("other.mail", {})
    assert not Path("data").exists()


def test_the_store_stays_open(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """One store for all calls of a process, another one when the settings name another database."""
    mail = declare()
    enqueue(mail, 1)
    store = own_store()
    enqueue(mail, 2)
    assert own_store() is store
    monkeypatch.setenv("SYNCS_DATABASE_URL", f"sqlite:///{project.folder / 'other.db'}")
    enqueue(mail, 3)
    assert own_store() is not store
    assert [row.payload for row in rows(own_store())] == [3]


def test_the_innermost_store_is_used(project: Project, store: JobStore, database_url: str) -> None:
    """Who works jobs in this process lends its store, however the workers end."""
    mail = declare()
    inner = JobStore.open(database_url)
    first, second = using(store), using(inner)
    first.__enter__()
    second.__enter__()
    assert own_store() is inner
    first.__exit__(None, None, None)
    assert own_store() is inner
    enqueue(mail, 1)
    second.__exit__(None, None, None)
    assert own_store() not in (store, inner)
    assert [row.payload for row in rows(inner)] == [1]
    assert rows(own_store()) == []
    inner.close()


def test_another_program(project: Project) -> None:
    """`from flows import enqueue` is all that a web application needs; nothing heavy comes with the import."""
    project.write("syncs/shop.py", SHOP)
    script = (
        "import sys; from flows import enqueue, enqueue_many\n"
        "print(sorted({'sqlalchemy', 'sqlmodel', 'prefect', 'pydantic', 'flows.project.registry'} & set(sys.modules)))\n"
        "print(enqueue('shop.mail', {'b': 1, 'a': 2}), [one.id for one in enqueue_many('shop.mail', [1, 2])])\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", script], cwd=project.folder, capture_output=True, text=True, check=False,
            env={**project.environment, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    assert [run.stderr for run in runs] == ["", ""]
    assert runs[0].stdout.splitlines() == ["[]", "Enqueued(id=1, duplicate_of=None) [2, 3]"]
    assert runs[1].stdout.splitlines() == ["[]", "Enqueued(id=1, duplicate_of=1) [2, 3]"]


def test_a_forked_child_opens_a_store_of_its_own(project: Project) -> None:
    """A connection does not survive a fork, and the child leaves the parent's alone."""
    script = (
        "import os\nfrom flows import Client, JobType, enqueue\n"
        "mail = JobType('m', Client('c', connect=print), process=print)\n"
        "print(enqueue(mail, 1).id, flush=True)\n"
        "if (pid := os.fork()) == 0:\n    print(enqueue(mail, 2).id, flush=True)\n    raise SystemExit\n"
        "os.waitpid(pid, 0)\nprint(enqueue(mail, 3).id)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False
    )
    assert (run.stdout.split(), run.stderr) == (["1", "2", "3"], "")


@pytest.mark.rows("AQ-17")
def test_golden_fingerprint_of_a_declared_type() -> None:
    """It stands in every database: another version of this code must find the twins that this one stored."""
    (found,) = new_jobs(declare(duplicates="discard"), [{"to": "a", "n": [1, None]}])
    assert found.fingerprint == fingerprint("shop.mail", {"n": [1, None], "to": "a"}) == "a4cdabe26da2a0dbd0ad0d5030e7bbdc"


def _broken(*_: Any) -> Any:
    return {}["customer"]


@pytest.mark.rows("AQ-19")
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("fingerprint", {"duplicates": "reject", "fingerprint": _broken}),
        ("serial", {"serial": _broken}),
        ("duplicates", {"duplicates": _broken}),
    ],
)
def test_functions_of_a_type_that_raise(used: JobStore, name: str, fields: dict[str, Any]) -> None:
    """It is a payload error that names the type and the function; nothing is queued."""
    first = declare(**{**fields, name: "reject" if name == "duplicates" else None})
    enqueue(first, {"a": 1})
    with pytest.raises(PayloadError, match=rf"job type 'shop.mail': {name} raised KeyError: 'customer'") as caught:
        enqueue(declare(**fields), {"a": 1})
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(rows(used)) == 1
    with pytest.raises(
        PayloadError, match=f"{'job 1 of 2: ' if name != 'duplicates' else ''}job type 'shop.mail': {name} raised"
    ):
        enqueue_many(declare(**fields), [{"a": 1}, {"a": 1}])
