"""`syncs locks`: named locks, who holds them, and the way out when nobody who does is left."""

from contextlib import closing
from dataclasses import asdict

import click

from flows.cli.answer import Answer, table
from flows.cli.command import Command
from flows.errors import UnknownName


@click.command("locks", cls=Command, short_help="List named locks, or break one.")
@click.option("--break", "broken", metavar="NAME", help="Take this lock from whoever holds it.")
def locks(broken: str | None) -> Answer:
    """List the named locks that are held: by whom, since when, until when unless renewed.

    --break takes one away. Its holder is told at its next renewal; a lock of a process that died on this host need not be
    broken, it is free at once.

    \b
    Example:
      syncs locks
      syncs locks --break nightly-import
    """
    from flows.settings import open_store
    from jobs.lock import stored

    with closing(open_store()) as store:
        if broken is not None:
            if all(stored(broken) != one.name and broken != one.name for one in store.locks.all()):
                raise UnknownName(f"no lock is called {broken!r}; `syncs locks` lists those that are held")
            taken = store.locks.take_away(broken)
            return Answer({"name": broken, "broken": taken}, f"{broken} is {'free now' if taken else 'not held by anybody'}")
        held = [one for one in store.locks.all() if one.held]
    rows = [(one.name, one.owner, one.acquired_at, one.lease_until, one.token) for one in held]
    text = table(("LOCK", "HELD BY", "SINCE", "UNTIL", "TOKEN"), rows) if rows else ""
    return Answer([asdict(one) for one in held], text, () if rows else ("no lock is held",))
