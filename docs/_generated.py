"""Pages that the build makes from the code: the commands with their options, and the public names with their docstrings.

`setup` also turns the links of `README.md` into the navigation, so that the order of the pages stands in one place.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.program import program

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGES = ("clients", "jobs", "flows", "syncs_testing")
#: Beside the pages of its section in `README.md`, each of these stands in the navigation.
GENERATED = {"Reference": ("generated/commands", "generated/python")}


def commands(command: click.Command = program, path: str = "syncs") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its words."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from commands(found, f"{path} {name}")
    else:
        yield path, command


def _default(option: click.Option) -> str:
    """Return the default as it is shown: nothing for flags and for what is not set."""
    if option.is_flag or option.default is None or not isinstance(option.default, str | int | float):
        return ""
    return f"`{option.default}`"


def _help(command: click.Command) -> str:
    """Return the help of a command as Markdown: what click does not wrap becomes a block of code."""
    found = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        head, *lines = paragraph.strip().splitlines()
        if head != "\b":
            found.append(paragraph)
            continue
        if not lines[0].startswith(" "):
            found.append(lines.pop(0))
        found.append("\n".join(["```text", *(line.strip() for line in lines), "```"]))
    return "\n\n".join(found)


def _cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return text.replace("|", r"\|")


def commands_page() -> str:
    """Return the page of all commands, as their `--help` has them."""
    lines = ["# Commands", "", "Every command with its options, as `--help` shows them; what each one exits with is in the"]
    lines += ["[reference](../reference.md#commands).", "Every command takes `--json` and `-h`, `--help`."]
    for path, command in commands():
        arguments = [one.make_metavar(click.Context(command)) for one in command.params if isinstance(one, click.Argument)]
        lines += ["", f"## {path}", "", "```text", " ".join([path, *arguments]), "```", "", _help(command), ""]
        options = [one for one in command.params if isinstance(one, click.Option) and not {"--json", "--help"} & set(one.opts)]
        if options:
            lines += ["| option | default | means |", "| --- | --- | --- |"]
        for one in options:
            names = ", ".join(f"`{name}`" for name in one.opts)
            value = "" if one.is_flag else f" `{one.make_metavar(click.Context(command))}`"
            lines.append(f"| {_cell(names + value)} | {_default(one)} | {_cell(one.help or '')} |")
    return "\n".join(lines) + "\n"


def _is_error(one: object) -> bool:
    """Return whether this is a class of exceptions."""
    return isinstance(one, type) and issubclass(one, BaseException)


def python_page() -> str:
    """Return the page of the public names, whose text autodoc takes from their docstrings."""
    lines = ["Python", "======", "", "Every public name with its docstring. What belongs together is in :doc:`../reference`."]
    for package in PACKAGES:
        module = import_module(package)
        lines += ["", package, "-" * len(package), ""]
        # The errors stand behind the rest.
        for name in sorted(module.__all__, key=lambda name: _is_error(getattr(module, name))):
            one = getattr(module, name)
            if isinstance(one, type):
                lines += [f".. autoclass:: {package}.{name}", "   :members:", ""]
            elif callable(one):
                lines += [f".. autofunction:: {package}.{name}", ""]
            else:
                lines += [f".. autodata:: {package}.{name}", "   :no-value:", ""]
    return "\n".join(lines) + "\n"


def navigation(index: str) -> str:
    """Return hidden tables of contents: for each section of the index the pages that it links to, in its order."""
    found = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, text = section.partition("\n")
        pages = [*re.findall(r"^- .*?\]\(([\w./-]+)\.md\)", text, re.MULTILINE), *GENERATED.get(caption, ())]
        found += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    return "\n".join(found)


def _write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    for name, text in (("commands.md", commands_page()), ("python.rst", python_page())):
        path = folder / name
        # An unchanged page keeps its time, so that Sphinx does not read it again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    if name == app.config.root_doc:
        source[0] += "\n" + navigation(source[0])


def _add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx when to call the functions above."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _add_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
