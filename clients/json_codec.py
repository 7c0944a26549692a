"""Decodes and encodes JSON with the digits that are there: whole numbers of any size, and decimals beyond what a float holds.

`jobs.db.json_codec` does the same for what is stored; neither package knows the other.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any, Self

import orjson

_NOT_FINITE = re.compile(rb"(?:[:,\[\s]|\A)-?(?:NaN|Infinity)")
# A number with 17 or more digits, or with an exponent of three: orjson rounds some of them, without a word.
_LONG = re.compile(rb"(?:[:,\[\s]|\A)-?(?:[\d.]{17}|[\d.]+[eE][+-]?\d{3})")
_WITHOUT = frozenset({str, int, bool, type(None)})
_MOST_DIGITS = 4300
"""Python makes no whole number of more."""


class ExactNumber(float):
    """A number of JSON that a float cannot hold: it calculates as the nearest float, and is written as it came.

    `Decimal(str(number))` is exact.
    """

    __slots__ = ("digits",)
    digits: str

    def __new__(cls, digits: str) -> Self:
        """Make it of its digits, as JSON has them."""
        self = super().__new__(cls, digits)
        self.digits = digits
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.digits,)

    def __repr__(self) -> str:
        return self.digits

    def __eq__(self, other: object) -> bool:
        digits = getattr(other, "digits", None)
        return self.digits == digits if isinstance(digits, str) else float.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = float.__hash__


def decode(raw: bytes) -> Any:
    """Return the value of JSON in UTF-8.

    Raises:
        json.JSONDecodeError: it is not JSON.
        RecursionError: it is nested deeper than about 1,000 levels.
    """
    if _LONG.search(raw) is None:
        return orjson.loads(raw)
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):
            raise
    return json.loads(raw.decode(), parse_float=_decimal, parse_int=_whole)


def _decimal(digits: str) -> float:
    value = float(digits)
    if len(digits) < 17 and "e" not in digits and "E" not in digits:
        return value
    try:
        is_exact = Decimal(digits) == Decimal(repr(value))
    except ArithmeticError:
        is_exact = False
    return value if is_exact else ExactNumber(digits)


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else ExactNumber(digits)


def decode_not_finite(raw: bytes) -> Any:
    """Return the value of what has `NaN` or `Infinity` in the place of numbers, and is JSON otherwise; else None."""
    if _NOT_FINITE.search(raw) is None:
        return None
    try:
        return json.loads(raw.decode(), parse_float=_decimal, parse_int=_whole)
    except (ValueError, RecursionError):
        return None


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """Return compact JSON.

    Raises:
        ValueError: something in it has no JSON form.
    """
    option = orjson.OPT_SORT_KEYS if sort_keys else None
    try:
        try:
            document = orjson.dumps(value, default=_plain, option=option)
        except orjson.JSONEncodeError as error:
            if "64-bit" not in str(error):
                raise
            # orjson refuses numbers beyond 64 bits; JSON allows them.
            document = orjson.dumps(_with_fragments(value), default=_plain, option=option)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if b"null" in document and not _is_finite(value):
        # orjson writes null for them, without an error.
        raise ValueError("holds NaN or an infinite number, which JSON does not have")
    return document


def _plain(value: Any) -> Any:
    digits = getattr(value, "digits", None)
    if isinstance(value, float) and isinstance(digits, str):
        return orjson.Fragment(digits)
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _with_fragments(value: Any) -> Any:
    """Return the value with whole numbers beyond 64 bits as the text that JSON has for them."""
    if isinstance(value, dict):
        return {key: _with_fragments(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_fragments(one) for one in value]
    is_large = isinstance(value, int) and not -(2**63) <= value < 2**64
    return orjson.Fragment(str(int(value))) if is_large else value


def _is_finite(value: Any) -> bool:
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind in _WITHOUT:
            continue
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
        elif isinstance(one, float):
            if not math.isfinite(one) and not hasattr(one, "digits"):
                return False
        elif is_dataclass(one) and not isinstance(one, type):
            left.extend(getattr(one, field.name) for field in fields(one))
    return True
