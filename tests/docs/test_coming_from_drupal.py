"""`docs/coming-from-drupal.md`: its example runs, its table names what there is, and what it says is done otherwise is so."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from flows import events
from flows.cli.program import program
from flows.execution.job_context import JobContext
from flows.project import registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import Page

NAME = "docs/coming-from-drupal.md"


@pytest.fixture
def hotel() -> Any:
    """An API that has no room for order 18."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["order"]
            body = json.dumps({"status": "full" if order == 18 else "booked", "path": self.path}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api/"
        server.shutdown()


def document(*arguments: str) -> Any:
    """Run a command and return its document."""
    found = CliRunner().invoke(program, [*arguments, "--json"])
    assert found.exit_code == 0, found.stderr
    return json.loads(found.stdout)


def test_the_example_runs(pages: dict[str, Page], project: Path, hotel: str) -> None:
    """One order is booked, the one without a room waits an hour for its next try, and a second one of the same is discarded."""
    (block,) = pages[NAME].blocks
    (project / "syncs/shop.py").write_text(block.text.replace("https://shop.example/api/", hotel))
    document("enqueue", "shop.book", '{"order": 17}')
    full = document("enqueue", "shop.book", '{"order": 18}')
    assert document("enqueue", "shop.book", '{"order": 18}')["duplicate_of"] == full["id"]
    assert document("work", "--until-empty")["processed"] == 2
    found = {one["id"]: (one["state"], one["message"]) for one in document("jobs", "--type", "shop.book")}
    assert sorted(found.values()) == [("queued", "no room left"), ("success", "")]
    assert found[full["id"]] == ("queued", "no room left")
    (queue,) = document("queues")
    assert (queue["queued"], queue["delayed"]) == (0, 1)


def test_a_type_may_be_made_from_another(pages: dict[str, Page], project: Path) -> None:
    """What stands beside the alter hooks makes a second type; under the first one's id it would be refused."""
    assert 'dataclasses.replace(job_type, id="shop.patient", retry=Retry(5))' in pages[NAME].text
    (block,) = pages[NAME].blocks
    (project / "syncs/shop.py").write_text(block.text)
    for given, there in (("id='shop.patient', ", ["shop.book", "shop.patient"]), ("", [])):
        (project / "syncs/mine.py").write_text(
            f"from dataclasses import replace\nfrom jobs import Retry\nfrom shop import bookings\n"
            f"mine = replace(bookings, {given}retry=Retry(5))\n"
        )
        assert sorted(registry.load().job_types) == there


def test_the_table_names_what_there_is(pages: dict[str, Page], table_rows: Any, check_names: Any) -> None:
    """Each call, parameter, command, option, event and attribute in the second column exists under that name."""
    here = " ".join(row[1] for row in table_rows(pages[NAME].section("## Words")))
    calls = check_names(here)
    assert {"Queue", "JobType", "Success", "Failure", "Snooze", "Pause", "Retry", "lock", "enqueue"} <= calls
    (kinds,) = re.findall(r"subscribe\(handler, ([^)]*)\)", here)
    assert set(json.loads(f"[{kinds}]")) == set(events.KINDS)
    for attribute in re.findall(r"`job\.([a-z_]+)", here):
        assert hasattr(JobContext, attribute), attribute


def test_no_row_is_listed_twice(pages: dict[str, Page], table_rows: Any) -> None:
    """Each row that is done otherwise has one reason."""
    rows = [row for cells in table_rows(pages[NAME].section("## Done otherwise")) for row in cells[0].split(", ")]
    assert len(rows) == len(set(rows))
