"""Finding and importing the files of a project, and telling in one line what is wrong with one. Knows no declaration.

A file may import what lies beside it by its plain name (`from _shared import clean`, `from petstore import petstore`);
installed packages go first. A file that its neighbour imports is the same module as the one that is read here, so what it
declares is one thing.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ENTRY_POINTS = "sync_clients"
"""The entry point group of installed distributions."""

_PACKAGE = "syncs_files"
_NEIGHBOURS = "__syncs_folder__"
_TEXT = "__syncs_text__"
#: Folders that stand on `sys.path` because of this module.
_entered: set[str] = set()


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be used as it is, and why, in one line."""

    file: str
    error: str

    def __str__(self) -> str:
        return f"{self.file}: {self.error}"


class Source(NamedTuple):
    """What a file or an entry point has at its top level, and where that is."""

    names: Mapping[str, Any]
    file: str


def read_paths(paths: Iterable[str | Path]) -> Iterator[Source | Broken]:
    """Import files, and the files of folders, each once."""
    folders: dict[Path, list[Path]] = {}
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_") and file.is_file())
        elif path.is_file():
            files = [path]
        else:
            yield Broken(str(path), "there is no such file or folder; correct SYNCS_PATH")
            continue
        for file in files:
            if (real := file.resolve()) not in seen:
                seen.add(real)
                folders.setdefault(real.parent, []).append(file)
    for folder, files in folders.items():
        yield from _read_folder(folder, files)


def _read_folder(folder: Path, files: Sequence[Path]) -> Iterator[Source | Broken]:
    text = _text_of(folder)
    before = _enter(folder, text)
    modules: list[tuple[Path, ModuleType]] = []
    broken = []
    for file in files:
        try:
            modules.append((file, _neighbour(file) or _import(file, text)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file does wrong, even to exit, hides no other
            broken.append(Broken(str(file), _explain(error, file)))
    _mark(folder, before, text)
    yield from broken
    # Files that a neighbour imported go first: what they declare is theirs, although the neighbour holds it too.
    for file, module in sorted(modules, key=lambda entry: entry[1].__name__.startswith(f"{_PACKAGE}.")):
        yield Source(vars(module), str(file))


def read_entry_points() -> Iterator[Source | Broken]:
    """Load what installed distributions contribute."""
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        where = f"entry point {point.name} = {point.value}"
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nor does a broken plugin
            yield Broken(where, _explain(error, None))
            continue
        yield Source(vars(loaded) if isinstance(loaded, ModuleType) else {point.name: loaded}, where)


def _text_of(folder: Path) -> bytes:
    """Digest all files of a folder: each may import what lies beside it."""
    text = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*.py")):
        # One that cannot be read says so when it is imported.
        with suppress(OSError):
            content = path.read_bytes()
            text.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return text.digest()


def _enter(folder: Path, text: bytes) -> set[str]:
    """Let plain names mean the files of this folder, after all installed ones; return the modules there were before."""
    _entered.add(str(folder))
    for name, module in list(sys.modules.items()):
        of = getattr(module, _NEIGHBOURS, None)
        if of is None or name.startswith(f"{_PACKAGE}."):
            continue
        # Kept where no file of the folder has changed, as `_import` does: who imported it holds what it declares.
        is_changed = getattr(module, _TEXT, None) != text
        if is_changed if of == str(folder) else (folder / f"{name}.py").exists():
            del sys.modules[name]
    # The folder stays on the path, for imports inside functions. Of ours, this one is the first.
    others = [path for path in sys.path if path in _entered and path != str(folder)]
    sys.path[:] = [*(path for path in sys.path if path not in _entered), str(folder), *others]
    importlib.invalidate_caches()
    return set(sys.modules)


def _mark(folder: Path, before: set[str], text: bytes) -> None:
    """Remember which modules came from this folder, so that the next load reads them anew if something changed."""
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == folder:
            setattr(module, _NEIGHBOURS, str(folder))
            setattr(module, _TEXT, text)


def _neighbour(file: Path) -> ModuleType | None:
    module = sys.modules.get(file.stem)
    known = getattr(module, "__file__", None)
    return module if known is not None and Path(known).resolve() == file.resolve() else None


def _import(file: Path, text: bytes) -> ModuleType:
    real = file.resolve()
    name = f"{_PACKAGE}.{real.stem}_{hashlib.blake2b(str(real).encode(), digest_size=4).hexdigest()}"
    # Read twice in one process, a file is one module, as with any import: a second SQLModel table of one name is an error.
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
