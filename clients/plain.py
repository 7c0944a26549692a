"""XML values as the plain values that JSON has. Pure; knows no service and no schema.

| XML Schema | here |
| --- | --- |
| whole numbers, float, double, boolean | number, number, true or false; `NaN` and `INF` are text, JSON has none |
| decimal | text, digit for digit: `"1.10"`; a binary fraction would change it |
| dateTime, date, time, gYear … | text, ISO 8601 as it came: with an offset only where one was given |
| duration | text, ISO 8601: `"P1DT2H"` |
| base64Binary, hexBinary | text, Base64 |
| complex types | object; attributes and elements by their names |
| any | text: the XML |
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any


def to_plain(value: Any) -> Any:
    """Return `value` as null, true, false, number, text, list and dict, all the way down."""
    match value:
        case None | bool() | int() | str():
            # Of a subclass (an enumeration, lxml's text with its tree behind it) only the value is kept.
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
        case list() | tuple():
            return [to_plain(one) for one in value]
    # zeep's values of complex types keep their members there.
    members = getattr(value, "__values__", value)
    if isinstance(members, Mapping):
        return {str(name): to_plain(one) for name, one in members.items()}
    if hasattr(value, "tag") and hasattr(value, "nsmap"):
        from lxml import etree

        return etree.tostring(value, encoding="unicode", with_tail=False)
    return _duration(value) if type(value).__name__ == "Duration" else str(value)


_EXACT = frozenset({type(None), bool, int, str})


def _base(value: Any) -> Any:
    return str.__str__(value) if isinstance(value, str) else int(value)


def _duration(value: Any) -> str:
    import isodate

    text: str = isodate.duration_isoformat(value)
    return text
