"""`syncs locks`: lists the named locks and their holders, and breaks one."""

from contextlib import closing
from dataclasses import asdict

import click

from flows.cli.command import Command
from flows.cli.output import CommandOutput, table
from flows.errors import UnknownName
from flows.time_text import relative_text


@click.command("locks", cls=Command, short_help="List named locks, or break one.")
@click.option("--break", "broken", metavar="NAME", help="Take this lock away from its holder.")
def locks(broken: str | None) -> CommandOutput:
    """List the named locks that are held: by whom, since when, and until when unless renewed.

    --break takes one away; its holder finds out at the next renewal. A lock of a process that died on this host is free at once
    and need not be broken.

    \b
    Example:
      syncs locks
      syncs locks --break nightly-import
    """
    from flows.project.settings import open_store
    from jobs.locks import stored_name

    with closing(open_store()) as store:
        if broken is not None:
            if all(stored_name(broken) != one.name and broken != one.name for one in store.locks.all()):
                raise UnknownName(f"no lock is called {broken!r}; `syncs locks` lists those that are held")
            taken = store.locks.break_lock(broken)
            return CommandOutput(
                {"name": broken, "broken": taken}, f"{broken} is {'free now' if taken else 'not held by anybody'}"
            )
        held, now = [one for one in store.locks.all() if one.held], store.views.now()
    rows = [
        (one.name, one.owner, relative_text(one.acquired_at, now=now), relative_text(one.lease_until, now=now), one.token)
        for one in held
    ]
    text = table(("LOCK", "HELD BY", "SINCE", "UNTIL", "TOKEN"), rows) if rows else ""
    return CommandOutput([asdict(one) for one in held], text, () if rows else ("no lock is held",))
