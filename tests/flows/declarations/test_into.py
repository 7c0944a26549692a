"""What `into` and `Into` refuse, in one line, and what they make of classes."""

from typing import Any

import pytest
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from clients import Listing
from flows import Client, DeclarationError, Into, Sync


class Base(SQLModel, registry=registry()):
    """A base of the tables of this file."""


class Pet(Base, table=True):
    """A table."""

    id: int = Field(primary_key=True)


class Tag(Base, table=True):
    """A child table."""

    pet_id: int = Field(primary_key=True)
    name: str = Field(primary_key=True)


class Plain(SQLModel):
    """No table."""

    id: int


def sync(into: Any, **fields: Any) -> Sync:
    """Make a sync that is never run."""
    client = Client("shop", connect=lambda _: None)
    return Sync("shop.things", client, listing=Listing("things"), into=into, **fields)


def test_forms_of_into() -> None:
    """A class, an `Into` or a list; rows of entities come before their children."""
    assert sync(Pet).into == (Into(Pet),)
    tags = Into(Tag, items="tags", parent="pet_id")
    assert sync([tags, Pet]).into == (Into(Pet), tags)
    assert sync(Into(Tag, to_row=dict)).into == (Into(Tag, to_row=dict),)
    assert sync(None).into is None


@pytest.mark.parametrize(
    ("into", "text"),
    [
        (lambda: Plain, "into must be a SQLModel class with table=True or Into(…), got Plain"),
        (lambda: "pet", "got str"),
        (list, "into is empty"),
        (lambda: [Pet, Into(Pet)], "names the table pet twice"),
        (lambda: Tag, "the primary key has several columns; say with to_row=…"),
        (lambda: Into(Plain), "Plain must be a SQLModel class with table=True"),
        (lambda: Into(Pet, to_row="id"), "to_row must be callable, got str"),
        (lambda: Into(Tag, items="tags"), "a child table needs both items and parent"),
        (lambda: Into(Tag, items="tags[", parent="pet_id"), "items='tags[' is no JMESPath"),
        (lambda: Into(Tag, items="tags", parent="pet"), "parent='pet' is no field of the class"),
    ],
)
def test_what_is_refused(into: Any, text: str) -> None:
    """The message says what is wrong, on one line."""
    with pytest.raises(DeclarationError) as raised:
        sync(into())
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_into_and_save_exclude_each_other() -> None:
    """Both would store the record."""
    with pytest.raises(DeclarationError, match="save and into exclude each other"):
        sync(Pet, save=lambda session, entity, record: None)
