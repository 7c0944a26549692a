"""Converts values that zeep read from XML into the values that JSON has.

| XML Schema | JSON |
| --- | --- |
| whole numbers, float, double, boolean | number, number, true or false; `NaN` and `INF` are text, JSON has none |
| decimal | text, digit for digit: `"1.10"`; a binary fraction would change it |
| dateTime, date, time, gYear … | text, as it came: with an offset only where one was given |
| duration | text, ISO 8601: `"P1DT2H"` |
| base64Binary, hexBinary | text, Base64 |
| complex types | object; attributes and elements by their names |
| any | text: the XML |
| an element that the WSDL does not know | by its name; text, with elements or attributes in it the XML |
"""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any


class BadValue(str):
    """The text of a value that is not of its type, or of an element that the WSDL does not know, in an answer that has to fit."""

    __slots__ = ()


def bad_place(value: Any, path: str = "", *, but: Collection[int] = ()) -> str | None:
    """Return where in plain values a bad one stands, such as `row[0].open`; None where all are good.

    Args:
        value: where to look.
        path: what to write before the place.
        but: the ids of objects that are not looked into.
    """
    if isinstance(value, BadValue):
        return path
    inner: Iterable[tuple[str, Any]] = ()
    if id(value) in but:
        return None
    if isinstance(value, dict):
        inner = ((f"{path}.{name}" if path else name, one) for name, one in value.items())
    elif isinstance(value, list):
        inner = ((f"{path}[{position}]", one) for position, one in enumerate(value))
    return next((found for name, one in inner if (found := bad_place(one, name, but=but)) is not None), None)


def to_plain(value: Any, *, strict: bool = False) -> Any:
    """Return `value` as null, true, false, number, text, list and dict, all the way down.

    Args:
        value: what zeep has read.
        strict: a value that is not of its type, and an element that the WSDL does not know, is a `BadValue`.

    Raises:
        TypeError: there is something of a kind that is not known; its text could be another one in each process.
    """
    if isinstance(value, BadValue):
        return value if strict else str.__str__(value)
    if isinstance(value, list | tuple | deque):
        return [to_plain(one, strict=strict) for one in value]
    # zeep's values of complex types keep their members there.
    members = getattr(value, "__values__", value)
    if isinstance(members, Mapping):
        found = {str(name): to_plain(one, strict=strict) for name, one in members.items() if name != _UNKNOWN}
        return found if _UNKNOWN not in members else _unknown(members[_UNKNOWN], strict=strict) | found
    return _single(value)


def _single(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            # Of a subclass (an enumeration, lxml's text that holds its tree) only the value is kept.
            return value if type(value) in _EXACT else _base(value)
        case float():
            return value if math.isfinite(value) else {math.inf: "INF", -math.inf: "-INF"}.get(value, "NaN")
        case Decimal():
            return format(value, "f") if value.is_finite() else str(value)
        case date() | time():
            return value.isoformat()
        case timedelta():
            return _duration(value)
        case bytes():
            return base64.b64encode(value).decode("ascii")
    if hasattr(value, "tag") and hasattr(value, "nsmap"):
        return _xml(value)
    if type(value).__name__ in ("Duration", "QName"):
        return _duration(value) if type(value).__name__ == "Duration" else str(value)
    raise TypeError(f"a value of the kind {type(value).__name__}")


_UNKNOWN = "_raw_elements"
"""The member in which zeep keeps the elements of a complex type that the WSDL does not know."""


def _unknown(elements: Iterable[Any], *, strict: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for element in elements:
        if not isinstance(element.tag, str):
            continue
        name = element.tag.rpartition("}")[2]
        text = BadValue("") if strict else _xml(element) if len(element) or element.attrib else element.text
        # One that comes several times is a list, as in the types of a WSDL.
        found[name] = (
            [*found[name], text] if isinstance(found.get(name), list) else [found[name], text] if name in found else text
        )
    return found


def _xml(element: Any) -> str:
    from lxml import etree

    text: str = etree.tostring(element, encoding="unicode", with_tail=False)
    return text


_EXACT = frozenset({type(None), bool, int, str})


def _base(value: Any) -> Any:
    return str.__str__(value) if isinstance(value, str) else int(value)


def _duration(value: Any) -> str:
    import isodate

    text: str = isodate.duration_isoformat(value)
    return text
