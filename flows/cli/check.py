"""`syncs check`: asks each client for settings, a connection and a first page. One client's trouble stops no other."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import click

from flows.cli.answer import Answer, one_line, table
from flows.cli.command import Command
from flows.cli.declared import complete_clients, declared
from flows.declaration import Client
from flows.errors import SettingsError
from flows.mask import Mask
from flows.registry import Registry

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Check:
    """What became of the check of one client."""

    client: str
    ok: bool
    #: ok, FAIL, or - where it was not reached.
    settings: str
    connection: str
    #: Entities on the first page; `None` where the client has a check of its own.
    entities: int | None
    seconds: float
    message: str


@click.command("check", cls=Command, short_help="Try settings, connection and first page of each client.")
@click.argument("clients", nargs=-1, metavar="[CLIENT]...", shell_complete=complete_clients)
def check(clients: tuple[str, ...]) -> Answer:
    """Try settings, connection and first page of each client, or of those named.

    Exits 1 when a client fails, 2 when a file is broken.

    \b
    Example:
      syncs check
      syncs check petstore --json
    """
    registry = declared()
    chosen = [registry.client(name) for name in dict.fromkeys(clients)] or list(registry.clients.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        checks = list(pool.map(lambda client: check_client(client, registry), chosen))
    rows = [(one.client, one.settings, one.connection, one.entities, f"{one.seconds:.2f} s", one.message) for one in checks]
    text = table(("CLIENT", "SETTINGS", "CONNECTION", "ENTITIES", "TIME", "MESSAGE"), rows) if rows else ""
    notes = tuple(map(str, registry.broken))
    if not rows and not registry.broken:
        notes = ("no client is declared; write a file in syncs/, or name files and folders in SYNCS_PATH",)
    code = 2 if registry.broken else 0 if all(one.ok for one in checks) else 1
    return Answer({"checks": checks, "broken": registry.broken}, text, notes, code)


def check_client(client: Client, registry: Registry) -> Check:
    """Check one client; whatever goes wrong is its message."""
    from flows.settings import client_settings

    started = time.monotonic()
    try:
        settings = client_settings(client)
    except SettingsError as error:
        return Check(client.id, False, "FAIL", "-", None, round(time.monotonic() - started, 3), one_line(str(error), limit=1000))
    entities = None
    message = ""
    try:
        with client.connect(settings) as connection:
            if client.check is not None:
                client.check(connection)
            elif syncs := registry.of_client(client.id):
                page = next(iter(syncs[0].listing(connection, None)), None)
                entities = 0 if page is None else len(page.items)
                if page is not None and page.errors:
                    message = f"{len(page.errors)} items without a key: {page.errors[0]}"
    except Exception as error:  # noqa: BLE001 - a person's code and a remote system: anything can come, and it belongs into this row
        text = one_line(Mask(settings)(str(error))) or "no message"
        if not type(error).__module__.startswith("clients."):
            text = f"{type(error).__name__}: {text}"
        return Check(client.id, False, "ok", "FAIL", None, round(time.monotonic() - started, 3), text)
    return Check(client.id, not message, "ok", "ok", entities, round(time.monotonic() - started, 3), message)
