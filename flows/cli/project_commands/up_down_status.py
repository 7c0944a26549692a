"""`syncs up`, `down` and `status`: the Prefect server and worker of this project. `flows.orchestration.server` does the work."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flows.cli.command import Command, note
from flows.cli.declared_names import read_declarations, warn_of_broken
from flows.cli.output import CommandOutput
from flows.cli.prefect_api import PrefectApi, find_prefect_api
from flows.cli.project_commands.setup import changes_table
from flows.time_text import relative_text

if TYPE_CHECKING:
    from flows.orchestration.server import Status


@click.command("up", cls=Command, short_help="Start a Prefect server and worker for this project.")
@click.option("--port", type=click.IntRange(1, 65535), default=4200, show_default=True, help="Port of the server on 127.0.0.1.")
def up(port: int) -> CommandOutput:
    """Start a Prefect server and a worker for this project in the background, on loopback only.

    Applies work pool, deployments and automations. A server or worker that runs already is left running.

    \b
    Example:
      syncs up
      syncs up --port 4300
    """
    from flows.orchestration.server import status, up

    if not status().server:
        note("starting Prefect, which takes some seconds")
    registry = read_declarations()
    warn_of_broken(registry)
    if not (registry.syncs or registry.job_types or registry.broken):
        note("nothing is declared, so nothing will run; `syncs init` writes an example")
    found = up(port)
    is_asked = click.get_current_context().get_parameter_source("port") is ParameterSource.COMMANDLINE
    if not found.started and is_asked and found.port != port:
        note(f"it keeps port {found.port}; for port {port}: syncs down, then syncs up --port {port}")
    first = "started" if found.started else "runs already"
    lines = [f"Prefect {first}: {found.ui}"]
    lines.append(_sign_in_text(found))
    if found.applied:
        lines.append(changes_table(found.applied))
    lines.append("`syncs run SYNC` goes through it now; `syncs down` stops it.")
    return CommandOutput(_document(found), "\n".join(lines), found.notes)


@click.command("down", cls=Command, short_help="Stop what `syncs up` started.")
def down() -> CommandOutput:
    """Stop the worker and the server that `syncs up` started. Running flow runs put their jobs back first.

    \b
    Example:
      syncs down
    """
    from flows.orchestration.server import down

    before = down()
    stopped = [name for name in ("worker", "server") if getattr(before, name)]
    text = f"stopped: {', '.join(stopped)}" if stopped else "nothing was running"
    return CommandOutput({"stopped": stopped}, text)


@click.command("status", cls=Command, short_help="Show what runs.")
def status() -> CommandOutput:
    """Show whether a Prefect server and worker run for this project, and which server `syncs run` would use.

    \b
    Example:
      syncs status --json
    """
    from flows.orchestration.server import status

    found = status()
    prefect = find_prefect_api()
    server = (
        f"runs at {found.ui}, process {found.server_pid}{_age_text(found.since)}"
        if found.server
        else "not running; `syncs up` starts it"
    )
    worker = f"runs, process {found.worker_pid}" if found.worker else "not running"
    lines = [f"server  {server}", f"worker  {worker}", f"runs    {_route_text(prefect)}"]
    return CommandOutput({**_document(found), "api_url": prefect.url, "answers": prefect.answers}, "\n".join(lines))


def _sign_in_text(found: "Status") -> str:
    """Return how to sign in with a browser. A terminal is shown the auth string itself; what is no terminal may be a log."""
    from pathlib import Path

    from flows.project.prefect_auth import read_auth_string

    auth_string = read_auth_string(Path(found.auth_file).parent) if found.auth_file and sys.stdout.isatty() else None
    return f"Sign in there with: {auth_string}" if auth_string else f"Sign in there with what stands in {found.auth_file}"


def _age_text(since: str | None) -> str:
    """Return how long ago the server was started, as other tables show ages."""
    return "" if since is None else f", started {relative_text(datetime.fromisoformat(since), now=datetime.now(UTC))}"


def _route_text(prefect: PrefectApi) -> str:
    return f"through Prefect at {prefect.url}" if prefect.answers else f"straight through the engine: {prefect.problem}"


def _document(found: "Status") -> dict[str, Any]:
    return {**asdict(found), "ui": found.ui}
