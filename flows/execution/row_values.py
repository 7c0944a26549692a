"""Checks and converts the values of a row: a model with the fields of a table class, and what its columns take of a value."""

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model, field_validator, model_validator
from sqlalchemy import JSON, BigInteger, Column, DateTime, Float, Integer, Numeric, SmallInteger, String
from sqlalchemy import Enum as EnumType

from flows.plain_json import plain_json
from jobs.db.json_codec import storable_document
from jobs.db.json_rows import storable
from jobs.typed_tables.target_table import bare_type, is_zoned

# The others are Integers, too.
_LARGEST = {SmallInteger: 2**15, BigInteger: 2**63, Integer: 2**31}
_NOT_OF_ROWS = ("table", "registry", "from_attributes", "read_from_attributes", "read_with_orm_mode")


def model_of(table: Any) -> type[BaseModel]:
    """Return a model with the fields and validators of a table class, which itself validates nothing.

    `model_validate` of SQLModel does, and takes 100 µs for ten fields, in which it makes an object of the ORM; this takes 5.
    """
    found = table.__pydantic_decorators__
    validators: dict[str, Any] = {}
    # The same declarations once more, of the functions that they were made of.
    of_field: Any = field_validator
    of_model: Any = model_validator
    for one in found.field_validators.values():
        function = inspect.getattr_static(table, one.cls_var_name)
        validators[one.cls_var_name] = of_field(*one.info.fields, mode=one.info.mode, check_fields=False)(function)
    for one in found.model_validators.values():
        function = inspect.getattr_static(table, one.cls_var_name)
        validators[one.cls_var_name] = of_model(mode=one.info.mode)(function)
    config: Any = ConfigDict()
    config.update((name, value) for name, value in table.model_config.items() if name not in _NOT_OF_ROWS)
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in table.model_fields.items()}
    return create_model(table.__name__, __config__=config, __validators__=validators, **fields)


def alias_of(field: Any, name: str) -> str:
    """Return the name by which a model takes a field."""
    for found in (getattr(field, "validation_alias", None), getattr(field, "alias", None)):
        if isinstance(found, str):
            return found
    return name


def converter_of(column: Column[Any], dialect: str) -> Callable[[Any], Any] | None:
    """Return what makes of a field's value what the column of this database takes; it raises ValueError if nothing does."""
    found = bare_type(column, dialect)
    match found:
        case EnumType():
            return None
        case JSON():
            return _json
        case String():
            return _text
        case Integer():
            size = BigInteger if dialect == "sqlite" else next(one for one in _LARGEST if isinstance(found, one))
            return lambda value: _whole(value, _LARGEST[size], size.__name__)
        case Float() if dialect == "sqlite":
            return _number_of_sqlite
        case Numeric() if dialect == "sqlite" and found.asdecimal:
            return _decimal_of_sqlite
        case DateTime():
            return _moment if is_zoned(column) else _wall_time
    return None


def _json(value: Any) -> Any:
    # PostgreSQL's jsonb refuses an escaped NUL, its text any.
    return storable_document(plain_json(value, "value"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        value = value.value if isinstance(value, Enum) else value
    text = str(value)
    # Most texts are ASCII, of which this is known without a look at each character.
    return text if text.isascii() and "\0" not in text else storable(text)


def _whole(value: int, largest: int, type_: str) -> int:
    if not -largest <= value < largest:
        more = "a text field keeps it" if type_ == "BigInteger" else "declare the field with sa_type=BigInteger"
        raise ValueError(f"{value} does not fit into {type_}; {more}")
    return value


def _number_of_sqlite(value: float) -> float:
    if value != value:  # noqa: PLR0124 - NaN
        raise ValueError("is NaN, for which SQLite would store NULL")
    return value


def _decimal_of_sqlite(value: Decimal) -> Decimal:
    if Decimal(repr(float(value))) != value:
        raise ValueError(f"{value} has more digits than the 15 that SQLite keeps; PostgreSQL or a text field keeps them")
    return value


def _moment(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _wall_time(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
