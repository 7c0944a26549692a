"""The registry: which files are read, what in them counts, and what a broken one does to the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.errors import UnknownName
from flows.project.registry import Registry, load

if TYPE_CHECKING:
    from tests.flows.conftest import Project

HEAD = "from flows import Client, Sync\nfrom clients import Listing\nlisting = Listing('x')\n"


def client(name: str, variable: str = "c") -> str:
    """Return the line that declares a client."""
    return f"{variable} = Client({name!r}, connect=lambda s: None)\n"


def sync(name: str, variable: str = "s", of: str = "c") -> str:
    """Return the line that declares a sync."""
    return f"{variable} = Sync({name!r}, {of}, listing=listing)\n"


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    """Take what a test loaded out of this process again."""
    modules, path = dict(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def load_with(monkeypatch: pytest.MonkeyPatch, *paths: Path | str) -> Registry:
    """Load with SYNCS_PATH."""
    monkeypatch.setenv("SYNCS_PATH", os.pathsep.join(map(str, paths)))
    return load()


def test_clients_and_syncs_of_a_file_are_found(project: Project) -> None:
    """A file's clients and syncs are registered under their ids, with the file they stand in."""
    project.write("syncs/a.py", HEAD + client("a") + sync("a.x"))
    found = load()
    assert list(found.clients) == ["a"]
    assert list(found.syncs) == ["a.x"]
    assert found.origin == {"a": "syncs/a.py", "a.x": "syncs/a.py"}
    assert found.broken == ()
    assert found.sync("a.x").client is found.client("a")
    assert found.of_client("a") == (found.sync("a.x"),)


def test_an_empty_project_declares_nothing(project: Project) -> None:
    """A project without files, and even without the folder, is empty and not broken."""
    assert load() == Registry()
    (project.folder / "syncs").rmdir()
    assert load() == Registry()


def test_files_with_an_underscore_and_subfolders_are_not_read(project: Project) -> None:
    """Only Python files directly in the folder count, and not those that begin with an underscore."""
    project.write("syncs/_a.py", "raise RuntimeError")
    project.write("syncs/inner/b.py", "raise RuntimeError")
    project.write("syncs/notes.txt", "raise RuntimeError")
    assert load() == Registry()


def test_syncs_path_adds_files_and_folders(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """SYNCS_PATH names files and folders, which are read after `syncs/`; what is named twice is read once."""
    project.write("syncs/a.py", HEAD + client("a"))
    project.write("more/b.py", HEAD + client("b"))
    one = project.write("one/c.py", HEAD + client("c"))
    project.write("one/d.py", HEAD + client("d"))
    found = load_with(monkeypatch, project.folder / "more", one, "syncs", one)
    assert list(found.clients) == ["a", "b", "c"]
    assert found.broken == ()


def test_a_missing_path_is_reported_and_hides_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in SYNCS_PATH that is not there is reported like a broken file."""
    project.write("syncs/a.py", HEAD + client("a"))
    found = load_with(monkeypatch, "nowhere")
    assert list(found.clients) == ["a"]
    assert [str(broken) for broken in found.broken] == ["nowhere: there is no such file or folder; correct SYNCS_PATH"]


def test_paths_in_place_of_the_environment(project: Project) -> None:
    """`load(paths)` reads these and nothing else."""
    project.write("syncs/a.py", HEAD + client("a"))
    assert list(load([project.write("b.py", HEAD + client("b"))]).clients) == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        "many = [Sync(f'c.{n}', c, listing=listing) for n in 'xy']",
        "many = tuple(Sync(f'c.{n}', c, listing=listing) for n in 'xy')",
        "many = {n: Sync(f'c.{n}', c, listing=listing) for n in 'xy'}",
        "for n in 'xy':\n    globals()[n] = Sync(f'c.{n}', c, listing=listing)",
    ],
)
def test_derivatives_are_a_loop(project: Project, text: str) -> None:
    """What a loop leaves in a list, tuple, dict or in the module itself is registered, the loop's variable not twice."""
    project.write("syncs/c.py", HEAD + client("c") + text)
    found = load()
    assert list(found.syncs) == ["c.x", "c.y"]
    assert found.broken == ()


def test_a_client_known_only_through_its_sync(project: Project) -> None:
    """A client that no module-level name holds is registered through its sync."""
    project.write("syncs/a.py", HEAD + "s = Sync('a.x', Client('a', connect=lambda s: None), listing=listing)")
    assert list(load().clients) == ["a"]


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_a_neighbour_imported_by_name_is_the_same_thing(project: Project, first: str, second: str) -> None:
    """A file may import from its neighbour, whichever is read first: one declaration, in the file that made it, at each load."""
    project.write(f"syncs/{first}.py", HEAD + client("c") + sync("c.x"))
    project.write(f"syncs/{second}.py", HEAD + f"from {first} import c, s\n" + sync("c.y", "t"))
    seen = []
    for extra in ("", "", "\nNEW = 1\n", ""):
        if extra:
            project.write(f"syncs/{second}.py", HEAD + f"from {first} import c, s\n" + sync("c.y", "t") + extra)
        found = load()
        seen.append(found.client("c"))
        assert found.broken == ()
        assert sorted(found.syncs) == ["c.x", "c.y"]
        assert found.syncs["c.x"].client is found.syncs["c.y"].client
        assert found.origin["c"] == f"syncs/{first}.py"
        assert found.origin["c.y"] == f"syncs/{second}.py"
    # Read anew where a file changed, and only then.
    assert len({id(one) for one in seen}) == 2


def test_an_earlier_folder_does_not_shadow_this_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was read before stays on the path, behind this one, also when none of its modules is left."""
    project.write("syncs/_shared.py", "name = 'earlier'")
    project.write("syncs/a.py", HEAD + "from _shared import name\n" + client("c").replace("'c'", "name"))
    assert list(load().clients) == ["earlier"]
    for name in [name for name in sys.modules if name.startswith("syncs_files.") or name in ("a", "_shared")]:
        del sys.modules[name]
    (project.folder / "other").mkdir()
    monkeypatch.chdir(project.folder / "other")
    project.write("other/syncs/_shared.py", "name = 'this_one'")
    project.write("other/syncs/a.py", HEAD + "from _shared import name\n" + client("c").replace("'c'", "name"))
    assert list(load().clients) == ["this_one"]


def test_two_folders_may_have_a_neighbour_of_one_name(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder's files import their own `_shared`, also inside functions of one folder, and after another load."""
    for folder in ("syncs", "more"):
        project.write(f"{folder}/_shared.py", f"name = {folder!r}")
        project.write(f"{folder}/{folder}_file.py", HEAD + "from _shared import name\n" + client("c").replace("'c'", "name"))
    for _ in range(2):
        assert list(load_with(monkeypatch, "more").clients) == ["syncs", "more"]


def test_another_load_reads_the_files_anew(project: Project) -> None:
    """Loading twice in one process gives what the files say then, neighbours included."""
    project.write("syncs/a.py", HEAD + "from _shared import name\nc = Client(name, connect=lambda s: None)")
    project.write("syncs/_shared.py", "name = 'before'")
    assert list(load().clients) == ["before"]
    project.write("syncs/_shared.py", "name = 'much_later'")
    assert list(load().clients) == ["much_later"]


def test_a_file_cannot_shadow_an_installed_module(project: Project) -> None:
    """A file named like an installed module is read, and who imports that name still gets the installed one."""
    project.write("syncs/colorsys.py", HEAD + client("mine"))
    project.write("syncs/z.py", HEAD + "from colorsys import rgb_to_hsv\n" + client("z"))
    found = load()
    assert sorted(found.clients) == ["mine", "z"]
    assert found.broken == ()


def test_classes_of_a_file_can_be_resolved(project: Project) -> None:
    """A settings class with postponed annotations works: its module can be found by name."""
    project.write(
        "syncs/a.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom pydantic import BaseModel\n" + HEAD
        + "@dataclass\nclass D:\n    x: int\nclass M(BaseModel):\n    later: Later\nclass Later(BaseModel):\n    x: int\n"
        + "M(later={'x': 1})\n" + client("a"),
    )  # fmt: skip
    assert load().broken == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import nosuch_module", "line 1: ModuleNotFoundError: No module named 'nosuch_module'"),
        ("x = 1\n\ndef f(:\n", "line 3: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit('done')", "line 2: SystemExit: done"),
        ("def f():\n    raise ValueError('two\\nlines')\n\nf()\n", "line 2: ValueError: two"),
        (HEAD + "\nc = Client('a b', connect=print)", "line 5: DeclarationError: client id 'a b' must be"),
        ("raise KeyError", "line 1: KeyError"),
        ("import json\njson.loads('{')", "line 2: JSONDecodeError: Expecting property name"),
        ("\0", "SyntaxError: source code"),
    ],
)
def test_a_broken_file_is_reported_and_hides_no_other(project: Project, text: str, error: str) -> None:
    """Whatever is wrong with a file, it is one line with the line in that file, and its neighbours are there."""
    project.write("syncs/broken.py", text)
    project.write("syncs/a.py", HEAD + client("a"))
    project.write("syncs/z.py", HEAD + client("z"))
    found = load()
    assert list(found.clients) == ["a", "z"]
    assert [broken.file for broken in found.broken] == ["syncs/broken.py"]
    assert error in found.broken[0].error
    assert "\n" not in found.broken[0].error


def test_a_broken_neighbour_is_named(project: Project) -> None:
    """A file that imports a broken one is broken too, and says where the error is."""
    project.write("syncs/a.py", "x = 1\nfrom z import y")
    project.write("syncs/z.py", "y = (")
    errors = {broken.file: broken.error for broken in load().broken}
    assert errors["syncs/z.py"] == "line 1: SyntaxError: '(' was never closed"
    assert errors["syncs/a.py"].startswith("line 2: SyntaxError: '(' was never closed (")
    assert errors["syncs/a.py"].endswith("z.py, line 1)")


def test_two_declarations_with_one_id_name_both_files(project: Project) -> None:
    """Neither of two syncs with one id can be used, the error names both files, and everything else goes on."""
    project.write("syncs/a.py", HEAD + client("a") + sync("same") + sync("a.x", "t"))
    project.write("syncs/b.py", HEAD + client("b") + sync("same"))
    found = load()
    assert list(found.syncs) == ["a.x"]
    assert sorted(found.clients) == ["a", "b"]
    (broken,) = found.broken
    assert "sync 'same' is declared in syncs/a.py and syncs/b.py" in broken.error
    with pytest.raises(UnknownName, match=r"declared in syncs/a\.py and syncs/b\.py"):
        found.sync("same")


def test_two_clients_with_one_id_take_their_syncs_along(project: Project) -> None:
    """A sync of a client that is declared twice cannot run: nobody could tell whose pauses and settings count."""
    project.write("syncs/a.py", HEAD + client("same") + sync("a.x"))
    project.write("syncs/b.py", HEAD + client("same"))
    found = load()
    assert not found.syncs
    assert len(found.broken) == 1
    with pytest.raises(UnknownName, match=r"sync 'a\.x' cannot run: client 'same' is declared in"):
        found.sync("a.x")


def test_twice_in_one_file(project: Project) -> None:
    """Two declarations with one id in one file name it once."""
    project.write("syncs/a.py", HEAD + client("a") + sync("a.x") + sync("a.x", "t"))
    assert "is declared in syncs/a.py, twice" in load().broken[0].error


def test_a_client_and_a_sync_may_share_an_id(project: Project) -> None:
    """Ids are unique among clients and among syncs, not across both."""
    project.write("syncs/a.py", HEAD + client("languages") + sync("languages"))
    assert load().broken == ()


def test_an_unknown_name_gets_suggestions(project: Project) -> None:
    """An unknown name is answered with those that look like it."""
    project.write("syncs/a.py", HEAD + client("petstore") + sync("petstore.pets"))
    found = load()
    with pytest.raises(UnknownName, match=r"no sync is called 'petstore\.pet'; did you mean 'petstore\.pets'\?"):
        found.sync("petstore.pet")
    with pytest.raises(UnknownName, match="no client is called 'xyz'; `syncs list` shows what is declared"):
        found.client("xyz")
    with pytest.raises(UnknownName, match=r"but a client is; its syncs: petstore\.pets"):
        found.sync("petstore")


def test_a_name_in_a_broken_file(project: Project) -> None:
    """An unknown name that a broken file mentions is answered with that file's error."""
    project.write("syncs/a.py", HEAD + client("a") + sync("a.x") + "import nosuch_module")
    with pytest.raises(UnknownName, match=r"in a file that cannot be used: syncs/a\.py: line 6: ModuleNotFoundError"):
        load().sync("a.x")
    with pytest.raises(UnknownName, match="not everything could be read: 1 broken"):
        load().sync("b.x")


def test_entry_points_of_installed_distributions(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution contributes modules and objects through entry points; a broken one hides nothing."""
    project.write("site/plugin_of_ours.py", HEAD + client("module") + "inner = [Client('inner', connect=print)]\n")
    project.write("site/plugin_objects.py", HEAD + client("object"))
    project.write(
        "site/ours-1.0.dist-info/entry_points.txt",
        "[sync_clients]\nall = plugin_of_ours\none = plugin_objects:c\nbad = nosuch_plugin\nworse = plugin_of_ours:nothing\n",
    )
    project.write("site/ours-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(project.folder / "site"))
    found = load()
    assert sorted(found.clients) == ["inner", "module", "object"]
    assert found.origin["object"] == "entry point one = plugin_objects:c"
    assert sorted(broken.file for broken in found.broken) == [
        "entry point bad = nosuch_plugin", "entry point worse = plugin_of_ours:nothing",
    ]  # fmt: skip


JOB_TYPE = "from flows import JobType\n"


def job_type(name: str, variable: str = "j", of: str = "c") -> str:
    """Return the line that declares a job type."""
    return f"{variable} = JobType({name!r}, {of}, process=print)\n"


def test_job_types_are_found(project: Project) -> None:
    """By themselves and in lists; with them their client and its file."""
    project.write(
        "syncs/a.py", HEAD + JOB_TYPE + "many = [JobType(f'a.{n}', Client('a', connect=print), process=print) for n in '1']\n"
    )
    project.write("syncs/b.py", HEAD + JOB_TYPE + client("b") + job_type("b.x"))
    found = load()
    assert list(found.job_types) == ["b.x", "a.1"] or list(found.job_types) == ["a.1", "b.x"]
    assert sorted(found.clients) == ["a", "b"]
    assert found.origin["b.x"] == found.files["job type", "b.x"] == "syncs/b.py"
    assert found.job_types_of("b") == (found.job_type("b.x"),)
    assert found.broken == ()
    with pytest.raises(UnknownName, match=r"no job type is called 'b\.y'; did you mean 'b\.x'"):
        found.job_type("b.y")
    with pytest.raises(UnknownName, match=r"no sync is called 'b\.x', but a job type is; `syncs enqueue`"):
        found.sync("b.x")


def test_a_job_type_that_is_declared_twice(project: Project) -> None:
    """Both files are named, and neither counts."""
    for name in ("a", "b"):
        project.write(f"syncs/{name}.py", HEAD + JOB_TYPE + client(name) + job_type("x"))
    found = load()
    assert found.job_types == {}
    assert [str(broken) for broken in found.broken] == [
        "syncs/a.py: job type 'x' is declared in syncs/a.py and syncs/b.py; give one another id, or import it from the other file"
    ]


@pytest.mark.parametrize("second", ["a", "b"])
def test_a_job_type_with_the_id_of_a_sync(project: Project, second: str) -> None:
    """Both would be the same type in the job table: neither counts, and the error names both files."""
    project.write("syncs/a.py", HEAD + client("a") + sync("x"))
    with (project.folder / f"syncs/{second}.py").open("a") as file:
        file.write(HEAD + JOB_TYPE + client("z", "z") + job_type("x", of="z"))
    found = load()
    assert (dict(found.syncs), dict(found.job_types)) == ({}, {})
    (broken,) = found.broken
    assert "a job type 'x' is declared in syncs/" in str(broken)
    assert "sync" in broken.error
    for lookup in (found.sync, found.job_type):
        with pytest.raises(UnknownName, match="a job type 'x' is declared in"):
            lookup("x")


def test_a_job_type_of_a_client_that_is_declared_twice(project: Project) -> None:
    """Nobody can tell whose pauses count."""
    project.write("syncs/a.py", HEAD + JOB_TYPE + client("c") + job_type("x"))
    project.write("syncs/b.py", HEAD + client("c"))
    with pytest.raises(UnknownName, match="job type 'x' cannot run: client 'c' is declared in"):
        load().job_type("x")


def test_a_table_that_is_declared_twice(project: Project) -> None:
    """Both files are named, and what to do; SQLAlchemy names none of them, and says what would hide the mistake."""
    head = "from _base import Base\nfrom sqlmodel import Field\n"
    table = "class {}(Base, table=True):\n    __tablename__ = '{}'\n    id: int = Field(primary_key=True)\n"
    project.write(
        "syncs/_base.py", "from sqlalchemy.orm import registry\nfrom sqlmodel import SQLModel\n"
        "class Base(SQLModel, registry=registry()): pass\n",
    )  # fmt: skip
    project.write("syncs/_models.py", head + table.format("Cat", "cat"))
    project.write("syncs/a.py", head + table.format("Product", "product") + "from _models import Cat\n")
    project.write("syncs/b.py", head + table.format("Product", "product"))
    project.write("syncs/c.py", head + table.format("Kitten", "cat"))
    project.write("syncs/d.py", head + table.format("One", "thing") + table.format("Two", "thing"))
    assert [str(broken) for broken in load().broken] == [
        "syncs/b.py: line 3: syncs/b.py and syncs/a.py both declare the table 'product'; give one another `__tablename__`, or, "
        "if it is the same, `from a import Product`",
        "syncs/c.py: line 3: syncs/c.py and syncs/_models.py both declare the table 'cat'; give one another `__tablename__`, or, "
        "if it is the same, `from _models import Cat`",
        "syncs/d.py: line 6: the table 'thing' is declared twice in syncs/d.py; give one of the two another `__tablename__`",
    ]


def test_threads_that_load_at_once_all_find_everything(project: Project) -> None:
    """A file that one thread is half through importing is not taken for an empty one by another."""
    text = f"import time\n{HEAD}{client('a')}time.sleep(0.05)\n{sync('a.x')}"
    for number in range(5):
        project.write("syncs/a.py", f"{text}number = {number}\n")
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: load(), range(4)))
        assert [(list(one.clients), list(one.syncs), one.broken) for one in found] == [(["a"], ["a.x"], ())] * 4
