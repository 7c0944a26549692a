"""`make docs`: what is made from the code is complete, every page is in the navigation, and the build has no broken link."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import clients
import flows
import jobs
from docs._generated import commands, commands_page, navigation, python_page
from tests import ROOT

if TYPE_CHECKING:
    from tests.docs.conftest import Page

#: An address that a browser would load with the page; links that a person follows are none.
_LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\bsrc="(?:https?:)?//|<link[^>]*\bhref="(?:https?:)?//|@import[^;]*//|url\(["']?(?:https?:)?//"""
)


def test_every_option_is_there() -> None:
    """The page of commands has each command and each of its options, and each of them says what it is for."""
    page = commands_page()
    for path, command in commands():
        assert command.help, path
        section = page.split(f"\n## {path}\n")[1].split("\n## ")[0]
        for one in command.params:
            if isinstance(one, click.Option) and "--json" not in one.opts:
                assert one.help, f"{path}: {one.opts}"
                assert all(f"`{name}`" in section for name in one.opts), path


def test_every_public_name_is_there() -> None:
    """The page of Python names has each name that a package exports, and each of them has a docstring."""
    page = python_page()
    for package in (clients, jobs, flows):
        assert [name for name in package.__all__ if f" {package.__name__}.{name}\n" not in page] == []
        assert [name for name in package.__all__ if callable(getattr(package, name)) and not getattr(package, name).__doc__] == []


def test_every_page_is_in_the_navigation(pages: dict[str, Page]) -> None:
    """The index links to each page once, below one of its headings."""
    listed = re.findall(r"^([\w-]+)$", navigation(pages["docs/README.md"].text), re.MULTILINE)
    assert sorted(listed) == sorted(Path(name).stem for name in pages if name not in ("README.md", "docs/README.md"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sphinx") is None, reason="Sphinx is not installed: `make docs` does")
def test_the_documentation_builds(tmp_path: Path) -> None:
    """No warning, so no link that leads nowhere, and no page that loads anything from elsewhere."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--builder",
        "html",
        "--fail-on-warning",
        "--quiet",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    built = list(tmp_path.rglob("*.html"))
    assert len(built) > 15
    for path in (*built, *tmp_path.rglob("*.css")):
        assert not _LOADED.search(path.read_text()), path.name
