"""`syncs check`: explains each client in one table. The examining itself is in `flows.checkup`."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from flows.cli.answer import Answer, one_line, table
from flows.cli.command import Command
from flows.cli.declared import complete_clients, declared

if TYPE_CHECKING:
    from flows.checkup import Check

_AT_ONCE = 8
_HEADERS = (
    "CLIENT", "SETTINGS", "CONNECTION", "PAGES", "ENTITIES", "RATE", "VALIDATORS", "SKEW", "TLS", "REDIRECTS", "TIME", "MESSAGE",
)  # fmt: skip


@click.command("check", cls=Command, short_help="Try settings, connection and two pages of each client.")
@click.argument("clients", nargs=-1, metavar="[CLIENT]...", shell_complete=complete_clients)
def check(clients: tuple[str, ...]) -> Answer:
    """Explain each client, or those named: settings, connection, two pages, rate headers, ETag, clock, TLS, redirects.

    Sends at most 4 requests to each. Exits 1 when a client fails, 2 when a file is broken.

    \b
    Example:
      syncs check
      syncs check petstore --json
    """
    from flows.checkup import check_client

    registry = declared()
    chosen = [registry.client(name) for name in dict.fromkeys(clients)] or list(registry.clients.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        checks = list(pool.map(lambda client: check_client(client, registry), chosen))
    for one in checks:
        one.message = one_line(one.message, limit=1000 if one.settings == "FAIL" else 200)
    lines = [table(_HEADERS, map(_row, checks))] if checks else []
    lines += [one_line(f"{one.client}: {warning}") for one in checks for warning in one.warnings]
    notes = tuple(map(str, registry.broken))
    if not checks and not registry.broken:
        notes = ("no client is declared; write a file in syncs/, or name files and folders in SYNCS_PATH",)
    code = 2 if registry.broken else 0 if all(one.ok for one in checks) else 1
    return Answer({"checks": checks, "broken": registry.broken}, "\n".join(lines), notes, code)


def _row(one: "Check") -> tuple[Any, ...]:
    return (
        one.client, one.settings, one.connection, _pages(one), one.entities, _rate(one), _validators(one),
        None if one.skew_seconds is None else f"{one.skew_seconds:+.0f} s", _tls(one), one.redirects, f"{one.seconds:.2f} s",
        one.message,
    )  # fmt: skip


def _pages(one: "Check") -> str | None:
    if one.pages is None:
        return None
    parts = (str(one.pages), one.second_page, one.ended)
    return ", ".join(part for part in parts if part)


def _rate(one: "Check") -> str | None:
    if one.rate is None:
        return None
    left, limit, soon = (one.rate[name] for name in ("remaining", "limit", "resets_in"))
    text = f"{'?' if left is None else f'{left:g}'}/{'?' if limit is None else f'{limit:g}'}"
    return text if soon is None else f"{text}, full in {soon:.0f} s"


def _validators(one: "Check") -> str | None:
    if one.requests is None or one.pages is None:
        return None
    if not one.validators:
        return "none"
    said = {True: ": 304", False: ", but no 304", None: ""}[one.not_modified]
    return f"{' and '.join(one.validators)}{said}"


def _tls(one: "Check") -> str | None:
    if one.tls is None:
        return None
    days = one.tls["days_left"]
    return one.tls["version"] if days is None else f"{one.tls['version']}, {days} days"
