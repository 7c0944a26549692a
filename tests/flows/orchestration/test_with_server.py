"""The Prefect half against a real server and a real worker: one server for all of these tests; the last ones end it."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.prefect_project import HANG, PAYLOAD, TOKEN, ApiServer, Project, ask, make_project, until

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


def _ended(project: Project, run_id: str, *, seconds: float = HANG) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        run = project.run(run_id)
        return run if run["state_type"] in FINAL else None

    found: dict[str, Any] = until(look, seconds=seconds)
    return found


def _lives(pid: int) -> bool:
    # One that only waits for its parent to notice has ended.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _rows(artifact: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(artifact["data"])
    return rows


def _zombie(project: Project) -> dict[str, Any]:
    [found] = [each for each in project.find("automations") if each["name"] == "sync-clients: crash zombie flow runs"]
    return found


def test_two_ups_at_once_start_one_server(project: Project, both_ups: list[dict[str, Any]]) -> None:
    """The second `up` waits for the first, finds its work done, and says so."""
    assert sorted(said["started"] for said in both_ups) == [False, True]
    assert both_ups[0]["server_pid"] == both_ups[1]["server_pid"]
    second = next(said for said in both_ups if not said["started"])
    assert {each["change"] for each in second["applied"]} == {"unchanged"}
    automations = [each["name"] for each in project.find("automations")]
    assert sorted(set(automations)) == sorted(automations)
    assert {"sync-clients: crash zombie flow runs", "sync-clients: work queues and pauses agree"} <= set(automations)


def test_server_is_for_this_machine_only(project: Project) -> None:
    """It listens on 127.0.0.1, and allows no other page's script to drive it."""
    status = project.syncs("status")
    listening = [
        each.laddr.ip for each in psutil.Process(status["server_pid"]).net_connections("inet") if each.status == "LISTEN"
    ]
    assert set(listening) == {"127.0.0.1"}
    answer = ask("GET", f"{project.url}/flow_runs/count", headers={"Origin": "http://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers
    own = ask("GET", f"{project.url}/health", headers={"Origin": f"http://localhost:{project.port}"})
    assert own.headers["access-control-allow-origin"] == f"http://localhost:{project.port}"


@pytest.mark.slow
def test_another_project_gets_a_clear_word_about_the_port(project: Project, api_url: str, tmp_path: Path) -> None:
    """A taken port is one line that names it and a free one, and exit code 2."""
    other = make_project(tmp_path, api_url)
    process = other.start("up", "--port", str(project.port))
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 2
    last = err.splitlines()[-1]
    assert f"port {project.port}" in last
    assert "syncs up --port" in last


@pytest.mark.rows("DS-16")
def test_deployments_are_what_is_declared(project: Project) -> None:
    """Each sync has one on its client's queue; schedules have a zone, and a limit of one turns the second run away."""
    found = {each["name"]: each for each in project.find("deployments")}
    syncs = {"tiny.good", "faulty.things", "slow.things", "closed.things", "broken.things"}
    assert set(found) == {"languages", "sync", "work", "maintain", "pause", "resume", "pauses"} | syncs
    assert {found[name]["work_queue_name"] for name in syncs} == {name.partition(".")[0] for name in syncs}
    assert found["work"]["entrypoint"] == "flows.orchestration.runs.work"
    schedules = {name: (s["schedule"]["timezone"], s["active"]) for name, each in found.items() for s in each["schedules"]}
    assert schedules == {
        "languages": ("Europe/Berlin", False),
        "work": ("UTC", True),
        "maintain": ("UTC", True),
    }
    assert found["languages"]["work_queue_name"] == "languages"
    assert found["languages"]["parameters"] == {"name": "languages"}
    # What a person does counts each time; what only looks may be done by another one.
    assert not found["pause"]["global_concurrency_limit"]
    assert not found["resume"]["global_concurrency_limit"]
    limited = [each for name, each in found.items() if name not in ("pause", "resume")]
    assert {each["concurrency_options"]["collision_strategy"] for each in limited} == {"CANCEL_NEW"}
    assert {each["name"]: each["global_concurrency_limit"]["limit"] for each in limited} == {
        "languages": 1, "sync": 1, "work": 1, "maintain": 1, "pauses": 2, **dict.fromkeys(syncs, 1),
    }  # fmt: skip
    queues = {each["name"] for each in project.find("work_queues")}
    assert {"languages", "tiny", "faulty", "slow"} <= queues


@pytest.mark.rows("E-79", "DS-02", "CR-07", "SC-12")
def test_schedules_make_runs(project: Project) -> None:
    """The server's scheduler works: it does not with SQLAlchemy 2.1, and then says so only in its log."""
    active = {"deployments": {"name": {"any_": ["work"]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    work = next(each for each in project.find("deployments") if each["name"] == "work")
    assert not project.find("flow_runs", **active)
    project.set_schedules(work["id"], "resume")
    try:
        until(lambda: project.find("flow_runs", **active))
    finally:
        project.set_schedules(work["id"], "pause")


@pytest.mark.slow
def test_deploy_all_asks_nothing_and_setup_repairs_nothing(project: Project) -> None:
    """`prefect deploy --all` works unasked; what a person switched off in the UI stays off through `up` and `setup`."""
    project.prefect("--no-prompt", "deploy", "--all")
    project.syncs("setup")
    work = next(each for each in project.find("deployments") if each["name"] == "work")
    schedule = f"{project.url}/deployments/{work['id']}/schedules/{work['schedules'][0]['id']}"
    # The server's own database may be locked for a moment: it answers 503 then, and a person would click again.
    until(lambda: ask("PATCH", schedule, json={"active": False}, auth=project.sign_in).is_success)
    zombie = _zombie(project)
    until(
        lambda: (
            ask("PATCH", f"{project.url}/automations/{zombie['id']}", json={"enabled": False}, auth=project.sign_in).is_success
        )
    )
    out, err = project.start("up", "--port", "1", "--json").communicate(timeout=HANG)
    assert f"it keeps port {project.port}" in err
    applied = [*json.loads(out)["applied"], *project.syncs("setup")["applied"]]
    assert {each["change"] for each in applied} == {"unchanged"}
    work = next(each for each in project.find("deployments") if each["name"] == "work")
    assert not work["schedules"][0]["active"]
    assert not _zombie(project)["enabled"]
    project.hold_schedules()


@pytest.mark.slow
def test_another_project_is_told_whose_server_it_is(project: Project, tmp_path: Path) -> None:
    """A second database is set up all the same, and both hear of it once; a third `setup` of one is as quiet as ever."""
    other = replace(project, environment={**project.environment, "SYNCS_DATABASE_URL": f"sqlite:///{tmp_path}/other.db"})
    said = []
    for one in (project, other, other, project, project):
        process = one.start("setup")
        _, err = process.communicate(timeout=HANG)
        assert process.returncode == 0
        said.append(err.count("this Prefect server was last set up for another database, from "))
    assert said == [0, 1, 0, 1, 0]
    text = ask("POST", f"{project.url}/variables/filter", json={}, auth=project.sign_in).text
    assert "sync_clients_project" in text
    assert "other.db" not in text


@pytest.mark.rows("CR-08")
def test_worker_runs_what_a_person_starts(project: Project) -> None:
    """`prefect deployment run sync/sync -p name=…` completes, and names, logs, artifacts and states say what happened."""
    run_id = project.deploy_run("sync/sync", "-p", "name=faulty.things")
    run = _ended(project, run_id)
    assert (run["name"], run["state_name"], run["state"]["message"]) == ("faulty.things", "Completed", "2 of 30 failed")

    tasks = until(lambda: (found := project.task_runs(run_id)) and len(found) >= 33 and found)
    assert {"page 1", "page 2", "page 3", "faulty-10", "faulty-39"} <= set(tasks)
    assert tasks["page 1"]["state_type"] == "COMPLETED"

    def failures() -> dict[str, str]:
        found = project.task_runs(run_id)
        return {name: each["state"]["message"] for name, each in found.items() if each["state_type"] == "FAILED"}

    # The server records the states of task runs from events, some time after the run has ended.
    failed = until(lambda: len(found := failures()) >= 2 and found)
    assert set(failed) == {"faulty-17", "faulty-23"}
    assert all("422" in message for message in failed.values())

    artifacts = project.artifacts(run_id)
    assert set(artifacts) == {"faulty-things-progress", "faulty-things-summary", "faulty-things-failures"}
    progress = artifacts["faulty-things-progress"]
    assert (progress["data"], progress["description"]) == (100, "faulty.things: 30 of 30 entities, 2 failed")
    summary = {row["what"]: row["value"] for row in _rows(artifacts["faulty-things-summary"])}
    # The fourth page is the look behind the last one that the API names.
    assert (summary["listed"], summary["succeeded"], summary["failed"], summary["pages"]) == ("30", "28", "2", "4")
    assert summary["listing ended because"] == "it was complete"
    assert {row["entity"] for row in _rows(artifacts["faulty-things-failures"])} == {"faulty-17", "faulty-23"}

    def logs() -> list[str]:
        return [each["message"] for each in project.find("logs", logs={"flow_run_id": {"any_": [run_id]}}, limit=200)]

    # The flow run's process sends its last lines while it ends.
    assert until(lambda: sum(message.startswith("Entity faulty-") for message in logs()) == 2)
    assert "Sync faulty.things of client faulty begins" in logs()
    assert not any("task run" in message.lower() for message in logs())


@pytest.mark.rows("CR-03")
@pytest.mark.slow
def test_second_start_ends_and_cancelling_is_clean(project: Project, api_server: ApiServer) -> None:
    """A second start while one runs is cancelled; cancelling the first one puts its jobs back."""
    with api_server.endless():
        _cancel_one_while_another_starts(project)
    queues = {each["queue"]: each for each in project.syncs("queues")}
    assert queues["slow"]["processing"] == 0
    assert queues["slow"]["queued"] > 0


def _cancel_one_while_another_starts(project: Project) -> None:
    first = project.deploy_run("sync/sync", "-p", "name=slow.things")
    until(lambda: project.run(first)["state_type"] == "RUNNING")
    second = _ended(project, project.deploy_run("sync/sync", "-p", "name=tiny.good"))
    assert second["state_name"] == "Cancelled"
    assert "limit reached" in second["state"]["message"]

    key = "slow-things-progress"
    until(lambda: project.find("artifacts", artifacts={"key": {"any_": [key]}}))
    moving = project.find("artifacts", artifacts={"key": {"any_": [key]}})[0]["description"]
    assert "of" in moving
    project.prefect("flow-run", "cancel", first)
    assert _ended(project, first)["state_name"] == "Cancelled"


@pytest.mark.parametrize(
    ("name", "state", "text", "code"),
    [
        ("tiny.good", ("COMPLETED", "Completed"), "30 succeeded", 0),
        ("closed.things", ("COMPLETED", "Paused"), "Paused until", 0),
        ("broken.things", ("FAILED", "Failed"), "400", 1),
    ],
)
def test_run_here_is_shown_there(project: Project, name: str, state: tuple[str, str], text: str, code: int) -> None:
    """`syncs run` with a server up is a flow run of its own process: one JSON document, and a final state that says it."""
    process = project.start("run", name, "--json")
    out, err = process.communicate(timeout=HANG)
    document = json.loads(out)
    assert process.returncode == code, err
    assert document["sync"] == name
    run = project.newest_run(name)
    assert (run["state_type"], run["state_name"]) == state
    assert text in run["state"]["message"]
    assert "Paused until" not in run["state"]["message"].removeprefix("Paused until")
    assert "prefect" not in err.lower(), "Prefect's own log lines belong on the server"
    assert f"{name.replace('.', '-')}-summary" in project.artifacts(run["id"])
    until(lambda: "page 1" in project.task_runs(run["id"]) or name == "closed.things")
    until(lambda: project.find("logs", logs={"flow_run_id": {"any_": [run["id"]]}}))


@pytest.mark.rows("AQ-54")
def test_what_was_worked_is_one_event(project: Project) -> None:
    """A run of thirty entities tells Prefect once, with their number by outcome, for automations to listen to."""
    project.syncs("run", "tiny.good", "--full")
    run = project.newest_run("tiny.good")

    def told() -> list[dict[str, Any]]:
        wanted = {"event": {"name": ["sync.jobs.worked"]}, "related": {"id": [f"prefect.flow-run.{run['id']}"]}}
        found = ask("POST", f"{project.url}/events/filter", json={"filter": wanted}, auth=project.sign_in).json()
        return list(found["events"])

    until(told)
    (event,) = told()
    assert event["resource"]["prefect.resource.id"] == "sync-clients.tiny.good"
    assert (event["payload"]["jobs"], event["payload"]["failed"], event["payload"]["last"]) == (30, 0, True)


@pytest.mark.slow
def test_run_here_is_the_same_as_without_prefect(project: Project, api_url: str, tmp_path: Path) -> None:
    """The engine's result comes back through Prefect unchanged."""
    through = project.syncs("run", "tiny.good", "--full")
    alone = make_project(tmp_path, api_url)
    alone.syncs("run", "tiny.good")
    straight = alone.syncs("run", "tiny.good", "--full")
    assert {**through, "seconds": 0} == {**straight, "seconds": 0}


def test_unknown_name_makes_no_flow_run(project: Project) -> None:
    """By hand it is exit code 2 and nothing on the server; a worker's run fails and says the name."""

    def count() -> int:
        asked = {"flow_runs": {"name": {"any_": ["no.such"]}}}
        return int(ask("POST", f"{project.url}/flow_runs/count", json=asked, auth=project.sign_in).json())

    before = count()
    process = project.start("run", "no.such")
    process.communicate(timeout=HANG)
    assert process.returncode == 2
    assert count() == before
    run = _ended(project, project.deploy_run("sync/sync", "-p", "name=no.such"))
    assert run["state_type"] == "FAILED"
    assert "'no.such'" in run["state"]["message"]


def test_ctrl_c_ends_a_run_and_says_so(project: Project, api_server: ApiServer) -> None:
    """A run that is stopped at the terminal is Cancelled on the server, with what it had done."""
    with api_server.endless():
        process = project.start("run", "slow.things", "--json")
        until(lambda: project.runs_here("slow.things"))
        assert api_server.fetching.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG)
    assert process.returncode == 130, err
    run = project.newest_run("slow.things")
    assert run["state_name"] == "Cancelled"
    assert run["state"]["message"].startswith("Stopped by hand: ")
    assert run["state"]["message"].endswith("the next run goes on from here")
    assert json.loads(out)["pending"] > 0


def _open_runs(deployment: str) -> dict[str, Any]:
    """Return the filter for the runs of a deployment that have begun and not ended."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    return {"deployments": {"name": {"any_": [deployment]}}, "flow_runs": {"state": states}}


@pytest.mark.slow
def test_work_and_maintain_run(project: Project) -> None:
    """The flows behind the schedules end well and say what they did."""
    # One at a time; another test has let the schedule make runs.
    until(lambda: not project.find("flow_runs", **_open_runs("work")))
    work = project.deploy_run("work/work", "-p", 'queues=["tiny"]')
    maintain = project.deploy_run("maintain/maintain")
    found = _ended(project, work)
    assert (found["name"], found["state_type"], found["state"]["message"]) == ("tiny", "COMPLETED", "nothing was due")
    found = _ended(project, maintain)
    assert (found["name"], found["state_type"]) == ("maintain", "COMPLETED")


@pytest.mark.slow
def test_maintain_names_recipients_that_the_worker_lacks(project: Project) -> None:
    """`syncs setup` was told of recipients of errors, and the worker was not: each run says so in its state."""
    [known] = [each for each in project.find("variables") if each["name"] == "sync_clients_project"]

    def record(value: dict[str, Any]) -> None:
        url = f"{project.url}/variables/{known['id']}"
        until(lambda: ask("PATCH", url, json={"value": value}, auth=project.sign_in).is_success)

    record({**known["value"], "notify": ["error"]})
    try:
        found = _ended(project, project.deploy_run("maintain/maintain"))
    finally:
        record(known["value"])
    assert found["state_type"] == "COMPLETED"
    assert "SYNCS_NOTIFY_ERROR had recipients when `syncs setup` ran and has none here" in found["state"]["message"]


def test_prefect_keeps_no_secret_and_no_payload(project: Project) -> None:
    """Neither the token nor a record stands anywhere in Prefect's database or logs."""
    files = [path for path in project.home.rglob("*") if path.is_file() and path.stat().st_size]
    assert any(path.name.startswith("prefect.db") for path in files)
    for text in (TOKEN, PAYLOAD):
        assert [path for path in files if text.encode() in path.read_bytes()] == []


@pytest.mark.slow
@pytest.mark.rows("T8")
def test_a_killed_server_holds_no_run_up(project: Project, api_server: ApiServer, chaos: Any) -> None:
    """A server killed at any moment of a run changes nothing about its result, and next to nothing about its end."""
    dice, longest = random.Random(8), 0.0
    for turn in range(chaos.scaled(1, 20)):
        with api_server.endless():
            process = project.start("run", "slow.things", "--full", "--json")
            assert api_server.fetching.wait(HANG)
            time.sleep(dice.uniform(0, 3) if turn else 0)
            dead = project.syncs("status")["server_pid"]
            left = project.deploy_run("sync/sync", "-p", "name=tiny.good") if turn == 0 else None
            if left is not None:
                until(lambda left=left: project.run(left)["state_type"] in ("PENDING", "RUNNING"))
            os.kill(dead, signal.SIGKILL)
        out, err = process.communicate(timeout=HANG)
        seconds = time.monotonic() - api_server.last_at
        longest = max(longest, seconds)
        # Fifteen on a quiet machine, which the long form measures.
        assert seconds < chaos.scaled(60, 15), f"the run ended {seconds:.0f} s after its last entity"
        document = json.loads(out)
        assert (process.returncode, document["state"], document["pending"]) == (0, "success", 0), err
        assert "Prefect does not show all of this run" in err
        assert not project.syncs("status")["server"]
        # Only `down` takes it from the `prefect` command.
        assert project.auth_string in (project.home / "profiles.toml").read_text()
        again = project.syncs("up", "--port", str(project.port))
        assert again["started"]
        assert again["server_pid"] != dead
        if left is not None:
            assert project.run(left)["state_type"] in FINAL
    chaos.tell("Prefect's server killed", jobs=1, trouble=turn + 1, seconds=longest)


@pytest.mark.slow
def test_down_ends_everything_and_leaves_no_run_running(project: Project, api_server: ApiServer) -> None:
    """Runs in hand put their jobs back and get a final state, then worker and server end; a second `down` finds nothing."""
    with api_server.endless():
        run_id = project.deploy_run("sync/sync", "-p", "name=slow.things", "-p", "full=true")
        until(lambda: project.run(run_id)["state_type"] == "RUNNING")
        status = project.syncs("status")
        assert project.syncs("down") == {"stopped": ["worker", "server"]}
    assert not _lives(status["server_pid"])
    assert not _lives(status["worker_pid"])
    assert not (project.home / "syncs-up.json").exists()
    assert project.syncs("down") == {"stopped": []}
    queues = {each["queue"]: each for each in project.syncs("queues")}
    assert queues["slow"]["processing"] == 0
    assert project.syncs("up", "--port", str(project.port))["started"]
    assert project.run(run_id)["state_type"] in ("CANCELLED", "CRASHED")
