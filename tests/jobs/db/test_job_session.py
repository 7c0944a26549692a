"""`jobs.db.job_session`: what a job writes commits with its finish, or not at all."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from jobs import JobStore, LostLease
from jobs.db.job_session import UnitOfWork, as_current_unit, current_session
from jobs.job import Job
from tests.support.store_helpers import change, done, enqueue, expire, finish, query, row, states, take_one

_registry = registry()


class Base(SQLModel, registry=_registry):
    """A registry of its own, so that the tables of other tests stay out."""


class Pet(Base, table=True):
    """What the jobs of these tests write."""

    name: str = Field(primary_key=True)
    age: int = 0


PETS: Table = Pet.__table__  # type: ignore[attr-defined]


@pytest.fixture
def pets(store: JobStore) -> JobStore:
    """A store with a table of pets beside ours."""
    with store.db.write() as connection:
        _registry.metadata.create_all(connection)
    return store


@pytest.fixture
def job(pets: JobStore) -> Job:
    """One claimed job."""
    enqueue(pets, ["a"])
    return take_one(pets)


def names(store: JobStore) -> list[str]:
    """Return the names of the committed pets."""
    return sorted(found["name"] for found in query(store, "SELECT name FROM pet"))


@pytest.mark.rows("DS-08")
def test_what_is_written_commits_with_the_finish(pets: JobStore, job: Job) -> None:
    """Nothing is seen before; then rows and state are there together."""
    unit = pets.checkpoints.unit_of_work(job)
    unit.session.add(Pet(name="rex"))
    unit.session.flush()
    assert names(pets) == []
    assert row(pets, job.id)["state"] == "processing"
    assert pets.checkpoints.finish(done(job), unit).state == "success"
    assert names(pets) == ["rex"]
    assert row(pets, job.id)["state"] == "success"


def test_having_a_session_opens_nothing(pets: JobStore, job: Job) -> None:
    """A job that only talks to the remote side holds no transaction (M16), also with something added and not flushed."""
    unit = pets.checkpoints.unit_of_work(job)
    unit.session.add(Pet(name="rex"))
    assert pets.db.engine.pool.checkedout() <= 1  # type: ignore[attr-defined]  # the one of all other writes
    assert unit.is_open
    change(pets, "INSERT INTO pet (name, age) VALUES ('meg', 1)")
    assert pets.checkpoints.finish(done(job), unit).state == "success"
    assert names(pets) == ["meg", "rex"]


@pytest.mark.rows("DS-08", "E-05")
def test_a_lost_claim_takes_its_writes_along(pets: JobStore, job: Job) -> None:
    """The job went to another worker: nothing that this one wrote remains, and the other's finish counts."""
    unit = pets.checkpoints.unit_of_work(job)
    # Before the first statement: on SQLite nobody else could write after it.
    expire(pets, job)
    pets.rescues.run([job.lane.queue])
    again = take_one(pets, suspects=True)
    unit.session.add(Pet(name="rex"))
    assert pets.checkpoints.finish(done(job), unit).state == "lost"
    assert names(pets) == []
    assert finish(pets, done(again)) == ["success"]


@pytest.mark.rows("DS-08")
def test_a_flush_that_fails_leaves_nothing(pets: JobStore, job: Job) -> None:
    """The second row breaks a constraint: neither it nor the first remains, and the job is still in hand."""
    change(pets, "INSERT INTO pet (name, age) VALUES ('rex', 1)")
    unit = pets.checkpoints.unit_of_work(job)
    unit.session.add(Pet(name="meg"))
    unit.session.flush()
    unit.session.add(Pet(name="rex"))
    with pytest.raises(IntegrityError):
        pets.checkpoints.finish(done(job), unit)
    assert names(pets) == ["rex"]
    assert row(pets, job.id)["state"] == "processing"
    assert finish(pets, done(job)) == ["success"]


def test_commit_of_the_session_is_no_commit(pets: JobStore, job: Job) -> None:
    """Code that was written for other sessions calls `commit`; it counts with the finish, in each of its forms."""
    unit = pets.checkpoints.unit_of_work(job)
    with unit.session as session:
        session.add(Pet(name="rex"))
        session.commit()
    with unit.session.begin_nested():
        unit.session.execute(insert(PETS).values(name="meg", age=1))
    unit.session.exec(text("INSERT INTO pet (name, age) VALUES ('ida', 1)"))  # type: ignore[call-overload]
    assert names(pets) == []
    unit.discard()
    assert names(pets) == []
    with unit.session as session:
        session.add(Pet(name="tom"))
    pets.checkpoints.finish(done(job), unit)
    assert names(pets) == ["tom"]


def test_rollback_of_the_session_drops_what_was_written(pets: JobStore, job: Job) -> None:
    """What comes after it commits."""
    unit = pets.checkpoints.unit_of_work(job)
    unit.session.add(Pet(name="rex"))
    unit.session.flush()
    unit.session.rollback()
    change(pets, "UPDATE pet SET age = 2")  # nobody is kept waiting
    unit.session.add(Pet(name="meg"))
    pets.checkpoints.finish(done(job), unit)
    assert names(pets) == ["meg"]


def test_a_block_that_rolls_back_behind_our_back(pets: JobStore, job: Job) -> None:
    """`with session.begin():` ends with an exception: only what comes after it commits, and with the finish."""
    unit = pets.checkpoints.unit_of_work(job)

    def fail() -> None:
        with unit.session.begin():
            unit.session.add(Pet(name="rex"))
            unit.session.flush()
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    with unit.session.begin():
        unit.session.add(Pet(name="meg"))
    assert names(pets) == []
    pets.checkpoints.finish(done(job), unit)
    assert names(pets) == ["meg"]


@pytest.mark.rows("DS-11")
def test_parallel_jobs_count_right(pets: JobStore) -> None:
    """Twenty jobs in eight threads raise one counter, which they read and lock before: it says twenty."""
    change(pets, "INSERT INTO pet (name, age) VALUES ('counter', 0)")
    enqueue(pets, range(20))
    jobs = [take_one(pets) for _ in range(20)]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                one = jobs.pop()
                unit = pets.checkpoints.unit_of_work(one)
                counter = unit.session.get_one(Pet, "counter", with_for_update=True)
                age = counter.age
                time.sleep(0.002)
                counter.age = age + 1
                assert pets.checkpoints.finish(done(one), unit).state == "success"
        except IndexError:
            return
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert query(pets, "SELECT age FROM pet") == [{"age": 20}]
    assert states(pets) == {"success": 20}


@pytest.fixture
def hanging(pets: JobStore, job: Job) -> Iterator[tuple[UnitOfWork, threading.Thread, list[Any], threading.Event]]:
    """A thread that wrote through its session and then hangs; it writes and commits again when it is let go."""
    unit, came, go, written = pets.checkpoints.unit_of_work(job), list[Any](), threading.Event(), threading.Event()

    def work() -> None:
        unit.session.add(Pet(name="rex"))
        unit.session.flush()
        raw = unit.connection().connection.driver_connection
        written.set()
        go.wait(60)
        # What a late thread may do: through the session, straight down the connection, and by finishing.
        for late in (
            lambda: unit.session.execute(insert(PETS).values(name="late", age=0)),
            lambda: raw.execute("INSERT INTO pet (name, age) VALUES ('raw', 0)"),
            lambda: pets.checkpoints.finish(done(job), unit),
        ):
            try:
                came.append(late())
            except Exception as error:  # noqa: BLE001
                came.append(error)
        unit.discard()

    thread = threading.Thread(target=work)
    thread.start()
    assert written.wait(60)
    yield unit, thread, came, go
    go.set()
    thread.join()


@pytest.mark.rows("DS-07", "E-36")
def test_a_hanging_thread_is_cut_off(
    pets: JobStore, job: Job, hanging: tuple[UnitOfWork, threading.Thread, list[Any], threading.Event]
) -> None:
    """None of its rows remain, others write at once, and what it does later comes to nothing."""
    unit, thread, came, go = hanging
    unit.abandon()
    assert names(pets) == []
    change(pets, "INSERT INTO pet (name, age) VALUES ('meg', 1)")
    go.set()
    thread.join()
    assert isinstance(came[0], LostLease)
    assert isinstance(came[1], Exception)
    assert came[2].state == "lost"
    assert names(pets) == ["meg"]
    assert row(pets, job.id)["state"] == "processing"
    assert finish(pets, done(job)) == ["success"]


def test_a_hanging_statement_is_cut_off(pets: JobStore, job: Job) -> None:
    """The thread hangs inside the database itself."""
    unit, came = pets.checkpoints.unit_of_work(job), list[BaseException]()
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        if pets.db.dialect == "sqlite"
        else "SELECT pg_sleep(60)"
    )

    def work() -> None:
        unit.session.add(Pet(name="rex"))
        unit.session.flush()
        try:
            is_in_it.set()
            unit.session.execute(text(endless))
        except BaseException as error:  # noqa: BLE001
            came.append(error)
        unit.discard()

    is_in_it = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert is_in_it.wait(60)
    time.sleep(0.2)
    unit.abandon()
    thread.join(60)
    assert not thread.is_alive()
    assert came
    change(pets, "INSERT INTO pet (name, age) VALUES ('meg', 1)")
    assert names(pets) == ["meg"]


def test_given_up_while_it_waits_for_its_turn(pets: JobStore, job: Job) -> None:
    """It gets its turn when nobody wants its work any more: it writes nothing and lets the turn go."""
    if pets.db.dialect != "sqlite":
        pytest.skip("only SQLite's writers wait for a turn")
    unit, came = pets.checkpoints.unit_of_work(job), list[BaseException]()

    def work() -> None:
        try:
            unit.session.execute(insert(PETS).values(name="late", age=0))
        except BaseException as error:  # noqa: BLE001
            came.append(error)

    with pets.db.write():
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        unit.abandon()
    thread.join(60)
    assert isinstance(came[0], LostLease)
    change(pets, "INSERT INTO pet (name, age) VALUES ('meg', 1)")
    assert names(pets) == ["meg"]


def test_leases_are_renewed_as_soon_as_the_session_ends(pets: JobStore, job: Job) -> None:
    """A renewal in another thread waits for SQLite's writer and is not lost; on PostgreSQL it does not wait."""
    unit, kept = pets.checkpoints.unit_of_work(job), list[set[int]]()
    unit.session.add(Pet(name="rex"))
    unit.session.flush()
    thread = threading.Thread(target=lambda: kept.append(pets.renew([(job.id, job.claim_no)], lease=60)))
    thread.start()
    is_apart = pets.db.dialect == "postgresql"
    thread.join(60 if is_apart else 0.3)
    assert bool(kept) is is_apart
    pets.checkpoints.save(job, 1, unit)
    thread.join(60)
    assert kept == [{job.id}]
    assert names(pets) == ["rex"]


def test_who_must_write_through_the_session(pets: JobStore, job: Job) -> None:
    """On SQLite, and only while it has the writer, further writes of the thread have to join it."""
    unit = pets.checkpoints.unit_of_work(job)
    with as_current_unit(unit):
        assert current_session(pets.db) is None
        unit.session.add(Pet(name="rex"))
        unit.session.flush()
        assert current_session(pets.db) is (unit.session if pets.db.dialect == "sqlite" else None)
        unit.discard()
        assert current_session(pets.db) is None
    assert current_session(pets.db) is None


def test_whoever_holds_the_writer_too_long_is_named(pets: JobStore, job: Job, caplog: Any, monkeypatch: Any) -> None:
    """One line says which job kept everybody waiting."""
    monkeypatch.setattr("jobs.db.interruptible_transaction.WARN_AFTER", 0.0)
    unit = pets.checkpoints.unit_of_work(job)
    unit.session.add(Pet(name="rex"))
    pets.checkpoints.finish(done(job), unit)
    said = [record.getMessage() for record in caplog.records if record.name == "jobs.db.interruptible_transaction"]
    assert len(said) == (1 if pets.db.dialect == "sqlite" else 0)
    assert all(f"job {job.id} (api.things) held SQLite's one writer" in line for line in said)


def test_tables_of_core_work_too(pets: JobStore, job: Job) -> None:
    """Statements of Core and reads go through the same transaction."""
    unit = pets.checkpoints.unit_of_work(job)
    unit.session.execute(insert(PETS), [{"name": "a", "age": 1}, {"name": "b", "age": 2}])
    assert unit.session.scalars(select(PETS.c.name).order_by(PETS.c.name)).all() == ["a", "b"]
    assert pets.checkpoints.finish(done(job), unit).state == "success"
    assert names(pets) == ["a", "b"]
