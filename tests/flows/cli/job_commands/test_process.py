"""`syncs process`: one job, here, in front of a person."""

import json
import signal
from typing import Any

import pytest

from jobs import Database, JobStore

FILE = """
import time
from clients import Bearer, HttpClient, Listing
from flows import Client, JobType, Sync
from jobs import Failure, Queue, Retry
from pydantic import SecretStr
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="SHOP_"):
    base_url: str
    token: SecretStr

shop = Client("shop", settings=Settings, connect=lambda s: HttpClient(s.base_url, auth=Bearer(s.token)))

def fetch(job, http):
    http.get_json(f"orders/{job.payload['n']}")

def save(job, http):
    if job.payload["n"] == 13:
        raise ZeroDivisionError("thirteen, t0p-secret")

def slow(job, http):
    print("slow has begun", flush=True)
    time.sleep(600)

order = JobType("shop.order", shop, process={"fetch": fetch, "save": save}, phases=("fetch", "save"))
stuck = JobType("shop.slow", shop, process=slow)
hasty = JobType("shop.hasty", shop, process=lambda job, http: time.sleep(600), timeout=0.3, retry=Retry(max_retries=0))
chain = JobType("shop.chain", shop, process=lambda job, http: None, serial=lambda payload: "one")
things = Sync("shop.things", shop, listing=Listing("things"), fetch=lambda http, entity: http.get_json(f"things/{entity.key}"))
"""


@pytest.fixture
def shop(project: Any, api: Any, database_url: str) -> Any:
    """A project with job types, on either database."""
    project.write("syncs/shop.py", FILE)
    project.environment |= {"SHOP_BASE_URL": api.url, "SHOP_TOKEN": "t0p-secret", "SYNCS_DATABASE_URL": database_url}
    api.documents |= {f"/orders/{number}": {"n": number} for number in (7, 13)}
    return project


def queued(project: Any, name: str, payload: str, *options: str) -> int:
    """Queue a job and return its id."""
    found = project.run_here("enqueue", name, payload, "--json", *options)
    assert found.returncode == 0, found.stderr
    return int(json.loads(found.stdout)["id"])


@pytest.mark.rows("AQ-53")
def test_each_step_is_told(shop: Any) -> None:
    """Phases, requests and outcomes; also of a job that is delayed; exit 0."""
    job_id = queued(shop, "shop.order", '{"n": 7}', "--delay", "1h")
    found = shop.run_here("process", str(job_id))
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"job {job_id} of shop.order in queue shop:")
    told = [line for line in lines if line.startswith(("attempt", "  success", "  GET"))]
    assert told[0] == "attempt 1, phase fetch"
    assert "/orders/7 → 200, " in told[1]
    assert told[2:] == ["  success", "attempt 1, phase save", "  success"]
    assert lines[-1].startswith(f"job {job_id}: success after ")
    again = shop.run_here("process", str(job_id), "--json")
    assert (again.returncode, json.loads(again.stdout)["refused"]) == (1, "only queued jobs can be processed, it is success")


@pytest.mark.rows("AQ-13", "AQ-53", "SC-32")
def test_a_failure_is_told_with_its_traceback(shop: Any) -> None:
    """Exit 1; the secret is in neither output."""
    job_id = queued(shop, "shop.order", '{"n": 13}')
    found = shop.run_here("process", str(job_id))
    assert found.returncode == 1
    assert "  failure: ZeroDivisionError: thirteen, ***" in found.stdout
    assert "Traceback (most recent call last)" in found.stdout
    assert "in save" in found.stdout
    assert found.stdout.splitlines()[-1].startswith(f"job {job_id}: failure after ")
    assert "t0p-secret" not in found.stdout + found.stderr
    again = shop.run_here("process", str(job_id))
    assert again.returncode == 1
    assert "was not processed: it has failed; `syncs retry` puts it back" in again.stderr


def test_one_json_document(shop: Any) -> None:
    """And nothing else on stdout."""
    job_id = queued(shop, "shop.order", '{"n": 13}')
    found = shop.run_here("process", str(job_id), "--json")
    document = json.loads(found.stdout)
    assert (document["id"], document["state"], document["outcome"]) == (job_id, "failure", "failure")
    assert document["type"] == "shop.order"
    assert "ZeroDivisionError" in document["traceback"]
    assert document["exchanges"] == []


@pytest.mark.rows("AQ-14", "E-44")
def test_a_type_that_nothing_declares(shop: Any, database_url: str) -> None:
    """It stays queued, workers leave it alone, `queues` counts it, and it is revived when its file is back."""
    job_id = queued(shop, "shop.order", '{"n": 7}')
    shop.write("syncs/shop.py", FILE.replace('order = JobType("shop.order"', 'another = JobType("shop.another"'))
    found = shop.run_here("process", str(job_id))
    assert found.returncode == 2
    assert "no job type is called 'shop.order'" in found.stderr
    assert "its jobs wait until a file declares it" in found.stderr
    assert json.loads(shop.run_here("work", "--until-empty", "--json").stdout)["processed"] == 0
    (queue,) = json.loads(shop.run_here("queues", "--json").stdout)
    assert (queue["queue"], queue["queued"]) == ("shop", 1)
    shop.write("syncs/shop.py", FILE)
    assert shop.run_here("process", str(job_id)).returncode == 0


@pytest.mark.parametrize(("job_id", "says"), [("4711", "no job has the id 4711"), ("x", "not a valid integer")])
def test_a_job_that_there_is_not(shop: Any, job_id: str, says: str) -> None:
    """Exit 2, one line."""
    found = shop.run_here("process", job_id)
    assert (found.returncode, len(found.stderr.strip().splitlines())) == (2, 1)
    assert says in found.stderr


def test_a_paused_client_is_left_alone(shop: Any) -> None:
    """Unless a person insists."""
    job_id = queued(shop, "shop.order", '{"n": 7}')
    assert shop.run_here("pause", "shop", "--for", "1h").returncode == 0
    found = shop.run_here("process", str(job_id))
    assert found.returncode == 1
    assert "its client shop is paused, or waits for its probe; --force processes it all the same" in found.stderr
    assert shop.run_here("process", str(job_id), "--force").returncode == 0


def test_serial_jobs_keep_their_order(shop: Any) -> None:
    """A later job of a serial key waits for the earlier one, unless a person insists."""
    first, second = (queued(shop, "shop.chain", str(number)) for number in (1, 2))
    found = shop.run_here("process", str(second))
    assert found.returncode == 1
    assert "an earlier job of its serial key waits" in found.stderr
    assert shop.run_here("process", str(second), "--force").returncode == 0
    assert shop.run_here("process", str(first)).returncode == 0


def test_a_timeout_holds_here_too(shop: Any) -> None:
    """The job hangs and the command comes back."""
    job_id = queued(shop, "shop.hasty", "{}")
    found = shop.syncs("process", str(job_id))
    assert found.returncode == 1
    assert "  failure: timed out after 0.3 s" in found.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_puts_the_job_back(shop: Any, database_url: str, number: int) -> None:
    """The job is as it was, without an attempt used."""
    job_id = queued(shop, "shop.slow", "{}")
    process = shop.start("process", str(job_id))
    _until(process, "slow has begun")
    busy = shop.run_here("process", str(job_id))
    assert busy.returncode == 1
    assert "it is in processing by " in busy.stderr
    process.send_signal(number)
    assert process.wait(100) == 1
    store = JobStore(Database(database_url))
    try:
        found = store.views.job(job_id)
        assert (found.job.state, found.job.attempts) == ("queued", 0)
    finally:
        store.close()
        process.stdout.close()
        process.stderr.close()


def _until(process: Any, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def test_an_entity_of_a_sync(shop: Any, api: Any) -> None:
    """Its job is worked like any other, and its record stored."""
    api.documents |= {"/things": [{"id": 1}], "/things/1": {"id": 1, "name": "a"}}
    # The run is stopped by a pause before it works the job.
    api.refused["/things/1"] = 429
    shop.run_here("run", "shop.things", "--wait", "0")
    shop.run_here("resume", "shop")
    del api.refused["/things/1"]
    (job,) = json.loads(shop.run_here("jobs", "--json").stdout)
    assert job["state"] == "queued"
    found = shop.run_here("process", str(job["id"]))
    assert found.returncode == 0, found.stderr
    assert "/things/1 → 200, " in found.stdout
    assert "attempt 1" in found.stdout
