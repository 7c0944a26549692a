"""`syncs pause`, `resume` and `pauses`: a person pauses clients, resumes them, and lists pauses and their history."""

from collections.abc import Iterable, Mapping
from contextlib import closing, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command, user_name
from flows.cli.declared_names import complete_clients, read_declarations
from flows.cli.known_names import check_client
from flows.cli.output import CommandOutput, table
from flows.errors import UsageError
from flows.time_text import moment_text, parse_duration, relative_text

if TYPE_CHECKING:
    from flows.declarations.client import Client
    from flows.project.registry import Registry
    from jobs.pauses.history import PauseView
    from jobs.store import JobStore

_HISTORY_LIMIT = 100
_OPEN_LIMIT = 10_000

_UPDATE_SECONDS = 10.0
"""Seconds to wait for the Prefect server; one whose database is locked for a moment needs some of them."""


@click.command("pause", cls=Command, short_help="Pause a client.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--for", "duration", metavar="TIME", help="How long: 90s, 15m, 2h, '1 day'. Without it, until `syncs resume`.")
@click.option("--reason", default="", help="One line that says why.")
@click.option("--all", "everyone", is_flag=True, help="All clients that are declared.")
def pause(client: str | None, duration: str | None, reason: str, everyone: bool) -> CommandOutput:
    """Pause a client: no worker claims its jobs and no run lists its syncs, on any machine. Jobs that have begun are finished.

    If a Prefect server answers, the work queue of the client is paused too.

    \b
    Example:
      syncs pause petstore --for 2h --reason "they move house"
    """
    from flows.notices.notifier import Notifier
    from flows.project.settings import open_store

    registry = read_declarations()
    names = _chosen(registry, client, everyone)
    when, who = None if duration is None else parse_duration(duration), user_name() or "a person"
    documents, lines = [], []
    # Notices are sent in the background while the work queues are updated.
    with closing(open_store()) as store, Notifier(store, registry) as notifier:
        for name in names:
            pausing = store.pauses.open(name, when, cause="person", reason=reason or "paused by hand", set_by=who)
            # `None` is only for late answers of jobs.
            assert pausing is not None
            notifier.paused(registry.clients[name], pausing)
            documents.append({"client": name, "paused_until": pausing.until, "reason": pausing.reason})
            lines.append(f"{name} is paused {_until_text(pausing.until, store.views.now())}")
        notes = _update_work_queues(store, registry.clients, names)
    return CommandOutput(documents if everyone else documents[0], "\n".join(lines), notes)


@click.command("resume", cls=Command, short_help="Resume a client.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--all", "everyone", is_flag=True, help="All clients that are declared.")
def resume(client: str | None, everyone: bool) -> CommandOutput:
    """End the pause of a client, whatever its cause. Its jobs are claimed at once, without a probe first.

    If a Prefect server answers, the work queue of the client is resumed too. Of the runs that were scheduled meanwhile, only the
    newest of each deployment is kept.

    \b
    Example:
      syncs resume petstore
    """
    from flows.notices.notifier import Notifier
    from flows.project.settings import open_store

    registry = read_declarations()
    who = user_name() or "a person"
    documents, lines = [], []
    with closing(open_store()) as store:
        undeclared = _undeclared(store, registry, None if everyone else client)
        clients, names = {**registry.clients, **undeclared}, list(undeclared) or _chosen(registry, client, everyone)
        # Notices are sent in the background while the work queues are updated.
        with Notifier(store, registry, clients=clients.values()) as notifier:
            for name in names:
                resumed = store.pauses.resume(name, by=who)
                if resumed:
                    notifier.resumed(clients[name], by=who)
                documents.append({"client": name, "resumed": resumed})
                lines.append(f"{name} {'is resumed' if resumed else 'was not paused'}")
            notes = _update_work_queues(store, clients, names)
    return CommandOutput(documents if everyone else documents[0], "\n".join(lines), notes)


@click.command("pauses", cls=Command, short_help="List pauses.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--history", "--all", "history", is_flag=True, help=f"Also those that have ended: the last {_HISTORY_LIMIT}.")
def pauses(client: str | None, history: bool) -> CommandOutput:
    """List the clients that are paused: since when, until when, and why.

    A client is `paused` until its time is over, then `reopening` until a worker sends one request to test it, and `probing`
    during that request. If the request succeeds, the client is open again.

    \b
    Example:
      syncs pauses --json
      syncs pauses petstore --history
    """
    from flows.project.settings import open_store

    with closing(open_store()) as store:
        # A client has one open pause at most.
        found, now = (
            store.pause_history.latest(client, limit=_HISTORY_LIMIT if history else _OPEN_LIMIT, open_only=not history),
            store.views.now(),
        )
        check_client(client, is_stored=bool(found or store.pause_history.latest(client, limit=1, open_only=False)))
    if not history:
        found.sort(key=lambda one: one.client)
    document = [_document(one) for one in found]
    text = (_history_table(found) if history else _open_table(found, now)) if found else ""
    whom = f"{client} is not" if client else "no client is"
    nothing = f"{whom} paused" + (", nor was it as far as is known" if history else "")
    return CommandOutput(document, text, () if found else (nothing,))


def _until_text(until: datetime | None, now: datetime) -> str:
    return "until `syncs resume`" if until is None else f"until {moment_text(until)}, {relative_text(until, now=now)}"


def _open_table(found: "Iterable[PauseView]", now: datetime) -> str:
    headers = ("CLIENT", "STATE", "SINCE", "UNTIL", "CAUSE", "LEVEL", "BY", "PROBES", "REASON")
    rows = []
    for one in found:
        until = relative_text(one.until, now=now) or "until resumed"
        since = relative_text(one.started_at, now=now)
        rows.append((one.client, one.state, since, until, one.cause, one.level, one.set_by, one.probes, one.reason))
    return table(headers, rows)


def _history_table(found: "Iterable[PauseView]") -> str:
    headers = ("CLIENT", "STATE", "CAUSE", "LEVEL", "BY", "FROM", "UNTIL", "ENDED", "ENDED BY", "PROBES", "REASON")
    rows = []
    for one in found:
        what = (one.client, one.state, one.cause, one.level, one.set_by)
        when = (one.started_at, one.until or "until resumed", one.ended_at)
        rows.append((*what, *when, one.ended_by, one.probes, one.reason))
    return table(headers, rows)


def _chosen(registry: "Registry", client: str | None, everyone: bool) -> list[str]:
    if (client is None) is not everyone:
        raise UsageError("name one client, or say --all")
    return list(registry.clients) if client is None else [registry.client(client).id]


def _undeclared(store: "JobStore", registry: "Registry", name: str | None) -> dict[str, "Client"]:
    """Return a client that is still paused though no file declares it any more; only `syncs resume` can end that pause."""
    if name is None or name in registry.clients:
        return {}
    standing = store.pauses.state(name)
    if standing.pausing is None and standing.reopening is None:
        return {}
    from flows.declarations.client import Client

    return {name: Client(name, connect=lambda _: nullcontext())}


def _update_work_queues(store: "JobStore", clients: "Mapping[str, Client]", names: Iterable[str]) -> tuple[str, ...]:
    """Update the work queues on the Prefect server, if one is configured; return notes about what failed."""
    from flows.cli.prefect_api import find_prefect_api
    from flows.orchestration.work_queues.updater import reconcile_within

    prefect = find_prefect_api()
    if prefect.url is None:
        return ()
    if not prefect.answers:
        return (f"{prefect.problem}: its work queues are updated later",)
    if reconcile_within(_UPDATE_SECONDS, store, clients, url=prefect.url, only=set(names)) is None:
        return ("the Prefect server did not answer in time: its work queues are updated later",)
    return ()


def _document(one: "PauseView") -> dict[str, Any]:
    return {
        "client": one.client,
        "started_at": one.started_at,
        "paused_until": one.until,
        "cause": one.cause,
        "level": one.level,
        "reason": one.reason,
        "id": one.id,
        "state": one.state,
        "set_by": one.set_by,
        "ended_at": one.ended_at,
        "ended_by": one.ended_by,
        "probes": one.probes,
    }
