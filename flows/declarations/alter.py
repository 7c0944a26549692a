"""`Alter`: changes fields of a sync or job type that another file, or an installed package, declares."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync
from flows.declarations.validation import check_id
from flows.errors import DeclarationError


@dataclass(frozen=True, init=False)
class Alter:
    """Changes fields of a sync or job type that is declared elsewhere: `Alter("shop.book", retry=Retry(max_retries=5))`.

    What runs has the new values; the object that the other file made stays as it is, so queue such jobs by their id.

    Args:
        id: of the sync or job type.
        changes: the fields and their new values, as the declaration takes them.

    Raises:
        DeclarationError: there is nothing to change, or a field that no sync and no job type has.
    """

    id: str
    changes: Mapping[str, Any]

    def __init__(self, id: str, /, **changes: Any) -> None:
        check_id("altered", id)
        known = {one.name for kind in (Sync, JobType) for one in fields(kind)} - {"id"}
        if not changes:
            raise DeclarationError(f"Alter({id!r}): name the fields to change, such as retry=Retry(max_retries=5)")
        if unknown := sorted(changes.keys() - known):
            raise DeclarationError(f"Alter({id!r}): no sync and no job type has a field {unknown[0]!r} that can be altered")
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "changes", MappingProxyType(changes))

    def of(self, declared: Sync | JobType) -> Sync | JobType:
        """Return the declaration with the changes.

        Raises:
            DeclarationError: it has no such field, or the new value has the wrong form.
        """
        kind = "sync" if isinstance(declared, Sync) else "job type"
        if unknown := sorted(self.changes.keys() - {one.name for one in fields(declared)}):
            raise DeclarationError(f"Alter({self.id!r}): a {kind} has no field {unknown[0]!r}")
        return replace(declared, **self.changes)
