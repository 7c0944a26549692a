"""Converts payloads and records to plain JSON values: dicts, lists, text, numbers, booleans and `None`."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from jobs import PayloadError

_DEPTH = 200


def plain_json(value: Any, path: str = "payload", depth: int = 0) -> Any:
    """Return the value as dicts, lists, texts, numbers, booleans and `None`.

    Dataclasses and pydantic models become objects; dates, times, UUIDs and decimals become text, enums their value.

    Args:
        value: what to convert.
        path: what to call it in an error.
        depth: how deep it stands.

    Raises:
        PayloadError: something in it has no JSON form; the text says where.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if depth > _DEPTH:
        raise PayloadError(f"{path[:80]}… is nested more than {_DEPTH} deep, or contains itself")
    depth += 1
    if isinstance(value, Mapping):
        return {_key(key, path): plain_json(inner, f"{path}.{key}", depth) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner, f"{path}[{index}]", depth) for index, inner in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_json(getattr(value, field.name), f"{path}.{field.name}", depth) for field in fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        refuse_secrets(value, path)
        return plain_json(dump(mode="json", by_alias=True, round_trip=True), path, depth)
    return plain_json(value.value, path, depth) if isinstance(value, Enum) else _single(value, path)


def refuse_secrets(value: Any, path: str = "payload", depth: int = 0) -> None:
    """Refuse a value that holds a secret, such as a `SecretStr`, at any depth.

    It would be stored as asterisks, which nobody could work with; and a job's row is no place for one (law 9).

    Args:
        value: a pydantic model, or what one holds.
        path: what to call it in an error.
        depth: how deep it stands.

    Raises:
        PayloadError: it holds one; the text says where.
    """
    if hasattr(value, "get_secret_value") and not isinstance(value, type):
        raise PayloadError(f"{path} is a secret; let the client's settings hold it")
    if depth > _DEPTH:
        raise PayloadError(f"{path[:80]}… is nested more than {_DEPTH} deep, or contains itself")
    depth += 1
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        # As Python objects: secrets are still what they are.
        value = dump(by_alias=True, round_trip=True, warnings=False)
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_secrets(inner, f"{path}.{key}", depth)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, inner in enumerate(value):
            refuse_secrets(inner, f"{path}[{index}]", depth)


def _single(value: Any, path: str) -> str | float | int:
    if isinstance(value, float):
        if hasattr(value, "digits"):
            # A number of JSON that a float cannot hold; it is stored with its digits.
            return value
        if not math.isfinite(value):
            raise PayloadError(f"{path} is {float(value)}, which JSON does not have")
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    raise PayloadError(f"{path} is {what}, which has no JSON form")


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise PayloadError(f"{path} has the key {key!r}; keys in JSON are text")
