"""Finds and imports the files of a project, and says in one line what is wrong with a file that cannot be imported.

A file may import another one of its folder by its plain name (`from _shared import clean`, `from petstore import petstore`);
installed packages take precedence. A file that another one imports is the same module as the one read here, so its declarations
exist once.
"""

import hashlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from flows.errors import SettingsError

ENTRY_POINTS = "sync_clients"
"""The entry point group of installed distributions."""

_PACKAGE = "syncs_files"
_SECOND_TABLE = re.compile(r"Table '([^']+)' is already defined for this MetaData")
_FOLDER_MARK = "__syncs_folder__"
_DIGEST_MARK = "__syncs_digest__"
#: Folders that this module has put on `sys.path`.
_added: set[str] = set()


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be used, and the reason in one line."""

    file: str
    error: str

    def __str__(self) -> str:
        return f"{self.file}: {self.error}"


class Source(NamedTuple):
    """The module-level names of a file or entry point, and where it is."""

    names: Mapping[str, Any]
    file: str


def read_paths(paths: Iterable[str | Path]) -> Iterator[Source | Broken]:
    """Import files and the files of folders, each file once."""
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
    _forget_others(seen)
    for folder, files in folders.items():
        yield from _read_folder(folder, files)


def _read_folder(folder: Path, files: Sequence[Path]) -> Iterator[Source | Broken]:
    digest = _digest_of(folder)
    before = _add_to_path(folder, digest)
    modules: list[tuple[Path, ModuleType]] = []
    broken = []
    for file in files:
        try:
            modules.append((file, _imported_by_other(file) or _import(file, digest)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an error in one file, even an exit, must not hide the other files
            broken.append(Broken(str(file), _explain(error, file)))
    _mark(folder, before, digest)
    yield from broken
    # Files that another file imported come first: their declarations are theirs, although the other file has them too.
    for file, module in sorted(modules, key=lambda entry: entry[1].__name__.startswith(f"{_PACKAGE}.")):
        yield Source(vars(module), str(file))


def read_entry_points() -> Iterator[Source | Broken]:
    """Load the entry points of installed distributions."""
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        where = f"entry point {point.name} = {point.value}"
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken plugin must not hide the others
            yield Broken(where, _explain(error, None))
            continue
        yield Source(vars(loaded) if isinstance(loaded, ModuleType) else {point.name: loaded}, where)


def _digest_of(folder: Path) -> bytes:
    """Return a digest of all files of a folder, since each may import the others."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*.py")):
        # A file that cannot be read is reported when it is imported.
        with suppress(OSError):
            content = path.read_bytes()
            digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.digest()


def _add_to_path(folder: Path, digest: bytes) -> set[str]:
    """Make the files of this folder importable by plain names, after installed packages. Return the modules of before."""
    _added.add(str(folder))
    for name, module in list(sys.modules.items()):
        of = getattr(module, _FOLDER_MARK, None)
        if of is None or name.startswith(f"{_PACKAGE}."):
            continue
        # Kept if no file of the folder has changed, as in `_import`: modules that imported it hold its declarations.
        is_changed = getattr(module, _DIGEST_MARK, None) != digest
        if is_changed if of == str(folder) else (folder / f"{name}.py").exists():
            del sys.modules[name]
    # The folder stays on the path, for imports inside functions. It comes before the other folders of syncs.
    others = [path for path in sys.path if path in _added and path != str(folder)]
    sys.path[:] = [*(path for path in sys.path if path not in _added), str(folder), *others]
    importlib.invalidate_caches()
    return set(sys.modules)


def _mark(folder: Path, before: set[str], digest: bytes) -> None:
    """Mark the modules that came from this folder, so that the next load imports them again if a file has changed."""
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == folder:
            setattr(module, _FOLDER_MARK, str(folder))
            setattr(module, _DIGEST_MARK, digest)


def _imported_by_other(file: Path) -> ModuleType | None:
    module = sys.modules.get(file.stem)
    known = getattr(module, "__file__", None)
    return module if known is not None and Path(known).resolve() == file.resolve() else None


def _import(file: Path, digest: bytes) -> ModuleType:
    real = file.resolve()
    name = f"{_PACKAGE}.{real.stem}_{hashlib.blake2b(str(real).encode(), digest_size=4).hexdigest()}"
    # A file that is read twice in one process is one module, as with any import: defining a SQLModel table twice is an error.
    known = sys.modules.get(name)
    if known is not None and getattr(known, _DIGEST_MARK, None) == digest:
        return known
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None or spec.loader is None:
        raise ImportError("this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    _forget_tables(known)
    names = [name]
    # Under its plain name too, so that an import by another file finds this module instead of making a second one.
    if real.stem.isidentifier() and real.stem not in sys.modules:
        plain = importlib.util.find_spec(real.stem)
        if plain is not None and plain.origin == str(real):
            names.append(real.stem)
    # Before it runs: dataclasses, pydantic and typing look up the module of a class here.
    sys.modules.update(dict.fromkeys(names, module))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for taken in names:
            sys.modules.pop(taken, None)
        _forget_tables(module)
        raise
    setattr(module, _DIGEST_MARK, digest)
    return module


def _forget_others(files: Iterable[Path]) -> None:
    """Forget modules with tables of files that are no longer read: those that are may have tables of the same names."""
    there = set(map(str, files))
    for module in [module for name, module in sys.modules.items() if name.startswith(f"{_PACKAGE}.")]:
        if str(getattr(module, "__file__", "")) not in there and _forget_tables(module):
            for name in [name for name, one in sys.modules.items() if one is module]:
                del sys.modules[name]


def _forget_tables(module: ModuleType | None) -> bool:
    """Take the tables of a module out of the metadata, which refuses a second one of a name; tell whether it had any."""
    found = False
    for value in list(vars(module).values()) if module is not None else ():
        table = getattr(value, "__table__", None)
        if isinstance(value, type) and table is not None and value.__module__ == getattr(module, "__name__", None):
            table.metadata.remove(table)
            if (registry := getattr(value, "_sa_registry", None)) is not None:
                # Else SQLAlchemy warns of the second class of the name, and relationships by name find two.
                registry._dispose_cls(value)
            found = True
    return found


def _explain(error: BaseException, file: Path | None) -> str:
    """Return in one line what is wrong, and at which line of this file."""
    text = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SyntaxError) and error.filename:
        text = error.msg
        if file is None or Path(error.filename).resolve() != file.resolve():
            text += f" ({error.filename}, line {error.lineno})"
    line = _line(error, file)
    second = _SECOND_TABLE.match(text)
    what = _explain_second_table(error, second[1]) if second else type(error).__name__ + (f": {text}" if text else "")
    return f"line {line}: {what}" if line else what


def _explain_second_table(error: BaseException, name: str) -> str:
    """Say which files declare a table of this name; SQLAlchemy names none, and advises what would hide the mistake."""
    here: dict[str, Any] = {}
    table, trace = None, error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "<module>":
            here = frame.f_globals
        # A variable of SQLAlchemy's. Where it has none, or where it was taken out again with its file, the table is this file's.
        table = getattr(frame.f_locals.get("metadata"), "tables", {}).get(name, table)
        trace = trace.tb_next
    # The module that failed is no longer among the others.
    names_of = {module.__name__: vars(module) for module in list(sys.modules.values()) if isinstance(module, ModuleType)}
    names_of[here.get("__name__", "")] = here
    classes = (value for names in names_of.values() for value in list(names.values()) if isinstance(value, type))
    owner = None if table is None else next((one for one in classes if getattr(one, "__table__", None) is table), None)
    there = here if owner is None else names_of.get(owner.__module__, here)
    if owner is None or there is here:
        where = "" if table is not None and owner is None else f" in {_shown_file(here)}"
        return f"the table {name!r} is declared twice{where}; give one of the two another `__tablename__`"
    how = f"`from {Path(there.get('__file__') or owner.__module__).stem} import {owner.__name__}`"
    files = f"{_shown_file(here)} and {_shown_file(there)}"
    return f"{files} both declare the table {name!r}; give one another `__tablename__`, or, if it is the same, {how}"


def _shown_file(names: Mapping[str, Any]) -> str:
    """Return the file of a module, by its names: from the working directory, where it is in it."""
    path = Path(names.get("__file__") or names.get("__name__") or "?")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


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


def project_name_in(file: Path) -> str | None:
    """Return the name that a `pyproject.toml` says; `None` where there is no such file or it says none.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        found = tomllib.loads(file.read_text("utf-8")).get("project", {}).get("name")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{file.absolute()} cannot be read; set SYNCS_PROJECT, or mend it") from error
    return found if isinstance(found, str) and found else None
