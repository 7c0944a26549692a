"""What is declared: finds a project's files, imports them, collects their clients and syncs. Opens no connection.

A file may import what lies beside it by its plain name (`from _shared import clean`, `from petstore import petstore`);
installed packages go first. A file that its neighbour imports is the same module as the one that is read here, so what it
declares is one thing.
"""

import difflib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from flows.declaration import Client, Sync
from flows.errors import UnknownName
from jobs import Queue

FOLDER = "syncs"
"""The folder of the working directory whose files are read."""

ENTRY_POINTS = "sync_clients"
"""The entry point group of installed distributions."""

_PACKAGE = "syncs_files"
_NEIGHBOURS = "__syncs_folder__"
_TEXT = "__syncs_text__"
_KINDS = (Client, Sync, Queue)


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be used as it is, and why, in one line."""

    file: str
    error: str

    def __str__(self) -> str:
        return f"{self.file}: {self.error}"


@dataclass(frozen=True)
class Registry:
    """What is declared, and where.

    Args:
        clients: by id, in the order found.
        syncs: by id, in the order found.
        queues: by id, those that are declared.
        files: where each stands, by kind (`client`, `sync`, `queue`) and id.
        broken: what could not be imported, and ids that are declared twice.
        refused: why a declared thing cannot be used, by kind and id.
    """

    clients: Mapping[str, Client] = field(default_factory=dict)
    syncs: Mapping[str, Sync] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def origin(self) -> dict[str, str]:
        """The file of each id; where a sync and its client share one, the sync's."""
        return {name: file for kind in ("client", "sync") for (known, name), file in self.files.items() if known == kind}

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

    def of_client(self, name: str) -> tuple[Sync, ...]:
        """Return the syncs of one client."""
        return tuple(sync for sync in self.syncs.values() if sync.client.id == name)

    def _missing(self, kind: str, name: str, known: Iterable[str]) -> str:
        if (kind, name) in self.refused:
            return self.refused[kind, name]
        for broken in self.broken:
            if _mentions(broken.file, name):
                return f"{kind} {name!r} is in a file that cannot be used: {broken}"
        text = f"no {kind} is called {name!r}"
        if kind == "sync" and (own := self.of_client(name)):
            return f"{text}, but a client is; its syncs: {', '.join(sync.id for sync in own)}"
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
    found = _Collection()
    if paths is not None:
        _read_paths(paths, found)
    else:
        # Read here and not through flows.settings: pydantic-settings alone would cost `syncs list` 0.15 s.
        named = [Path(part).expanduser() for part in os.environ.get("SYNCS_PATH", "").split(os.pathsep) if part.strip()]
        _read_paths([*([FOLDER] if Path(FOLDER).is_dir() else []), *named], found)
        _read_entry_points(found)
    return found.registry()


def _read_paths(paths: Iterable[str | Path], found: "_Collection") -> None:
    folders: dict[Path, list[Path]] = {}
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_") and file.is_file())
        elif path.is_file():
            files = [path]
        else:
            found.broken.append(Broken(str(path), "there is no such file or folder; correct SYNCS_PATH"))
            continue
        for file in files:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                folders.setdefault(real.parent, []).append(file)
    for folder, files in folders.items():
        _read_folder(folder, files, found)


def _read_folder(folder: Path, files: Sequence[Path], found: "_Collection") -> None:
    before = _enter(folder)
    modules: list[tuple[bool, Path, ModuleType]] = []
    for file in files:
        imported = _neighbour(file)
        try:
            modules.append((imported is None, file, imported or _import(file)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file does wrong, even to exit, hides no other
            found.broken.append(Broken(str(file), _explain(error, file)))
    _mark(folder, before)
    # Files that a neighbour imported go first: what they declare is theirs, although the neighbour holds it too.
    for _, file, module in sorted(modules, key=lambda entry: entry[0]):
        found.add(vars(module), str(file))


def _read_entry_points(found: "_Collection") -> None:
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        where = f"entry point {point.name} = {point.value}"
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nor does a broken plugin
            found.broken.append(Broken(where, _explain(error, None)))
            continue
        found.add(vars(loaded) if isinstance(loaded, ModuleType) else {point.name: loaded}, where)


def _enter(folder: Path) -> set[str]:
    """Let plain names mean the files of this folder, after all installed ones; return the modules there were before."""
    ours = {str(folder)}
    for name, module in list(sys.modules.items()):
        of = getattr(module, _NEIGHBOURS, None)
        if of is None:
            continue
        ours.add(of)
        if name.startswith(f"{_PACKAGE}."):
            # Kept, and used again where the file has not changed: what it declares, tables above all, exists once.
            continue
        # An earlier load, or an earlier folder with a file of the same name.
        if of == str(folder) or (folder / f"{name}.py").exists():
            del sys.modules[name]
    # The folder stays on the path, for imports inside functions. Of ours, this one is the first.
    others = [path for path in sys.path if path in ours and path != str(folder)]
    sys.path[:] = [*(path for path in sys.path if path not in ours), str(folder), *others]
    importlib.invalidate_caches()
    return set(sys.modules)


def _mark(folder: Path, before: set[str]) -> None:
    """Remember which modules came from this folder, so that the next load reads them anew."""
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == folder:
            setattr(sys.modules[name], _NEIGHBOURS, str(folder))


def _neighbour(file: Path) -> ModuleType | None:
    module = sys.modules.get(file.stem)
    known = getattr(module, "__file__", None)
    return module if known is not None and Path(known).resolve() == file.resolve() else None


def _import(file: Path) -> ModuleType:
    real = file.resolve()
    name = f"{_PACKAGE}.{real.stem}_{hashlib.blake2b(str(real).encode(), digest_size=4).hexdigest()}"
    # Read twice in one process, a file is one module, as with any import: a second SQLModel table of one name is an error.
    # With what lies beside it, which it may import.
    files = sorted(path for path in real.parent.glob("*.py") if path != real)
    text = hashlib.blake2b(b"\0".join(path.read_bytes() for path in (real, *files)), digest_size=16).digest()
    known = sys.modules.get(name)
    if known is not None and getattr(known, _TEXT, None) == text:
        return known
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None or spec.loader is None:
        raise ImportError("this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    names = [name]
    # Under its plain name too, so that a neighbour's import finds this module and does not make a second one.
    if real.stem.isidentifier() and real.stem not in sys.modules:
        plain = importlib.util.find_spec(real.stem)
        if plain is not None and plain.origin == str(real):
            names.append(real.stem)
    # Before it runs: dataclasses, pydantic and typing look a class's module up here.
    sys.modules.update(dict.fromkeys(names, module))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for taken in names:
            sys.modules.pop(taken, None)
        raise
    setattr(module, _TEXT, text)
    return module


def _explain(error: BaseException, file: Path | None) -> str:
    """Say in one line what went wrong, and at which line of this file."""
    text = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SyntaxError) and error.filename:
        text = error.msg
        if file is None or Path(error.filename).resolve() != file.resolve():
            text += f" ({error.filename}, line {error.lineno})"
    line = _line(error, file)
    what = type(error).__name__ + (f": {text}" if text else "")
    return f"line {line}: {what}" if line else what


def _line(error: BaseException, file: Path | None) -> int | None:
    if file is None:
        return None
    real = str(file.resolve())
    if isinstance(error, SyntaxError) and error.filename == real:
        return error.lineno
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == real:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


class _Collection:
    """Gathers declarations, and knows each of them by identity."""

    def __init__(self) -> None:
        self.broken: list[Broken] = []
        self._found: dict[tuple[str, str], dict[int, tuple[Any, str]]] = {}

    def add(self, names: Mapping[str, Any], file: str) -> None:
        for thing in _declarations(names):
            self._add(thing, file)
            if isinstance(thing, Sync):
                self._add(thing.client, file)

    def _add(self, thing: Any, file: str) -> None:
        same = self._found.setdefault((_kind(thing), thing.id), {})
        same.setdefault(id(thing), (thing, file))

    def registry(self) -> Registry:
        refused: dict[tuple[str, str], str] = {}
        kept: dict[tuple[str, str], tuple[Any, str]] = {}
        for (kind, name), same in self._found.items():
            first, *others = same.values()
            if others:
                where = sorted({file for _, file in same.values()})
                both = " and ".join(where) if len(where) > 1 else f"{where[0]}, twice"
                error = f"{kind} {name!r} is declared in {both}; give one another id, or import it from the other file"
                refused[kind, name] = error
                self.broken.append(Broken(first[1], error))
            else:
                kept[kind, name] = first
        for (kind, name), (thing, _) in list(kept.items()):
            if isinstance(thing, Sync) and ("client", thing.client.id) in refused:
                # With two clients of one name nobody can tell whose pauses and settings count.
                refused[kind, name] = f"sync {name!r} cannot run: {refused['client', thing.client.id]}"
                del kept[kind, name]
        return Registry(
            clients=MappingProxyType({name: thing for (kind, name), (thing, _) in kept.items() if kind == "client"}),
            syncs=MappingProxyType({name: thing for (kind, name), (thing, _) in kept.items() if kind == "sync"}),
            queues=MappingProxyType({name: thing for (kind, name), (thing, _) in kept.items() if kind == "queue"}),
            files=MappingProxyType({key: file for key, (_, file) in kept.items()}),
            broken=tuple(self.broken),
            refused=MappingProxyType(refused),
        )


def _kind(thing: Client | Sync | Queue) -> str:
    return "client" if isinstance(thing, Client) else "sync" if isinstance(thing, Sync) else "queue"


def _declarations(names: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what is declared at module level: by itself, or in a list, tuple or dict, as a loop leaves it."""
    for name, value in list(names.items()):
        if isinstance(value, _KINDS):
            yield value
        elif not name.startswith("__"):
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            yield from (thing for thing in inner if isinstance(thing, _KINDS))
