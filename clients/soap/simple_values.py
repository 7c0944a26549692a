"""Reads the simple values of an answer as they came: for zeep what is no `true` is `false`, and dates have no zone.

It replaces two functions of zeep, which do what they did unless this thread is in `as_they_came`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from zeep.xsd.elements.attribute import Attribute
from zeep.xsd.types import builtins
from zeep.xsd.types.collection import ListType
from zeep.xsd.types.simple import AnySimpleType

from clients.soap.xml_values import BadValue

_TIMES = (
    builtins.DateTime,
    builtins.Date,
    builtins.Time,
    builtins.gYearMonth,
    builtins.gYear,
    builtins.gMonthDay,
    builtins.gMonth,
    builtins.gDay,
)
# .NET and Visual Basic write `True`.
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

_here = threading.local()
_parse_element: Any = AnySimpleType.parse_xmlelement
_parse_attribute: Any = Attribute.parse


@contextlib.contextmanager
def as_they_came() -> Iterator[list[BadValue]]:
    """Read values in this thread as they came; yield those that are not of their type, which stand in the answer as they are."""
    bad: list[BadValue] = []
    _here.bad = bad
    try:
        yield bad
    finally:
        _here.bad = None


def _element(self: Any, xmlelement: Any, *arguments: Any, **named: Any) -> Any:
    if getattr(_here, "bad", None) is None:
        return _parse_element(self, xmlelement, *arguments, **named)
    return None if xmlelement.text is None else _value(self, xmlelement.text)


def _attribute(self: Any, value: Any) -> Any:
    if getattr(_here, "bad", None) is None or not isinstance(value, str):
        return _parse_attribute(self, value)
    return _value(self.type, value)


def _value(kind: Any, text: str) -> Any:
    if isinstance(kind, ListType):
        return [_value(kind.item_type, one) for one in text.split()]
    try:
        if isinstance(kind, builtins.Boolean):
            return _BOOLEANS[text.strip().lower()]
        value: Any = kind.pythonvalue(text)
    except (TypeError, ValueError, LookupError, ArithmeticError):
        bad = BadValue(text)
        _here.bad.append(bad)
        return bad
    return text.strip() if isinstance(kind, _TIMES) else value


AnySimpleType.parse_xmlelement, Attribute.parse = _element, _attribute  # type: ignore[method-assign]
