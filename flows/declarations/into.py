"""`Into`: a SQLModel table class into which a sync writes its records."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jmespath

from flows.errors import DeclarationError


@dataclass(frozen=True)
class Into:
    """A table for the records of a sync.

    Args:
        table: a SQLModel class with `table=True`.
        to_row: `(entity, record) -> values by field`, or an object of the class; by default the fields by name, and the primary
            key from the entity's key. What it does not say of the primary key and of `parent` is filled in. With `items` it gets
            the item in place of the record.
        items: JMESPath; makes this a child table with a row for each item of this list in the record.
        parent: the field of a child table that gets the primary key of the entity's row.

    Raises:
        DeclarationError: the class is no table, or something does not fit it.
    """

    table: Any
    to_row: Callable[[Any, Any], Any] | None = field(default=None, kw_only=True)
    items: str | None = field(default=None, kw_only=True)
    parent: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        name = getattr(self.table, "__name__", repr(self.table))
        if not is_table(self.table):
            raise DeclarationError(f"Into: {name} must be a SQLModel class with table=True")
        columns = self.columns
        if len(self.core_table.primary_key) == 0 or len({column.table for column in columns.values()}) > 1:
            raise DeclarationError(f"Into({name}): the class must have a primary key and one table")
        if self.to_row is not None and not callable(self.to_row):
            raise DeclarationError(f"Into({name}): to_row must be callable, got {type(self.to_row).__name__}")
        if (self.items is None) != (self.parent is None):
            raise DeclarationError(f"Into({name}): a child table needs both items and parent, any other has neither")
        if self.items is not None:
            try:
                jmespath.compile(self.items)
            except (ValueError, TypeError, AttributeError) as error:
                raise DeclarationError(f"Into({name}): items={self.items!r} is no JMESPath") from error
        if self.parent is not None and self.parent not in columns:
            raise DeclarationError(f"Into({name}): parent={self.parent!r} is no field of the class")
        if self.items is None and self.to_row is None and len(self.core_table.primary_key) > 1:
            raise DeclarationError(f"Into({name}): the primary key has several columns; say with to_row=… what each of them gets")

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the table by the names of the fields, without those that the database computes."""
        return {
            attribute.key: attribute.columns[0]
            for attribute in self.table.__mapper__.column_attrs
            if attribute.columns[0].computed is None
        }

    @property
    def core_table(self) -> Any:
        """The SQLAlchemy table."""
        return self.table.__table__


def is_table(value: Any) -> bool:
    """Tell whether a value is a SQLModel class with a table."""
    return isinstance(value, type) and hasattr(value, "__table__") and hasattr(value, "model_fields")


def targets_of(sync: str, value: Any) -> tuple[Into, ...]:
    """Return what `into=` declares: a class, an `Into`, or a list of them.

    Raises:
        DeclarationError: it is something else.
    """
    found = tuple(_each(value if isinstance(value, list | tuple) else [value], sync))
    if not found:
        raise DeclarationError(f"sync {sync!r}: into is empty; name a SQLModel class with table=True, or leave it out")
    names = [one.core_table.fullname for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DeclarationError(f"sync {sync!r}: into names the table {twice} twice")
    # Rows of entities before their children, which may refer to them.
    return tuple(sorted(found, key=lambda one: one.parent is not None))


def _each(values: Any, sync: str) -> Iterator[Into]:
    for one in values:
        if isinstance(one, Into):
            yield one
        elif is_table(one):
            try:
                yield Into(one)
            except DeclarationError as error:
                raise DeclarationError(f"sync {sync!r}: {error}") from error
        else:
            what = one.__name__ if isinstance(one, type) else type(one).__name__
            raise DeclarationError(f"sync {sync!r}: into must be a SQLModel class with table=True or Into(…), got {what}")
