"""Writes a draft as a Python file, as `ruff format` would."""

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from clients import Keyset, SinglePage
from clients.page import Paginator
from flows.drafting.draft import Draft

MAX_LINES = 20
WIDTH = 88
"""Characters of a line, by ruff's default. A call with one argument a line, to fit it, stays so in projects with longer lines."""

_OWN = frozenset({"env", "items", "listing"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call, or an object of literals: what opens it, and its arguments as text or calls, each with what stands before it."""

    name: str
    arguments: Sequence[tuple[str, "str | Call"]]
    brackets: str = "()"

    def render(self, *, indent: int, before: str, width: int, after: int = 0, compact: bool = False) -> str:
        """Return it on one line if that fits, else with one argument a line.

        Args:
            compact: all arguments on one line of their own, where they fit.
            indent: of the line that it stands on.
            before: what stands before it on that line.
            after: characters behind it.
        """
        flat = self.flat()
        if indent + len(before) + len(flat) + after <= width:
            return before + flat
        inner = " " * (indent + 4)
        if compact and len(inner) + len(self._inside()) <= width:
            return f"{before}{self.name}{self.brackets[0]}\n{inner}{self._inside()}\n{' ' * indent}{self.brackets[1]}"
        lines = [
            inner
            + (
                value.render(indent=indent + 4, before=name, width=width, after=1, compact=compact)
                if isinstance(value, Call)
                else name + value
            )
            for name, value in self.arguments
        ]
        body = "".join(f"{line},\n" for line in lines)
        return f"{before}{self.name}{self.brackets[0]}\n{body}{' ' * indent}{self.brackets[1]}"

    def flat(self) -> str:
        """Return it on one line."""
        return f"{self.name}{self.brackets[0]}{self._inside()}{self.brackets[1]}"

    def _inside(self) -> str:
        return ", ".join(name + (value.flat() if isinstance(value, Call) else value) for name, value in self.arguments)


def text(value: Any) -> str:
    """Return a literal as ruff writes it."""
    if not isinstance(value, str) or ('"' in value and "'" not in value):
        return repr(value)
    # With both quotes in it, `repr` puts a backslash before each single one, and before no other.
    body = repr("'\"" + value)[len("'\\'\"") : -1]
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'


def paginator_call(paginator: Paginator) -> Call:
    """Return the paginator as it is declared, without what is the default."""
    made: list[tuple[str, str | Call]] = []
    positional = True
    kind = type(paginator)
    for one in fields(kind):  # type: ignore[arg-type]  # all paginators are dataclasses
        value = getattr(paginator, one.name)
        if kind.__name__ == "Offset" and one.name == "limit" and getattr(paginator, "limit_param", None) is None:
            continue
        is_default = value == one.default and not (isinstance(paginator, Keyset))
        if one.kw_only or not positional:
            if not is_default:
                made.append((f"{one.name}=", text(value)))
        elif is_default:
            positional = False
        else:
            made.append(("", text(value)))
    return Call(kind.__name__, made)


def paginator_text(paginator: Paginator) -> str:
    """Return the paginator on one line, for people."""
    return paginator_call(paginator).flat()


def since_call(since: tuple[str, str, str | None]) -> Call:
    """Return the `Since` of a sync."""
    field, param, zone = since
    return Call("Since", [("", text(field)), ("", text(param)), *([("zone=", text(zone))] if zone else [])])


def variable_of(name: str) -> str:
    """Return the variable of a client."""
    made = re.sub(r"\W", "_", name)
    made = f"_{made}" if made[:1].isdigit() else made
    return f"{made}_client" if made in _OWN or keyword.iskeyword(made) or keyword.issoftkeyword(made) else made


def source_of(draft: Draft, *, table: str = "", into: str = "", imports: Sequence[str] = (), width: int = WIDTH) -> str:
    """Return the file. Where it is not too long, it is one that the formatter leaves as it is at any width from 88.

    Args:
        table: source of the table class, which stands before the sync; empty for none.
        into: name of that class.
        imports: lines that the class needs; those of the standard library stand before an empty one.
        width: of the project's lines.
    """
    ways = [(WIDTH, False, False), (WIDTH, True, False), (width, False, True), (width, True, True)]
    bare = [_layout(draft, *way).count("\n") for way in ways]
    way = next((way for way, lines in zip(ways, bare, strict=True) if lines <= MAX_LINES), ways[bare.index(min(bare))])
    return _layout(draft, *way, table=table, into=into, imports=imports)


def _layout(
    draft: Draft, width: int, apart: bool, compact: bool, *, table: str = "", into: str = "", imports: Sequence[str] = ()
) -> str:
    variable = variable_of(draft.name)
    client: list[tuple[str, str | Call]] = [("", text(draft.name)), ("url=", text(draft.url))]
    if draft.auth:
        client.append(("auth=", draft.auth))
    listing = _listing(draft)
    sync: list[tuple[str, str | Call]] = [("", text(f"{draft.name}.items")), ("", variable)]
    sync.append(("listing=", "listing" if apart else listing))
    if draft.fetch:
        sync.append(("fetch=", text(draft.fetch)))
    if draft.since:
        sync.append(("incremental=", since_call(draft.since)))
    if into:
        sync.append(("into=", into))
    client_text = Call("Client", client).render(indent=0, before=f"{variable} = ", width=width, compact=compact)
    listing_text = f"{listing.render(indent=0, before='listing = ', width=width, compact=compact)}\n" if apart else ""
    sync_text = Call("Sync", sync).render(indent=0, before="items = ", width=width, compact=compact)
    # Two empty lines around a class.
    parts = [_header(draft, imports), client_text, *([f"\n{table.rstrip()}\n"] if table else []), f"{listing_text}{sync_text}\n"]
    return "\n\n".join(parts)


def _header(draft: Draft, imports: Sequence[str]) -> str:
    names = {"Listing", *draft.names}
    if not isinstance(draft.paginator, SinglePage | None):
        names.add(type(draft.paginator).__name__)
    flows = ["Client", *(["Since"] if draft.since else []), "Sync"]
    shown = draft.source if len(draft.source) < 60 else f"{draft.source[:57]}..."
    shown = shown.replace("\\", "").replace('"', "")
    lines = [f'"""{draft.name}: {shown}, as `syncs new` found it."""', ""]
    standard = imports[: imports.index("") + 1] if "" in imports else ()
    lines += standard
    lines.append(f"from clients import {', '.join(sorted(names, key=lambda one: (one.islower(), one.lower())))}")
    lines.append(f"from flows import {', '.join(flows)}")
    return "\n".join([*lines, *imports[len(standard) :]])


def _listing(draft: Draft) -> Call:
    made: list[tuple[str, str | Call]] = [("", text(draft.path))]
    if not isinstance(draft.paginator, SinglePage | None):
        made.append(("", paginator_call(draft.paginator)))
    for name in ("items", "key", "version", "total", "total_header"):
        value = getattr(draft, name)
        if value is not None and (name, value) != ("key", "id"):
            made.append((f"{name}=", text(value)))
    if draft.params:
        made.append(("params=", Call("", [(f"{text(name)}: ", text(value)) for name, value in draft.params.items()], "{}")))
    return Call("Listing", made)
