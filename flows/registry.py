"""What is declared: collects the clients, syncs, job types and queues of a project's files. Opens no connection."""

import difflib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flows.declaration import Client, Sync
from flows.errors import UnknownName
from flows.files import Broken, Source, read_entry_points, read_paths
from flows.job_type import JobType
from jobs import Queue

FOLDER = "syncs"
"""The folder of the working directory whose files are read."""

_KINDS: Mapping[type[Any], str] = MappingProxyType({Client: "client", Sync: "sync", JobType: "job type", Queue: "queue"})
_Declaration = Client | Sync | JobType | Queue
#: A second thread would find files that the first one is half through importing, and take them for empty.
_reading = threading.RLock()
_USE = {"job type": "`syncs enqueue` queues a job of it, `syncs work` works it", "sync": "`syncs run` runs it"}


@dataclass(frozen=True)
class Registry:
    """What is declared, and where.

    Args:
        clients: by id, in the order found.
        syncs: by id, in the order found.
        queues: by id, those that are declared.
        files: where each stands, by kind (`client`, `sync`, `job type`, `queue`) and id.
        broken: what could not be imported, and ids that are declared twice.
        refused: why a declared thing cannot be used, by kind and id.
        job_types: by id, in the order found. None has the id of a sync: both are the `type` of a job's row.
    """

    clients: Mapping[str, Client] = field(default_factory=dict)
    syncs: Mapping[str, Sync] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    job_types: Mapping[str, JobType] = field(default_factory=dict)

    @property
    def origin(self) -> dict[str, str]:
        """The file of each id; where a client shares one with a sync or job type, not the client's."""
        kinds = ("client", "job type", "sync")
        return {name: file for kind in kinds for (known, name), file in self.files.items() if known == kind}

    def queue(self, name: str) -> Queue:
        """Return a queue as declared, or one with the defaults."""
        return self.queues.get(name) or Queue(name)

    def client(self, name: str) -> Client:
        """Return a client.

        Raises:
            UnknownName: there is none of this name, or it cannot be used.
        """
        if name in self.clients:
            return self.clients[name]
        raise UnknownName(self._missing("client", name, self.clients))

    def sync(self, name: str) -> Sync:
        """Return a sync.

        Raises:
            UnknownName: there is none of this name, or it cannot be used.
        """
        if name in self.syncs:
            return self.syncs[name]
        raise UnknownName(self._missing("sync", name, self.syncs))

    def job_type(self, name: str) -> JobType:
        """Return a job type.

        Raises:
            UnknownName: there is none of this name, or it cannot be used.
        """
        if name in self.job_types:
            return self.job_types[name]
        raise UnknownName(self._missing("job type", name, self.job_types))

    def of_client(self, name: str) -> tuple[Sync, ...]:
        """Return the syncs of one client."""
        return tuple(sync for sync in self.syncs.values() if sync.client.id == name)

    def job_types_of(self, client: str) -> tuple[JobType, ...]:
        """Return the job types of one client."""
        return tuple(job_type for job_type in self.job_types.values() if job_type.client.id == client)

    def _missing(self, kind: str, name: str, known: Iterable[str]) -> str:
        if (kind, name) in self.refused:
            return self.refused[kind, name]
        for broken in self.broken:
            if _mentions(broken.file, name):
                return f"{kind} {name!r} is in a file that cannot be used: {broken}"
        text = f"no {kind} is called {name!r}"
        if kind == "sync" and (own := self.of_client(name)):
            return f"{text}, but a client is; its syncs: {', '.join(sync.id for sync in own)}"
        for other, there in (("job type", self.job_types), ("sync", self.syncs)):
            if kind in ("job type", "sync") and other != kind and name in there:
                return f"{text}, but a {other} is; {_USE[other]}"
        if close := difflib.get_close_matches(name, list(known), n=3, cutoff=0.6):
            text += f"; did you mean {' or '.join(map(repr, close))}?"
        else:
            text += "; `syncs list` shows what is declared"
        return f"{text} (not everything could be read: {len(self.broken)} broken)" if self.broken else text


def _mentions(file: str, name: str) -> bool:
    """Tell whether a file's text holds the id as a literal: all that can be known of a file that cannot be imported."""
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return f'"{name}"' in text or f"'{name}'" in text


def load(paths: Sequence[str | Path] | None = None) -> Registry:
    """Import every file and collect what it declares. What cannot be imported is in `broken`, and hides nothing else.

    Args:
        paths: files and folders to read in place of `syncs/`, `SYNCS_PATH` and the entry points.
    """
    with _reading:
        return _load(paths)


def _load(paths: Sequence[str | Path] | None) -> Registry:
    found = _Collection()
    if paths is not None:
        found.take(read_paths(paths))
    else:
        # Read here and not through flows.settings: pydantic-settings alone would cost `syncs list` 0.15 s.
        named = [Path(part).expanduser() for part in os.environ.get("SYNCS_PATH", "").split(os.pathsep) if part.strip()]
        found.take(read_paths([*([FOLDER] if Path(FOLDER).is_dir() else []), *named]))
        found.take(read_entry_points())
    return found.registry()


class _Collection:
    """Gathers declarations, and knows each of them by identity."""

    def __init__(self) -> None:
        self.broken: list[Broken] = []
        self._found: dict[tuple[str, str], dict[int, tuple[Any, str]]] = {}

    def take(self, sources: Iterable[Source | Broken]) -> None:
        """Take in what was read."""
        for source in sources:
            if isinstance(source, Broken):
                self.broken.append(source)
                continue
            for thing in _declarations(source.names):
                self._add(thing, source.file)
                if isinstance(thing, Sync | JobType):
                    self._add(thing.client, source.file)

    def _add(self, thing: Any, file: str) -> None:
        same = self._found.setdefault((_kind(thing), thing.id), {})
        same.setdefault(id(thing), (thing, file))

    def registry(self) -> Registry:
        """Sort what was found: what can be used, and what cannot because of its id."""
        refused: dict[tuple[str, str], str] = {}
        kept: dict[tuple[str, str], tuple[Any, str]] = {}
        for (kind, name), same in self._found.items():
            if len(same) > 1:
                refused[kind, name] = self._twice(kind, name, same)
            else:
                kept[kind, name] = next(iter(same.values()))
        for kind, name in [key for key in kept if key[0] == "job type" and ("sync", key[1]) in self._found]:
            # Both are the type of a job's row: nobody could tell whose jobs are whose.
            refused[kind, name] = self._shared(name)
            refused.setdefault(("sync", name), refused[kind, name])
            kept.pop(("sync", name), None)
            del kept[kind, name]
        for (kind, name), (thing, _) in list(kept.items()):
            if isinstance(thing, Sync | JobType) and ("client", thing.client.id) in refused:
                # With two clients of one name nobody can tell whose pauses and settings count.
                refused[kind, name] = f"{kind} {name!r} cannot run: {refused['client', thing.client.id]}"
                del kept[kind, name]
        by_kind = {kind: {name: thing for (of, name), (thing, _) in kept.items() if of == kind} for kind in _KINDS.values()}
        return Registry(
            clients=MappingProxyType(by_kind["client"]),
            syncs=MappingProxyType(by_kind["sync"]),
            queues=MappingProxyType(by_kind["queue"]),
            files=MappingProxyType({key: file for key, (_, file) in kept.items()}),
            broken=tuple(self.broken),
            refused=MappingProxyType(refused),
            job_types=MappingProxyType(by_kind["job type"]),
        )

    def _twice(self, kind: str, name: str, same: Mapping[int, tuple[Any, str]]) -> str:
        where = sorted({file for _, file in same.values()})
        both = " and ".join(where) if len(where) > 1 else f"{where[0]}, twice"
        return self._complain(
            next(iter(same.values()))[1],
            f"{kind} {name!r} is declared in {both}; give one another id, or import it from the other file",
        )

    def _shared(self, name: str) -> str:
        ours, theirs = (next(iter(self._found[kind, name].values()))[1] for kind in ("job type", "sync"))
        where = f"{ours} and a sync in {theirs}" if ours != theirs else f"{ours}, and a sync too"
        return self._complain(ours, f"a job type {name!r} is declared in {where}; give one another id")

    def _complain(self, file: str, error: str) -> str:
        self.broken.append(Broken(file, error))
        return error


def _kind(thing: _Declaration) -> str:
    return next(name for kind, name in _KINDS.items() if isinstance(thing, kind))


def _declarations(names: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what is declared at module level: by itself, or in a list, tuple or dict, as a loop leaves it."""
    for name, value in list(names.items()):
        if isinstance(value, _Declaration):
            yield value
        elif not name.startswith("__"):
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            yield from (thing for thing in inner if isinstance(thing, _Declaration))
