"""What the package shows to the world."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import clients

PACKAGE = Path(clients.__file__).parent


def test_all_is_the_sorted_public_names() -> None:
    """`__all__` is exactly what is imported, now or with its first use, sorted."""
    names = [name for name, value in vars(clients).items() if not name.startswith("_") and not inspect.ismodule(value)]

    assert sorted({*names, *clients._LAZY} - {"annotations", "VERSION", "TYPE_CHECKING", "Any"}) == clients.__all__


def test_everything_public_has_a_docstring() -> None:
    """Every public name, and every public method of it, says what it does."""
    silent = []
    for name in clients.__all__:
        value = getattr(clients, name)
        members = [
            (name, value),
            *((f"{name}.{key}", member) for key, member in vars(value).items() if inspect.isfunction(member)),
        ]
        silent += [label for label, member in members if "._" not in label and not inspect.getdoc(member)]

    assert silent == []


def test_declaring_imports_neither_httpx_nor_jmespath() -> None:
    """A file that declares a client is read at every start, so importing and declaring stays cheap."""
    code = (
        "import sys\nfrom clients import *\n"
        "Listing('pets', Cursor('next_cursor'), items='data', version='updated_at'), Bearer('t'), HttpClient\n"
        "print(sorted({'httpx', 'jmespath', 'ssl', 'email.utils', 'sqlalchemy', 'prefect'} & set(sys.modules)))"
    )

    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout
        == "[]\n"
    )


def test_two_modules_know_httpx() -> None:
    """httpx is frozen and has a successor: only `transport` and `target` import it when the program runs."""
    importing = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        typing_only = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
        hidden = {id(child) for node in typing_only for child in ast.walk(node)}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import) and id(node) not in hidden]
        importing += [path.name for node in imports if "httpx" in [alias.name for alias in node.names]]

    assert sorted(importing) == ["target.py", "transport.py"]


def test_modules_are_one_noun_with_a_docstring() -> None:
    """House rules: at most 300 lines, and a docstring that says what the module knows."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()

        assert ast.get_docstring(ast.parse(text)), path.name

        assert len(text.splitlines()) <= 300, path.name


def test_the_old_name_of_rate_budget_works() -> None:
    """`clients.Budget` was its name in the last release: it works, with a warning that says the new one."""
    with pytest.warns(DeprecationWarning, match=r"clients\.RateBudget"):
        assert clients.Budget is clients.RateBudget
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = clients.Nothing
