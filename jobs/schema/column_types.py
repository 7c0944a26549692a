"""Defines the kinds of columns and indexes that the tables use, and their common base class."""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from jobs.db.clock import UTCDateTime

ID_TYPE = BigInteger().with_variant(Integer(), "sqlite")
"""The type of an id; SQLite numbers rows by itself only if the type is INTEGER."""


def time_column(*, nullable: bool = True) -> Any:
    """Return a column of a time, in UTC."""
    return Field(default=None, sa_column=Column(UTCDateTime(), nullable=nullable))


def text_column(*, nullable: bool = True, default: str | None = None) -> Any:
    """Return a column of text."""
    return Field(default=default, sa_column=Column(Text(), nullable=nullable, server_default=default))


def integer_column() -> Any:
    """Return a column of an integer that starts at 0."""
    return Field(default=0, sa_column=Column(Integer(), nullable=False, server_default="0"))


def json_column() -> Any:
    """Return a column of JSON; Python's None is NULL."""
    return Field(default=None, sa_column=Column(JSON(none_as_null=True)))


def document_column() -> Any:
    """Return a column of JSON that people query: `jsonb` on PostgreSQL, which reads it ten times as fast as `json`."""
    return Field(default=None, sa_column=Column(JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")))


def partial_index(name: str, *columns: Any, where: str, unique: bool = False) -> Index:
    """Return an index of the rows for which an SQL condition is true."""
    condition = text(where)
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


# A registry of our own, because the user's tables may also be SQLModel, and may also be called `job`.
_registry = registry()

metadata = _registry.metadata


class Row(SQLModel, registry=_registry):
    """The base class of the tables; `__table__` is the Core table."""

    __table__: ClassVar[Table]
