"""`syncs pause`, `resume` and `pauses`: a client is held by a person, let go again, and looked at."""

import getpass
import re
from contextlib import closing

import click

from flows.cli.answer import Answer, moment, table
from flows.cli.command import Command
from flows.cli.declared import complete_clients, declared
from flows.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `15m`, `2h` or `1d`; a plain number is seconds.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no duration; write 90s, 15m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2] or "s"]


@click.command("pause", cls=Command, short_help="Hold a client.")
@click.argument("client", shell_complete=complete_clients)
@click.option("--for", "duration", metavar="TIME", help="How long: 90s, 15m, 2h, 1d. Without it, until `syncs resume`.")
@click.option("--reason", default="", help="One line for whoever wonders.")
def pause(client: str, duration: str | None, reason: str) -> Answer:
    """Hold a client: none of its jobs is claimed and none of its syncs lists, on any machine. Jobs in hand are finished.

    \b
    Example:
      syncs pause petstore --for 2h --reason "they move house"
    """
    from flows.settings import open_store

    declared().client(client)
    when = None if duration is None else seconds_of(duration)
    with closing(open_store()) as store:
        held = store.pause(client, when, cause="person", reason=reason or "paused by hand", set_by=getpass.getuser())
    until = "until `syncs resume`" if held.until is None else f"until {moment(held.until)}"
    return Answer({"client": client, "paused_until": held.until, "reason": held.reason}, f"{client} is paused {until}")


@click.command("resume", cls=Command, short_help="Let a client go on.")
@click.argument("client", shell_complete=complete_clients)
def resume(client: str) -> Answer:
    """End the pause of a client, whatever its cause. Its jobs are claimed from now on.

    \b
    Example:
      syncs resume petstore
    """
    from flows.settings import open_store

    declared().client(client)
    with closing(open_store()) as store:
        resumed = store.resume(client, by=getpass.getuser())
    return Answer({"client": client, "resumed": resumed}, f"{client} {'goes on' if resumed else 'was not paused'}")


@click.command("pauses", cls=Command, short_help="List the pauses in force.")
def pauses() -> Answer:
    """List the pauses in force: whom, since when, until when, why.

    \b
    Example:
      syncs pauses --json
    """
    from flows.settings import open_store

    with closing(open_store()) as store:
        found = store.pauses()
    rows = [(one.client, one.started_at, one.until or "until resumed", one.cause, one.level, one.reason) for one in found]
    document = [
        {
            "client": one.client, "started_at": one.started_at, "paused_until": one.until, "cause": one.cause,
            "level": one.level, "reason": one.reason,
        }
        for one in found
    ]  # fmt: skip
    text = table(("CLIENT", "SINCE", "UNTIL", "CAUSE", "LEVEL", "REASON"), rows) if rows else ""
    return Answer(document, text, () if rows else ("no client is paused",))
