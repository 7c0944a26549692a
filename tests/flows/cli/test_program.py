"""The command line as a process: exit codes, one line for an error, and nothing but the document on stdout with `--json`."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from flows.cli.job_commands.filter_options import STATES
from flows.cli.program import program
from flows.project.prefect_address import UpState, write_state
from flows.project.processes import Process, start_of
from jobs.schema import states

if TYPE_CHECKING:
    from tests.flows.conftest import Project


def only_line(text: str) -> str:
    """Return the one line that a text is."""
    assert text.endswith("\n")
    (line,) = text.splitlines()
    assert line.startswith("syncs: ")
    return line


def invoke(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return exit code, stdout and stderr."""
    found = CliRunner().invoke(program, arguments)
    return found.exit_code, found.stdout, found.stderr


def all_commands(group: click.Group = program, *path: str) -> list[tuple[str, ...]]:
    """Return the words of every command."""
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found += all_commands(command, *path, name) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    """Each command has a help text with an example, and takes --json."""
    code, out, _ = invoke(*command, "--help")
    assert code == 0
    assert "Example:" in out
    assert f"syncs {' '.join(command)}" in out
    assert "--json" in out


def test_list_shows_what_is_declared(petstore: Project) -> None:
    """`list` shows each sync with client, queue and file; with --json as one document, whatever the files print."""
    petstore.write("syncs/loud.py", "print('I am loud')\nfrom petstore import petstore")
    code, out, _ = invoke("list")
    assert code == 0
    line = out.splitlines()[1].split()
    assert (line[:3], line[-1]) == (["petstore.pets", "petstore", "petstore"], "syncs/petstore.py")
    found = petstore.syncs("list", "--json")
    assert found.returncode == 0
    (listed,) = json.loads(found.stdout)["syncs"]
    assert list(listed)[:4] == ["sync", "client", "queue", "file"]
    assert list(listed.values())[:4] == ["petstore.pets", "petstore", "petstore", "syncs/petstore.py"]
    assert found.stderr == "I am loud\n"


def test_list_imports_neither_prefect_nor_sqlalchemy(petstore: Project) -> None:
    """`list` loads no Prefect (2 s), no SQLAlchemy (0.3 s) and no Rich, and answers within a second."""
    script = (
        "import sys, flows.cli\ntry: flows.cli.main(['list'])\n"
        "finally: print(set(sys.modules) & {'prefect', 'sqlalchemy', 'sqlmodel', 'alembic', 'rich', 'pendulum', 'zeep'})"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], env=petstore.environment, cwd=petstore.folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "set()"


def test_an_empty_project_says_what_to_do(project: Project) -> None:
    """Without any file, `list` and `check` exit 0 and say where files go."""
    for command in ("list", "check"):
        code, out, err = invoke(command)
        assert (code, out) == (0, "")
        assert "syncs/" in only_line(err)


def test_a_broken_file_stops_no_other(petstore: Project) -> None:
    """With a broken file `list` and `check` exit 2, name it, and show the others."""
    petstore.write("syncs/broken.py", "x = 1\nimport nosuch_module\n")
    found = petstore.syncs("list")
    assert found.returncode == 2
    assert "petstore.pets" in found.stdout
    assert only_line(found.stderr) == "syncs: syncs/broken.py: line 2: ModuleNotFoundError: No module named 'nosuch_module'"
    found = petstore.run_here("check", "--json")
    assert found.returncode == 2
    document = json.loads(found.stdout)
    assert document["checks"][0]["ok"] is True
    assert document["broken"][0]["file"] == "syncs/broken.py"


def test_two_declarations_with_one_id(petstore: Project) -> None:
    """Two declarations with one id: exit 2, one line that names both files, nothing written, whatever is asked of them."""
    petstore.write("syncs/again.py", (petstore.folder / "syncs/petstore.py").read_text())
    for command in (["list"], ["run", "petstore.pets"]):
        found = petstore.syncs(*command)
        assert found.returncode == 2
        assert "Traceback" not in found.stderr
        assert any("syncs/again.py and syncs/petstore.py" in line for line in found.stderr.splitlines())
    assert not (petstore.folder / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "petstore.pet"], "no sync is called 'petstore.pet'; did you mean 'petstore.pets'?"),
        (["check", "petsore"], "no client is called 'petsore'; did you mean 'petstore'?"),
        (["run"], "which sync? Name one or more, or give --all"),
        (["lst"], "No such command 'lst'. Did you mean 'list'? see `syncs --help`"),
        (["run", "--nope"], "No such option '--nope'; see `syncs run --help`"),
        (
            ["run", "petstore.pets", "--limit", "0"],
            "Invalid value for '--limit': 0 is not in the range x>=1; see `syncs run --help`",
        ),
        (["run", "petstore.pets", "--wait", "nan"], "Invalid value for '--wait': 'nan' is not a number; see"),
        (["run", "petstore.pets", "--wait", "soon"], "Invalid value for '--wait': 'soon' is not a valid number; see"),
        (["work", "--time-limit", "nan"], "Invalid value for '--time-limit': 'nan' is not a number; see"),
        (["jobs", "--state", "lost"], "'lost' is not one of 'queued', 'processing'"),
        (["jobs", "x"], "'x' is not a valid integer"),
        (["jobs", "1", "--queue", "x"], "an ID names one job; leave the filters out"),
        (["jobs", "77"], "no job has the id 77"),
        (["job", "77"], "no job has the id 77"),
        (["up", "--port", "99999"], "99999 is not in the range"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(petstore: Project, arguments: list[str], text: str) -> None:
    """An unknown name and bad usage are one line each that says what and where, and exit 2; stdout stays empty."""
    for json_ in ([], ["--json"]):
        code, out, err = invoke(*arguments, *json_)
        assert (code, out) == (2, "")
        assert text in only_line(err)


def test_a_missing_setting(petstore: Project) -> None:
    """A missing setting: exit 2, one line with variable and Secret block, and nothing is written."""
    del petstore.environment["PETSTORE_TOKEN"]
    found = petstore.syncs("run", "petstore.pets", "--json")
    assert found.returncode == 2
    assert found.stdout == ""
    assert only_line(found.stderr) == (
        'syncs: client petstore: PETSTORE_TOKEN is not set (environment, file .env, or Prefect Secret block "petstore-token")'
    )
    assert not (petstore.folder / "data").exists()


@pytest.mark.parametrize(
    "command", [["run", "petstore.pets"], ["work", "--until-empty"], ["queues"], ["jobs", "7"], ["db", "current"]]
)
@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://x/y", "names mysql"),
        ("sqlite://", "in-memory"),
        ("sqlite:///syncs", "which is a folder"),
        ("sqlite:////proc/nowhere/x.db", "cannot be made"),
        ("sqlite:///syncs/petstore.py", "syncs/petstore.py"),
    ],
)
def test_a_database_url_that_cannot_work(
    petstore: Project, monkeypatch: pytest.MonkeyPatch, command: list[str], url: str, text: str
) -> None:
    """A database URL that cannot work is one line and exit 2 for every command that needs it."""
    before = (petstore.folder / "syncs/petstore.py").read_text()
    for name, value in petstore.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SYNCS_DATABASE_URL", url)
    code, out, err = invoke(*command)
    assert (code, out) == (2, ""), err
    lines = [line for line in err.splitlines() if "no Prefect server" not in line]
    assert len(lines) == 1
    assert text in lines[0]
    assert (petstore.folder / "syncs/petstore.py").read_text() == before


def test_a_database_that_does_not_answer(petstore: Project) -> None:
    """PostgreSQL that is not there is one line, without the password, and exit 2."""
    found = petstore.run_here("queues", SYNCS_DATABASE_URL="postgresql://me:hunter2@127.0.0.1:9/x?connect_timeout=2")
    assert found.returncode == 2
    assert "hunter2" not in found.stderr
    assert "does not answer" in only_line(found.stderr)


def test_a_schema_newer_than_the_code(petstore: Project) -> None:
    """Tables that a later version made are left alone: one line, exit 2, also for upgrade."""
    assert petstore.syncs("setup").returncode == 0
    path = petstore.folder / "data/syncs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sync_clients_version SET version_num = '9999'")
    connection.close()
    found = petstore.syncs("run", "petstore.pets")
    assert found.returncode == 2
    assert "version 9999, newer than this code" in found.stderr.splitlines()[-1]
    for command in (["queues"], ["db", "check"], ["db", "upgrade"], ["setup"]):
        code, out, err = invoke(*command)
        assert (code, out) == (2, ""), command
        assert "version 9999, newer than this code" in only_line(err)
    assert json.loads(invoke("db", "current", "--json")[1])["version"] == "9999"


def test_db_makes_checks_and_names_the_tables(project: Project) -> None:
    """`db check` exits 2 before there are tables; `db upgrade` makes them once; `db current` names their version."""
    assert invoke("db", "check")[0] == 2
    code, out, _ = invoke("db", "upgrade", "--json")
    made = json.loads(out)
    assert (code, made["before"]) == (0, None)
    assert json.loads(invoke("db", "upgrade", "--json")[1])["before"] == made["after"]
    assert invoke("db", "check")[:2] == (0, f"sqlite:///data/syncs.db: version {made['after']} fits\n")
    assert json.loads(invoke("db", "current", "--json")[1])["version"] == made["after"]


def test_setup_can_be_repeated(project: Project) -> None:
    """`setup` makes the tables, says that no Prefect server is there, and does the same again without harm."""
    code, out, err = invoke("setup", "--json")
    assert code == 0
    assert json.loads(out)["applied"][0]["change"].startswith("version ")
    assert "no Prefect server (`syncs up` starts one): deployments and automations were left out" in only_line(err)
    assert json.loads(invoke("setup", "--json")[1])["applied"][0]["change"] == "unchanged"


def test_status_without_a_server(project: Project) -> None:
    """`status` and `down` say that nothing runs, and exit 0."""
    code, out, _ = invoke("status", "--json")
    assert code == 0
    assert (json.loads(out)["server"], json.loads(out)["worker"], json.loads(out)["api_url"]) == (False, False, None)
    assert "not running; `syncs up` starts it" in invoke("status")[1]
    assert json.loads(invoke("down", "--json")[1]) == {"stopped": []}


def test_status_says_how_long_a_server_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has an age, as other tables do; JSON has the moment."""
    monkeypatch.setenv("PREFECT_HOME", str(project.folder / ".prefect"))
    began = (datetime.now(UTC) - timedelta(hours=3, minutes=20)).isoformat(timespec="seconds")
    (project.folder / ".prefect").mkdir()
    process = Process(os.getpid(), start_of(os.getpid()) or "")
    # Nothing listens on port 1, so that nothing answers.
    write_state(project.folder / ".prefect", UpState(1, "http://127.0.0.1:1/api", began, process))
    assert f"process {process.pid}, started 3 hours 20 minutes ago\n" in invoke("status")[1]
    assert json.loads(invoke("status", "--json")[1])["since"] == began


def test_no_traceback_unless_asked_for(petstore: Project) -> None:
    """An error is one line; with SYNCS_DEBUG=1 the traceback comes before it."""
    assert "Traceback" in petstore.syncs("run", "nosuch", SYNCS_DEBUG="1").stderr
    assert "Traceback" not in petstore.syncs("run", "nosuch", SYNCS_DEBUG="0").stderr


def test_check_tells_each_client_apart(petstore: Project) -> None:
    """A client that fails has its row, stops no other, shows no secret, and makes the exit code 1."""
    petstore.write(
        "syncs/others.py",
        "from petstore import Settings\nfrom flows.declarations.client import Client\nfrom contextlib import nullcontext\n"
        "def refuse(settings): raise RuntimeError(f'cannot sign in with {settings.token.get_secret_value()}')\n"
        "bad = Client('bad', settings=Settings, connect=refuse)\n"
        "own = Client('own', connect=lambda s: nullcontext(1), check=lambda conn: conn / 0)\n"
        "fine = Client('fine', connect=lambda s: nullcontext(1), check=lambda conn: conn / 1)\n",
    )
    found = petstore.run_here("check", "--json")
    assert found.returncode == 1
    rows = {row["client"]: row for row in json.loads(found.stdout)["checks"]}
    assert {name: row["ok"] for name, row in rows.items()} == {"bad": False, "own": False, "fine": True, "petstore": True}
    assert rows["bad"]["message"] == "RuntimeError: cannot sign in with ***"
    assert rows["own"]["message"] == "ZeroDivisionError: division by zero"
    found = petstore.run_here("check", "fine", "petstore")
    assert found.returncode == 0
    assert [line.split()[:3] for line in found.stdout.splitlines()[1:]] == [["fine", "ok", "ok"], ["petstore", "ok", "ok"]]


def test_check_of_a_client_that_does_not_answer(petstore: Project) -> None:
    """A connection that fails is a FAIL row with the reason."""
    found = petstore.run_here("check", "--json", PETSTORE_BASE_URL="http://127.0.0.1:9/")
    assert found.returncode == 1
    (row,) = json.loads(found.stdout)["checks"]
    assert (row["settings"], row["connection"], row["entities"]) == ("ok", "FAIL", None)
    assert "http://127.0.0.1:9/pets" in row["message"]


def test_names_are_completed(petstore: Project) -> None:
    """A shell completes commands, syncs and clients."""

    def complete(words: str) -> str:
        number = str(len(words.split(" ")) - 1)
        return petstore.syncs(_SYNCS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number).stdout

    assert "plain,petstore.pets" in complete("syncs run pet")
    assert "plain,petstore" in complete("syncs check ")
    assert "plain,list" in complete("syncs li")


def test_the_version(project: Project) -> None:
    """`--version` names the program and its version."""
    assert invoke("--version")[1].startswith("syncs, version ")


def test_states_are_those_of_the_jobs() -> None:
    """The states that `jobs --state` offers are those that jobs have."""
    assert STATES == states.STATES


def test_what_is_no_exception_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a command leaves over, such as a panic of an extension in Rust, ends in one line and exit code 1."""

    class Panic(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise Panic("index out of bounds")

    monkeypatch.setattr(click.Group, "main", panic)
    with pytest.raises(SystemExit) as ended:
        program.main(args=["list"])
    assert ended.value.code == 1
    assert only_line(capsys.readouterr().err) == "syncs: unexpected Panic: index out of bounds; SYNCS_DEBUG=1 shows where"
