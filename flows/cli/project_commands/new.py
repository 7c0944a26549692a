"""`syncs new`: writes the file of a remote system from its URL. `flows.drafting` asks and decides."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command
from flows.cli.output import CommandOutput, table
from flows.errors import UsageError

if TYPE_CHECKING:
    from flows.drafting.draft import Draft

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


@click.command("new", cls=Command, short_help="Write the file of a remote system from its URL.")
@click.argument("name")
@click.argument("url")
@click.option("--auth", metavar="HOW", help="bearer:VAR, basic:USERVAR:PASSVAR, header:NAME:VAR or query:NAME:VAR.")
def new(name: str, url: str, auth: str | None) -> CommandOutput:
    """Ask the URL of a listing, and write syncs/NAME.py: client NAME, sync NAME.items.

    Sends at most 6 requests. Finds rows, key, version, total and paging, tries the second page, the size of a page, the record of
    one row and a filter by time, and says what is certain (seen), what is guessed and what to look at.

    \b
    --auth names variables; their values are the secrets, and go into no file:
      bearer:VAR  basic:USERVAR:PASSVAR  header:NAME:VAR  query:NAME:VAR

    Overwrites nothing. Exits 2, and writes nothing, where there are no rows to draft from (sign-in refused, no JSON, an empty
    list), and 1 where it found no way to further pages.

    \b
    Example:
      syncs new shop https://api.shop.example/v1/products --auth bearer:SHOP_TOKEN
      syncs run shop.items
    """
    from clients.environment import resolved
    from flows.declarations.client import Client
    from flows.drafting.investigation import investigate
    from flows.drafting.sign_in import check_url, sign_in
    from flows.drafting.source import source_of
    from flows.project.env_values import env_values

    file = _file(name)
    check_url(url)
    how = sign_in(auth)
    values = env_values(Client(name, url=url, auth=how.auth))
    draft = investigate(name, url, auth=resolved(how.auth, values.of))
    draft.auth, draft.names = how.source, how.names
    source = source_of(draft)
    _write(file, source)
    return _output(draft, file, source)


def _file(name: str) -> Path:
    """Return the file of a client.

    Raises:
        UsageError: the name cannot be one of a file and a client, or the file is there.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"NAME is letters, digits, _ and -, beginning with a letter, got {name!r}")
    file = Path("syncs") / f"{name}.py"
    if file.exists():
        raise UsageError(f"{file} is there; give another NAME, or remove it")
    return file


def _write(file: Path, source: str) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(source)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from error


def _output(draft: "Draft", file: Path, source: str) -> CommandOutput:
    sync = f"{draft.name}.items"
    rows = [(one.what, one.value, one.sure, one.why) for one in draft.findings]
    lines = [table(("WHAT", "FOUND", "HOW SURE", "WHY"), rows)]
    lines += [f"look at: {line}" for line in draft.look_at]
    lines.append(f"{file} written after {draft.requests} requests; next: syncs check {draft.name}; syncs run {sync}")
    document: dict[str, Any] = {
        "file": str(file), "client": draft.name, "sync": sync, "requests": draft.requests, "findings": draft.findings,
        "look_at": draft.look_at, "source": source,
    }  # fmt: skip
    is_lacking = any(one.what == "paging" and one.sure == "open" for one in draft.findings)
    return CommandOutput(document, "\n".join(lines), code=1 if is_lacking else 0)
