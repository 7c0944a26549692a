"""The reference against the code: it names what there is, and nothing else. A change that forgets it fails here."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

import clients
import flows
import jobs
from docs._generated import commands
from flows.cli.program import program
from flows.orchestration.deploy.declared_deployments import wanted_deployments
from flows.project.registry import Registry
from flows.project.settings import Settings
from flows.run_result import RunResult
from jobs.schema import job_tables as models
from jobs.schema import states
from tests import ROOT

if TYPE_CHECKING:
    from tests.docs.conftest import Page

_NAME = re.compile(r"`([^`]+)`")


def code_of(page: Page) -> Iterator[str]:
    """Yield what a page shows as code, line by line."""
    for block in page.blocks:
        yield from (line.removeprefix("$ ") for line in block.text.splitlines() if block.language in ("console", "text", "ini"))
    yield from _NAME.findall(page.prose)


def test_every_command_is_there(reference: Page, table_rows: Any) -> None:
    """The table of commands has each command once, with its arguments as `--help` shows them, and no other."""
    listed = [row[0].strip("`") for row in table_rows(reference.section("## Commands")) if row[0].startswith("`syncs")]
    known = {}
    for path, command in commands():
        arguments = [one.make_metavar(click.Context(command)) for one in command.params if isinstance(one, click.Argument)]
        known[path] = " ".join([path, *arguments])
    assert sorted(known.values()) == sorted({text for text in listed if text in known.values()})
    assert {re.sub(r" (\[?[A-Z].*)$", "", text) for text in listed} == set(known)


def test_every_command_that_is_named_exists(pages: dict[str, Page]) -> None:
    """Wherever a page says `syncs …`, the command is one, and it has the options that stand there."""
    seen = 0
    for page in pages.values():
        for text in code_of(page):
            for words in re.findall(r"(?:^|(?<!--pool)[\s/])syncs ([a-z-][^&|\n#]*)", text):
                command: click.Command = program
                for word in words.split():
                    if isinstance(command, click.Group) and not word.startswith("-"):
                        found = command.get_command(click.Context(command), word)
                        assert found is not None, f"{page.name}: {text}"
                        command = found
                    elif word.startswith("-"):
                        known = {name for one in command.params for name in one.opts} | {"-h", "--help"}
                        assert word in known, f"{page.name}: {text}"
                seen += 1
    assert seen > 50


@pytest.mark.parametrize("package", [clients, jobs, flows])
def test_every_public_name_is_there(reference: Page, package: Any) -> None:
    """Each name that a package exports is in the reference."""
    words = set(re.findall(r"\w+", reference.text))
    assert [name for name in package.__all__ if name not in words] == []


def test_every_variable_is_there(reference: Page, table_rows: Any) -> None:
    """Each `SYNCS_…` variable that the code reads or names is in the table, and the table has no other."""
    code = "".join(path.read_text() for package in ("clients", "jobs", "flows") for path in (ROOT / package).rglob("*.py"))
    known = set(re.findall(r"(?<![\w])SYNCS_[A-Z]+(?:_[A-Z]+)*", code))
    known |= {f"SYNCS_{name}".upper() for name in Settings.model_fields}
    listed = {name for row in table_rows(reference.section("## Environment variables")) for name in _NAME.findall(row[0])}
    assert known == {name for name in listed if name.startswith("SYNCS_")}
    default = Settings.model_fields["database_url"].default
    assert f"`{default}`" in reference.section("## Environment variables")


@pytest.mark.parametrize("table", sorted(models.metadata.tables))
def test_every_column_is_there(reference: Page, table_rows: Any, table: str) -> None:
    """Each table has a section, whose rows are its columns."""
    listed = [name for row in table_rows(reference.section(f"### `{table}`")) for name in _NAME.findall(row[0])]
    assert sorted(column.name for column in models.metadata.tables[table].columns) == sorted(listed)


def test_every_state_is_there(reference: Page, table_rows: Any) -> None:
    """The states of jobs are those of the table; the keys of a run are those of `run --json`."""
    listed = [row[0].strip("`") for row in table_rows(reference.section("### Job"))]
    assert list(states.STATES) == listed
    keys = [name for row in table_rows(reference.section("## JSON")) if len(row) == 2 for name in _NAME.findall(row[0])]
    keys = [name for name in keys if not name.startswith("syncs ")]
    assert sorted(RunResult("s", "c", "success").as_json()) == sorted(keys)


@pytest.mark.parametrize(
    ("heading", "declaration"),
    [
        ("### `Client(id, …)`", flows.Client),
        ("### `Sync(id, client, …)`", flows.Sync),
        ("### `JobType(id, client, …)`", flows.JobType),
        ("### `Queue(id, …)`", jobs.Queue),
        ("### `KeepPolicy(…)`", jobs.KeepPolicy),
        ("### `Rate(n, per_seconds)`", jobs.Rate),
        ("### `Retry(…)`", jobs.Retry),
        ("### `PausePolicy(…)`", flows.PausePolicy),
        ("### `Listing(path, paginator, …)`", clients.Listing),
    ],
)
def test_every_field_is_there(reference: Page, table_rows: Any, heading: str, declaration: Any) -> None:
    """A declaration's table has its fields, with their defaults where these are plain values."""
    listed = {row[0].strip("`"): row[1].strip("`") for row in table_rows(reference.section(heading))}
    named = re.findall(r"(\w+),", heading)
    own = [one for one in fields(declaration) if one.name in listed or one.name not in (*named, "_")]
    assert sorted(listed) == sorted(one.name for one in own)
    for one in own:
        try:
            shown = ast.literal_eval(listed[one.name])
        except (ValueError, SyntaxError):
            continue
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        assert default == shown, one.name


def test_signatures_are_right(reference: Page, table_rows: Any) -> None:
    """What heads a row or a line as `Name(a, b=1)` has the parameters and defaults that the code has."""
    heads = [cell for row in table_rows(reference.text) for cell in row[:1]] + reference.prose.splitlines()
    seen = 0
    for head in heads:
        found = re.match(r"`(([A-Z]\w+)\(.*?\))`", head)
        what = next((getattr(one, found[2]) for one in (clients, jobs, flows) if hasattr(one, found[2])), None) if found else None
        if found is None or what is None:
            continue
        call = ast.parse(found[1].replace("KeepPolicy()", "None"), mode="eval").body
        assert isinstance(call, ast.Call)
        parameters = inspect.signature(what).parameters
        shown = [ast.unparse(one) for one in call.args] + [str(one.arg) for one in call.keywords]
        assert list(parameters) == shown, found[1]
        for one in call.keywords:
            default = parameters[str(one.arg)].default
            if isinstance(default, str | int | float | bool):
                assert default == ast.literal_eval(one.value), found[1]
        seen += 1
    assert seen > 20


@pytest.mark.parametrize("package", [clients, jobs, flows])
def test_the_error_tree_is_the_code_s(reference: Page, package: Any) -> None:
    """Each error stands below its parent."""
    above: list[str] = []
    found = set()
    for block in reference.blocks:
        for line in block.text.splitlines():
            if (shown := re.match(r"([│├└─ ]*)([A-Z]\w+)", line)) and hasattr(package, shown[2]):
                depth = len(shown[1]) // 4
                above[depth:] = [shown[2]]
                found.add(shown[2])
                if depth:
                    assert above[depth - 1] in [base.__name__ for base in getattr(package, shown[2]).__bases__]
    errors = {name for name in package.__all__ if inspect.isclass(one := getattr(package, name)) and issubclass(one, Exception)}
    assert errors == found


def test_every_name_says_what_it_raises(reference: Page, table_rows: Any) -> None:
    """Each public name of `clients` that is no error stands in the table of who raises what, which names only what there is."""
    rows = table_rows(reference.section("### Who raises what"))
    told = {name for row in rows for name in _NAME.findall(row[0])}
    errors = {name for name in clients.__all__ if name.endswith("Error")}
    assert set(clients.__all__) - errors - told == set()
    known = {*clients.__all__, *dir(clients.HttpClient), *dir(clients.SoapClient), *dir(clients.FtpClient)}
    assert told - known == set()
    raised = {name for row in rows for name in _NAME.findall(row[1]) if name.endswith("Error")}
    assert errors - raised == set()
    assert raised - errors == {"ValueError", "ModuleNotFoundError", "TimeoutError", "OSError"}


def test_every_deployment_is_there(pages: dict[str, Page], table_rows: Any) -> None:
    """The deployments of every project are those of the table in `run-it.md`, and its own example fits in `prefect.yaml`."""
    text = (ROOT / "prefect.yaml").read_text()
    guide = pages["docs/run-it.md"]
    told = [
        name for row in table_rows(guide.section("## Schedules")) if re.fullmatch(r"[a-z]+/[a-z.]+", name := row[0].strip("`"))
    ]
    assert told == [*(one.full_name for one in wanted_deployments(Registry())), "sync/petstore.pets"]
    (example,) = [block.text for block in guide.blocks if block.language == "yaml"]
    added = yaml.safe_load(text + "\n" + example)["deployments"][-1]
    assert {"work_queue_name": "petstore", "name": "syncs"}.items() <= added["work_pool"].items()
    assert added["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"


def test_every_link_resolves(pages: dict[str, Page]) -> None:
    """A link to a file or a heading of ours leads somewhere."""
    for page in pages.values():
        for target in re.findall(r"\]\(([^)]+)\)", page.prose):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            path = (page.path.parent / file).resolve() if file else page.path
            assert path.is_file(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
                slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
                assert anchor in slugs, f"{page.name}: {target}"


def test_one_sentence_per_line(pages: dict[str, Page]) -> None:
    """Prose has one sentence on each line, so that a change shows as one line."""
    for page in pages.values():
        for line in page.prose.splitlines():
            if not line.startswith(("|", "#")):
                text = re.sub(r"^ *\d+\. ", "", re.sub(r"`[^`]*`|\*\*[^*]*\*\*", "x", line))
                assert not re.search(r"[.!?] [A-Z]", text), f"{page.name}: {line}"
