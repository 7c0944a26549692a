"""Writes a SQLModel class for the records that were seen, for `into=`."""

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.drafting.draft import Draft
from flows.drafting.places import words_of
from flows.sync.timestamps import Timestamp

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = frozenset({"metadata", "registry", "copy", "dict", "json", "schema", "validate", "construct", "deleted_at"})
"""Names that SQLModel has for something else, or that mean something to `into`."""

_LARGE = 2**31


@dataclass(frozen=True, slots=True)
class TableClass:
    """A class.

    Args:
        name: of the class.
        source: its Python.
        imports: lines that it needs, those of the standard library first, then an empty line.
        left_out: members of the records that are no columns.
    """

    name: str
    source: str
    imports: tuple[str, ...]
    left_out: tuple[str, ...]


def table_class(draft: Draft, records: Sequence[Mapping[str, Any]]) -> TableClass:
    """Return the class for records; all columns but the key may be empty, for rows that nobody has seen.

    Args:
        draft: with the key of the rows.
        records: that were seen; not empty.
    """
    collection = draft.path.rstrip("/").partition(".")[0].partition("(")[0]
    words = [*words_of(draft.name), *(words_of(collection)[-1:] or ("item",))]
    words[-1] = words[-1].removesuffix("s") or words[-1]
    name = "".join(word.capitalize() for word in words)
    key = draft.key if _FIELD.fullmatch(draft.key) and draft.key in records[0] else "key"
    keys = [record[key] for record in records if key in record] or [""]
    used = {"Field", "SQLModel"}
    lines = [f"    {key}: {_column(keys, used, is_key=True)}"]
    left_out = []
    for member in dict.fromkeys(one for record in records for one in record):
        values = [record[member] for record in records if record.get(member) is not None]
        if member == key:
            continue
        is_name = _FIELD.fullmatch(member) and not keyword.iskeyword(member) and not member.startswith("model_")
        if not values or not is_name or member in _TAKEN:
            left_out.append(member)
            continue
        lines.append(f"    {member}: {_column(values, used)}")
    body = "\n".join(lines)
    source = f'class {name}(SQLModel, table=True):\n    """A record of {draft.name}.items."""\n\n{body}\n'
    return TableClass(name, source, _imports(used), tuple(left_out))


def _column(values: Sequence[Any], used: set[str], *, is_key: bool = False) -> str:
    kind = _kind(values)
    options = []
    if kind == "int" and any(abs(one) >= _LARGE for one in values):
        options.append("sa_type=BigInteger")
        used.add("BigInteger")
    if kind in ("dict[str, Any]", "list[Any]", "Any"):
        options.append("sa_type=JSON")
        used |= {"Any", "JSON"}
    used.add(kind)
    if is_key:
        return f"{kind if kind == 'int' else 'str'} = Field({', '.join(['primary_key=True', *options])})"
    optional = kind if kind == "Any" else f"{kind} | None"
    return f"{optional} = Field({', '.join(['default=None', *options])})" if options else f"{optional} = None"


def _kind(values: Iterable[Any]) -> str:
    kinds = {_kind_of(one) for one in values}
    if kinds == {"int", "float"}:
        return "float"
    if len(kinds) > 1 and kinds <= {"str", "datetime", "date", "NaiveDatetime"}:
        return "str"
    return kinds.pop() if len(kinds) == 1 else "Any"


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        try:
            found = Timestamp.of(value)
        except (ValueError, OverflowError):
            found = None
        return {"time": "datetime", "local": "NaiveDatetime", "date": "date"}.get(found.kind if found else "", "str")
    return {int: "int", float: "float", dict: "dict[str, Any]", list: "list[Any]"}.get(type(value), "Any")


def _imports(used: set[str]) -> tuple[str, ...]:
    times = sorted(used & {"date", "datetime"})
    standard = [f"from datetime import {', '.join(times)}"] if times else []
    standard += ["from typing import Any"] if "Any" in used else []
    others = ["from pydantic import NaiveDatetime"] if "NaiveDatetime" in used else []
    types = sorted(used & {"BigInteger", "JSON"}, key=lambda one: (not one.isupper(), one))
    names = [*(one for one in types if one.isupper()), *(one for one in types if not one.isupper()), "Field", "SQLModel"]
    others.append(f"from sqlmodel import {', '.join(names)}")
    return (*standard, *([""] if standard else []), *others)
