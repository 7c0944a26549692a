"""`syncs up`, `down`, `status`, `setup`: the commands around a Prefect server. The work is in `flows.orchestration`."""

from collections.abc import Iterable
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any

import click

from flows.cli.answer import Answer, table
from flows.cli.command import Command, note
from flows.cli.route import Route, find_route
from flows.orchestration.applied import Applied

if TYPE_CHECKING:
    from flows.orchestration.server import Status


@click.command("up", cls=Command, short_help="Start a Prefect server and worker for this project.")
@click.option("--port", type=click.IntRange(1, 65535), default=4200, show_default=True, help="Of the server, on 127.0.0.1.")
def up(port: int) -> Answer:
    """Start a Prefect server and a worker for this project, in the background, on loopback only.

    Applies work pool, deployments and automations. What runs already is left running.

    \b
    Example:
      syncs up
      syncs up --port 4300
    """
    from flows.orchestration.server import status, up

    if not status().server:
        note("starting Prefect, which takes some seconds")
    found = up(port)
    first = "started" if found.started else "runs already"
    lines = [f"Prefect {first}: {found.ui}"]
    if found.applied:
        lines.append(_applied(found.applied))
    lines.append("`syncs run SYNC` goes through it now; `syncs down` stops it.")
    return Answer(_document(found), "\n".join(lines))


@click.command("down", cls=Command, short_help="Stop what `syncs up` started.")
def down() -> Answer:
    """Stop the worker and the server that `syncs up` started; running flow runs put their jobs back first.

    \b
    Example:
      syncs down
    """
    from flows.orchestration.server import down

    before = down()
    stopped = [name for name in ("worker", "server") if getattr(before, name)]
    text = f"stopped: {', '.join(stopped)}" if stopped else "nothing was running"
    return Answer({"stopped": stopped}, text)


@click.command("status", cls=Command, short_help="Show what runs.")
def status() -> Answer:
    """Show whether a Prefect server and worker run for this project, and which server `syncs run` would use.

    \b
    Example:
      syncs status --json
    """
    from flows.orchestration.server import status

    found = status()
    route = find_route()
    server = (
        f"runs at {found.ui}, process {found.server_pid}, since {found.since}"
        if found.server
        else "not running; `syncs up` starts it"
    )
    worker = f"runs, process {found.worker_pid}" if found.worker else "not running"
    lines = [f"server  {server}", f"worker  {worker}", f"runs    {_way(route)}"]
    return Answer({**_document(found), "api_url": route.url, "answers": route.through_prefect}, "\n".join(lines))


@click.command("setup", cls=Command, short_help="Make tables, deployments and automations.")
def setup() -> Answer:
    """Make the tables, and on a Prefect server the work pool, deployments and automations.

    Changes nothing that is as it should be.

    \b
    Example:
      SYNCS_DATABASE_URL=postgresql://me@db/syncs PREFECT_API_URL=http://prefect:4200/api syncs setup
    """
    from flows.cli.database import name_of, open_database
    from jobs.schema import upgrade

    with open_database() as database:
        before, after = upgrade(database)
    done = [Applied("tables", name_of(database), "unchanged" if before == after else f"version {after}")]
    route = find_route()
    notes: list[str] = []
    if route.url is not None and route.through_prefect:
        from flows.orchestration.setup import setup

        done += setup(route.url, complain=notes.append)
    else:
        notes.append(f"{route.why_not}: deployments and automations were left out")
    return Answer(
        {"database": name_of(database), "before": before, "after": after, "applied": done}, _applied(done), tuple(notes)
    )


def _way(route: Route) -> str:
    return f"through Prefect at {route.url}" if route.through_prefect else f"straight through the engine: {route.why_not}"


def _document(found: "Status") -> dict[str, Any]:
    return {**asdict(found), "ui": found.ui}


def _applied(entries: Iterable[Applied]) -> str:
    return table(("KIND", "NAME", "CHANGE"), map(astuple, entries))
