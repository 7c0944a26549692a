"""How far a listing of children within parents is, as its cursor keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """How far a listing is: the cursor of the parents' page, the parent, whether it is done, and the cursor of its children."""

    at: Any = None
    parent: str | None = None
    done: bool = False
    child: Any = None
    #: Why the listing is not complete: `stopped`, and the message.
    flaw: Sequence[str] = ()
    #: Why pages of parents or of children may not have been whole; every page that follows says so too.
    doubt: str = ""
    #: What the next page reports as failed.
    errors: Sequence[str] = ()

    @classmethod
    def of(cls, cursor: Any) -> Place:
        """Return the place that a cursor keeps; the start for None.

        Raises:
            ValueError: it is no such cursor.
        """
        if cursor is None:
            return cls()
        if isinstance(cursor, dict) and isinstance(cursor.get("parent", 0), str | None):
            known = {one.name: cursor[one.name] for one in fields(cls) if one.name in cursor}
            return cls(**known)
        raise ValueError("the stored cursor of the listing is not one that this version wrote")

    def to_json(self) -> dict[str, Any]:
        """Return it as a cursor keeps it, without what says nothing."""
        stored = {
            **{one.name: getattr(self, one.name) for one in fields(self)},
            "flaw": list(self.flaw),
            "errors": list(self.errors),
        }
        return {name: value for name, value in stored.items() if value or name == "parent"}


def quoted_join(join: str) -> str:
    """Return the text between two keys as it stands within a key."""
    return "".join(f"%{ord(letter):02X}" for letter in join)
