"""`docs/tutorial.md`: its files and commands, in its order, do what it says; without `syncs up`, which other tests are about."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from flows.cli.program import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import Page


class Quiet(SimpleHTTPRequestHandler):
    """As `python -m http.server`, without its log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api(project: Path) -> Iterator[str]:
    """The folder `api` of the project, served as the page says."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(project / "api"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def alerts(pages: dict[str, Page], project: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The program that shows messages, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = next(block.text for block in pages["docs/tutorial.md"].blocks if "class Alerts" in block.text)
    assert text.count("9000") == 1
    (project / "alerts.py").write_text(text.replace("9000", str(port)))
    with subprocess.Popen([sys.executable, "alerts.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/", process
        finally:
            process.kill()


def counts(document: dict[str, Any]) -> tuple[Any, ...]:
    """Return what the page says of a run."""
    return tuple(document[name] for name in ("state", "queued", "succeeded", "unchanged", "failed"))


def document(*arguments: str) -> Any:
    """Return the document of a command."""
    return json.loads(CliRunner().invoke(program, [*arguments, "--json"]).stdout)


def change(name: str, old: str, new: str, project: Path) -> None:
    """Change a file of the API."""
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new, 1))


@pytest.mark.slow
def test_the_tutorial(
    pages: dict[str, Page], project: Path, api: str, alerts: tuple[str, subprocess.Popen[str]], run_here: Any, monkeypatch: Any
) -> None:
    """Three pets are kept in step, one fails, a message comes, and another one when all is well."""
    page = pages["docs/tutorial.md"]
    make, sync, _ = [block.text for block in page.blocks if block.language == "python"]
    assert CliRunner().invoke(program, ["init"]).exit_code == 0
    first = run_here("example.elements")
    assert f"example.elements: {first['state']}. 118 listed, 118 queued, 118 succeeded, 0 unchanged, 0 failed" in page.text
    assert counts(first) == ("success", 118, 118, 0, 0)
    assert counts(run_here("example.elements")) == ("success", 0, 0, 118, 0)
    (project / "syncs/example.py").unlink()

    exec(compile(make, "make_api.py", "exec"), {})
    assert "http://127.0.0.1:8000/" in sync
    (project / "syncs/shop.py").write_text(sync.replace("http://127.0.0.1:8000/", api))
    assert CliRunner().invoke(program, ["check"]).exit_code == 0
    assert counts(run_here("shop.pets")) == ("success", 3, 3, 0, 0)
    assert counts(run_here("shop.pets")) == ("success", 0, 0, 3, 0)
    change("api/pets/2.json", "Mia", "Mila", project)
    assert counts(run_here("shop.pets")) == ("success", 0, 0, 3, 0)
    change("api/pets.json", '"id": 2, "changed": "monday"', '"id": 2, "changed": "tuesday"', project)
    assert counts(run_here("shop.pets")) == ("success", 1, 1, 2, 0)

    assert [one["data"]["name"] for one in document("records", "shop.pets")] == ["Rex", "Mila", "Bo"]

    url, process = alerts
    (setting,) = re.findall(r"^(SYNCS_NOTIFY_\w+)=http://127.0.0.1:9000/$", page.text, re.MULTILINE)
    monkeypatch.setenv(setting, url)
    right = (project / "api/pets/2.json").read_text()
    (project / "api/pets/2.json").write_text("null")
    change("api/pets.json", "tuesday", "wednesday", project)
    assert counts(run_here("shop.pets", code=1)) == ("failed", 1, 0, 2, 1)
    listed = document("list")["syncs"]
    assert [(one["sync"], one["records"], one["failing"]) for one in listed] == [("shop.pets", 3, 1)]
    assert [one["key"] for one in document("records", "shop.pets", "--failing")] == ["2"]
    (project / "api/pets/2.json").write_text(right)
    assert run_here("shop.pets")["state"] == "success"
    assert process.stdout is not None
    told = list(islice((line.strip() for line in process.stdout if line.startswith("[error]")), 2))
    assert told[0] in page.text
    assert re.fullmatch(r"\[error\] shop\.pets is well again after .*", told[1])
