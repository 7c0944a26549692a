"""No control character of a remote system reaches a terminal or a log line, whichever command prints it."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import flows
from flows.cli.program import program
from flows.project.printable_text import PrintableFilter, make_logs_printable, printable, printable_json

if TYPE_CHECKING:
    from tests.flows.conftest import Project

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x08\x9b31m\u202etxt.exe\u2066\u2028\ufeff\x00"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")

DECLARED = """
import json, logging
from contextlib import nullcontext
from clients import Entity, Page
from flows import Client, JobType, Sync
from jobs import Failure, Pause, Retry

HOSTILE = json.loads({hostile!r})
evil = Client("evil", connect=lambda _: nullcontext(), check=lambda conn: (_ for _ in ()).throw(RuntimeError(HOSTILE)))

def process(job, connection):
    logging.getLogger("syncs.evil").warning("it says %s", HOSTILE)
    if job.payload == "pause":
        return Pause(600, HOSTILE)
    raise ValueError(HOSTILE)

def listing(connection, since):
    yield Page([Entity("k" + HOSTILE, {{"id": HOSTILE}}), Entity("fine", {{"id": "fine"}})], errors=[("x" + HOSTILE, HOSTILE)])

def fetch(connection, entity):
    if entity.key == "fine":
        return {{"id": HOSTILE}}
    return Failure(HOSTILE, retry=False)

work = JobType("evil.work", evil, process=process, retry=Retry(max_retries=0))
things = Sync("evil.things", evil, listing=listing, fetch=fetch, retry=Retry(max_retries=0))
"""

COMMANDS = (
    ("list",),
    ("check", "evil"),
    ("run", "evil.things"),
    ("run", "evil.things", "-v", "--full"),
    ("run", "evil.things", "--dry-run"),
    ("enqueue", "evil.work", json.dumps(HOSTILE)),
    ("process", "3"),
    ("enqueue", "evil.work", '"again"'),
    ("work", "--until-empty", "-v"),
    ("enqueue", "evil.work", '"pause"'),
    ("work", "--until-empty"),
    ("jobs",),
    ("jobs", "--state", "failure"),
    ("job", "1"),
    ("job", "2"),
    ("job", "3"),
    ("job", "4"),
    ("queues",),
    ("pauses",),
    ("notices",),
    ("job", HOSTILE),
    ("run", HOSTILE),
)


def test_control_characters() -> None:
    """They are replaced; letters of all languages, line feeds and tabs stay."""
    assert printable("a\x1b[31mb\r\nc\td") == "a\ufffd[31mb\ufffd\nc\td"
    for fine in ("日本\u3000語", "\u0645\u06cc\u200c\u062e", "naïve\xa0…", "👩\u200d💻", "\n\t"):
        assert printable(fine) == fine
    assert not UNSAFE.search(printable(HOSTILE))
    assert printable(HOSTILE, instead="").isprintable()


def test_json_keeps_its_value() -> None:
    """Escapes have the same value, also halves of surrogate pairs."""
    document = json.dumps({"a": [HOSTILE + "\ud800"]}, indent=1, ensure_ascii=False)
    shown = printable_json(document)
    assert not UNSAFE.search(shown)
    assert json.loads(shown) == json.loads(document)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_no_command_prints_them(project: Project, as_json: bool) -> None:
    """Keys, messages, reasons, payloads, records and log lines of a hostile system, through the commands that show them."""
    project.write("syncs/evil.py", DECLARED.format(hostile=json.dumps(HOSTILE)))
    shown = ""
    for command in COMMANDS:
        found = CliRunner().invoke(program, [*command, *(["--json"] if as_json else [])])
        assert not UNSAFE.search(found.stdout), command
        assert not UNSAFE.search(found.stderr), command
        shown += found.stdout + found.stderr
    assert shown.count("owned") > 5


def test_log_lines_and_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that has the filter prints none, from the message, its arguments or an exception."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("tests.hostile")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        make_logs_printable()
        make_logs_printable()
        assert sum(isinstance(one, PrintableFilter) for one in handler.filters) == 1
        logger.warning("it says %s and %d %%", HOSTILE, 3)
        monkeypatch.setattr(logging, "raiseExceptions", False)
        logger.warning("a mistake of the caller: %d", "no number")
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logger.exception("so")
    finally:
        logger.removeHandler(handler)
    assert "and 3 %" in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert not UNSAFE.search(stream.getvalue())


def test_all_that_is_printed_goes_one_way() -> None:
    """Only `flows.cli.output.echo` prints."""
    names = ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write", "traceback.print_exc")
    printing = [
        f"{path.name}: {ast.unparse(node)}"
        for path in Path(flows.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]
    assert printing == ["output.py: click.echo(printable(text), err=err)"]
