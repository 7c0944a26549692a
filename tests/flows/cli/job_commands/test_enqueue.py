"""`syncs enqueue`, and how job types show in `syncs list` and in the shell's completion."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from flows.cli.declared_names import complete_job_types, complete_queues, complete_types
from flows.cli.program import program
from flows.enqueue import _process
from jobs import JobStore
from jobs.schema.job_tables import job as table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flows.conftest import Project

SHOP = """
from clients import Listing
from flows import Client, JobType, Sync
from jobs import Queue
from pydantic import BaseModel

class Mail(BaseModel):
    to: str
    copies: int = 1

shop = Client("shop", connect=lambda s: None)
mail = JobType("shop.mail", shop, process=lambda job, connection: None, schema=Mail, duplicates="reject")
note = JobType("shop.note", shop, process={"a": print, "b": print}, phases=("a", "b"), duplicates="discard", queue="slow")
things = Sync("shop.things", shop, listing=Listing("things"))
slow = Queue("slow")
idle = Client("idle", connect=lambda s: None)
"""


@pytest.fixture
def shop(project: Project) -> Iterator[Project]:
    """A project with two job types."""
    project.write("syncs/shop.py", SHOP)
    yield project
    _process.close()
    for name in [name for name in sys.modules if name.startswith("syncs_files.") or name == "shop"]:
        del sys.modules[name]


def invoke(*arguments: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
    """Run a command in this process; return exit code, stdout and stderr."""
    found = CliRunner().invoke(program, arguments, input=stdin)
    return found.exit_code, found.stdout, found.stderr


def stored() -> list[Any]:
    """Return the project's jobs."""
    store = JobStore.open("sqlite:///data/syncs.db")
    with store.db.read() as connection:
        found = list(connection.execute(select(table).order_by(table.c.id)))
    store.close()
    return found


def test_a_job_by_hand(shop: Project) -> None:
    """The payload goes through the schema; the answer is the id."""
    assert invoke("enqueue", "shop.mail", '{"to": "a"}') == (0, "queued as job 1\n", "")
    code, out, err = invoke("enqueue", "shop.note", '{"b": [1, null]}', "--priority", "-3", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"type": "shop.note", "queue": "slow", "id": 2, "duplicate_of": None}
    assert [(row.type, row.phase, row.priority, row.payload) for row in stored()] == [
        ("shop.mail", "", 0, {"to": "a", "copies": 1}),
        ("shop.note", "a", -3, {"b": [1, None]}),
    ]


def test_a_duplicate_is_said_to_be_one(shop: Project) -> None:
    """Discarded: exit 0 with the job that stands for it; rejected: exit 1."""
    invoke("enqueue", "shop.note", "1")
    assert invoke("enqueue", "shop.note", "1") == (0, "not queued: a duplicate of job 1\n", "")
    assert json.loads(invoke("enqueue", "shop.note", "1", "--json")[1])["duplicate_of"] == 1
    invoke("enqueue", "shop.mail", '{"to": "a"}')
    code, out, err = invoke("enqueue", "shop.mail", '{"to": "a", "copies": "1"}')
    assert (code, out) == (1, "")
    assert err == "syncs: nothing is queued: shop.mail: the job duplicates job 2, which is queued\n"
    code, out, err = invoke("enqueue", "shop.mail", '{"to": "a"}', "--json")
    assert code == 1
    assert json.loads(out) == {
        "type": "shop.mail", "queue": "shop", "id": None, "duplicate_of": 2,
        "message": "shop.mail: the job duplicates job 2, which is queued",
    }  # fmt: skip


def test_many(shop: Project) -> None:
    """A list is one payload, or with --many one job for each item, all or none."""
    assert invoke("enqueue", "shop.note", "[1, 2]")[1] == "queued as job 1\n"
    assert invoke("enqueue", "shop.note", "[1, 2, 2]", "--many")[1] == "queued 2 jobs, 2 to 3; 1 were duplicates\n"
    assert [row.payload for row in stored()] == [[1, 2], 1, 2]
    assert [one["duplicate_of"] for one in json.loads(invoke("enqueue", "shop.note", "[2, 3]", "--many", "--json")[1])] == [
        3,
        None,
    ]
    assert invoke("enqueue", "shop.note", "[]", "--many") == (0, "queued 0 jobs\n", "")
    assert json.loads(invoke("enqueue", "shop.note", "[]", "--many", "--json")[1]) == []
    code, _, err = invoke("enqueue", "shop.mail", '[{"to": "a"}, {"to": 5}]', "--many")
    assert (code, err.splitlines()) == (
        2, ["syncs: job 2 of 2: job type 'shop.mail': payload field 'to': Input should be a valid string"]
    )  # fmt: skip
    assert len(stored()) == 4


def test_stdin_and_files(shop: Project) -> None:
    """`-` and `@FILE` name where the JSON is."""
    assert invoke("enqueue", "shop.note", "-", stdin='{"ü": 1}\n')[0] == 0
    shop.write("export.json", "[3, 4]")
    assert invoke("enqueue", "shop.note", "@export.json", "--many")[0] == 0
    assert [row.payload for row in stored()] == [{"ü": 1}, 3, 4]


def test_digits_of_numbers(shop: Project) -> None:
    """They are queued and shown as they were typed."""
    assert invoke("enqueue", "shop.note", '{"n": [1884518522.1684267241, 12345678901234567890123, 0.1]}')[0] == 0
    (row,) = stored()
    assert str(row.payload["n"][0]) == "1884518522.1684267241"
    shown = invoke("job", str(row.id), "--json")[1]
    for digits in ("1884518522.1684267241", "12345678901234567890123", "0.1"):
        assert f" {digits}" in shown


def test_when(shop: Project) -> None:
    """A delay in words, or a moment with its zone."""
    assert invoke("enqueue", "shop.note", "1", "--delay", "2h")[0] == 0
    found = invoke("enqueue", "shop.note", "2", "--at", "2035-06-01T08:00:00.5+05:30")
    assert found[0] == 0
    assert found[1].endswith(", due 2035-06-01 02:30 UTC\n")
    first, second = stored()
    assert abs((first.available_at - first.created_at).total_seconds() - 7200) < 60
    assert second.available_at.isoformat() == "2035-06-01T02:30:00.500000+00:00"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["shop.mial", "{}"], "no job type is called 'shop.mial'; did you mean 'shop.mail'?"),
        (["shop.things", "{}"], "no job type is called 'shop.things', but a sync is; `syncs run` runs it"),
        (
            ["shop.mail", "{to: 1}"],
            "the argument is not JSON: Expecting property name enclosed in double quotes, line 1 column 2",
        ),
        (["shop.mail", ""], "the argument is not JSON"),
        (["shop.mail", "[" * 100_000], "the argument is not JSON: too deep"),
        (["shop.note", "[NaN]"], "NaN is not JSON"),
        (["shop.note", "1e999"], "payload is inf"),
        (["shop.note", "123456789012345678901234567890"], "which SQLite would round"),
        (["shop.mail", "{}"], "job type 'shop.mail': payload field 'to': Field required"),
        (["shop.mail", "@nowhere.json"], "nowhere.json cannot be read: No such file or directory"),
        (["shop.mail", "@syncs"], "syncs cannot be read: Is a directory"),
        (["shop.mail", "@latin.json"], "latin.json is not UTF-8"),
        (["shop.mail", "{}", "--many"], "--many needs a JSON list"),
        (["shop.note", "1", "--delay", "soon"], "'soon' is not a duration"),
        (["shop.note", "1", "--at", "tomorrow"], "'tomorrow' is not a moment"),
        (["shop.note", "1", "--at", "2030-01-01T00:00"], "has no zone; add Z, an offset such as +02:00, or a zone's name"),
        (["shop.note", "1", "--at", "tomorrow 08:00"], "has no zone; add a zone's name: 'tomorrow 08:00 Europe/Berlin'"),
        (["shop.note", "1", "--delay", "99999999d"], "delay must be from 0 to"),
        (["shop.note", "1", "--priority", "9999999999"], "priority must be a whole number"),
        (["shop.note"], "Missing argument 'JSON'"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_bad_usage(shop: Project, arguments: list[str], text: str) -> None:
    """One line, exit 2, and no job."""
    (shop.folder / "latin.json").write_bytes(b'"\xfc"')
    code, out, err = invoke("enqueue", *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("syncs: ")
    assert text in line
    assert not (shop.folder / "data").exists() or stored() == []


def test_a_broken_neighbour_is_said_and_stops_nothing(shop: Project) -> None:
    """On stderr, after the name was found."""
    shop.write("syncs/broken.py", "import nothing")
    code, out, err = invoke("enqueue", "shop.note", "1")
    assert (code, out) == (0, "queued as job 1\n")
    assert "skipping syncs/broken.py: line 1" in err


def test_as_a_process(shop: Project) -> None:
    """From a pipe, as people use it."""
    run = subprocess.run(
        [sys.executable, "-m", "flows", "enqueue", "shop.note", "-", "--many"], cwd=shop.folder, env=shop.environment, text=True,
        capture_output=True, check=False, input="[1, 2, 3]",
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "queued 3 jobs, 1 to 3\n", "")


def test_list_shows_job_types_and_queues(shop: Project) -> None:
    """Beside the syncs, each with its file; the keys that were there are as they were."""
    code, out, _ = invoke("list", "--json")
    assert code == 0
    found = json.loads(out)
    wanted = {"sync": "shop.things", "client": "shop", "queue": "shop", "file": "syncs/shop.py"}
    assert [{name: one[name] for name in wanted} for one in found["syncs"]] == [wanted]
    assert [one["client"] for one in found["clients"]] == ["shop", "idle"]
    assert found["job_types"] == [
        {"job_type": "shop.mail", "client": "shop", "queue": "shop", "file": "syncs/shop.py", "phases": []},
        {"job_type": "shop.note", "client": "shop", "queue": "slow", "file": "syncs/shop.py", "phases": ["a", "b"]},
    ]
    assert found["queues"] == [{"queue": "slow", "file": "syncs/shop.py"}]
    lines = [line.split() for line in invoke("list")[1].splitlines()]
    assert ["shop.note", "shop", "slow", "syncs/shop.py", "a,", "b"] in lines
    seen = [[*line[:3], line[-1]] for line in lines if line]
    assert ["shop.things", "shop", "shop", "syncs/shop.py"] in seen
    assert ["-", "idle", "idle", "syncs/shop.py"] in seen
    assert [line for line in lines if line[:2] == ["-", "shop"]] == []


def test_completion(shop: Project) -> None:
    """The shell offers job types, types and queues by their beginning."""
    context, parameter = click.Context(program), click.Argument(["x"])

    def offered(complete: Any, incomplete: str) -> list[str]:
        return [item.value for item in complete(context, parameter, incomplete)]

    assert offered(complete_job_types, "shop.") == ["shop.mail", "shop.note"]
    assert offered(complete_types, "shop.") == ["shop.things", "shop.mail", "shop.note"]
    assert offered(complete_types, "shop.m") == ["shop.mail"]
    assert offered(complete_queues, "") == ["shop", "slow"]
