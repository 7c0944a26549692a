"""`syncs pause`, `resume` and `pauses`: clients are held by a person, let go again, and looked at; also what was before."""

import getpass
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import click

from flows.cli.answer import Answer, moment, table
from flows.cli.command import Command
from flows.cli.declared import complete_clients, declared
from flows.errors import UsageError

if TYPE_CHECKING:
    from flows.declaration import Client
    from flows.registry import Registry
    from jobs.history import PauseView
    from jobs.store import JobStore

_LISTED = 100
"""Pauses in a history."""

_CLIENTS = 10_000

_PATIENCE = 10.0
"""Seconds in which a server that answers takes a pause in; one whose database is locked for a moment needs some of them."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `15m`, `2h` or `1d`; a plain number is seconds.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    seconds = 0.0 if found is None else float(found[1]) * _UNITS[found[2] or "s"]
    if found is None or not seconds:
        raise UsageError(f"{text!r} is no duration; write 90s, 15m, 2h or 1d")
    return seconds


@click.command("pause", cls=Command, short_help="Hold a client.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--for", "duration", metavar="TIME", help="How long: 90s, 15m, 2h, 1d. Without it, until `syncs resume`.")
@click.option("--reason", default="", help="One line for whoever wonders.")
@click.option("--all", "everyone", is_flag=True, help="All clients that are declared.")
def pause(client: str | None, duration: str | None, reason: str, everyone: bool) -> Answer:
    """Hold a client: none of its jobs is claimed and none of its syncs lists, on any machine. Jobs in hand are finished.

    Where a Prefect server answers, its work queue there is paused too.

    \b
    Example:
      syncs pause petstore --for 2h --reason "they move house"
    """
    from flows.settings import open_store
    from flows.told import Told

    registry = declared()
    names = _chosen(registry, client, everyone)
    when, who = None if duration is None else seconds_of(duration), _who()
    documents, lines = [], []
    # What is sent meanwhile need not be waited for twice.
    with closing(open_store()) as store, Told(store, registry) as told:
        for name in names:
            held = store.pause(name, when, cause="person", reason=reason or "paused by hand", set_by=who)
            # A person's pause is never taken for a late answer.
            assert held is not None
            told.paused(registry.clients[name], held)
            documents.append({"client": name, "paused_until": held.until, "reason": held.reason})
            until = "until `syncs resume`" if held.until is None else f"until {moment(held.until)}"
            lines.append(f"{name} is paused {until}")
        notes = _show(store, registry.clients, names)
    return Answer(documents if everyone else documents[0], "\n".join(lines), notes)


@click.command("resume", cls=Command, short_help="Let a client go on.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--all", "everyone", is_flag=True, help="All clients that are declared.")
def resume(client: str | None, everyone: bool) -> Answer:
    """End the pause of a client, whatever its cause. Its jobs are claimed from now on, without a probe first.

    Where a Prefect server answers, its work queue there goes on too: of the runs that its schedules made meanwhile, the newest
    of each deployment stays.

    \b
    Example:
      syncs resume petstore
    """
    from flows.settings import open_store
    from flows.told import Told

    registry = declared()
    who = _who()
    documents, lines = [], []
    with closing(open_store()) as store:
        left_over = _left_over(store, registry, None if everyone else client)
        clients, names = {**registry.clients, **left_over}, list(left_over) or _chosen(registry, client, everyone)
        # What is sent meanwhile need not be waited for twice.
        with Told(store, registry, clients=clients.values()) as told:
            for name in names:
                resumed = store.resume(name, by=who)
                if resumed:
                    told.resumed(clients[name], by=who)
                documents.append({"client": name, "resumed": resumed})
                lines.append(f"{name} {'goes on' if resumed else 'was not paused'}")
            notes = _show(store, clients, names)
    return Answer(documents if everyone else documents[0], "\n".join(lines), notes)


@click.command("pauses", cls=Command, short_help="List pauses.")
@click.argument("client", required=False, shell_complete=complete_clients)
@click.option("--history", "--all", "history", is_flag=True, help=f"Also those that have ended: the last {_LISTED}.")
def pauses(client: str | None, history: bool) -> Answer:
    """List the clients that are held: whom, since when, until when, why.

    `paused` lasts until then. `reopening` has run out: one request goes first, and the client goes on when that is answered
    well; `probing` is that request under way.

    \b
    Example:
      syncs pauses --json
      syncs pauses petstore --history
    """
    from flows.settings import open_store

    with closing(open_store()) as store:
        # A client has one open pause at most.
        found = store.pause_history(client, limit=_LISTED if history else _CLIENTS, open_only=not history)
    if not history:
        found.sort(key=lambda one: one.client)
    document = [_document(one) for one in found]
    if history:
        headers: Sequence[str] = (
            "CLIENT",
            "STATE",
            "CAUSE",
            "LEVEL",
            "BY",
            "FROM",
            "UNTIL",
            "ENDED",
            "ENDED BY",
            "PROBES",
            "REASON",
        )
        rows: list[tuple[Any, ...]] = [
            (
                one.client, one.state, one.cause, one.level, one.set_by, one.started_at, one.until or "until resumed",
                one.ended_at, one.ended_by, one.probes, one.reason,
            )
            for one in found
        ]  # fmt: skip
    else:
        headers = ("CLIENT", "STATE", "SINCE", "UNTIL", "CAUSE", "LEVEL", "BY", "PROBES", "REASON")
        rows = [
            (
                one.client, one.state, one.started_at, one.until or "until resumed", one.cause, one.level, one.set_by,
                one.probes, one.reason,
            )
            for one in found
        ]  # fmt: skip
    whom = f"{client} is not" if client else "no client is"
    nothing = f"{whom} paused" + (", nor was it as far as is known" if history else "")
    return Answer(document, table(headers, rows) if rows else "", () if rows else (nothing,))


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "a person"


def _chosen(registry: "Registry", client: str | None, everyone: bool) -> list[str]:
    if (client is None) is not everyone:
        raise UsageError("name one client, or say --all")
    return list(registry.clients) if client is None else [registry.client(client).id]


def _left_over(store: "JobStore", registry: "Registry", name: str | None) -> dict[str, "Client"]:
    """Return a client that no file declares any more and that is still paused: nobody else would let it go."""
    if name is None or name in registry.clients:
        return {}
    standing = store.standing(name)
    if standing.pausing is None and standing.reopening is None:
        return {}
    from flows.declaration import Client

    return {name: Client(name, connect=lambda _: nullcontext())}


def _show(store: "JobStore", clients: "Mapping[str, Client]", names: Iterable[str]) -> tuple[str, ...]:
    """Let the work queues follow, if a Prefect server is configured; the pause itself is done by now."""
    from flows.cli.route import find_route
    from flows.orchestration.watch import look_soon

    route = find_route()
    if route.url is None:
        return ()
    if not route.through_prefect:
        return (f"{route.why_not}: work queues follow later",)
    if look_soon(store, clients, url=route.url, only=set(names), within=_PATIENCE) is None:
        return ("the Prefect server does not take it in: work queues follow later",)
    return ()


def _document(one: "PauseView") -> dict[str, Any]:
    return {
        "client": one.client, "started_at": one.started_at, "paused_until": one.until, "cause": one.cause, "level": one.level,
        "reason": one.reason, "id": one.id, "state": one.state, "set_by": one.set_by, "ended_at": one.ended_at,
        "ended_by": one.ended_by, "probes": one.probes,
    }  # fmt: skip
