"""`syncs run`, `work`, `queues` and `jobs` against a real API, database and process: documents, exit codes, signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from flows.cli.output import first_line, table
from flows.cli.program import program
from flows.cli.progress_bar import ThrottledTracker, line
from flows.cli.sync_commands.run_summary import summary
from flows.progress import Progress
from flows.run_result import RunResult

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project

RUN_KEYS = [
    "sync", "client", "state", "pages", "listed", "queued", "succeeded", "unchanged", "gone", "failed", "snoozed", "pending",
    "deleted", "requests", "seconds", "stopped", "paused_until", "message",
]  # fmt: skip
JOB_KEYS = [
    "id", "queue", "client", "type", "key", "state", "attempts", "retries", "message",
    "created_at", "available_at", "finished_at",
]  # fmt: skip
QUEUE_KEYS = [
    "queue", "clients", "queued", "delayed", "processing", "success", "failure", "paused_until", "oldest_seconds",
]  # fmt: skip
HERE = "syncs: no Prefect server (`syncs up` starts one): running here, without Prefect\n"


def items(count: int) -> list[dict[str, str]]:
    """Return so many items."""
    return [{"id": f"p{number}"} for number in range(count)]


def read(*arguments: str) -> Any:
    """Return the document of a command that only reads, run in this process."""
    found = CliRunner().invoke(program, [*arguments, "--json"])
    assert found.exit_code == 0
    return json.loads(found.stdout)


def wait_for(condition: object, *, seconds: float = 60) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def until_said(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr until these words have come; return what came."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; return its exit code, stdout and stderr."""
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


@pytest.mark.rows("CR-10", "SC-12")
def test_run_prints_one_document(petstore: Project, api: Api) -> None:
    """`run --json` has the keys of the contract on stdout and nothing else, whatever the file prints while it works."""
    api.items = items(25)
    text = (petstore.folder / "syncs/petstore.py").read_text()
    petstore.write("syncs/petstore.py", text.replace("http.get_json(f", "print('fetching') or http.get_json(f"))
    found = petstore.syncs("run", "petstore.pets", "--json")
    assert found.returncode == 0
    document = json.loads(found.stdout)
    assert [key for key in RUN_KEYS if key not in document] == []
    assert (document["state"], document["listed"], document["succeeded"]) == ("success", 25, 25)
    assert found.stderr.startswith(HERE)
    assert found.stderr.count("fetching") == 25


def test_run_sums_up(petstore: Project, api: Api) -> None:
    """Without --json a run ends with one line of counts, the failed entities and what to look at next; exit 1."""
    api.items = items(30)
    api.refused["/pets/p7"] = 422
    found = petstore.run_here("run", "petstore.pets")
    assert found.returncode == 1
    lines = found.stdout.splitlines()
    assert lines[0].startswith("petstore.pets: partial. 30 listed, 30 queued, 29 succeeded, 0 unchanged, 1 failed in ")
    assert lines[0].endswith("; listing ended at the end.")
    assert any(one.startswith("  failed p7: GET http") and "422" in one for one in lines)
    assert lines[-1] == "next: syncs jobs --type petstore.pets --state failure"
    assert "\x1b" not in found.stdout + found.stderr


def test_a_dry_run_writes_no_job(petstore: Project, api: Api) -> None:
    """`--dry-run` lists and compares; no job is there afterwards. `--limit` ends the listing."""
    api.items = items(25)
    found = petstore.run_here("run", "petstore.pets", "--dry-run", "--limit", "12", "--json")
    document = json.loads(found.stdout)
    assert (document["listed"], document["stopped"], document["succeeded"]) == (12, "limit", 0)
    assert read("jobs") == []


def test_a_broken_neighbour_is_a_warning(petstore: Project, api: Api) -> None:
    """Another file that is broken is named on stderr, and the run goes on."""
    petstore.write("syncs/broken.py", "import nosuch_module")
    found = petstore.run_here("run", "petstore.pets", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["state"] == "success"
    assert "syncs: skipping syncs/broken.py: line 1: ModuleNotFoundError: No module named 'nosuch_module'" in found.stderr


def test_a_file_named_in_syncs_path(petstore: Project, api: Api) -> None:
    """`SYNCS_PATH=that-file syncs run` runs a file from anywhere."""
    api.items = items(3)
    path = petstore.write(
        "elsewhere/mine.py", (petstore.folder / "syncs/petstore.py").read_text().replace("petstore.pets", "mine")
    )
    (petstore.folder / "syncs/petstore.py").unlink()
    found = petstore.run_here("run", "mine", "--json", SYNCS_PATH=str(path))
    assert json.loads(found.stdout)["succeeded"] == 3


def test_a_prefect_server_that_does_not_answer(petstore: Project, api: Api) -> None:
    """A configured server that is down is named, and the run goes straight through the engine."""
    found = petstore.syncs("run", "petstore.pets", "--json", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert found.returncode == 0
    assert "the Prefect server at http://127.0.0.1:9/api does not answer: running here, without Prefect" in found.stderr


def test_an_empty_run_is_fast_and_imports_no_prefect(petstore: Project, api: Api) -> None:
    """A run of an empty listing loads no Prefect; it takes well under the 1.5 s that are promised on a quiet machine."""
    script = "import sys, flows.cli\ntry: flows.cli.main(['run', 'petstore.pets'])\nfinally: print('prefect' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], env=petstore.environment, cwd=petstore.folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "False"


def test_queues_and_jobs_have_the_keys_of_the_contract(petstore: Project, api: Api) -> None:
    """`queues --json` and `jobs --json` are lists of the fixed keys, with times in ISO 8601 and UTC."""
    api.items = items(12)
    api.refused["/pets/p3"] = 422
    petstore.run_here("run", "petstore.pets")
    (queue,) = read("queues")
    assert [key for key in QUEUE_KEYS if key not in queue] == []
    assert (queue["queue"], queue["clients"], queue["success"], queue["failure"]) == ("petstore", ["petstore"], 11, 1)
    (job,) = read("jobs", "--type", "petstore.pets", "--state", "failure")
    assert list(job) == JOB_KEYS
    assert (job["key"], job["state"], job["attempts"]) == ("p3", "failure", 1)
    assert datetime.fromisoformat(job["finished_at"]).tzinfo == UTC
    assert len(read("jobs", "--limit", "5")) == 5
    assert read("jobs", "--key", "nobody") == []
    for words in (("job", str(job["id"])), ("jobs", str(job["id"]))):
        one = read(*words)
        assert (one["key"], one["attempts"], one["payload"]["data"]) == ("p3", 1, {"id": "p3"})
        assert one["tries"][0]["outcome"] == "failure"
        assert "422" in one["tries"][0]["error"]
    shown = CliRunner().invoke(program, ["jobs", str(job["id"])]).stdout
    assert "p3" in shown
    assert "CLAIM" in shown


def test_ctrl_c_finishes_what_is_in_hand(petstore: Project, api: Api) -> None:
    """Ctrl-C lets the jobs in hand finish and exits 130 with a document; the next run does the rest."""
    api.items = items(60)
    api.gate.clear()
    process = petstore.start("run", "petstore.pets", "--json")
    wait_for(lambda: sum(path.startswith("/pets/") for path in api.paths) >= 8)
    process.send_signal(signal.SIGINT)
    said = until_said(process, "stopping after the running jobs")
    api.gate.set()
    code, out, err = end_of(process)
    assert code == 130
    done = json.loads(out)["succeeded"]
    assert "Traceback" not in said + err
    found = json.loads(petstore.syncs("run", "petstore.pets", "--json").stdout)
    assert found["state"] == "success"
    assert found["pending"] == 0
    assert done < 60


def test_a_second_ctrl_c_ends_at_once(petstore: Project, api: Api) -> None:
    """A second Ctrl-C does not wait for an API that hangs; the jobs go back by themselves and the next run does them."""
    api.items = items(20)
    api.gate.clear()
    process = petstore.start("run", "petstore.pets")
    wait_for(lambda: sum(path.startswith("/pets/") for path in api.paths) >= 8)
    process.send_signal(signal.SIGINT)
    said = until_said(process, "stopping after the running jobs")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, _, err = end_of(process)
    assert code == 130
    assert "Traceback" not in said + err
    api.gate.set()
    found = json.loads(petstore.syncs("run", "petstore.pets", "--json").stdout)
    assert (found["state"], found["pending"]) == ("success", 0)


def test_work_finishes_on_sigterm_and_exits_0(petstore: Project, api: Api) -> None:
    """`work` waits for jobs until SIGTERM, and then exits 0 with what it did."""
    api.items = items(40)
    api.gate.clear()
    process = petstore.start("run", "petstore.pets")
    wait_for(lambda: sum(path.startswith("/pets/") for path in api.paths) >= 8)
    process.kill()
    end_of(process)
    api.gate.set()
    process = petstore.start("work", "--json")
    wait_for(lambda: read("queues")[0]["success"] >= 10)
    process.send_signal(signal.SIGTERM)
    code, out, _ = end_of(process)
    assert code == 0
    assert set(json.loads(out)) >= {"processed", "succeeded", "failed", "seconds"}


@pytest.mark.rows("AQ-56", "DR-03")
def test_work_until_empty(petstore: Project, api: Api) -> None:
    """`work --until-empty` ends when nothing is due; an unknown queue is one line, exit 2, nothing written."""
    found = petstore.syncs("work", "nosuch")
    assert found.returncode == 2
    assert found.stderr == "syncs: no queue is called 'nosuch'; declared are: petstore\n"
    assert not (petstore.folder / "data").exists()
    found = petstore.syncs("work", "petstore", "--until-empty")
    assert found.returncode == 0
    assert re.fullmatch(r"Processed 0 jobs from the petstore queue in \d+\.\d\d seconds\.\n", found.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--phase", "nope"), "no phase is called 'nope'; declared are: none"),
        (("--type", "nope"), "no sync or job type is called 'nope'; declared are: petstore.pets"),
        (("--at-once", "nope=2"), "no sync, job type or type:phase served here is called 'nope'; declared are: petstore.pets"),
        (("--at-once", "petstore.pets=0"), "'petstore.pets=0' is not NAME=N with N at least 1"),
        (("--at-once", "petstore.pets"), "'petstore.pets' is not NAME=N with N at least 1"),
    ],
)
def test_work_refuses_what_it_does_not_know(petstore: Project, words: tuple[str, str], said: str) -> None:
    """A wrong name or number of `work` is one line, exit 2, and nothing written."""
    found = petstore.run_here("work", *words)
    assert found.returncode == 2
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert not (petstore.folder / "data").exists()


PHASED = """
import threading
from pathlib import Path
from flows import Client, JobType

lock, running = threading.Lock(), []
both = threading.Barrier(2)

def fetch(job, http):
    with lock:
        running.append(job.id)
    # Two at once, or the barrier breaks.
    both.wait(60)
    with lock, open("fetched", "a") as file:
        file.write(f"{len(running)} ")
    both.wait(60)
    with lock:
        running.remove(job.id)

def save(job, http):
    with lock, open("saved", "a") as file:
        file.write(f"{job.payload} ")

shop = Client("shop", url="http://127.0.0.1:9/")
order = JobType("shop.order", shop, phases=("fetch", "save"), process={"fetch": fetch, "save": save})
"""


@pytest.mark.rows("DS-12")
def test_work_serves_the_phases_it_is_told_to(project: Project) -> None:
    """One host fetches two at once and saves nothing, the other one saves: `--phase` and `--at-once` reach the worker."""
    project.write("syncs/shop.py", PHASED)
    for number in range(6):
        project.run_here("enqueue", "shop.order", str(number))
    first = project.syncs("work", "--until-empty", "--phase", "fetch", "--at-once", "shop.order:fetch=2")
    assert first.returncode == 0, first.stderr
    assert (project.folder / "fetched").read_text() == "2 2 2 2 2 2 "
    assert not (project.folder / "saved").exists()
    assert project.syncs("work", "--until-empty", "--phase", "save").returncode == 0
    assert sorted((project.folder / "saved").read_text().split()) == list("012345")


def test_work_takes_its_options(petstore: Project, api: Api) -> None:
    """Bounds and limits of `work` by its options; a worker that has grown too large exits 0."""
    found = petstore.syncs("work", "--type", "petstore.pets", "--at-once", "petstore.pets=2", "--time-limit", "0.5", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["processed"] == 0
    found = petstore.syncs("work", "--memory-limit", "1", "--grace", "1")
    assert (found.returncode, found.stdout[:16]) == (0, "Processed 0 jobs")
    assert "more than 1 MB in memory" in found.stderr


def result(**changes: object) -> RunResult:
    """Return a result with some fields changed."""
    return replace(RunResult("a.x", "a", "success", listed=7910, queued=7910, succeeded=7910, seconds=12.34), **changes)  # type: ignore[arg-type]


def test_summaries() -> None:
    """The summary says counts, why listing ended, a pause, what waits and up to ten failures."""
    assert summary(result()) == (
        "a.x: success. 7,910 listed, 7,910 queued, 7,910 succeeded, 0 unchanged, 0 failed in 12.3 s; listing ended at the end."
    )
    paused = summary(result(state="paused", stopped="paused", message="Paused until 14:05 UTC: 503", pending=1200))
    assert paused.splitlines()[1:] == [
        "Paused until 14:05 UTC: 503",
        "1,200 jobs wait for later; the next run or `syncs work` takes them up",
        "next: syncs pauses a; when the cause is gone, syncs resume a",
    ]
    many = summary(result(state="partial", failed=12, failures=tuple((f"k{n}", "first\nsecond") for n in range(12))))
    assert many.count("  failed k") == 10
    assert "second" not in many
    assert "  and 2 more" in many
    assert "\x1b[32m" not in summary(result())
    assert "\x1b[" in summary(result(), colour=True)


def test_the_meter_is_throttled() -> None:
    """However often the numbers come, they are shown only now and then."""
    shown: list[int] = []
    meter = ThrottledTracker(lambda progress: shown.append(progress.listed), every=0.05)
    end = time.monotonic() + 0.3
    progress = Progress()
    while time.monotonic() < end:
        progress.listed += 1
        meter.progress(progress)
    assert 1 <= len(shown) <= 8


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(pages=1, listed=10, queued=10), "x: 1 page, 10 listed so far, 0 of 10 worked, 0 failed"),
        (
            Progress(pages=12, listed=1200, queued=1200, succeeded=800, failed=2, listing_ended=True),
            "x: 12 pages, 1,200 listed, 802 of 1,200 worked, 2 failed",
        ),
        (Progress(succeeded=5), "x: 5 worked, 0 failed"),
    ],
)
def test_plain_lines(progress: Progress, text: str) -> None:
    """A plain line says how far listing and working are."""
    assert line("x", progress) == text


def test_tables_and_lines() -> None:
    """Numbers go to the right, nothing is a dash, and no cell breaks its line or the terminal."""
    when = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
    assert table(("NAME", "N", "AT"), [("a", 1234, when), ("long name", None, None)]).splitlines() == [
        "NAME           N                    AT",
        "a          1,234  2026-11-22 01:02:03Z",
        "long name      -                     -",
    ]
    assert first_line("  \n first\x1b[31m\nsecond") == "first?[31m"
    assert len(first_line("x" * 500)) == 200


def test_several_syncs_and_single_entities(petstore: Project, api: Api) -> None:
    """`--all` and several names give a list and the worst code, and one that cannot begin holds up no other; `--key` renews."""
    api.items = items(3)
    text = (petstore.folder / "syncs/petstore.py").read_text()
    more = 'again = Sync("petstore.again", petstore, listing=Listing("pets", PageNumber(), items="data"))\n'
    more += 'class Needs(BaseSettings, env_prefix="LACKS_"):\n    token: SecretStr\n'
    lacks = 'lacks = Client("lacks", settings=Needs, connect=lambda s: HttpClient("http://127.0.0.1:9/"))\n'
    lacks += 'other = Sync("lacks.things", lacks, listing=Listing("things"))\n'
    petstore.write("syncs/petstore.py", text + more + lacks)
    found = petstore.run_here("run", "--all", "--json")
    assert found.returncode == 2
    states = {one["sync"]: (one["state"], one["succeeded"]) for one in json.loads(found.stdout)}
    assert states == {"petstore.pets": ("success", 3), "petstore.again": ("success", 3), "lacks.things": ("failed", 0)}
    several = petstore.run_here("run", "petstore.pets", "petstore.again", "--json")
    assert (several.returncode, [one["sync"] for one in json.loads(several.stdout)]) == (0, ["petstore.pets", "petstore.again"])
    one = petstore.run_here("run", "petstore.pets", "--key", "p1", "--json")
    assert (one.returncode, json.loads(one.stdout)["queued"]) == (0, 1)
    for words in (
        ["petstore.pets", "--key", "nix"],
        ["petstore.pets", "nix"],
        ["--all", "petstore.pets"],
        ["--all", "--key", "p1"],
    ):
        refused = petstore.run_here("run", *words)
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1), words
