"""Jobs that change something over there: idempotency keys, "sent, no answer", and looking first after a crash."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import text

from clients import HttpClient
from clients.http.rate_limits import throttle
from flows import DeclarationError
from flows.execution.job_executor import JobExecutor
from jobs import Failure, JobStore, Retry, Snooze, Success
from jobs.job import Job, JobResult
from syncs_testing import Reply, Seen, Server, serving
from tests.support.job_bench import Bench, FixedConnections

if TYPE_CHECKING:
    from tests.flows.conftest import Project


class Shop:
    """A remote system that books orders, answers or not, and knows what it has booked."""

    def __init__(self) -> None:
        #: (order, idempotency key) of each POST, in order.
        self.posted: list[tuple[Any, str | None]] = []
        self.booked: list[Any] = []
        #: What becomes of the answer to the next POST, and of those after it.
        self.replies: list[Reply] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.looked = 0
        self.server: Server
        #: Closes the connections to it.
        self.stack = ExitStack()

    def respond(self, seen: Seen) -> Reply:
        """Book, or tell whether it is booked."""
        if seen.method == "GET":
            self.looked += 1
            order = int(seen.path.rpartition("/")[2])
            return Reply({"order": order}) if order in self.booked else Reply({}, 404)
        key = seen.headers.get("idempotency-key")
        if key is None or key not in [known for _, known in self.posted]:
            self.booked.append(seen.json["order"])
        self.posted.append((seen.json["order"], key))
        self.before_answer()
        return self.replies.pop(0) if self.replies else Reply({})


NULL_OBSERVER = Reply({}, cut=0)
"""Booked, and the connection breaks before the answer."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A shop on loopback."""
    shop = Shop()
    with serving(shop.respond) as shop.server, shop.stack:
        yield shop


@pytest.fixture
def bench(store: JobStore) -> Bench:
    """A bench on a fresh database."""
    return Bench(store)


class Post:
    """A job type that posts, on a bench."""

    def __init__(self, bench: Bench, shop: Shop, process: Any, **options: Any) -> None:
        self.bench = bench
        made = bench.work_of(process, **options)
        self.http = shop.stack.enter_context(HttpClient(shop.server.url, timeout=5))
        self.work = JobExecutor(made.job_type, FixedConnections(lambda: self.http), made.mask, bench.store)

    def queue(self, order: int = 7) -> int:
        """Queue a booking."""
        return self.bench.queue(self.work, {"order": order})

    def turn(self) -> JobResult:
        """Claim, work and finish one job."""
        return self.bench.turn(self.work)

    def outcomes(self, job_id: int) -> list[str]:
        """What came of each attempt."""
        return [one.outcome for one in self.bench.store.views.job(job_id).attempts]


def plainly(job: Any, http: Any) -> None:
    """Book without a key."""
    http.post_json("orders", job.payload)


def keyed(job: Any, http: Any) -> None:
    """Book with the job's key."""
    http.post_json("orders", job.payload, idempotency_key=job.idempotency_key)


def look(job: Any, http: Any) -> Success:
    """Find the order, or raise `GoneError`."""
    http.get_json(f"orders/{job.payload['order']}")
    return Success("it was there")


def test_sent_and_no_answer_is_the_end_without_key_and_verify(bench: Bench, shop: Shop) -> None:
    """Nobody knows whether it was booked, so it is not sent again: the job fails, with an outcome of its own."""
    shop.replies = [NULL_OBSERVER]
    post = Post(bench, shop, plainly)
    job_id = post.queue()
    settled = post.turn()
    assert (settled.state, post.outcomes(job_id)) == ("failure", ["unknown"])
    assert bench.store.views.job(job_id).job.message.startswith("sent, no answer: POST http://127.0.0.1")
    assert (shop.booked, settled.verdict.trouble) == ([7], True)


def test_with_a_key_it_is_sent_again(bench: Bench, shop: Shop) -> None:
    """The same key goes with each attempt, so that the remote side books once."""
    shop.replies = [NULL_OBSERVER, Reply({}, 500)]
    post = Post(bench, shop, keyed)
    job_id = post.queue()
    assert [post.turn().state for _ in range(3)] == ["queued", "queued", "success"]
    assert shop.booked == [7]
    assert len(shop.posted) == 3
    assert len({key for _, key in shop.posted}) == 1
    assert post.outcomes(job_id) == ["retry", "retry", "success"]


def test_verify_finds_what_was_done(bench: Bench, shop: Shop) -> None:
    """After "sent, no answer" the next attempt looks first, and what is there is not sent again."""
    shop.replies = [NULL_OBSERVER]
    post = Post(bench, shop, plainly, verify=look)
    job_id = post.queue()
    assert [post.turn().state for _ in range(2)] == ["queued", "success"]
    assert (shop.booked, len(shop.posted), shop.looked) == ([7], 1, 1)
    assert post.outcomes(job_id) == ["unknown", "success"]
    assert bench.store.views.job(job_id).job.message == "it was there"


def test_verify_finds_nothing_and_it_is_sent_again(bench: Bench, shop: Shop) -> None:
    """What the remote side does not have (404) is sent once more; without a doubt nobody looks."""
    post = Post(bench, shop, plainly, verify=look)
    post.queue()
    assert post.turn().state == "success"
    assert shop.looked == 0
    shop.replies = [NULL_OBSERVER]
    post.queue(8)
    assert post.turn().state == "queued"
    shop.booked.remove(8)
    assert post.turn().state == "success"
    assert (shop.booked, shop.looked) == ([7, 8], 1)


def test_a_known_failure_is_no_doubt(bench: Bench, shop: Shop) -> None:
    """An answer that says no, or a snooze, needs no look."""
    shop.replies = [Reply({}, 500)]
    asked: list[int] = []

    def process(job: Any, http: Any) -> Any:
        asked.append(job.attempt)
        return Snooze(0) if len(asked) == 1 else plainly(job, http)

    post = Post(bench, shop, process, verify=look)
    post.queue()
    assert [post.turn().state for _ in range(3)] == ["queued", "queued", "success"]
    assert shop.looked == 0


def test_no_request_waits_long_while_its_job_holds_the_writer(bench: Bench, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is full again soon: on SQLite a job that has written goes back at once, and with it what it wrote."""
    is_sqlite = bench.store.db.dialect == "sqlite"
    monkeypatch.setattr(throttle, "MAX_SLEEP", 1000.0)
    monkeypatch.setattr(throttle, "MAX_LINE", 1000.0)
    # Whoever waits on SQLite all the same does not come back in the time of this test.
    shop.replies = [Reply({}, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "600" if is_sqlite else "2"})]

    def process(job: Any, http: Any) -> None:
        plainly(job, http)
        job.session.execute(text("UPDATE client SET errors = 3"))
        plainly(job, http)

    post = Post(bench, shop, process)
    post.queue()
    assert post.turn().state == ("queued" if is_sqlite else "success")
    assert len(shop.posted) == (1 if is_sqlite else 2)


def test_a_doubt_stays_until_it_is_resolved(bench: Bench, shop: Shop) -> None:
    """An attempt whose look failed leaves the doubt: the one after it looks again."""
    shop.replies = [NULL_OBSERVER]
    looks: list[Any] = [Failure("cannot look now"), ConnectionResetError("nor now")]

    def verify(job: Any, http: Any) -> Any:
        found = looks.pop(0) if looks else look(job, http)
        if isinstance(found, Exception):
            raise found
        return found

    post = Post(bench, shop, plainly, verify=verify, retry=Retry(max_retries=5, delay=0, jitter=False))
    job_id = post.queue()
    assert [post.turn().state for _ in range(4)] == ["queued"] * 3 + ["success"]
    assert post.outcomes(job_id) == ["unknown", "retry", "retry", "success"]
    assert (len(shop.posted), shop.looked) == (1, 1)


@pytest.mark.parametrize("found", [[], True, {"items": []}])
def test_verify_must_say_what_it_means(bench: Bench, shop: Shop, found: Any) -> None:
    """An empty list is neither "there" nor "not there": the job fails and says so, and nothing is sent."""
    shop.replies = [NULL_OBSERVER]
    post = Post(bench, shop, plainly, verify=lambda job, http: found)
    job_id = post.queue()
    assert [post.turn().state for _ in range(2)] == ["queued", "failure"]
    assert "verify must return an outcome, or None" in bench.store.views.job(job_id).job.message
    assert len(shop.posted) == 1


def test_a_dead_worker_is_a_doubt(bench: Bench, shop: Shop, dialect: str) -> None:
    """A job that was rescued, or taken away by a person while in hand, is looked for first."""
    post = Post(bench, shop, plainly, verify=look)
    for order, take_away in ((7, True), (8, False)):
        post.queue(order)
        job = bench.claim(post.work)
        post.http.post_json("orders", job.payload)
        if take_away:
            assert bench.store.release([job], reason="by hand") == 1
        else:
            with bench.store.db.write() as connection:
                connection.exec_driver_sql("UPDATE job SET lease_until = '2020-01-01 00:00:00.000000' WHERE state = 'processing'")
            assert bench.store.rescues.run([job.lane.queue]) == 1
            # A suspect is claimed alone.
            lane = [job.lane]
            (job,) = bench.store.claim(lane, 1, worker="elsewhere:1:1:1", lease=60, suspects=True)
            assert bench.finish(post.work, post.work.execute(job)).state == "success"
            continue
        assert post.turn().state == "success"
    assert (shop.booked, shop.looked) == ([7, 8], 2)


def test_a_timeout_in_the_middle_of_a_post_is_a_doubt(bench: Bench, shop: Shop) -> None:
    """What hangs in a POST without a key is not sent again after its timeout; with a key, or a `verify`, it is tried again."""
    for process, verify, state, outcome in (
        (plainly, None, "failure", "unknown"),
        (keyed, None, "queued", "retry"),
        (plainly, look, "queued", "unknown"),
    ):
        told: list[JobResult] = []

        post = Post(bench, shop, process, verify=verify, timeout=3)
        job_id = post.queue()
        job = bench.claim(post.work)

        def give_up(post: Post = post, job: Job = job, told: list[JobResult] = told) -> None:
            told.append(bench.finish(post.work, post.work.timed_out(job, 3)))

        shop.before_answer = give_up
        post.work.execute(job)
        shop.before_answer = lambda: None
        assert (told[0].state, post.outcomes(job_id)) == (state, [outcome])
        message = bench.store.views.job(job_id).job.message
        assert ("sent, no answer: timed out after 3 s" in message) is (outcome == "unknown")
        with bench.store.db.write() as connection:
            connection.exec_driver_sql("UPDATE job SET state = 'cancelled', finished_at = created_at WHERE state = 'queued'")


def test_keys_tell_jobs_apart(bench: Bench, shop: Shop) -> None:
    """A key is a job's own, whatever its content; another payload and another phase have another one."""
    seen: list[str] = []

    def note(job: Any, http: Any) -> None:
        seen.append(job.idempotency_key)
        assert job.idempotency_key == seen[-1]

    post = Post(bench, shop, {"a": note, "b": note}, phases=("a", "b"), duplicates="discard")
    for _ in range(2):
        post.queue()
        assert post.turn().state == "success"
    assert len(set(seen)) == 4
    assert all(len(key) == 36 and UUID(key) for key in seen)


def test_a_payload_that_took_its_place_has_another_key(bench: Bench, shop: Shop) -> None:
    """The remote side must not take the new content for a repetition of the old one."""
    shop.replies = [Reply({}, 500)]
    post = Post(bench, shop, keyed, duplicates="replace", fingerprint=lambda payload: "one")
    first = post.queue(7)
    assert post.turn().state == "queued"
    assert post.queue(8) == first
    assert post.turn().state == "success"
    assert shop.booked == [7, 8]


def test_verify_must_be_a_function(bench: Bench) -> None:
    """Anything else is refused where it is declared."""
    with pytest.raises(DeclarationError, match="verify must be callable"):
        bench.work_of(plainly, verify="look")


FILE = """
from clients import HttpClient
from flows import Client, JobType
from jobs import Queue, Retry, Success
import os

shop = Client("shop", connect=lambda s: HttpClient(os.environ["SHOP_URL"]))
queue = Queue("shop", lease=60)

def look(job, http):
    http.get_json(f"orders/{job.payload['order']}")
    return Success("it was there")

book = JobType("shop.book", shop, process=lambda job, http: http.post_json("orders", job.payload), verify=look)
"""


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.slow
def test_a_worker_killed_between_sending_and_answer(project: Project, shop: Shop, database_url: str, is_done: bool) -> None:
    """A real worker is killed when the order has arrived; the next one looks, and each order is booked once."""
    project.write("syncs/shop.py", FILE)
    project.environment |= {"SYNCS_DATABASE_URL": database_url, "SHOP_URL": shop.server.url}
    assert project.syncs("enqueue", "shop.book", '{"order": 17}').returncode == 0
    worker = project.start("work", "--until-empty")

    def kill() -> None:
        os.kill(worker.pid, signal.SIGKILL)
        if not is_done:
            shop.booked.clear()

    shop.before_answer = kill
    worker.communicate(timeout=60)
    shop.before_answer = lambda: None
    assert worker.returncode == -signal.SIGKILL
    done = project.syncs("work", "--until-empty", "--max-jobs", "1", "--time-limit", "30")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(project.syncs("jobs", "--json").stdout)
    assert (found["state"], shop.booked, shop.looked) == ("success", [17], 1)
    assert len(shop.posted) == (1 if is_done else 2)
