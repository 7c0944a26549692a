"""`syncs init`: writes the files of a new project. `flows.cli.project_commands.new_project` has them."""

import shlex
from dataclasses import astuple
from pathlib import Path

import click

from flows.cli.command import Command
from flows.cli.output import CommandOutput, table


@click.command("init", cls=Command, short_help="Begin a project of your own.")
@click.argument("folder", metavar="[FOLDER]", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> CommandOutput:
    """Begin a project: syncs/ with an example that runs, prefect.yaml, .env.example, .gitignore and pyproject.toml.

    Overwrites nothing. FOLDER is made if there is none; by default it is this one.

    \b
    Example:
      syncs init my-syncs
      cd my-syncs
      syncs run example.elements
    """
    from flows.cli.project_commands.new_project import EXAMPLE, write_project

    written = write_project(folder)
    lines = [table(("FILE", "CHANGE"), map(astuple, written))]
    steps = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    if any(one.file == EXAMPLE for one in written):
        steps.append("syncs run example.elements")
    lines.append(f"next: {'; '.join([*steps, 'syncs up'])}")
    return CommandOutput({"folder": str(folder.absolute()), "files": written}, "\n".join(lines))
