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
_HEADERS = ("CLIENT", "SETTINGS", "CONNECTION", "PAGES", "ENTITIES", "RATE", "VALIDATORS", "SKEW", "TLS", "REDIRECTS", "TIME")
_ALWAYS = ("CLIENT", "SETTINGS", "CONNECTION", "TIME")


@click.command("check", cls=Command, short_help="Try settings, connection and two pages of each client.")
@click.argument("clients", nargs=-1, metavar="[CLIENT]...", shell_complete=complete_clients)
def check(clients: tuple[str, ...]) -> Answer:
    """Explain each client, or those named: settings, connection, two pages, rate headers, ETag, clock, TLS, redirects.

    Sends at most 4 requests to each, besides those for the documents of a WSDL. What went wrong, and what is off without
    being wrong, stands below the table; columns without anything in them are left out.

    Exits 1 when a client fails, 2 when a file is broken.

    \b
    Example:
      syncs check
      syncs check petstore --json
    """
    from flows.checkup import check_client
    from flows.recipients import problems

    registry = declared()
    chosen = [registry.client(name) for name in dict.fromkeys(clients)] or list(registry.clients.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        checks = list(pool.map(lambda client: check_client(client, registry), chosen))
    for one in checks:
        one.message = one_line(one.message, limit=1000 if one.settings == "FAIL" else 200)
    lines = [_table(checks)] if checks else []
    lines += [f"{one.client}: {text}" for one in checks for text in (one.message, *map(one_line, one.warnings)) if text]
    untold = problems(chosen)
    lines += untold
    notes = tuple(map(str, registry.broken))
    if not checks and not registry.broken:
        notes = ("no client is declared; write a file in syncs/, or name files and folders in SYNCS_PATH",)
    code = 2 if registry.broken else 0 if all(one.ok for one in checks) and not untold else 1
    return Answer({"checks": checks, "broken": registry.broken, "recipients": untold}, "\n".join(lines), notes, code)


def _table(checks: "list[Check]") -> str:
    rows = [_row(one) for one in checks]
    shown = [i for i, name in enumerate(_HEADERS) if name in _ALWAYS or any(row[i] is not None for row in rows)]
    return table([_HEADERS[i] for i in shown], ([row[i] for i in shown] for row in rows))


def _row(one: "Check") -> tuple[Any, ...]:
    return (
        one.client, one.settings, one.connection, _pages(one), one.entities, _rate(one), _validators(one), _skew(one), _tls(one),
        one.redirects, f"{one.seconds:.2f} s",
    )  # fmt: skip


def _pages(one: "Check") -> str | None:
    if one.pages is None:
        return None
    seen = {"differs": "which differ", "same": "both the same", "empty": "the second is empty", None: None}[one.second_page]
    how = {"end": "no more", "more": "more follow", None: None}.get(one.ended, one.ended)
    return ", ".join(part for part in (str(one.pages), seen, how) if part)


def _skew(one: "Check") -> str | None:
    if one.skew_seconds is None:
        return None
    # An answer's `Date` has whole seconds: what is less is none.
    return "0 s" if abs(one.skew_seconds) < 1.5 else f"{one.skew_seconds:+.0f} s"


def _rate(one: "Check") -> str | None:
    if one.rate is None:
        return None
    left, limit, soon = (one.rate[name] for name in ("remaining", "limit", "resets_in"))
    text = f"{'?' if left is None else f'{left:g}'}/{'?' if limit is None else f'{limit:g}'}"
    return text if soon is None else f"{text}, full in {soon:.0f} s"


def _validators(one: "Check") -> str | None:
    if one.validators is None:
        return None
    if not one.validators:
        return "none"
    said = {True: ": 304", False: ", but no 304", None: ""}[one.not_modified]
    return f"{' and '.join(one.validators)}{said}"


def _tls(one: "Check") -> str | None:
    if one.tls is None:
        return None
    days = one.tls["days_left"]
    return one.tls["version"] if days is None else f"{one.tls['version']}, {days} day{'' if days == 1 else 's'}"
