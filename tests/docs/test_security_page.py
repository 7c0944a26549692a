"""Each sentence of `docs/security.md` that claims something has a test, and so has each row of its tables.

A sentence that is added or changed fails here until it is entered in `security_page.toml`, with the tests that prove it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click import Context
from prefect.settings import Settings
from prefect.settings.models.server.api import ServerAPISettings

from flows.cli.program import program
from flows.cli.project_commands.up_down_status import up
from jobs import Database, JobStore
from tests import ROOT
from tests.support.store_helpers import change, enqueue, take

if TYPE_CHECKING:
    from tests.docs.conftest import Page, Petstore

PAGE = "docs/security.md"

FILES = {
    "auth": "tests/flows/project/test_prefect_auth.py",
    "database": "tests/jobs/db/test_database.py",
    "door": "tests/flows/orchestration/test_door.py",
    "env": "tests/flows/project/test_env_file.py",
    "files": "tests/flows/project/test_private_files.py",
    "host": "tests/flows/orchestration/test_host_check.py",
    "http": "tests/clients/http/test_client.py",
    "here": "tests/docs/test_security_page.py",
    "loopback": "tests/flows/project/test_loopback.py",
    "profile": "tests/flows/project/test_prefect_profile.py",
    "registry": "tests/flows/project/test_registry.py",
    "run": "tests/flows/sync/test_run.py",
    "server": "tests/flows/orchestration/test_loopback_server.py",
    "setup": "tests/flows/orchestration/test_prefect_setup.py",
    "with": "tests/flows/orchestration/test_with_server.py",
}

PROOF: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "security_page.toml").read_text())


def sentences(page: Page) -> list[str]:
    """Return the sentences of a page and the rows of its tables, without heads."""
    lines = page.prose.splitlines()
    heads = {number - 1 for number, line in enumerate(lines) if line.startswith("| ---")}
    found = [line for number, line in enumerate(lines) if line and not line.startswith(("#", "| ---")) and number not in heads]
    return [one for line in found for one in ([line] if line.startswith("|") else re.split(r"(?<=[.!?]) (?=[A-Z`])", line))]


def test_each_sentence_has_its_test(pages: dict[str, Page]) -> None:
    """No sentence is without an entry, and no entry without a sentence."""
    found = sentences(pages[PAGE])
    assert len(found) > 45
    assert [one for one in found if one not in PROOF] == []
    assert sorted(set(PROOF) - set(found)) == []
    assert sum(not proof for proof in PROOF.values()) == 3


def test_each_test_is_there() -> None:
    """A test that is renamed is renamed there too."""
    known = {
        f"{short}::{node.name}"
        for short, path in FILES.items()
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert (
        sorted(
            {f"{short}::test_{name}" for proof in PROOF.values() for short, name in (one.split("::") for one in proof)} - known
        )
        == []
    )


LISTENERS = """
import sys
heard = []
sys.addaudithook(lambda event, arguments: heard.append(str(arguments[1])) if event == "socket.bind" else None)
import json
from click.testing import CliRunner
from flows.cli.program import program
from flows.cli.project_commands.up_down_status import up
codes = {}
for words in json.loads(sys.argv[1]):
    codes[" ".join(words)] = CliRunner().invoke(program, words).exit_code
print(json.dumps([codes, heard]))
"""
DECLARED = """
import os
from clients import Bearer, Cursor, HttpClient, Listing
from flows import Client, JobType, Sync
asked = lambda _: HttpClient(os.environ["PETSTORE_URL"], auth=Bearer(os.environ["PETSTORE_TOKEN"]))
petstore = Client("petstore", connect=asked)
listing = Listing("pets", Cursor("next_cursor"), items="data")
pets = Sync("petstore.pets", petstore, listing=listing, fetch=lambda http, pet: http.get_json(f"pets/{pet.key}"))
call = JobType("petstore.call", petstore, process=lambda job, http: None)
"""
WITH = {
    "run": ["petstore.pets"], "enqueue": ["petstore.call", "1"], "work": ["--until-empty"], "pause": ["petstore"],
    "resume": ["petstore"], "job": ["1"], "process": ["1"], "retry": ["1"], "cancel": ["1"], "delete": ["1"], "release": ["1"],
}  # fmt: skip


@pytest.mark.slow
def test_commands_listen_on_nothing(project: Path, petstore: Petstore) -> None:
    """Each command but `up`, run in one process that would say so."""
    (project / "syncs/petstore.py").write_text(DECLARED)
    order = [
        "run",
        "enqueue",
        "work",
        "enqueue",
        *sorted(set(program.list_commands(Context(program))) - {"up", "run", "enqueue", "work"}),
    ]
    words = json.dumps([[name, *WITH.get(name, [])] for name in order])
    done = subprocess.run([sys.executable, "-c", LISTENERS, words], capture_output=True, text=True, timeout=100, check=True)
    codes, heard = json.loads(done.stdout)
    worked = {name: code for name, code in codes.items() if name.startswith(("run ", "enqueue ", "work "))}
    assert (len(worked), set(worked.values()), heard) == (3, {0}, [])


def test_port_of_the_page() -> None:
    """The port that nobody gave."""
    [port] = [each for each in up.params if each.name == "port"]
    assert port.default == 4200


def test_what_is_written_to_the_database_is_worked(database_url: str) -> None:
    """A payload that is changed in the table is what the next worker gets."""
    store = JobStore(Database(database_url))
    enqueue(store, ["a"])
    change(store, "UPDATE job SET payload = '\"theirs\"'")
    [job] = take(store, 1)
    assert job.payload == "theirs"
    store.close()


def test_a_server_of_your_own(pages: dict[str, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's defaults are open, and the three variables of the page are settings of its that shut them."""
    defaults = {name: ServerAPISettings.model_fields[name].default for name in ("auth_string", "csrf_protection_enabled")}
    assert defaults == {"auth_string": None, "csrf_protection_enabled": False}
    assert ServerAPISettings.model_fields["cors_allowed_origins"].default == "*"
    block = pages[PAGE].section("## A server of your own")
    for name, value in re.findall(r"^\$ export (\w+)=(\S+)$", block, re.MULTILINE):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:it")
    found = Settings()
    assert found.server.api.auth_string is not None
    assert found.server.api.auth_string.get_secret_value() == "admin:…"
    assert (found.server.api.csrf_protection_enabled, found.server.api.cors_allowed_origins) == (True, "https://prefect.example")
    assert found.api.auth_string is not None
    assert found.api.auth_string.get_secret_value() == "me:it"
