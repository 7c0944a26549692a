"""`PathFetch`: the `fetch` of a sync that is declared as a path, such as `"pets/{key}"`."""

import re
from dataclasses import dataclass, field
from typing import Any

from clients import Entity, quoted_path
from clients.exchange_recorder import current_recorder
from flows.errors import DeclarationError
from jobs.outcome import Failure

OK = 200
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class PathFetch:
    """Gets the JSON at the path of an entity.

    Args:
        sync: the id of the sync.
        path: with `{key}`, and `{parent}` where entities are listed within others; each is quoted. A query may follow.

    Raises:
        DeclarationError: there is no `{key}`, or something else in braces.
    """

    sync: str
    path: str
    #: `path` with `{}` as places, and what goes there.
    _template: str = field(init=False, repr=False)
    _names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = tuple(_PLACE.findall(self.path))
        if "key" not in names or not {*names} <= {"key", "parent"}:
            wrong = next((name for name in names if name not in ("key", "parent")), None)
            found = "it has no {key}" if wrong is None else f"{{{wrong}}} is not known"
            raise DeclarationError(f"sync {self.sync!r}: fetch={self.path!r} may have {{key}} and {{parent}}, and {found}")
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_template", _PLACE.sub("{}", self.path))

    def __call__(self, http: Any, entity: Entity) -> Any:
        """Return the JSON at the entity's path; a `Failure` where that is null or nothing, which is no record.

        Raises:
            ValueError: the path needs a parent, and the entity has none.
            ClientError: as `get_json`.
        """
        if "parent" in self._names and entity.parent is None:
            raise ValueError(f"fetch={self.path!r} needs a parent, and the entity has none: its listing is no Nested")
        parts = {"key": entity.own_key, "parent": entity.parent or ""}
        path = quoted_path(self._template, *(parts[name] for name in self._names))
        record = http.get_json(path)
        return _no_record(path) if record is None else record


def _no_record(path: str) -> Failure:
    recorder = current_recorder()
    last = recorder.exchanges[-1:] if recorder is not None else []
    request, status = (last[0].request, last[0].status) if last else (f"GET {path}", OK)
    return Failure(f"{request} answered {'null' if status == OK else f'{status} without a record'}", retry=False)
