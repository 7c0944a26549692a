"""Collects the clients, syncs, job types and queues that a project's files declare, without opening a connection."""

import difflib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from flows.declarations.alter import Alter
from flows.declarations.client import Client
from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync
from flows.errors import DeclarationError, UnknownName
from flows.project.discovery import Broken, Source, read_entry_points, read_paths
from jobs import Queue

if TYPE_CHECKING:
    from jobs.enqueueing.moved_declarations import Location
    from jobs.job import Lane

T = TypeVar("T")

FOLDER = "syncs"
"""The folder of the working directory whose files are read."""

_KINDS: Mapping[type[Any], str] = MappingProxyType({Client: "client", Sync: "sync", JobType: "job type", Queue: "queue"})
_Declaration = Client | Sync | JobType | Queue | Alter
#: One thread at a time: a second one would find modules that are only half imported, and miss their declarations.
_reading = threading.RLock()
_USE = {"job type": "`syncs enqueue` queues a job of it, `syncs work` works it", "sync": "`syncs run` runs it"}


@dataclass(frozen=True)
class Registry:
    """The declarations of a project, and their files.

    Args:
        clients: by id, in the order found.
        syncs: by id, in the order found.
        queues: by id, those that are declared.
        files: the file of each, by kind (`client`, `sync`, `job type`, `queue`) and id.
        broken: files that could not be imported, and ids that are declared twice.
        refused: why a declaration cannot be used, by kind and id.
        job_types: by id, in the order found. None has the id of a sync, since either id is the `type` of a job's row.
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
        """The file of each id. If a client and a sync or job type have the same id, it is not the client's file."""
        kinds = ("client", "job type", "sync")
        return {name: file for kind in kinds for (known, name), file in self.files.items() if known == kind}

    @property
    def types(self) -> frozenset[str]:
        """The ids of all syncs and job types; empty where a file is broken, so that nobody knows what it declares."""
        return frozenset() if self.broken or self.refused else frozenset({*self.syncs, *self.job_types})

    def undeclared(self, lanes: "Iterable[Lane]") -> list[str]:
        """Say which of these lanes have jobs of a type that is no longer declared, one line for each type and queue."""
        gone = sorted({(lane.type, lane.queue) for lane in lanes if lane.type not in self.types}) if self.types else []
        return [f"jobs of {name} wait in queue {queue}, but nothing declares it; they hold nobody back" for name, queue in gone]

    def queue(self, name: str) -> Queue:
        """Return the declared queue, or one with the defaults."""
        return self.queues.get(name) or Queue(name)

    def client(self, name: str) -> Client:
        """Return a client.

        Raises:
            UnknownName: there is none of this name, or it cannot be used.
        """
        return self._find("client", name, self.clients)

    def sync(self, name: str) -> Sync:
        """Return a sync.

        Raises:
            UnknownName: there is none of this name, or it cannot be used.
        """
        return self._find("sync", name, self.syncs)

    def job_type(self, name: str) -> JobType:
        """Return a job type.

        Raises:
            UnknownName: there is none of this name, or it cannot be used.
        """
        return self._find("job type", name, self.job_types)

    def of_client(self, name: str) -> tuple[Sync, ...]:
        """Return the syncs of one client."""
        return tuple(sync for sync in self.syncs.values() if sync.client.id == name)

    def job_types_of(self, client: str) -> tuple[JobType, ...]:
        """Return the job types of one client."""
        return tuple(job_type for job_type in self.job_types.values() if job_type.client.id == client)

    def locations(self) -> "list[Location]":
        """Return the queue and client in which the jobs of each sync and job type belong."""
        declared: list[Sync | JobType] = [*self.syncs.values(), *self.job_types.values()]
        return [location_of(one) for one in declared]

    def _find(self, kind: str, name: str, known: Mapping[str, T]) -> T:
        if name in known:
            return known[name]
        raise UnknownName(self._missing(kind, name, known))

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


def location_of(declared: Sync | JobType) -> "Location":
    """Return the queue and client in which the jobs of a sync or job type belong."""
    # Not at the top: reading declarations must not import SQLAlchemy.
    from jobs.enqueueing.moved_declarations import Location

    return Location(declared.id, declared.queue_id, declared.client.id, getattr(declared, "phases", ()))


def _mentions(file: str, name: str) -> bool:
    """Tell whether a file contains the id as a literal, which is all that can be found out if it cannot be imported."""
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return f'"{name}"' in text or f"'{name}'" in text


def load(paths: Sequence[str | Path] | None = None) -> Registry:
    """Import every file and collect its declarations. Files that cannot be imported are in `broken` and hide no other.

    Args:
        paths: files and folders to read instead of `syncs/`, `SYNCS_PATH` and the entry points.
    """
    with _reading:
        return _load(paths)


def _load(paths: Sequence[str | Path] | None) -> Registry:
    found = _Collection()
    if paths is not None:
        found.take(read_paths(paths))
    else:
        # Not through flows.project.settings: importing pydantic-settings takes 0.15 s, which `syncs list` need not wait for.
        named = [Path(part).expanduser() for part in os.environ.get("SYNCS_PATH", "").split(os.pathsep) if part.strip()]
        found.take(read_paths([*([FOLDER] if Path(FOLDER).is_dir() else []), *named]))
        found.take(read_entry_points())
    return found.registry()


def registry_of(sync: Sync) -> Registry:
    """Return the registry of a sync that a program made: its file, imported here once more, would declare everything twice."""
    found = _Collection()
    found.take([Source({"sync": sync}, "Python")])
    return found.registry()


class _Collection:
    """Collects declarations. The same object, found in two files, is one declaration."""

    def __init__(self) -> None:
        self.broken: list[Broken] = []
        self._found: dict[tuple[str, str], dict[int, tuple[Any, str]]] = {}
        self._alterations: dict[int, tuple[Alter, str]] = {}

    def take(self, sources: Iterable[Source | Broken]) -> None:
        """Add the declarations of these files."""
        for source in sources:
            if isinstance(source, Broken):
                self.broken.append(source)
                continue
            for thing in _declarations(source.names):
                if isinstance(thing, Alter):
                    self._alterations.setdefault(id(thing), (thing, source.file))
                    continue
                client = thing.client if isinstance(thing, Sync | JobType) else None
                queues = (getattr(one, "own_queue", None) for one in (thing, client))
                for one in (thing, client, *queues):
                    if one is not None:
                        self._add(one, source.file)

    def _add(self, thing: Any, file: str) -> None:
        same = self._found.setdefault((_kind(thing), thing.id), {})
        same.setdefault(id(thing), (thing, file))

    def registry(self) -> Registry:
        """Return the registry, in which declarations that cannot be used because of their ids are refused."""
        refused: dict[tuple[str, str], str] = {}
        kept: dict[tuple[str, str], tuple[Any, str]] = {}
        for (kind, name), same in self._found.items():
            if len(same) > 1:
                refused[kind, name] = self._twice(kind, name, same)
            else:
                kept[kind, name] = next(iter(same.values()))
        for kind, name in [key for key in kept if key[0] == "job type" and ("sync", key[1]) in self._found]:
            # Either id is the `type` of a job's row, so their jobs could not be told apart.
            refused[kind, name] = self._shared(name)
            refused.setdefault(("sync", name), refused[kind, name])
            kept.pop(("sync", name), None)
            del kept[kind, name]
        for (kind, name), (thing, _) in list(kept.items()):
            if isinstance(thing, Sync | JobType) and ("client", thing.client.id) in refused:
                # With two clients of one id it is undecided whose pauses and settings apply.
                refused[kind, name] = f"{kind} {name!r} cannot run: {refused['client', thing.client.id]}"
                del kept[kind, name]
        self._alter(kept, refused)
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

    def _alter(self, kept: dict[tuple[str, str], tuple[Any, str]], refused: dict[tuple[str, str], str]) -> None:
        """Change what files alter that others declare. What cannot be altered does not run, as nobody wants it unaltered."""
        for change, file in self._alterations.values():
            place = next((key for key in (("job type", change.id), ("sync", change.id)) if key in kept), None)
            if place is None:
                self._complain(file, f"it alters {change.id!r}, which no file declares")
                continue
            declared, origin = kept[place]
            try:
                altered = change.of(declared)
            except (DeclarationError, TypeError, ValueError) as error:
                refused[place] = self._complain(file, str(error))
                del kept[place]
                continue
            kept[place] = altered, origin
            if altered.own_queue is not None:
                kept.setdefault(("queue", altered.own_queue.id), (altered.own_queue, file))

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
    """Yield the declarations at module level, including those in lists, tuples and dicts, which loops make."""
    for name, value in list(names.items()):
        if isinstance(value, _Declaration):
            yield value
        elif not name.startswith("__"):
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            yield from (thing for thing in inner if isinstance(thing, _Declaration))
