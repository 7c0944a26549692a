"""The examples of `docs/write-a-job-type.md`: one file, whose every job type is worked against a real API."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from flows.cli.program import program
from flows.declarations.job_type import DUPLICATES
from flows.events import KINDS
from flows.execution.job_context import JobContext
from flows.project import registry

if TYPE_CHECKING:
    from tests.docs.conftest import Page

NAME = "docs/write-a-job-type.md"


class Shop:
    """The API of the examples: takes what is posted, lists prices by page, and answers for rooms as it is told."""

    def __init__(self) -> None:
        #: (path, body, Idempotency-Key)
        self.posted: list[tuple[str, Any, str | None]] = []
        self.asked: list[int] = []
        self.room: dict[str, Any] = {"room": 7}
        #: Whether orders break off before their answer, and those that are known.
        self.breaks = False
        self.orders: list[int] = []
        #: Pages of prices that answer 500.
        self.down: set[int] = set()

    def of(self, path: str) -> list[Any]:
        """Return the bodies that were posted to a path."""
        return [body for name, body, _ in self.posted if name == path]

    def get(self, page: int) -> tuple[int, Any]:
        """Return a page of prices."""
        self.asked.append(page)
        if page in self.down:
            return 500, {}
        return 200, [{"sku": f"s{page}", "cents": page * 100}] if page <= 3 else []


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop on loopback, whose address is in the environment."""
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            if self.path.startswith("/api/orders/"):
                known = int(self.path.rpartition("/")[2]) in shop.orders
                return self.reply(200 if known else 404, {"state": "open"})
            return self.reply(*shop.get(int(parse_qs(urlsplit(self.path).query)["page"][0])))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.removeprefix("/api/")
            shop.posted.append((path, body, self.headers["Idempotency-Key"]))
            if path == "orders" and shop.breaks:
                self.close_connection = True
                return
            self.reply(422 if path == "refunds" else 200, shop.room if path == "rooms" else {})

        def reply(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    monkeypatch.setenv("SHOP_URL", f"http://127.0.0.1:{server.server_address[1]}/api/")
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def guide(pages: dict[str, Page], project: Path) -> Page:
    """The page, whose file is in the project, with its tables made as it says."""
    page = pages[NAME]
    path = project / "syncs/shop.py"
    path.write_text(page.file)
    assert invoke("db", "upgrade").exit_code == 0
    subprocess.run([sys.executable, str(path)], check=True, timeout=100)
    return page


def invoke(*words: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(program, list(words))


def work() -> None:
    """Work off what is due."""
    result = invoke("work", "--until-empty")
    assert result.exit_code == 0, result.output


def queued(type_: str, payload: Any, *more: str) -> int:
    """Queue a job, and return its id."""
    result = invoke("enqueue", type_, json.dumps(payload), *more, "--json")
    assert result.exit_code == 0, result.output
    return int(json.loads(result.stdout)["id"])


def job(number: int) -> dict[str, Any]:
    """Return what `syncs job` shows."""
    found: dict[str, Any] = json.loads(invoke("job", str(number), "--json").stdout)
    return found


def ask(query: str) -> list[tuple[Any, ...]]:
    """Ask the project's database."""
    with closing(sqlite3.connect("data/syncs.db")) as connection:
        return connection.execute(query).fetchall()


def loaded() -> dict[str, Any]:
    """Return the functions of the file, as a program that imports it has them."""
    scope: dict[str, Any] = {"__name__": "shop"}
    exec(compile(Path("syncs/shop.py").read_text(), "syncs/shop.py", "exec"), scope)
    return scope


@pytest.mark.rows("SC-01", "SC-02", "SC-03")
def test_the_first_commands_run(guide: Page, shop: Shop) -> None:
    """The console block of the first step queues a job and works it, and each line of output is as shown."""
    block = next(block.text for block in guide.blocks if block.language == "console")
    said = ""
    for line in block.splitlines():
        if line.startswith("$ "):
            result = invoke(*shlex.split(line)[2:])
            assert result.exit_code == 0, result.output
            said = result.stdout
        else:
            assert re.sub(r"\d+\.\d+", "0", line) == re.sub(r"\d+\.\d+", "0", said.strip())
    ((path, body, key),) = shop.posted
    assert (path, body, len(str(key))) == ("bookings", {"order": 17}, 36)


@pytest.mark.rows("AQ-67")
def test_every_job_type_is_worked(guide: Page, shop: Shop, project: Path) -> None:
    """Each job type that the page declares is queued and ends in the state that the page says."""
    payloads = {
        "shop.book": {"order": 1},
        "shop.letter": {"to": "a@b.example", "subject": "hi"},
        "shop.reprice": {"sku": "s", "reasons": []},
        "shop.reserve": {"order": 1},
        "shop.stock": {"shelves": ["a", "b"]},
        "shop.prices": None,
        "shop.invoice": {"customer": "c"},
        "shop.refund": {"order": 1},
        "shop.ledger": {},
        "shop.order": {"order": 1},
    }
    assert set(registry.load().job_types) == set(payloads)
    ids = {name: queued(name, payload) for name, payload in payloads.items()}
    work()
    states = {name: job(number)["state"] for name, number in ids.items()}
    assert {name for name, state in states.items() if state != "success"} == {"shop.refund"}
    assert states["shop.refund"] == "failure"
    assert shop.of("published") == [{"s1": 100, "s2": 200, "s3": 300}]
    assert shop.of("ledger") == [{"token": 1}]


def test_a_schema_is_checked(guide: Page, shop: Shop) -> None:
    """A payload that does not fit is refused with its field; one that does is stored with its defaults."""
    result = invoke("enqueue", "shop.letter", '{"to": "a@b.example"}')
    assert (result.exit_code, "subject" in result.stderr) == (2, True)
    assert ask("SELECT count(*) FROM job") == [(0,)]
    number = loaded()["say_thanks"]("a@b.example").id
    assert job(number)["payload"] == {"to": "a@b.example", "subject": "Thank you", "urgent": False}


def test_twins_are_merged(guide: Page, shop: Shop) -> None:
    """Two jobs of one sku become one with both reasons; another sku is another job."""
    first = queued("shop.reprice", {"sku": "a", "reasons": ["tax"]})
    assert queued("shop.reprice", {"reasons": ["rate"], "sku": "a"}) == first
    assert queued("shop.reprice", {"sku": "b", "reasons": []}) != first
    work()
    assert sorted(shop.of("reprice"), key=str) == [{"reasons": ["tax", "rate"], "sku": "a"}, {"reasons": [], "sku": "b"}]


def test_jobs_wait_for_their_time(guide: Page, shop: Shop) -> None:
    """The season's jobs are queued in order; the delayed ones are not worked."""
    found = loaded()["plan_the_season"]([1, 2, 3])
    assert [one.duplicate_of for one in found] == [None] * 3
    work()
    assert sorted(body["order"] for body in shop.of("bookings")) == [1, 2, 3]
    assert ask("SELECT count(*), max(available_at) FROM job WHERE state = 'queued'") == [(2, "2031-05-01 08:00:00.000000")]


@pytest.mark.parametrize(
    ("answer", "state", "outcome"),
    [
        ({"status": "full"}, "queued", "retry"),
        ({"status": "unknown order"}, "failure", "failure"),
        ({"status": "being cleaned"}, "queued", "snooze"),
        ({"status": "closed"}, "queued", "pause"),
        ({"room": 7}, "success", "success"),
        ({}, "queued", "retry"),
    ],
)
def test_outcomes(guide: Page, shop: Shop, answer: dict[str, Any], state: str, outcome: str) -> None:
    """Each outcome of the example leads where the page says; the `KeyError` is one worth another try."""
    shop.room = answer
    number = queued("shop.reserve", {"order": 1})
    work()
    found = job(number)
    assert (found["state"], found["tries"][0]["outcome"]) == (state, outcome)
    assert found["attempts"] == (0 if outcome in ("snooze", "pause") else 1)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_job_looks_first(guide: Page, shop: Shop, arrived: bool) -> None:
    """An order without an answer goes back; what has arrived is not sent again, and what has not is."""
    shop.breaks = True
    number = queued("shop.order", {"order": 5})
    work()
    assert (job(number)["state"], job(number)["tries"][0]["outcome"]) == ("queued", "unknown")
    shop.breaks, shop.orders = False, [5] if arrived else []
    assert invoke("process", str(number)).exit_code == 0
    assert shop.of("orders") == [{"number": 5}] * (1 if arrived else 2)
    assert job(number)["message"] == ("it was there, open" if arrived else "")


def test_a_phase_goes_on_at_its_checkpoint(guide: Page, shop: Shop) -> None:
    """A job that broke off at page 3 keeps what it stored, goes on there, and publishes once."""
    shop.down = {3}
    number = queued("shop.prices", None)
    work()
    assert (job(number)["phase"], ask("SELECT count(*) FROM price")) == ("load", [(2,)])
    shop.down, shop.asked = set(), []
    assert invoke("process", str(number)).exit_code == 0
    assert shop.asked == [3, 4]
    assert shop.of("published") == [{"s1": 100, "s2": 200, "s3": 300}]
    assert [one["outcome"] for one in job(number)["tries"]] == ["retry", "phase", "success"]


def test_phases_on_two_machines(guide: Page, shop: Shop) -> None:
    """A worker for one phase leaves the job to the worker for the other."""
    number = queued("shop.prices", None)
    assert invoke("work", "--until-empty", "--phase", "load").exit_code == 0
    assert (job(number)["state"], job(number)["phase"], shop.of("published")) == ("queued", "publish", [])
    assert invoke("work", "--until-empty", "--phase", "publish", "--at-once", "shop.prices:publish=1").exit_code == 0
    assert job(number)["state"] == "success"


def test_a_serial_key_keeps_the_order(guide: Page, shop: Shop) -> None:
    """The invoices of one customer are posted one after the other, as they came."""
    for number in range(6):
        queued("shop.invoice", {"customer": "c", "number": number})
    work()
    assert [body["number"] for body in shop.of("invoices")] == list(range(6))


def test_who_hears_of_a_failure(guide: Page, shop: Shop) -> None:
    """`on_failure` and the subscriber are told once each."""
    number = queued("shop.refund", {"order": 1})
    done = subprocess.run(
        [sys.executable, "-m", "flows", "work", "--until-empty"], text=True, capture_output=True, timeout=100, check=True
    )
    lines = [line for line in done.stdout.splitlines() if f"job {number}" in line]
    assert [line.partition(":")[0] for line in lines] == [f"job {number} failed for good after 1 attempts", "failure"]


def test_a_rollback_leaves_no_job(guide: Page, shop: Shop) -> None:
    """Order and booking commit together, or neither does."""
    import sqlalchemy
    from sqlmodel import Session

    place = loaded()["place"]
    engine = sqlalchemy.create_engine("sqlite:///data/syncs.db")
    for number, ends in ((1, Session.rollback), (2, Session.commit)):
        with Session(engine) as session:
            place(session, number, "chair")
            ends(session)
    engine.dispose()
    assert ask('SELECT id FROM "order"') == [(2,)]
    assert [json.loads(payload) for (payload,) in ask("SELECT payload FROM job")] == [{"order": 2}]


def test_what_the_page_lists_is_what_there_is(pages: dict[str, Page], table_rows: Any) -> None:
    """The tables of policies, events and attributes name all that the code has, and nothing else."""
    page = pages[NAME]

    def names(heading: str) -> set[str]:
        rows = table_rows(page.section(heading))
        return {name.partition("(")[0] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}

    assert names("## 3. Duplicates") - {""} == {f'"{name}"' for name in DUPLICATES}
    assert names("## 9. When it failed, and other events") == set(KINDS)
    attributes = {name for name in vars(JobContext) if not name.startswith("_")} | {"payload"}
    assert names("## 1. A first job type") == attributes - {"claim"}
