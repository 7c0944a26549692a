"""Columns that the tables are made of, and what the tables share. Knows no table."""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Column, Integer, Table, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from jobs.clock import UTCDateTime

BIG = BigInteger().with_variant(Integer(), "sqlite")
"""An id; SQLite numbers rows by itself only where the type is INTEGER."""


def moment(*, nullable: bool = True) -> Any:
    """Return a moment, in UTC."""
    return Field(default=None, sa_column=Column(UTCDateTime(), nullable=nullable))


def words(*, nullable: bool = True, default: str | None = None) -> Any:
    """Return a text."""
    return Field(default=default, sa_column=Column(Text(), nullable=nullable, server_default=default))


def number() -> Any:
    """Return a number that begins at 0."""
    return Field(default=0, sa_column=Column(Integer(), nullable=False, server_default="0"))


def document() -> Any:
    """Return JSON; Python's None is NULL."""
    return Field(default=None, sa_column=Column(JSON(none_as_null=True)))


# A registry of our own: people's tables may be SQLModel too, and may be called `job`.
_registry = registry()

metadata = _registry.metadata


class Row(SQLModel, registry=_registry):
    """What the tables share: access to the Core table."""

    __table__: ClassVar[Table]
