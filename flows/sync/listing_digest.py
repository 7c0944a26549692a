"""Makes a digest of what a sync lists and how, so that an unfinished listing is not continued by another declaration."""

import functools
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from flows.declarations.settings_argument import WithSettings
from flows.declarations.sync import Sync

DEEPEST = 8
"""Levels of values within values that count; a declaration has fewer."""


def listing_digest(sync: Sync) -> str:
    """Return a digest of the listing of a sync: the same in each process as long as its declaration stays the same."""
    return hashlib.sha256(_describe((sync.listing, sync.incremental), 0).encode(errors="replace")).hexdigest()[:32]


def _describe(value: Any, depth: int) -> str:
    """Write a value as text, without what differs between processes: addresses, and the order of sets."""
    if isinstance(value, WithSettings):
        value = value.function
    if depth > DEEPEST:
        return "…"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    parts = [part if isinstance(part, str) else f"{part[0]}={_describe(part[1], depth + 1)}" for part in _parts(value)]
    if isinstance(value, set | frozenset | Mapping):
        parts.sort()
    return f"{type(value).__qualname__}({', '.join(parts)})"


def _parts(value: Any) -> list[str | tuple[str, Any]]:
    """Return what makes up a value: texts, and further values with names."""
    match value:
        case Mapping():
            return [(_describe(key, 0), one) for key, one in value.items()]
        case list() | tuple() | set() | frozenset():
            return [("", one) for one in value]
        case FunctionType():
            cells = [one for one in _cells(value) if one is not value and _is_constant(one)]
            return [_code(value.__code__), ("", value.__defaults__), ("", value.__kwdefaults__), ("", cells)]
        case MethodType():
            return [("", value.__func__), ("", value.__self__)]
        case CodeType():
            return [_code(value)]
        case functools.partial():
            return [("", value.func), ("", value.args), ("", value.keywords)]
    if _is_frozen(value):
        return [(one.name, getattr(value, one.name)) for one in fields(value)]
    state = getattr(value, "__dict__", {})
    return [(name, one) for name, one in sorted(state.items()) if isinstance(one, str | bytes)]


def _is_constant(value: Any) -> bool:
    """Tell whether a variable of a function is part of its declaration.

    Numbers, containers and other objects may count or remember something while a listing goes on. To continue a listing that has
    changed in one of these is less harm than never to continue one.
    """
    return _is_frozen(value) or isinstance(value, str | bytes | FunctionType | MethodType | functools.partial | type)


def _is_frozen(value: Any) -> bool:
    return is_dataclass(value) and bool(getattr(getattr(value, "__dataclass_params__", None), "frozen", False))


def _code(code: CodeType) -> str:
    """Write what a function does, without where it stands."""
    # Constants are finite, however deep functions stand in functions. A set literal is one: its order differs between processes.
    constants = [_describe(one, 0) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {', '.join(constants)}"


def _cells(function: FunctionType) -> list[Any]:
    """Return what a function has from the functions around it; a name that has no value yet is left out."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found
