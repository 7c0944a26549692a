"""`syncs retry | release | cancel | delete`, `maintain` and `locks`: what they say, ask, refuse, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from flows.cli.program import program
from flows.maintenance import Maintained, maintain, tidy
from flows.project.registry import load
from jobs import Failure, JobStore, Retry, Success
from jobs.admin.filters import Filter
from jobs.admin.retention import Pruned
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, JobResult, Lane, Verdict

if TYPE_CHECKING:
    from tests.flows.conftest import Project

LANE = Lane("pets", "petstore", "petstore.pets")


@pytest.fixture
def here(project: Project, database_url: str, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    """Let the command line of this project work on the store."""
    monkeypatch.setenv("SYNCS_DATABASE_URL", database_url)
    project.environment["SYNCS_DATABASE_URL"] = database_url
    return store


def syncs(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process; return exit code, stdout and stderr."""
    found = CliRunner().invoke(program, list(map(str, arguments)))
    return found.exit_code, found.stdout, found.stderr


def document(*arguments: object) -> Any:
    """Run a command with --json, whatever its exit code."""
    return json.loads(syncs(*arguments, "--json")[1])


def put(store: JobStore, n: int, *, payload: Any = None, lane: Lane = LANE, **options: Any) -> list[int]:
    """Queue jobs; return their ids."""
    policy = "discard" if "fingerprint" in options else "allow"
    return [one.id for one in store.enqueue([NewJob(lane, payload, **options) for _ in range(n)], policy)]


def take(store: JobStore, n: int, lane: Lane = LANE) -> list[Job]:
    """Claim, as a worker elsewhere."""
    return store.claim([lane], n, worker="elsewhere:1:1:1", lease=600)


def fail(store: JobStore, n: int, *, reason: str = "no such pet", **options: Any) -> list[int]:
    """Make failed jobs; return their ids."""
    put(store, n, **options)
    jobs = take(store, n, options.get("lane", LANE))
    store.finish([JobResult(job, Verdict(Failure(reason, retry=False)), Retry()) for job in jobs])
    return sorted(job.id for job in jobs)


def states(store: JobStore) -> dict[str, int]:
    """Count jobs by state."""
    found: dict[str, int] = {}
    for job in store.views.jobs(limit=10_000):
        found[job.state] = found.get(job.state, 0) + 1
    return found


@pytest.mark.rows("AQ-15", "AQ-62", "AQ-63", "E-16", "E-30")
def test_ids_that_fit_are_done_and_the_others_named(here: JobStore) -> None:
    """Of a mixed selection those that fit are changed; the refused ones are named with their reason, and the exit code is 1."""
    failed = fail(here, 3)
    waiting = put(here, 2)
    code, out, err = syncs("retry", *failed[:2], *waiting, 4711)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        "retried 2 jobs",
        f"2 refused: {waiting[0]}, {waiting[1]}: queued; only failed jobs can be retried",
        "1 refused: 4711: no such job",
    ]
    assert states(here) == {"failure": 1, "queued": 4}
    assert syncs("retry", failed[2]) == (0, "retried 1 job\n", "")


@pytest.mark.rows("E-16", "AQ-40")
@pytest.mark.parametrize("name", ["retry", "release", "cancel", "delete"])
def test_ids_that_there_are_not(here: JobStore, name: str) -> None:
    """An unknown id is one line and exit 2, as everywhere; nothing stands on stdout."""
    for json_ in ([], ["--json"]):
        assert syncs(name, 77, 99999999999999999999999, *json_) == (
            2, "", "syncs: no job has the id 77, 99999999999999999999999\n",
        )  # fmt: skip


@pytest.mark.rows("AQ-62")
@pytest.mark.parametrize(("name", "fits", "after"), [("release", 2, "queued"), ("cancel", 5, "cancelled"), ("delete", 3, None)])
def test_each_command_by_filter(here: JobStore, name: str, fits: int, after: str | None) -> None:
    """With --yes nobody is asked; what fits of the queue's jobs is done, in other queues nothing."""
    other = put(here, 1, lane=Lane("others", "petstore", "petstore.pets"))
    put(here, 3)
    held = take(here, 2)
    put(here, 2)
    found = document(name, "--queue", "pets", "--yes")
    assert (found["command"], found["done"]) == (name, fits)
    assert found["refused_count"] == len(found["refused"]) == 5 - fits
    assert {one["state"] for one in found["refused"]} <= {"processing" if name == "delete" else "queued"}
    assert here.views.job(other[0]).job.state == "queued"
    if after is None:
        assert sorted(job.id for job in here.views.jobs(Filter(queue="pets"))) == sorted(job.id for job in held)
    else:
        assert all(here.views.job(job.id).job.state == after for job in held)
        assert here.views.job(held[0].id).attempts[0].error is not None
        assert " by " in here.views.job(held[0].id).attempts[0].error  # type: ignore[operator]


def test_nothing_is_done_to_many_without_a_yes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters without --yes and without a terminal: exit 2, one line, and no database is made. So are no jobs, or two ways."""
    for arguments, line in (
        (("--queue", "pets"), "--yes is needed: filters may mean many jobs"),
        ((), "which jobs? Name IDs, or filters"),
        (("1", "--queue", "pets", "--yes"), "name jobs by ID or by filters, not both"),
        (("--where", "name", "--yes"), "--where 'name' has no value; write PATH=VALUE"),
        (("--where", "a=1", "--where", "a=2", "--yes"), "--where names 'a' twice"),
        (("--where", "a..b=1", "--yes"), "'a..b' is no path into a payload"),
        (("--state", "lost", "--yes"), "'lost' is not one of"),
        (("x",), "'x' is not a valid integer"),
    ):
        code, out, err = syncs("delete", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), arguments
        assert line in err
    assert not (project.folder / "data").exists()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_on_a_terminal_it_asks(here: JobStore, project: Project, answer: str) -> None:
    """A person is told how many it will be, and nothing happens unless they say yes; anything else ends with 130."""
    fail(here, 4)
    put(here, 3)
    take(here, 1)
    here.commands.cancel([here.views.jobs(Filter(state="queued"))[0].id])
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "flows", "delete", "--queue", "pets"],
        cwd=project.folder, env=project.environment, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        said, deadline = "", time.monotonic() + 100
        while "[y/N]" not in said and time.monotonic() < deadline:
            if select.select([keyboard], [], [], 0.1)[0]:
                said += os.read(keyboard, 1000).decode()
        assert "This will delete 6 jobs, and refuse 1. Go on? [y/N]" in said
        os.write(keyboard, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=100)
    os.close(keyboard)
    assert process.returncode == (0 if answer == "y" else 130)
    assert out.splitlines()[:1] == (["deleted 6 jobs"] if answer == "y" else [])
    assert len(here.views.jobs()) == (1 if answer == "y" else 7)


def test_a_dry_run_only_counts(here: JobStore) -> None:
    """--dry-run says how many of which state it would be, and does nothing."""
    fail(here, 2)
    put(here, 3)
    take(here, 1)
    assert syncs("delete", "--queue", "pets", "--dry-run") == (
        0, "would delete 4 jobs: 2 failure, 2 queued\nwould refuse 1 job\n", "",
    )  # fmt: skip
    assert document("retry", "--client", "petstore", "--dry-run")["would"] == 2
    assert states(here) == {"failure": 2, "queued": 2, "processing": 1}


@pytest.mark.rows("E-18", "AQ-61")
def test_payloads_are_searched(here: JobStore) -> None:
    """`--where` finds jobs by what they carry, in the list and in commands; several must all be true."""
    rex = put(here, 1, payload={"data": {"name": "Rex", "age": 3}})
    put(here, 1, payload={"data": {"name": "Rex", "age": 4}})
    put(here, 1, payload={"data": {"name": "Tom", "age": 3}})
    assert len(document("jobs", "--where", "data.name=Rex")) == 2
    assert [one["id"] for one in document("jobs", "--where", "data.name=Rex", "--where", "data.age=3")] == rex
    assert document("jobs", "--where", "data.name=Ann") == []
    assert document("cancel", "--where", "data.age=3", "--yes")["done"] == 2
    assert states(here) == {"queued": 1, "cancelled": 2}


def test_refusals_are_grouped_and_cut(here: JobStore) -> None:
    """Of many refusals some ids are named and the rest counted; nothing done at all is exit 1, something done by filter is 0."""
    ids = put(here, 30)
    code, out, _ = syncs("retry", "--queue", "pets", "--yes")
    first = ", ".join(map(str, sorted(ids)[:20]))
    assert (code, out) == (1, f"retried 0 jobs\n30 refused: {first} and 10 more: queued; only failed jobs can be retried\n")
    fail(here, 1, lane=Lane("pets", "petstore", "petstore.other"))
    assert syncs("retry", "--queue", "pets", "--yes")[0] == 0
    assert syncs("retry", "--key", "none", "--yes") == (0, "retried 0 jobs\n", "")


@pytest.mark.rows("E-14")
def test_giving_way_is_said(here: JobStore) -> None:
    """A retried job whose twin is queued gives way, and the answer says so; `syncs job` names the twin."""
    (old,) = fail(here, 1, fingerprint="f")
    (twin,) = put(here, 1, fingerprint="f")
    assert syncs("retry", old)[1] == "retried 1 job; 1 superseded by a queued job with the same content\n"
    shown = document("job", old)
    assert (shown["state"], shown["superseded_by"], shown["twin"]) == ("superseded", twin, twin)


@pytest.mark.rows("AQ-61", "E-24", "DS-04")
def test_a_job_is_shown_whole(here: JobStore) -> None:
    """Phase, checkpoint, serial key, the next try, and each attempt with its phase and exchanges; in text as in JSON."""
    phased = LANE._replace(phase="fetch")
    (job_id,) = put(here, 1, lane=phased, serial_key="k", payload={"pet": 17})
    (job,) = take(here, 1, phased)
    job = here.checkpoints.save(job, {"page": 3})
    exchanges = json.dumps([{"request": "GET https://api/pets?token=***", "response": "503, 12 B, 0.04 s"}])
    here.finish([JobResult(job, Verdict(Failure("busy"), "Traceback: x"), Retry(delay=600), exchanges=exchanges)])
    found = document("job", job_id)
    assert found == document("jobs", job_id)
    assert (found["phase"], found["checkpoint_bytes"], found["serial_key"]) == ("fetch", 10, "k")
    assert found["next_try_at"] == found["available_at"] > found["created_at"]
    (tried,) = found["tries"]
    assert (tried["phase"], tried["outcome"], tried["error"]) == ("fetch", "retry", "busy")
    assert tried["exchanges"] == json.loads(exchanges)
    out = syncs("job", job_id)[1]
    for line in (
        "phase",
        "checkpoint bytes  10 (saved by the job",
        "GET https://api/pets?token=***  503, 12 B, 0.04 s",
        "Traceback",
    ):
        assert line in out
    fresh = document("job", put(here, 1)[0])
    assert (fresh["next_try_at"], fresh["checkpoint_bytes"], fresh["tries"]) == (None, None, [])
    assert syncs("job", 2**70)[0] == 2


KEEP = """
from flows import Client
from jobs import KeepPolicy, Queue
petstore = Client("petstore", connect=lambda s: None)
pets = Queue("pets", keep=KeepPolicy(success_days=2, failure_days=None, max_items=None))
"""


def old(store: JobStore, days: float) -> None:
    """Let every finished job have ended so many days ago."""
    moment = f"now() - interval '{days} days'"
    if store.db.dialect == "sqlite":
        moment = f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-{days} days') || '000'"
    with store.db.write() as connection:
        connection.execute(text(f"UPDATE job SET finished_at = {moment} WHERE finished_at IS NOT NULL"))


@pytest.mark.rows("AQ-43", "E-20", "E-21")
def test_maintain_does_what_the_declaration_says(here: JobStore, project: Project) -> None:
    """`maintain` takes back jobs of silent workers and prunes by the declared policy, on queues that nobody works."""
    project.write("syncs/petstore.py", KEEP)
    fail(here, 2)
    put(here, 6)
    jobs = take(here, 6)
    here.finish([JobResult(job, Verdict(Success()), Retry()) for job in jobs[:4]])
    old(here, 3)
    here.renew([(job.id, job.claim_no) for job in jobs[4:]], lease=-1)
    found = document("maintain")
    assert (found["rescued"], found["pruned"], found["attempts"]) == (2, {"success": 4}, 4)
    assert states(here) == {"failure": 2, "queued": 2}
    assert syncs("maintain") == (0, "nothing to do\n", "")


def test_maintain_says_what_it_did() -> None:
    """Each thing it did in its own words."""
    done = Maintained(3, 1, Pruned({"success": 1200, "failure": 3}, 1300, 2, 0, stopped=True))
    assert str(done) == (
        "3 jobs of dead workers taken back, 1 of them ended as poison; 1,203 jobs removed (1,200 success, 3 failure); "
        "1,300 attempts removed; 2 old starts removed; stopped before the end"
    )


@pytest.mark.rows("M14", "T7")
def test_workers_tidy_up_in_turn(here: JobStore, open_store: Callable[[], JobStore]) -> None:
    """However many workers call it, it is done once in its time; the flow and the command do it whenever they are asked."""
    fail(here, 1)
    old(here, 40)
    second = open_store()
    done = [tidy(one) for one in (here, second, here, second)]
    assert [one.pruned.total if one else None for one in done] == [1, None, None, None]
    assert maintain(second, load()).pruned.total == 0


@pytest.mark.rows("E-61", "LK-07")
def test_locks_are_listed_and_broken(here: JobStore) -> None:
    """`locks` shows who holds what; --break frees it; a name that there is not is exit 2."""
    assert syncs("locks") == (0, "", "syncs: no lock is held\n")
    here.locks.acquire("nightly", owner="import", lease=600)
    here.locks.acquire("同期", owner="import", lease=600)
    (found,) = (one for one in document("locks") if one["name"] == "nightly")
    assert (found["owner"], found["token"], found["held"]) == ("import", 1, True)
    assert "nightly" in syncs("locks")[1]
    assert syncs("locks", "--break", "nightly")[:2] == (0, "nightly is free now\n")
    assert syncs("locks", "--break", "nightly")[:2] == (0, "nightly is not held by anybody\n")
    assert document("locks", "--break", "同期")["broken"] is True
    assert document("locks") == []
    assert syncs("locks", "--break", "never")[:2] == (2, "")


@pytest.mark.rows("LK-01", "LK-06")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_lock_of_the_project(here: JobStore, project: Project) -> None:
    """`from flows import lock` works on the project's database, and imports no SQLAlchemy before it is used."""
    script = (
        "import sys; from flows import lock; print('sqlalchemy' in sys.modules)\n"
        "with lock('同期', wait=1) as held: print(held.token, held.is_held())"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], env=project.environment, cwd=project.folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == ["False", "1 True"]
    assert [one.held for one in here.locks.all()] == [False]
