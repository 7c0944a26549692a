"""`syncs new`: writes the file of a remote system from its URL. `flows.drafting` asks and decides."""

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command, json_wanted
from flows.cli.output import CommandOutput, table
from flows.errors import UsageError

if TYPE_CHECKING:
    from flows.drafting.draft import Draft
    from flows.drafting.table_class import TableClass

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


@click.command("new", cls=Command, short_help="Write the file of a remote system from its URL.")
@click.argument("name")
@click.argument("url")
@click.option("--auth", metavar="HOW", help="bearer:VAR, basic:USERVAR:PASSVAR, header:NAME:VAR or query:NAME:VAR.")
@click.option("--openapi", metavar="FILE|URL", help="Read this description (OpenAPI 3, Swagger 2) in place of asking.")
@click.option("--path", metavar="PATH", help="With --openapi: the listing in it.")
@click.option("--table", is_flag=True, help="Write a SQLModel class too, and into= with it.")
def new(name: str, url: str, auth: str | None, openapi: str | None, path: str | None, table: bool) -> CommandOutput:
    """Ask the URL of a listing, and write syncs/NAME.py: client NAME, sync NAME.items.

    Sends at most 6 requests. Finds rows, key, version, total and paging, tries the second page, the size of a page, the record of
    one row and a filter by time, and says what is certain (seen), what is guessed and what to look at.

    \b
    --auth names variables; their values are the secrets, and go into no file:
      bearer:VAR  basic:USERVAR:PASSVAR  header:NAME:VAR  query:NAME:VAR

    With --openapi nothing is asked; URL is the address of the API, or of one of its listings.

    Overwrites nothing. Exits 2, and writes nothing, where there are no rows to draft from (sign-in refused, no JSON, an empty
    list), and 1 where it found no way to further pages.

    \b
    Example:
      syncs new shop https://api.shop.example/v1/products --auth bearer:SHOP_TOKEN
      syncs run shop.items
    """
    from flows.drafting.sign_in import check_url, sign_in
    from flows.drafting.source import source_of

    file = _file(name)
    check_url(url)
    if openapi is None:
        if path is not None:
            raise UsageError("--path goes with --openapi")
        how = sign_in(auth)
        draft = _asked(name, url, how.auth)
    else:
        draft, found = _described(name, url, openapi, path)
        how = sign_in(auth or found)
    draft.auth, draft.names = how.source, how.names
    made = _table_class(draft) if table else None
    width = _line_length()
    if made is None:
        source = source_of(draft, width=width)
    else:
        source = source_of(draft, table=made.source, into=made.name, imports=made.imports, width=width)
    _write(file, source)
    return _output(draft, file, source)


def _asked(name: str, url: str, auth: Any) -> "Draft":
    """Return the draft of a listing that is asked."""
    from clients.environment import resolved
    from flows.declarations.client import Client
    from flows.drafting.investigation import investigate
    from flows.project.env_values import env_values

    values = env_values(Client(name, url=url, auth=auth))
    return investigate(name, url, auth=resolved(auth, values.of))


def _described(name: str, url: str, place: str, path: str | None) -> "tuple[Draft, str | None]":
    """Return the draft of a listing in a description, and how that says to sign in.

    Raises:
        UsageError: it is open which listing is meant, and nobody can be asked.
    """
    from flows.drafting.description.api_description import ApiDescription
    from flows.drafting.description.described_draft import draft_described
    from flows.drafting.description.description_source import address_of, choose, listed, read_description

    described = ApiDescription(read_description(place))
    listings = described.listings()
    chosen = choose(listings, url=url, wanted=path)
    if chosen is None:
        if json_wanted() or not sys.stdin.isatty():
            raise UsageError(f"--path says which listing; {listed(listings)}. Nothing was written")
        chosen = click.prompt("Which listing", type=click.Choice(list(listings)), err=True)
    draft = draft_described(name, address_of(url, chosen), listings[chosen], source=place)
    return draft, described.sign_in(name)


def _table_class(draft: "Draft") -> "TableClass | None":
    """Return the class for the records, or say why there is none."""
    from flows.drafting.table_class import table_class

    records = [draft.record] if draft.record is not None else list(draft.rows)
    if draft.record is not None and draft.key not in draft.record:
        # The record is within something else.
        records, draft.fetch = list(draft.rows), None
        draft.look_at.append("fetch is left out: its answer has the record in another object, see to_row= of Into")
    if not all(isinstance(one, dict) for one in records):
        draft.look_at.append("--table: the rows are no objects, so there is no class")
        return None
    made = table_class(draft, [*records, *(draft.rows if draft.record is not None else ())])
    draft.add("table", made.name, "guessed", f"of {len(records)} records; only the key must be there")
    if made.left_out:
        draft.look_at.append(f"no columns for {', '.join(made.left_out[:8])}: null in all records, or no name for a column")
    return made


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


def _line_length() -> int:
    """Return the length of lines of the project here, by ruff's settings."""
    from flows.drafting.source import WIDTH

    try:
        found = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["line-length"]
    except (OSError, ValueError, KeyError, TypeError):
        return WIDTH
    return found if isinstance(found, int) else WIDTH


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
