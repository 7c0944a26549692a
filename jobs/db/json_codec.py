"""Decodes and encodes JSON with the digits that are there: whole numbers of any size, and decimals beyond what a float holds.

`clients.json_codec` does the same for what is sent and received; neither package knows the other.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any, Self

import orjson

from jobs.errors import PayloadError

# A number with 17 or more digits, or with an exponent of three: orjson rounds some of them, without a word.
_LONG = re.compile(rb"(?:[:,\[\s]|\A)-?(?:[\d.]{17}|[\d.]+[eE][+-]?\d{3})")
_WITHOUT = frozenset({str, int, bool, type(None)})
_MOST_DIGITS = 4300
"""Python makes no whole number of more."""


ROUNDED = 'is the number {!r}, which SQLite would round; put it into an object: {{"value": …}}'


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


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """Return compact JSON.

    Raises:
        PayloadError: something in it has no JSON form.
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
        raise PayloadError(f"not JSON: {error}") from error
    if b"null" in document and not _is_finite(value):
        # orjson writes null for them, without an error.
        raise PayloadError("holds NaN or an infinite number, which JSON does not have")
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


def document(value: Any) -> str:
    """Return the JSON that a column keeps.

    Raises:
        PayloadError: the value has no JSON form, or is a single number that SQLite would round: it makes a number of such a text.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and not _survives(value):
        if not _is_finite(value):
            raise PayloadError("is NaN or an infinite number, which JSON does not have")
        raise PayloadError(ROUNDED.format(value))
    return encode(value).decode()


def _survives(number: float) -> bool:
    """Tell whether SQLite keeps a document that is only this number."""
    if isinstance(number, int):
        # A larger one comes back as a float.
        return -(2**63) <= number < 2**63 or (number.bit_length() < 1024 and float(number) == number)
    return type(number) is float and (number == 0 or (float(f"{number:.15g}") == number and 1e-7 <= abs(number) <= 1e15))


def encode_all(values: Iterable[Any]) -> list[str]:
    """Return each value as compact JSON text.

    Raises:
        PayloadError: one of them is not JSON.
    """
    return [encode(value).decode() for value in values]


_VAST = re.compile(r"[eE][+-]?\d{5}|\d{16000}")


def beyond_jsonb(text: str) -> str | None:
    """Return a number of JSON text that PostgreSQL's `numeric`, and with it `jsonb`, cannot hold; `None` if there is none."""
    if _VAST.search(text) is None:
        return None
    found: list[str] = []

    def look(digits: str) -> None:
        _, digits_after, exponent = Decimal(digits).as_tuple()
        if Decimal(digits).adjusted() > 131071 or int(exponent) < -16383 or len(digits_after) > 131071:
            found.append(digits if len(digits) <= 30 else f"{digits[:30]}…")

    json.loads(text, parse_float=look, parse_int=look)
    return found[0] if found else None


_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def without_nul(text: str) -> str:
    """Return JSON text with U+FFFD in place of escaped NUL, which PostgreSQL's `jsonb` refuses."""
    return _NUL.sub("\\1\ufffd", text) if "\\u0000" in text else text


def storable_document(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of NUL, see `without_nul`."""
    text = encode(value).decode()
    return decode(without_nul(text)) if "\\u0000" in text else value


def decode(text: str | bytes | float) -> Any:
    """Return the value of JSON text."""
    if isinstance(text, int | float):
        # SQLite stores a document that is a single number as that number.
        return text
    raw = text.encode() if isinstance(text, str) else text
    if _LONG.search(raw) is None:
        return orjson.loads(raw)
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):
            raise
    return json.loads(text, parse_float=decimal_number, parse_int=whole_number)


def decimal_number(digits: str) -> float:
    """Return the number of JSON with a fraction or an exponent; a float where that holds it."""
    value = float(digits)
    if len(digits) < 17 and "e" not in digits and "E" not in digits:
        return value
    try:
        is_exact = Decimal(digits) == Decimal(repr(value))
    except ArithmeticError:
        is_exact = False
    return value if is_exact else ExactNumber(digits)


def whole_number(digits: str) -> float:
    """Return the whole number of JSON."""
    return int(digits) if len(digits) <= _MOST_DIGITS else ExactNumber(digits)
