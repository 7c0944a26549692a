"""Jobs queued in the caller's own transaction (M24, T22): they come and go with it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel import Session as SQLModelSession

from jobs import DuplicateJob, ForeignSession, JobStore, PayloadError
from jobs.enqueueing.duplicates import Enqueued, NewJob, Policy
from tests.support.store_helpers import LANE, query, states, take

pytestmark = pytest.mark.rows("T22", "M24")


def new(payload: Any, identity: str | None = None) -> NewJob:
    """Make a new job."""
    return NewJob(LANE, payload, identity)


@pytest.fixture
def engine(store: JobStore, database_url: str) -> Iterator[Engine]:
    """Return an engine of the caller's own, as SQLAlchemy makes it, and a table of theirs."""
    found = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with found.begin() as connection:
        connection.execute(text("CREATE TABLE orders (n INTEGER)"))
    yield found
    found.dispose()


def orders(store: JobStore) -> int:
    """Count the caller's own rows."""
    return len(query(store, "SELECT n FROM orders"))


POLICIES: list[Policy] = ["allow", "reject", "discard", "replace", lambda new, old: new]


@pytest.mark.parametrize("kind", [Session, SQLModelSession])
@pytest.mark.parametrize("policy", POLICIES, ids=["allow", "reject", "discard", "replace", "merge"])
def test_nothing_is_seen_before_the_commit(store: JobStore, engine: Engine, kind: type[Session], policy: Policy) -> None:
    """State change and job become visible together; before that nobody can claim it."""
    with kind(engine) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        (found,) = store.enqueue([new("x", "f")], policy, session=session)
        assert states(store) == {}
        if store.db.dialect == "postgresql":
            # On SQLite a claim waits for the one writer that the session is now.
            assert take(store) == []
        session.commit()
    assert orders(store) == 1
    assert [one.id for one in take(store)] == [found.id]


@pytest.mark.parametrize("policy", POLICIES, ids=["allow", "reject", "discard", "replace", "merge"])
@pytest.mark.parametrize("first", [True, False], ids=["enqueue first", "write first"])
def test_a_rollback_leaves_no_job(store: JobStore, engine: Engine, policy: Policy, first: bool) -> None:
    """Neither the order nor the job, whichever came first in the transaction; a queued twin is as it was."""
    store.enqueue([new("old", "g")], "discard")
    with Session(engine) as session:
        if not first:
            session.execute(text("INSERT INTO orders VALUES (1)"))
        store.enqueue([new("x", "f"), *([new("new", "g")] if policy != "reject" else [])], policy, session=session)
        session.execute(text("INSERT INTO orders VALUES (1)"))
        session.rollback()
    assert orders(store) == 0
    assert states(store) == {"queued": 1}
    assert [one.payload for one in take(store)] == ["old"]


def test_the_place_of_a_rolled_back_job_is_free(store: JobStore, engine: Engine) -> None:
    """A winner that rolls back does not swallow the one that comes next (T12)."""
    with Session(engine) as session:
        store.enqueue([new("x", "f")], "discard", session=session)
        session.rollback()
    (found,) = store.enqueue([new("y", "f")], "discard")
    assert found.duplicate_of is None
    assert [one.payload for one in take(store)] == ["y"]


@pytest.mark.rows("T12")
@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("policy", POLICIES[2:], ids=["discard", "replace", "merge"])
def test_who_comes_second_waits_for_the_first(store: JobStore, engine: Engine, policy: Policy, ends: str) -> None:
    """Whether there is a twin, only the end of the other transaction tells."""
    inside = threading.Event()

    def first() -> None:
        with Session(engine) as session:
            store.enqueue([new("first", "f")], policy, session=session)
            inside.set()
            time.sleep(0.3)
            getattr(session, ends)()

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    (found,) = store.enqueue([new("second", "f")], policy)
    thread.join()
    assert (found.duplicate_of is None) == (ends == "rollback")
    (one,) = take(store)
    assert one.id == found.id
    assert one.payload == ("first" if ends == "commit" and policy == "discard" else "second")


@pytest.mark.rows("AQ-18", "E-13")
def test_nobody_comes_between_the_look_and_the_write(
    store: JobStore, engine: Engine, open_store: Callable[..., JobStore]
) -> None:
    """A twin that was found stays queued until the end of the transaction: no claim takes it in between."""
    (first,) = store.enqueue([new("old", "f")], "discard")
    seen: list[Any] = []

    def look_around(new: Any, old: Any) -> Any:
        seen.append(old)
        if store.db.dialect == "postgresql":
            assert take(open_store()) == []
        else:
            with (
                closing(sqlite3.connect(str(store.db.url.database), timeout=0)) as other,
                pytest.raises(sqlite3.OperationalError, match="locked"),
            ):
                other.execute("BEGIN IMMEDIATE")
        return new

    with Session(engine) as session:
        store.enqueue([new("new", "f")], look_around, session=session)
        session.commit()
    store.enqueue([new("newer", "f")], look_around)
    assert seen == ["old", "new"]
    with Session(engine) as session:
        store.enqueue([new("newest", "f")], "discard", session=session)
        if store.db.dialect == "postgresql":
            assert take(store) == [], "what the caller has written belongs to the job that stands for it"
        session.commit()
    assert [(one.id, one.payload) for one in take(store)] == [(first.id, "newer")]


@pytest.mark.rows("E-34", "AQ-29")
def test_a_twin_that_comes_up_late(store: JobStore, engine: Engine, open_store: Callable[..., JobStore]) -> None:
    """Found only when half of the call is stored: that half is taken back, and the caller's transaction goes on."""
    if store.db.dialect == "sqlite":
        pytest.skip("under SQLite's one writer nothing comes up late")
    other = open_store()
    late = [new("late", "b")]

    def before(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if "INSERT INTO job" in statement and late:
            other.enqueue([late.pop()], "discard")
        return statement, parameters

    event.listen(engine, "before_cursor_execute", before, retval=True)
    with Session(engine) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        with pytest.raises(DuplicateJob, match="which is queued"):
            store.enqueue([new("a", "a"), new("b", "b")], "reject", session=session)
        session.commit()
    assert late == []
    assert orders(store) == 1
    assert [one.payload for one in take(store)] == ["late"]


def test_a_session_sees_its_own_jobs(store: JobStore, engine: Engine) -> None:
    """Duplicates within the transaction count before it is committed."""
    with Session(engine) as session:
        (first,) = store.enqueue([new("x", "f")], "discard", session=session)
        assert store.enqueue([new("y", "f")], "discard", session=session) == [Enqueued(first.id, first.id)]
        with pytest.raises(DuplicateJob, match=f"job {first.id},"):
            store.enqueue([new("y", "f")], "reject", session=session)
        session.commit()
    assert [one.payload for one in take(store)] == ["x"]


@pytest.mark.rows("E-34", "AQ-29")
@pytest.mark.parametrize("policy", ["reject", "discard"])
def test_a_refused_call_leaves_the_transaction_usable(store: JobStore, engine: Engine, policy: Policy) -> None:
    """Nothing of the refused call remains, all that was done before and after it does."""
    store.enqueue([new("old", "g")], "reject")
    with Session(engine) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        store.enqueue([new("a", "a")], "reject", session=session)
        bad = [new("b", "b"), new("c", "g") if policy == "reject" else new({1, 2}, "c")]
        with pytest.raises((DuplicateJob, PayloadError)):
            store.enqueue(bad, policy, session=session)
        session.execute(text("INSERT INTO orders VALUES (2)"))
        store.enqueue([new("d", "d")], "reject", session=session)
        session.commit()
    assert orders(store) == 2
    assert [one.payload for one in take(store)] == ["old", "a", "d"]


def test_all_kinds_of_callers(store: JobStore, engine: Engine) -> None:
    """A connection, a session of a factory, one bound to a thread, and the store's own engine will do."""
    with engine.begin() as connection:
        store.enqueue([new(1)], session=connection)
    with engine.connect() as connection:
        store.enqueue([new(2)], session=connection)
        connection.commit()
    with sessionmaker(engine).begin() as session:
        store.enqueue([new(3)], session=session)
    scoped = scoped_session(sessionmaker(engine))
    store.enqueue([new(4)], session=scoped)
    scoped.commit()
    scoped.remove()
    with Session(store.db.engine) as session:
        store.enqueue([new(5, "f")], "discard", session=session)
        session.commit()
    with store.db.engine.connect() as connection:
        store.enqueue([new(6)], session=connection)
        connection.rollback()
    assert [one.payload for one in take(store)] == [1, 2, 3, 4, 5]


def test_a_savepoint_of_the_caller(store: JobStore, engine: Engine) -> None:
    """What the caller undoes in part, is undone in part."""
    with Session(engine) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        store.enqueue([new("a", "a")], "discard", session=session)
        nested = session.begin_nested()
        store.enqueue([new("b", "b")], "discard", session=session)
        nested.rollback()
        session.commit()
    assert [one.payload for one in take(store)] == ["a"]


def test_a_session_on_another_database(store: JobStore, engine: Engine, tmp_path: Path) -> None:
    """It is refused, with both names and no password; nothing is stored anywhere."""
    others = [create_engine(f"sqlite:///{tmp_path / 'other.db'}"), create_engine("sqlite://")]
    if store.db.dialect == "postgresql":
        others.append(create_engine(engine.url.set(database="postgres")))
    for other in others:
        expected = f"the session is on {other.dialect.name}.*, the jobs are in {store.db.dialect}"
        with Session(other) as session, pytest.raises(ForeignSession, match=expected):
            store.enqueue([new("x")], session=session)
        other.dispose()
    assert states(store) == {}


@pytest.mark.parametrize("spelling", ["../{folder}/syncs.db", "link.db"], ids=["detour", "link"])
def test_one_file_under_another_name(store: JobStore, engine: Engine, tmp_path: Path, spelling: str) -> None:
    """What counts is the file or the server, not how the URL is written."""
    if store.db.dialect == "sqlite":
        (tmp_path / "link.db").symlink_to(tmp_path / "syncs.db")
        url = f"sqlite:///{tmp_path}/{spelling.format(folder=tmp_path.name)}"
    else:
        url = engine.url.update_query_dict({"application_name": spelling}).render_as_string(hide_password=False)
    other = create_engine(url)
    with Session(other) as session:
        store.enqueue([new("x")], session=session)
        session.commit()
    other.dispose()
    assert states(store) == {"queued": 1}


@pytest.mark.parametrize("wrong", ["engine", "url", 7, "async", "unbound"])
def test_what_is_no_session(store: JobStore, engine: Engine, wrong: Any) -> None:
    """One line says what was expected."""
    given = {"engine": engine, "url": str(engine.url), "async": AsyncSession(), "unbound": Session()}.get(wrong, wrong)
    with pytest.raises(ForeignSession, match="session"):
        store.enqueue([new("x")], session=given)
    assert states(store) == {}


def test_another_driver(store: JobStore, engine: Engine, open_store: Callable[..., JobStore]) -> None:
    """A connection that binds parameters in its own way is served through SQLAlchemy."""
    url = engine.url.render_as_string(hide_password=False)
    named = create_engine(url, paramstyle="named" if store.db.dialect == "sqlite" else "format")
    for policy in POLICIES:
        with Session(named) as session:
            found = store.enqueue([new({"b": [1.5, None]}, "f"), new("y", "g")], policy, session=session)
            if policy == "reject":
                with pytest.raises(DuplicateJob) as caught:
                    store.enqueue([new("z", "f")], policy, session=session)
                assert caught.value.duplicates == ((found[0].id, {"b": [1.5, None]}),)
            else:
                store.enqueue([new("z", "f")], policy, session=session)
            session.rollback()
    assert states(store) == {}
    named.dispose()
