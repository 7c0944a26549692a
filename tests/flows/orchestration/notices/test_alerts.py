"""Notices through a real Prefect server: blocks, automations and the carrier, to a real mail server and a real webhook."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

from flows.channels import ChannelError, Message, send
from flows.channels.webhook import document
from flows.declarations.client import Client
from flows.declarations.notify import Notify
from flows.orchestration.notices import alerts
from flows.orchestration.notices.alerts import apply_alerts
from flows.orchestration.notices.block_documents import block_name
from flows.orchestration.notices.prefect_carrier import PrefectCarrier, event_id
from flows.orchestration.prefect_client import open_client
from flows.project.discovery import Broken
from flows.project.registry import Registry
from tests.support.fake_channels import PASSWORD, USER, Hook, Mailbox, hooked, mailed, make_certificate
from tests.support.prefect_project import HANG, Project, ask, free_port, make_project, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patient")]

OPS, TEAM = "mailto:ops@example.org,night@example.org", "mailto:team@example.org"
PATH = "hook/tok-5b7a-must-not-show"


@dataclass
class World:
    """A project with a server and a worker, and where its notices go."""

    project: Project
    mailbox: Mailbox
    hook: Hook

    @property
    def url(self) -> str:
        """The API's."""
        return self.project.url

    def mails_to(self, recipient: str) -> list[Any]:
        """Return the mails for a recipient."""
        return [mail for mail in self.mailbox.mails if mail["To"] == recipient.removeprefix("mailto:").replace(",", ", ")]

    def json_recipient(self) -> str:
        """Return the webhook as an Apprise URL."""
        return self.hook.url(PATH, scheme="json")

    def clear(self) -> None:
        """Forget what came."""
        self.mailbox.mails.clear()
        self.hook.posts.clear()


SYNCS = """
import os
from clients import HttpClient, Listing
from flows import Client, Notify, Sync

tiny = Client("tiny", connect=lambda s: HttpClient("http://127.0.0.1:9/"),
              notify=Notify(warning=["mailto:team@example.org", os.environ["TINY_HOOK"]], error=["mailto:team@example.org"]))
odd = Client("od[d]", connect=lambda s: HttpClient("http://127.0.0.1:9/"))
things = Sync("tiny.things", tiny, listing=Listing("things"))
team = Notify(notice=[], warning=["mailto:team@example.org"], error=["mailto:team@example.org"])
shut = Client("shut", connect=lambda s: HttpClient(os.environ["TINY_BASE_URL"] + "closed/"), notify=team)
doors = Sync("shut.doors", shut, listing=Listing("entities", items="data"))
others = Sync("odd.things", odd, listing=Listing("things"))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, api_url: str) -> Iterator[World]:
    """Start mail server (STARTTLS and sign-in), webhook, Prefect server and worker, all on loopback."""
    folder = tmp_path_factory.mktemp("alerts")
    certificate = make_certificate(folder)
    project = make_project(folder, api_url)
    (folder / "tiny.py").write_text(SYNCS)
    with hooked() as hook, mailed(free_port(), certificate) as mailbox:
        smtp = f"smtp://{quote(USER)}:{quote(PASSWORD, safe='')}@127.0.0.1:{mailbox.port}?ca={certificate[0]}"
        project.environment |= {
            "SYNCS_SMTP_URL": smtp,
            "SYNCS_NOTIFY_ERROR": f"{OPS}, nosuchthing://{PATH}",
            "SYNCS_NOTIFY_NOTICE": hook.url(PATH, scheme="json"),
            "TINY_HOOK": hook.url(PATH),
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
        }
        up = project.start("up", "--port", str(project.port), "--json")
        try:
            out, err = up.communicate(timeout=HANG)
            assert up.returncode == 0, out + err
            project.hold_schedules()
            yield World(project, mailbox, hook)
        finally:
            project.start("down").communicate(timeout=HANG)


@pytest.fixture
def settings(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have the project's settings, and start with nothing received."""
    for name, value in world.project.environment.items():
        if name.startswith(("SYNCS_", "PREFECT_HOME")):
            monkeypatch.setenv(name, value)
    world.clear()
    world.hook.status = 204


def _message(name: str, *, client: str = "tiny", level: str = "warning", event: str = "sync.client.paused") -> Message:
    text = 'Paused until 14:05 UTC.\n\n{{ 7 * 7 }} {% raw %} <b>&amp; "quoted" größer\n'
    return Message(
        level, f"{client} is paused: {{{{ 1/0 }}}} <&>", text, {"id": name, "event": event, "client": client, "count": 3}
    )


def _settled(carrier: PrefectCarrier, message: Message, recipients: list[str]) -> dict[str, bool]:
    found: dict[str, bool] = until(
        lambda: done if len(done := dict(carrier.outcome(message, recipients))) == len(recipients) else None
    )
    return found


def _client(name: str, **notify: list[str]) -> Client:
    return Client(name, connect=lambda _: contextlib.nullcontext(), notify=Notify(**notify))  # type: ignore[arg-type]


@contextlib.contextmanager
def _declared(world: World, *clients: Client, **global_recipients: list[str]) -> Iterator[list[Any]]:
    """Apply alerts for other clients for a while, beside those of the project."""
    registry = Registry(clients={client.id: client for client in clients}, broken=(Broken("x", "so that nothing is deleted"),))
    with open_client(world.url) as client:
        yield apply_alerts(client, registry, global_recipients)


@pytest.mark.rows("SC-22", "SC-23")
def test_setup_makes_blocks_and_automations_once(world: World) -> None:
    """Each client and level with recipients has one automation; a second `setup` changes nothing and says what is wrong."""
    names = {one["name"] for one in world.project.find("automations")}
    assert {
        f"sync-clients: tell {name}" for name in ("tiny warning", "tiny error", "tiny notice", "od[d] error", "od[d] notice")
    } <= names
    assert "sync-clients: tell od[d] warning" not in names, "nobody wants to hear of it"
    process = world.project.start("setup", "--json")
    out, err = process.communicate(timeout=HANG)
    assert {one["change"] for one in json.loads(out)["applied"] if one["kind"] != "tables"} == {"unchanged"}
    assert err.count("nosuchthing://…: this is no channel and no Apprise URL") == 1
    assert {one["name"] for one in world.project.find("automations")} == names


@pytest.mark.rows("SC-25")
def test_secrets_are_in_block_documents_only(world: World) -> None:
    """Neither an automation nor a block document as people see it holds a password or the path of a webhook."""
    for what in ("automations", "block_documents", "events"):
        text = ask("POST", f"{world.url}/{what}/filter", json={}, auth=world.project.sign_in).text
        assert PASSWORD not in text
        assert "tok-5b7a" not in text
    secrets = ask(
        "POST", f"{world.url}/block_documents/filter", json={"include_secrets": True, "limit": 200}, auth=world.project.sign_in
    ).text
    assert PASSWORD in secrets
    assert "tok-5b7a" in secrets


@pytest.mark.rows("SC-22", "SC-25")
@pytest.mark.usefixtures("settings")
def test_a_message_goes_out_through_automations(world: World) -> None:
    """Mail (STARTTLS, sign-in) and webhook are sent, as written, and both are confirmed."""
    carrier, message = PrefectCarrier(world.url), _message("1-opened")
    recipients = [TEAM, world.hook.url(PATH)]
    assert carrier.carry(message, [*recipients, "mailto:elsewhere@example.org"]) == set(recipients)
    until(lambda: world.mails_to(TEAM) and world.hook.posts)
    (mail,) = world.mails_to(TEAM)
    assert mail["Subject"] == message.subject
    assert mail.get_content().replace("\r\n", "\n") == message.body
    assert mail["X-Sync-Clients-Level"] == "warning"
    assert world.hook.posts == [document(message)]
    assert _settled(carrier, message, recipients) == dict.fromkeys(recipients, True)


@pytest.mark.rows("SC-22")
@pytest.mark.usefixtures("settings")
def test_a_message_handed_over_twice_goes_out_once(world: World) -> None:
    """Two workers with one message are one mail, and any of them can ask what became of it."""
    message = _message("2-opened", level="error")
    for carrier in (PrefectCarrier(world.url), PrefectCarrier(world.url)):
        assert carrier.carry(message, [TEAM]) == {TEAM}
    assert _settled(PrefectCarrier(world.url), message, [TEAM]) == {TEAM: True}
    time.sleep(1)
    assert len(world.mails_to(TEAM)) == 1
    assert PrefectCarrier(world.url).outcome(_message("2-other", level="error"), [TEAM]) == {}


@pytest.mark.rows("SC-25")
@pytest.mark.usefixtures("settings")
def test_an_odd_name_and_an_apprise_url(world: World) -> None:
    """A client whose name looks like a pattern gets its own messages and nobody else's; an Apprise URL goes by our own block."""
    carrier, recipient = PrefectCarrier(world.url), world.json_recipient()
    message = _message("3-opened", client="od[d]", level="notice", event="sync.run.recovered")
    assert carrier.carry(message, [recipient]) == {recipient}
    assert _settled(carrier, message, [recipient]) == {recipient: True}
    (post,) = world.hook.posts
    assert (post["title"], post["message"].strip()) == (message.subject, message.body.strip())


@pytest.mark.rows("E-98")
@pytest.mark.usefixtures("settings")
def test_a_channel_that_is_down_is_told(world: World) -> None:
    """The failed action is told apart from the other one, a webhook that answers 500 too, and no event holds a secret."""
    carrier, recipients = PrefectCarrier(world.url), [TEAM, world.hook.url(PATH)]
    world.mailbox.down()
    try:
        message = _message("4-opened")
        carrier.carry(message, recipients)
        assert _settled(carrier, message, recipients) == {TEAM: False, world.hook.url(PATH): True}
    finally:
        world.mailbox.up()
    world.hook.status = 500
    message = _message("5-opened")
    carrier.carry(message, recipients)
    assert _settled(carrier, message, recipients) == {TEAM: True, world.hook.url(PATH): False}
    failed = ask(
        "POST",
        f"{world.url}/events/filter",
        json={
            "filter": {
                "related": {"resources_in_roles": [[f"prefect.event.{event_id(_message('4-opened'))}", "triggering-event"]]}
            }
        },
        auth=world.project.sign_in,
    )
    assert f"mail server 127.0.0.1:{world.mailbox.port}: Connection refused" in failed.text
    assert PASSWORD not in failed.text
    assert "tok-5b7a" not in failed.text


@pytest.mark.rows("E-98")
@pytest.mark.usefixtures("settings")
def test_nothing_is_carried_where_nothing_would_send(world: World) -> None:
    """An automation that a person switched off, a client without one, a server that does not answer: the caller must send."""
    [automation] = [one for one in world.project.find("automations") if one["name"] == "sync-clients: tell tiny error"]
    assert PrefectCarrier(world.url).carry(_message("6", client="nobody", level="error"), [TEAM]) == set()
    assert PrefectCarrier(f"http://127.0.0.1:{free_port()}/api").carry(_message("7", level="error"), [TEAM]) == set()
    path = f"{world.url}/automations/{automation['id']}"
    until(lambda: ask("PATCH", path, json={"enabled": False}, auth=world.project.sign_in).is_success)
    try:
        assert PrefectCarrier(world.url).carry(_message("8", level="error"), [TEAM]) == set()
    finally:
        until(lambda: ask("PATCH", path, json={"enabled": True}, auth=world.project.sign_in).is_success)
    assert world.mailbox.mails == []


@pytest.mark.usefixtures("settings")
def test_what_is_no_longer_declared_goes(world: World) -> None:
    """With the declaration go its automation and block, and nothing else; not while a file cannot be read."""
    hook = "https://hooks.example.org/tok-5b7a"
    with open_client(world.url) as client:

        def there() -> tuple[set[str], set[str]]:
            blocks = ask("POST", f"{world.url}/block_documents/filter", json={"limit": 200}, auth=world.project.sign_in).json()
            return {one["name"] for one in world.project.find("automations")}, {one["name"] for one in blocks}

        before = there()
        known = Registry(clients={"brief": _client("brief", notice=[hook], warning=[], error=[])})
        broken = Registry(clients=known.clients, broken=(Broken("tiny.py", "SyntaxError"),))
        made = apply_alerts(client, broken, {})
        assert {(one.kind, one.change) for one in made} == {("block", "created"), ("automation", "created")}
        assert there() == (before[0] | {"sync-clients: tell brief notice"}, before[1] | {block_name(hook, "notice")})
        apply_alerts(client, Registry(broken=broken.broken), {})
        assert "sync-clients: tell brief notice" in there()[0]

    world.project.syncs("setup")
    assert there() == before


@pytest.mark.rows("SC-25")
@pytest.mark.usefixtures("settings")
def test_the_smtp_block_is_for_everybody(world: World) -> None:
    """The server knows the block by itself, shows it in the UI's catalogue, and a person's own automation sends with it."""
    types = {
        one["slug"]: one
        for one in ask("POST", f"{world.url}/block_types/filter", json={"limit": 200}, auth=world.project.sign_in).json()
    }
    assert types["smtp-email"]["name"] == "SMTP Email"
    schema = ask(
        "POST",
        f"{world.url}/block_schemas/filter",
        json={"block_schemas": {"block_type_id": {"any_": [types["smtp-email"]["id"]]}}},
        auth=world.project.sign_in,
    ).json()[0]
    assert schema["capabilities"] == ["notify"]
    assert schema["fields"]["properties"]["password"]["anyOf"][0]["format"] == "password"
    made = _posted(
        world,
        "/block_documents/",
        {
            "name": "my-mail",
            "block_type_id": types["smtp-email"]["id"],
            "block_schema_id": schema["id"],
            "data": {
                "host": "127.0.0.1", "port": world.mailbox.port, "username": USER, "password": PASSWORD,
                "recipients": ["me@example.org"], "ca_file": str(world.project.folder / "smtp.pem"),
            },
        },
    )  # fmt: skip
    action = {"type": "send-notification", "block_document_id": made["id"], "subject": "mine", "body": "{{ event.event }}"}
    trigger = {"type": "event", "posture": "Reactive", "expect": ["my.event"], "threshold": 1, "within": 0}
    _posted(world, "/automations/", {"name": "mine", "trigger": trigger, "actions": [action]})
    time.sleep(1)
    event = {"id": str(event_id(_message("mine"))), "occurred": "2026-01-01T00:00:00Z", "event": "my.event"}
    event |= {"resource": {"prefect.resource.id": "me"}}  # type: ignore[dict-item]
    assert ask("POST", f"{world.url}/events", json=[event], auth=world.project.sign_in).is_success
    mail = until(lambda: world.mails_to("me@example.org"))[0]
    assert (mail["Subject"], mail["From"]) == ("mine", USER)
    world.project.syncs("setup")
    assert "mine" in {one["name"] for one in world.project.find("automations")}, "a person's own"


@pytest.mark.rows("SC-25")
def test_blocks_as_recipients(world: World, settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """`block:name` and `block:type/name` are sent to directly and through automations; what cannot be is one line."""
    monkeypatch.setenv("PREFECT_API_URL", world.url)
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.blocks.webhook import Webhook

    with open_client(world.url):
        text = {"subject": "{{subject}}", "text": "{{body}}"}
        CustomWebhookNotificationBlock(name="x", url=world.hook.url(PATH), json_data=text).save("team", overwrite=True)
        Webhook(url=world.hook.url(PATH)).save("team", overwrite=True)
    message = _message("9-opened", client="blocky")
    send("block:team", message)
    send("block:webhook/team", message)
    assert world.hook.posts == [{"subject": message.subject, "text": message.body}, document(message)]
    for recipient, reason in [
        ("block:nothing", "no such block"),
        ("block:smtp-email/team", "no such block"),
        (f"block:{block_name(world.hook.url(PATH), 'warning')}", "cannot send messages"),
    ]:
        with pytest.raises(ChannelError, match=reason):
            send(recipient, message)
    world.hook.status = 500
    for recipient in ("block:team", "block:webhook/team"):
        with pytest.raises(ChannelError, match=recipient) as raised:
            send(recipient, message)
        assert "tok-5b7a" not in str(raised.value)
    world.hook.status = 204
    world.clear()
    recipients = ["block:team", "block:webhook/team"]
    with _declared(world, _client("blocky", notice=[], warning=recipients, error=[])):
        carrier = PrefectCarrier(world.url)
        assert carrier.carry(message, recipients) == set(recipients)
        assert _settled(carrier, message, recipients) == dict.fromkeys(recipients, True)
    assert sorted(map(len, world.hook.posts)) == sorted([2, len(document(message))])


def _run_in(world: World, queue: str) -> str:
    """Make a flow run of the flow `sync` in a work queue of the pool; it stays there, for no worker takes it so far ahead."""
    flow = next(one for one in world.project.find("flows") if one["name"] == "sync")
    body = {
        "name": f"{queue}-things",
        "flow_id": flow["id"],
        "work_pool_name": "syncs",
        "work_queue_name": queue,
        "entrypoint": "x:y",
    }
    made = _posted(world, "/deployments/", body)
    far = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
    found: str = _posted(world, f"/deployments/{made['id']}/create_flow_run", {"state": far})["id"]
    return found


def _posted(world: World, path: str, body: Any) -> Any:
    """Post until the server's own database is not locked: it answers 503 while it is."""
    url, auth = world.url + path, world.project.sign_in
    return until(lambda: answer.json() if (answer := ask("POST", url, json=body, auth=auth)).is_success else None)


def _end(world: World, run: str, type_: str, name: str, message: str = "") -> None:
    for state in ({"type": "RUNNING"}, {"type": type_, "name": name, "message": message}):
        _posted(world, f"/flow_runs/{run}/set_state", {"state": state, "force": True})


@pytest.mark.rows("SC-22")
@pytest.mark.usefixtures("settings")
def test_runs_that_break_down_are_told(world: World) -> None:
    """A crash, and a failure before the engine, reach the client's and the global recipients; nothing else does."""
    _end(world, _run_in(world, "tiny"), "SCHEDULED", "Late")
    _end(world, _run_in(world, "tiny"), "FAILED", "Failed", "12 of 40 failed")
    _end(world, _run_in(world, "tiny"), "COMPLETED", "Completed")
    _end(world, _run_in(world, "tiny"), "CRASHED", "Crashed", "No heartbeat for 90 s")
    until(lambda: world.mails_to(OPS) and world.mails_to(TEAM))
    _end(world, _run_in(world, "tiny"), "CRASHED", "Crashed", "again")
    _end(world, _run_in(world, "tiny"), "FAILED", "Failed", "Flow run encountered an exception: KeyError: 'tok-5b7a'")
    until(lambda: len(world.mails_to(OPS)) == 2 and len(world.mails_to(TEAM)) == 2)
    time.sleep(1)
    crashed, failed = (mail.get_content() for mail in world.mails_to(TEAM))
    assert world.mails_to(TEAM)[0]["Subject"].endswith(": Crashed")
    assert "of tiny ended as Crashed: No heartbeat for 90 s" in crashed
    assert "/runs/flow-run/" in crashed
    assert "Flow run encountered an exception: KeyError\n" in failed.replace("\r", ""), "nothing of its text"
    assert len(world.mails_to(OPS)) == 2, "and the second crash of the hour is no news"


@pytest.mark.rows("SC-22")
@pytest.mark.usefixtures("settings")
def test_a_run_by_hand_that_crashes_is_told(world: World) -> None:
    """What `syncs run` makes is in no work queue: its tag says whose it is, and its heartbeat that it lives."""
    flow = next(one for one in world.project.find("flows") if one["name"] == "sync")
    for client in ("tiny", "other"):
        body = {"flow_id": flow["id"], "name": f"{client}.things", "tags": [f"sync-clients.by-hand.{client}"]}
        _end(world, _posted(world, "/flow_runs/", body)["id"], "CRASHED", "Crashed", "No heartbeat for 90 s")
    until(lambda: world.mails_to(OPS) and world.mails_to(TEAM))
    time.sleep(1)
    (mail,) = world.mails_to(TEAM)
    assert len(world.mails_to(OPS)) == 1
    assert "tiny.things that `syncs run` began ended as Crashed: No heartbeat for 90 s" in mail.get_content()


def test_a_client_can_be_called_everybody() -> None:
    """No two automations have one name, whatever a client is called."""
    hear = ["https://hooks.example.org/x"]
    made = alerts.alerts(Registry(clients={"everybody": _client("everybody"), "a": _client("a")}), {"error": hear})
    assert len({one.name for one in made}) == len(made)


@pytest.mark.rows("SC-22")
@pytest.mark.usefixtures("settings")
def test_a_pool_without_worker_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that nobody would start are told when no worker came back in time; a restarted worker is no news."""
    from datetime import timedelta

    monkeypatch.setattr(alerts, "WORKERLESS", timedelta(seconds=10))
    hook = world.hook.url(PATH)
    with _declared(world, _client("brief", error=[hook]), error=[hook]):
        time.sleep(1)

        def tell(status: str, number: str) -> None:
            pool = {"prefect.resource.id": f"prefect.work-pool.{number}", "prefect.resource.name": "syncs"}
            event = {"id": str(event_id(_message(status + number))), "event": f"prefect.work-pool.{status}", "resource": pool}
            event["occurred"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            assert ask("POST", f"{world.url}/events", json=[event], auth=world.project.sign_in).is_success

        pool = ask("GET", f"{world.url}/work_pools/syncs", auth=world.project.sign_in).json()["id"]
        tell("not-ready", str(event_id(_message("another"))))
        tell("ready", str(event_id(_message("another"))))
        tell("not-ready", pool)
        (post,) = until(lambda: world.hook.posts)
        assert (post["event"], post["level"], post["pool"]) == ("no-worker", "error", "syncs")
        assert "prefect worker start --pool syncs" in post["text"]
        time.sleep(2)
        assert len(world.hook.posts) == 1
    world.project.syncs("setup")


def _open_shut(world: World) -> None:
    """Let the client `shut` be open, with nothing left to say about it."""
    if world.project.syncs("resume", "shut")["resumed"]:
        until(lambda: world.mails_to(TEAM))
    world.clear()


@pytest.mark.rows("SC-22", "SC-24")
@pytest.mark.usefixtures("settings")
def test_the_trouble_of_a_run_reaches_people(world: World) -> None:
    """A refused sign-in pauses the client: one mail within seconds, with the link to the run; a resume closes it with another."""
    _open_shut(world)
    out, err = world.project.start("run", "shut.doors", "--json").communicate(timeout=HANG)
    run = json.loads(out)
    assert run["state"] == "paused", err
    [mail] = until(lambda: world.mails_to(TEAM))
    [pause] = world.project.syncs("pauses")
    began = datetime.fromisoformat(pause["started_at"]).timestamp()
    # On its way within five seconds, says the aim; this machine has other things to do.
    print(f"on its way {world.mailbox.at[-1] - began:.2f} s after the pause began")
    assert world.mailbox.at[-1] - began < 60
    assert mail["X-Sync-Clients-Level"] == "error"
    assert "shut" in mail["Subject"]
    text = mail.get_content()
    assert "shut.doors" in text
    assert "syncs resume shut" in text
    assert "/runs/flow-run/" in text, "where to look"
    [flow_run] = [one for one in world.project.find("flow_runs") if one["name"] == "shut.doors"]
    assert "sync-clients.by-hand.shut" in flow_run["tags"]
    beats = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{flow_run['id']}"]}}
    assert until(lambda: world.project.find("events", filter=beats)), "or its crash would never be seen"
    events = world.project.find(
        "events", filter={"event": {"name": ["sync.client.paused"]}, "any_resource": {"id": ["sync.client.shut"]}}
    )
    assert events

    world.project.syncs("resume", "shut")
    until(lambda: len(world.mails_to(TEAM)) == 2)
    time.sleep(1)
    assert [mail["X-Sync-Clients-Level"] for mail in world.mails_to(TEAM)] == ["error", "error"]

    def told() -> Any:
        return world.project.syncs("notices", "shut")

    def are_sent() -> bool:
        if {(one["state"], one["via"]) for letter in told() for one in letter["deliveries"]} == {("sent", "prefect")}:
            return True
        # A confirmation that a busy server gave too late: the next process sends it again.
        world.project.syncs("maintain")
        return False

    until(are_sent)
    assert PASSWORD not in json.dumps(told())


@pytest.mark.rows("E-98")
@pytest.mark.usefixtures("settings")
def test_a_mail_server_that_comes_back(world: World) -> None:
    """What did not go out is sent later, by two processes at once: once. The sync does not notice."""
    _open_shut(world)
    world.mailbox.down()
    try:
        out, err = world.project.start("run", "shut.doors", "--json").communicate(timeout=HANG)
        assert json.loads(out)["state"] == "paused", err
    finally:
        world.mailbox.up()
    database = world.project.folder / "syncs.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        waiting = connection.execute("SELECT masked, error FROM delivery WHERE state = 'waiting'").fetchall()
        assert [masked for masked, _ in waiting] == [TEAM]
        assert "Connection refused" in waiting[0][1]
        connection.execute("UPDATE delivery SET next_at = '2026-01-01 00:00:00' WHERE state = 'waiting'")
    assert world.mailbox.mails == []
    both = [world.project.start("maintain", "--json") for _ in range(2)]
    said = [one.communicate(timeout=HANG) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    until(lambda: world.mails_to(TEAM))
    time.sleep(1)
    assert len(world.mails_to(TEAM)) == 1
