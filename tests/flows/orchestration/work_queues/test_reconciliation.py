"""Pauses on a real Prefect server: work queues follow the table, and the table what a person does to a work queue."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.declarations.client import Client
from flows.orchestration.prefect_client import open_client
from flows.orchestration.work_queues.queue_action import Step
from flows.orchestration.work_queues.queue_description import pause_id_in
from flows.orchestration.work_queues.reconciliation import Change, reconcile
from flows.orchestration.work_queues.updater import reconcile_if_reachable
from jobs import JobStore
from tests.support.fake_remote import run_out
from tests.support.prefect_project import HANG, TOKEN, Project, ask, free_port, make_project, until

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")

pytestmark = pytest.mark.usefixtures("patient")


class Board:
    """The work queues of a server, as a person sees and handles them in the UI: the same requests.

    Args:
        project: whose server it is.
    """

    def __init__(self, project: Project) -> None:
        self.url = project.url
        self._sign_in = project.sign_in

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request, and again while the server's own database is locked, as a person would click again."""

        def send() -> httpx.Response | None:
            try:
                answer = ask(method, f"{self.url}{path}", json=body, auth=self._sign_in)
            except httpx.TransportError:
                return None
            return None if answer.status_code == 503 else answer

        found: httpx.Response = until(send, seconds=120)
        found.raise_for_status()
        return found

    def make(self, name: str, description: str = "") -> None:
        """Make a work queue."""
        self.ask("POST", "/work_pools/syncs/queues", {"name": name, "description": description})

    def queue(self, name: str) -> dict[str, Any]:
        """Return a work queue."""
        found: dict[str, Any] = self.ask("GET", f"/work_pools/syncs/queues/{name}").json()
        return found

    def is_paused(self, name: str) -> bool:
        """Tell whether a work queue is paused."""
        return bool(self.queue(name)["is_paused"])

    def toggle(self, name: str, *, paused: bool) -> None:
        """Use the switch of a work queue."""
        self.ask("PATCH", f"/work_queues/{self.queue(name)['id']}", {"is_paused": paused})

    def events(self, name: str, since: datetime) -> list[str]:
        """Return what was told of the pauses of a work queue, the oldest first."""
        wanted = {
            "event": {"prefix": ["prefect.work-queue."]},
            "resource": {"id": [f"prefect.work-queue.{self.queue(name)['id']}"]},
            "occurred": {"since": since.isoformat(), "until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()},
            "order": "ASC",
        }
        found = self.ask("POST", "/events/filter", {"filter": wanted, "limit": 50}).json()["events"]
        kinds = (each["event"].removeprefix("prefect.work-queue.") for each in found)
        return ["let go" if kind in ("ready", "not-ready") else kind for kind in kinds if kind not in ("created", "updated")]


@pytest.fixture
def board(project: Project, monkeypatch: pytest.MonkeyPatch) -> Board:
    """Return the work queues of the server."""
    # Where this process finds the auth string.
    monkeypatch.setenv("PREFECT_HOME", str(project.home))
    return Board(project)


@pytest.fixture
def api(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """Open a client of the server's."""
    monkeypatch.setenv("PREFECT_HOME", str(project.home))
    with open_client(project.url) as client:
        yield client


@pytest.fixture
def apart(board: Board, store: JobStore, request: pytest.FixtureRequest) -> str:
    """Make a client's work queue that the worker's flow runs know nothing of, for a database of the test's own."""
    name = f"apart-{store.db.dialect}-{request.node.name.partition('[')[0][5:40]}"
    board.make(name, "Runs of its own.")
    return name


@pytest.fixture
def bring(api: SyncPrefectClient, store: JobStore, apart: str) -> Callable[[], list[Step]]:
    """Return what brings queue and table together and says its steps."""
    clients = {apart: a_client(apart)}
    return lambda: [change.step for change in reconcile(api, store, clients)]


def a_client(name: str) -> Client:
    """Declare a client that nobody connects to."""
    return Client(name, connect=lambda _: None)  # type: ignore[arg-type, return-value]


def pauses(project: Project, client: str) -> list[dict[str, Any]]:
    """Return the history of a client's pauses."""
    found: list[dict[str, Any]] = project.syncs("pauses", client, "--history")
    return found


@pytest.mark.rows("SC-14")
def test_queue_follows_the_table(board: Board, store: JobStore, apart: str, bring: Callable[[], list[Step]]) -> None:
    """A paused client's queue is paused and says why and until when; resumed, it is as it was. Twice is the same as once."""
    assert bring() == []
    store.pauses.open(apart, 3600, cause="enforced", reason="401 Unauthorized", set_by="w1")
    assert bring() == [Step.PAUSE_QUEUE]
    queue, standing = board.queue(apart), store.pauses.state(apart)
    assert standing.pausing is not None
    assert queue["is_paused"]
    assert pause_id_in(queue["description"]) == standing.pausing.id
    assert queue["description"].startswith("Paused by sync-clients until ")
    assert "401 Unauthorized\n\nRuns of its own." in queue["description"]
    assert bring() == []
    # A longer one takes its place.
    store.pauses.open(apart, None, cause="enforced", reason="still 401", set_by="w1")
    assert bring() == [Step.DESCRIBE_PAUSE]
    assert "until resumed" in board.queue(apart)["description"]
    store.pauses.resume(apart, by="anna")
    assert bring() == [Step.RESUME_QUEUE]
    queue = board.queue(apart)
    assert (queue["is_paused"], queue["description"]) == (False, "Runs of its own.")
    assert bring() == []


@pytest.mark.rows("SC-20")
def test_queue_is_let_go_when_the_clock_has_ended_the_pause(
    board: Board, store: JobStore, apart: str, bring: Callable[[], list[Step]]
) -> None:
    """Nobody has to resume: what was held goes on, the probe goes first. If it fails, the queue is paused again."""
    held = store.pauses.open(apart, 600, cause="level", reason="timeout", set_by="w1")
    assert held is not None
    assert bring() == [Step.PAUSE_QUEUE]
    run_out(store)
    assert bring() == [Step.RESUME_QUEUE]
    assert store.pauses.state(apart).reopening is not None, "the probe decides, not the queue"
    probe = store.probes.begin(apart, worker="w1", lease=30)
    assert probe is not None
    store.probes.end(probe, False, when=3600.0, durations=(3600,), reason="timeout", set_by="w1")
    assert bring() == [Step.PAUSE_QUEUE]
    described = pause_id_in(board.queue(apart)["description"])
    assert described is not None
    assert described > held.id


@pytest.mark.rows("SC-14")
def test_a_persons_hand_counts_without_the_automation(
    board: Board, store: JobStore, apart: str, bring: Callable[[], list[Step]]
) -> None:
    """Whoever looks next finds that the queue was paused or resumed in the UI, and does the same to the client."""
    board.toggle(apart, paused=True)
    assert bring() == [Step.PAUSE_CLIENT, Step.DESCRIBE_PAUSE]
    pausing = store.pauses.current(apart)
    assert pausing is not None
    assert (pausing.cause, pausing.until, pausing.set_by, pausing.reason) == ("person", None, "Prefect", "paused in Prefect")
    board.toggle(apart, paused=False)
    assert bring() == [Step.RESUME_CLIENT, Step.CLEAR_DESCRIPTION]
    assert store.pauses.state(apart).pausing is None
    assert board.queue(apart)["description"] == "Runs of its own."
    # Also one that nobody set by hand, and one that is already over.
    store.pauses.open(apart, 3600, cause="level", reason="timeout", set_by="w1")
    bring()
    board.toggle(apart, paused=False)
    assert bring() == [Step.RESUME_CLIENT, Step.CLEAR_DESCRIPTION]
    assert not board.is_paused(apart)
    assert [one.ended_by for one in store.pause_history.latest(apart)] == ["Prefect", "Prefect"]


def test_many_that_look_at_once_do_it_once(project: Project, board: Board, store: JobStore, apart: str) -> None:
    """Eight processes that find a queue paused by a person pause its client once, and one of them describes the pause."""
    board.toggle(apart, paused=True)
    found: list[list[Change] | None] = []
    gate = threading.Barrier(8)

    def run() -> None:
        gate.wait()
        found.append(reconcile_if_reachable(store, {apart: a_client(apart)}, url=project.url))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [change.step for changes in found for change in changes or ()]
    assert sorted(steps, key=str) == [Step.DESCRIBE_PAUSE, Step.PAUSE_CLIENT]
    assert len(store.pause_history.latest(apart)) == 1


def test_a_queue_that_is_gone_and_one_that_all_share_are_left_alone(
    api: SyncPrefectClient, board: Board, store: JobStore
) -> None:
    """A client without a work queue is fine; one called `default` must not hold the runs of everybody."""
    for name in ("nowhere", "default"):
        store.pauses.open(name, None, cause="person", reason="", set_by="anna")
    assert reconcile(api, store, {name: a_client(name) for name in ("nowhere", "default")}) == []
    assert not board.is_paused("default")


@pytest.mark.slow
def test_pausing_in_the_ui_pauses_the_client_and_back(project: Project, board: Board) -> None:
    """Through the automation and a worker, within seconds; then nothing more happens: no loop, one pause, one of each event."""
    before, runs_before = datetime.now(UTC), len(_runs_of(project, "pauses"))
    pauses_before = len(pauses(project, "tiny"))
    board.toggle("tiny", paused=True)
    until(lambda: pause_id_in(board.queue("tiny")["description"]), seconds=HANG)
    [pause] = project.syncs("pauses", "tiny")
    assert (pause["state"], pause["cause"], pause["set_by"], pause["paused_until"]) == ("paused", "person", "Prefect", None)
    ended = project.syncs("run", "tiny.good")
    assert ended["state"] == "paused"

    board.toggle("tiny", paused=False)
    until(lambda: board.queue("tiny")["description"] == "", seconds=HANG)
    assert project.syncs("pauses", "tiny") == []
    assert project.syncs("run", "tiny.good")["state"] == "success"

    _settled(project)
    assert board.events("tiny", before) == ["paused", "let go"]
    assert len(pauses(project, "tiny")) == pauses_before + 1
    # Two for the person, and one for what the first of them did.
    assert 2 <= len(_runs_of(project, "pauses")) - runs_before <= 3


def _settled(project: Project) -> None:
    """Wait until no run of `pauses` is under way, and none comes after it."""
    quiet_since = time.monotonic()
    deadline = quiet_since + 2 * HANG
    # What a run sets off is there within the two seconds in which events are gathered, and what the server takes for it.
    while time.monotonic() - quiet_since < 10:
        if any(run["state_type"] not in FINAL for run in _runs_of(project, "pauses")):
            quiet_since = time.monotonic()
        assert time.monotonic() < deadline, "it does not come to rest"
        time.sleep(0.5)


def _runs_of(project: Project, flow: str) -> list[dict[str, Any]]:
    """Return the runs of a flow, but those that are to come."""
    found = project.find("flow_runs", flows={"name": {"any_": [flow]}}, limit=200)
    now = datetime.now(UTC) + timedelta(seconds=3)
    return [run for run in found if run["state_type"] in FINAL or datetime.fromisoformat(run["expected_start_time"]) <= now]


@pytest.mark.slow
def test_pause_by_command_shows_at_once_and_ends_by_the_clock(project: Project, board: Board) -> None:
    """`syncs pause` returns with the queue paused; when the time is over a flow run lets it go, and nobody had to."""
    said = _command(project, "pause", "faulty", "--for", "25s", "--reason", "they move house")
    queue = board.queue("faulty")
    assert queue["is_paused"]
    assert "they move house" in queue["description"]
    assert said["reason"] == "they move house"
    until(lambda: not board.is_paused("faulty"), seconds=HANG)
    assert board.queue("faulty")["description"] == ""
    [pause] = project.syncs("pauses", "faulty")
    assert pause["state"] == "reopening"
    # What comes first is the probe.
    assert project.syncs("run", "faulty.things")["state"] == "partial"
    assert project.syncs("pauses", "faulty") == []
    [past] = pauses(project, "faulty")
    assert (past["state"], past["cause"], past["ended_by"], past["probes"]) == ("ended", "person", "probe", 1)
    assert not board.is_paused("faulty")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["run", "work"])
def test_pause_of_a_run_and_of_a_worker_shows(project: Project, board: Board, how: str) -> None:
    """What pauses in a flow run, or in a worker that knows no Prefect until then, holds the queue when it ends."""
    if how == "run":
        assert project.syncs("run", "closed.things")["state"] == "paused"
    else:
        number = project.syncs("enqueue", "closed.call", "{}")["id"]
        assert project.syncs("work", "closed", "--until-empty")["processed"] == 1
        assert any(one["outcome"] == "pause" for one in project.syncs("job", str(number))["tries"])
        project.syncs("cancel", "--client", "closed", "--yes")
    until(lambda: board.is_paused("closed"), seconds=HANG)
    queue = board.queue("closed")
    assert queue["description"].startswith("Paused by sync-clients until ")
    assert "401" in queue["description"]
    assert TOKEN not in queue["description"]
    _command(project, "resume", "closed")
    assert not board.is_paused("closed")


@pytest.mark.slow
def test_flows_pause_and_resume_from_the_ui(project: Project, board: Board) -> None:
    """The deployments with parameters do what the commands do; an unknown client fails the run and says its name."""
    started = [
        project.deploy_run("pause/pause", "-p", "client=faulty", "-p", "seconds=600", "-p", "reason=inventory"),
        project.deploy_run("pause/pause", "-p", "client=nobody"),
    ]
    held, unknown = (_ended(project, run) for run in started)
    assert held["state_type"] == "COMPLETED"
    assert held["name"] == "pause faulty"
    assert held["state"]["message"].startswith("faulty is paused until ")
    assert unknown["state_type"] == "FAILED"
    assert "'nobody'" in unknown["state"]["message"]
    assert board.is_paused("faulty")
    [pause] = project.syncs("pauses", "faulty")
    assert (pause["cause"], pause["reason"]) == ("person", "inventory")
    resumed = project.deploy_run("resume/resume", "-p", "client=faulty")
    assert _ended(project, resumed)["state"]["message"] == "faulty goes on"
    assert not board.is_paused("faulty")


def _command(project: Project, *arguments: str) -> dict[str, Any]:
    """Run `syncs pause` or `resume`; where the server was too busy to take it in, let it follow, as the next flow run would."""
    process = project.start(*arguments, "--json")
    out, err = process.communicate(timeout=HANG)
    if "follow later" in err:
        with closing(JobStore.open(project.environment["SYNCS_DATABASE_URL"])) as store:
            until(
                lambda: reconcile_if_reachable(store, {arguments[1]: a_client(arguments[1])}, url=project.url) == [], seconds=HANG
            )
    found: dict[str, Any] = json.loads(out)
    return found


def _ended(project: Project, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (run := project.run(run_id))["state_type"] in FINAL and run, seconds=HANG)
    return found


@pytest.mark.slow
@pytest.mark.rows("SC-20", "DS-16")
def test_one_catch_up_run_does_the_work(project: Project, board: Board) -> None:
    """A pause of many schedule intervals is made up for by one run; runs that a person started wait, and come too."""
    _command(project, "pause", "tiny")
    deployment = _deploy_each_second(project, board)
    path = f"/deployments/{deployment['id']}"

    def overdue() -> list[dict[str, Any]]:
        held = _runs_of_deployment(project, deployment["id"])
        return [run for run in held if datetime.fromisoformat(run["expected_start_time"]) < datetime.now(UTC)]

    until(lambda: len(overdue()) >= 12)
    # No further ones: what starts from here on was held.
    schedule = board.ask("GET", path).json()["schedules"][0]["id"]
    board.ask("PATCH", f"{path}/schedules/{schedule}", {"active": False})
    by_hand = project.deploy_run("sync/each-second")
    newest = max(run["expected_start_time"] for run in overdue() if run["auto_scheduled"])
    begun = {run["id"] for run in _runs_of_deployment(project, deployment["id"]) if run["state_type"] != "SCHEDULED"}
    assert begun == set()

    _command(project, "resume", "tiny")
    left = _runs_of_deployment(project, deployment["id"])
    assert sorted(run["auto_scheduled"] for run in left) == [False, True]
    assert [run["expected_start_time"] for run in left if run["auto_scheduled"]] == [newest]
    until(lambda: all(run["state_type"] in FINAL for run in _runs_of_deployment(project, deployment["id"])), seconds=HANG)
    runs = {run["id"]: run for run in _runs_of_deployment(project, deployment["id"])}
    assert len(runs) == 2
    assert by_hand in runs
    assert {run["state_type"] for run in runs.values()} == {"COMPLETED"}


def _runs_of_deployment(project: Project, deployment_id: str) -> list[dict[str, Any]]:
    return project.find("flow_runs", flow_runs={"deployment_id": {"any_": [deployment_id]}}, limit=200)


def _deploy_each_second(project: Project, board: Board) -> dict[str, Any]:
    """Make a deployment of the flow `sync` that is due each second, through the client's queue."""
    flow = next(each for each in project.find("flows") if each["name"] == "sync")
    model = next(each for each in project.find("deployments") if each["name"] == "sync")
    body = {
        "name": "each-second", "flow_id": flow["id"], "entrypoint": model["entrypoint"], "path": model["path"],
        "pull_steps": model["pull_steps"], "parameters": {"name": "tiny.good"}, "work_pool_name": "syncs",
        "work_queue_name": "tiny", "job_variables": model["job_variables"],
        "schedules": [{"schedule": {"interval": 1, "anchor_date": datetime.now(UTC).isoformat()}, "active": True}],
    }  # fmt: skip
    found: dict[str, Any] = board.ask("POST", "/deployments/", body).json()
    return found


@pytest.mark.slow
def test_a_storm_of_pauses_is_a_run_or_two(project: Project, board: Board) -> None:
    """Fifty queues that a worker finds again at once start no fifty processes, and a switch used amid them counts."""
    _settled(project)
    began = datetime.now(UTC)
    pool = {
        "prefect.resource.id": f"prefect.work-pool.{uuid4()}", "prefect.resource.role": "work-pool",
        "prefect.resource.name": "syncs",
    }  # fmt: skip
    storm = [
        {
            "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "prefect.work-queue.ready",
            "resource": {"prefect.resource.id": f"prefect.work-queue.{uuid4()}"}, "related": [pool],
        }
        for _ in range(50)
    ]  # fmt: skip
    board.ask("POST", "/events", storm)
    board.toggle("broken", paused=True)
    until(lambda: pause_id_in(board.queue("broken")["description"]), seconds=HANG)
    _settled(project)
    # One for the storm, one for the switch if it came later than two seconds, one for what it did.
    # A run that an earlier pause has planned for its end was created before.
    created = [run for run in _runs_of(project, "pauses") if datetime.fromisoformat(run["created"]) >= began]
    assert 1 <= len(created) <= 3
    _command(project, "resume", "broken")


class _Silent:
    """A port that takes connections and never answers."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/api"

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.mark.slow
def test_pausing_works_and_waits_for_nobody_without_a_server(tmp_path: Path, api_url: str) -> None:
    """With a server that is gone or hangs, the table rules: pause, run, work and resume do their work, and say so in a line."""
    project = make_project(tmp_path, api_url)
    alone = _timed(project)
    project.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
    assert _timed(project) < 2 * alone + 30
    with _Silent() as silent:
        project.environment["PREFECT_API_URL"] = silent
        # One question, which gets a second, in each of the three commands that would use it, and two seconds where one looks on.
        assert _timed(project) < 2 * alone + 30


def _timed(project: Project) -> float:
    """Pause and resume a client with the commands; return how long it took."""
    started = time.monotonic()
    assert project.syncs("pause", "tiny")["paused_until"] is None
    assert project.syncs("run", "tiny.good")["state"] == "paused"
    assert project.syncs("work", "--until-empty")["processed"] == 0
    process = project.start("resume", "tiny", "--json")
    out, err = process.communicate(timeout=HANG)
    assert json.loads(out) == {"client": "tiny", "resumed": True}
    if "PREFECT_API_URL" in project.environment:
        assert "does not answer: its work queues are updated later" in err
        assert len(err.splitlines()) == 1
    else:
        assert err == ""
    return time.monotonic() - started


@pytest.mark.rows("SC-20")
def test_the_clock_of_this_machine_does_not_matter(project: Project, api: SyncPrefectClient, store: JobStore, apart: str) -> None:
    """By this machine's clock the pause has ended, by the database's it has not: somebody looks when it has."""
    if store.db.dialect != "sqlite":
        pytest.skip("needs a clock that can be set")
    behind = datetime.now(UTC) - timedelta(hours=1)
    store.db.clock = lambda: behind
    own = JobStore(store.db)
    held = own.pauses.open(apart, 1800, cause="person", reason="", set_by="anna")
    [change] = reconcile(api, own, {apart: a_client(apart)})
    assert change.step is Step.PAUSE_QUEUE
    assert held is not None
    assert held.until is not None
    due = [datetime.fromisoformat(run["expected_start_time"]) for run in _runs_of(project, "pauses")]
    assert [
        round((when - held.until).total_seconds()) // 60 for when in due if when < datetime.now(UTC) - timedelta(minutes=20)
    ] == [0]
