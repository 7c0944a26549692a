"""`syncs check`: shows the check of each client in one table. `flows.checks.client_check` does the work."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command
from flows.cli.declared_names import complete_clients, read_declarations
from flows.cli.output import CommandOutput, first_line, table

if TYPE_CHECKING:
    from flows.checks.check_result import CheckResult

_THREADS = 8
_HEADERS = ("CLIENT", "SETTINGS", "CONNECTION", "PAGES", "ENTITIES", "RATE", "VALIDATORS", "SKEW", "TLS", "REDIRECTS", "TIME")
_ALWAYS = ("CLIENT", "SETTINGS", "CONNECTION", "TIME")


@click.command("check", cls=Command, short_help="Try settings, connection and two pages of each client.")
@click.argument("clients", nargs=-1, metavar="[CLIENT]...", shell_complete=complete_clients)
def check(clients: tuple[str, ...]) -> CommandOutput:
    """Check each client, or those named: settings, connection, two pages, rate headers, ETag, clock, TLS, redirects.

    Lists the first page of each sync and fetches an entity of it, and stores nothing. Sends at most 4 requests for pages, besides
    those for the documents of a WSDL, and 3 for entities. Errors and warnings are listed below the table; empty columns are
    left out.

    Exits 1 when a client fails or a recipient cannot be used, 2 when a file is broken.

    \b
    Example:
      syncs check
      syncs check petstore --json
    """
    from flows.checks.client_check import check_client
    from flows.notices.recipients import problems

    registry = read_declarations()
    chosen = [registry.client(name) for name in dict.fromkeys(clients)] or list(registry.clients.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        checks = list(pool.map(lambda client: check_client(client, registry), chosen))
    for one in checks:
        one.message = first_line(one.message, limit=1000 if one.settings == "FAIL" else 200)
    lines = [_table(checks)] if checks else []
    lines += [f"{one.client}: {text}" for one in checks for text in (one.message, *map(first_line, one.warnings)) if text]
    unusable = problems(chosen)
    lines += unusable
    notes = tuple(map(str, registry.broken))
    if not checks and not registry.broken:
        notes = ("no client is declared; write a file in syncs/, or name files and folders in SYNCS_PATH",)
    code = 2 if registry.broken else 0 if all(one.ok for one in checks) and not unusable else 1
    return CommandOutput({"checks": checks, "broken": registry.broken, "recipients": unusable}, "\n".join(lines), notes, code)


def _table(checks: "list[CheckResult]") -> str:
    rows = [_row(one) for one in checks]
    shown = [i for i, name in enumerate(_HEADERS) if name in _ALWAYS or any(row[i] is not None for row in rows)]
    return table([_HEADERS[i] for i in shown], ([row[i] for i in shown] for row in rows))


def _row(one: "CheckResult") -> tuple[Any, ...]:
    return (
        one.client,
        one.settings,
        one.connection,
        _pages(one),
        one.entities,
        _rate(one),
        _validators(one),
        _skew(one),
        _tls(one),
        one.redirects,
        f"{one.seconds:.2f} s",
    )


def _pages(one: "CheckResult") -> str | None:
    if one.pages is None:
        return None
    seen = {"differs": "which differ", "same": "both the same", "empty": "the second is empty", None: None}[one.second_page]
    how = {"end": "no more", "more": "more follow", None: None}.get(one.ended, one.ended)
    return ", ".join(part for part in (str(one.pages), seen, how) if part)


def _skew(one: "CheckResult") -> str | None:
    if one.skew_seconds is None:
        return None
    # The `Date` header has whole seconds, so less than that is no skew.
    return "0 s" if abs(one.skew_seconds) < 1.5 else f"{one.skew_seconds:+.0f} s"


def _rate(one: "CheckResult") -> str | None:
    if one.rate is None:
        return None
    left, limit, soon = (one.rate[name] for name in ("remaining", "limit", "resets_in"))
    text = f"{'?' if left is None else f'{left:g}'}/{'?' if limit is None else f'{limit:g}'}"
    return text if soon is None else f"{text}, full in {soon:.0f} s"


def _validators(one: "CheckResult") -> str | None:
    if one.validators is None:
        return None
    if not one.validators:
        return "none"
    said = {True: ": 304", False: ", but no 304", None: ""}[one.not_modified]
    return f"{' and '.join(one.validators)}{said}"


def _tls(one: "CheckResult") -> str | None:
    if one.tls is None:
        return None
    days = one.tls["days_left"]
    return one.tls["version"] if days is None else f"{one.tls['version']}, {days} day{'' if days == 1 else 's'}"
