"""Every command that takes a name says so in one line, and exits 2, where there is nothing of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from flows.cli.program import program

if TYPE_CHECKING:
    from tests.flows.conftest import Project

#: Commands with a name that nothing has, and the kind that the message says.
UNKNOWN = {
    command: kind
    for kind, commands in {
        "client": (
            "check nix", "check petstore nix", "delete --client nix --yes", "jobs --client nix", "notices nix",
            "notices nix --open", "pause nix", "pauses nix", "pauses nix --history", "resume nix",
        ),
        "job": ("job 99", "jobs 99", "process 99", "retry 99"),
        "job type": ("enqueue nix {}",),
        "queue": ("cancel --queue nix --yes", "jobs --queue nix", "retry --queue nix --yes", "retry --queue nix --dry-run",
                  "work nix"),
        "sync": ("run nix", "runs nix"),
        "sync or job type": ("jobs --type nix", "release --type nix --yes"),
    }.items()
    for command in commands
}  # fmt: skip

#: Commands that take no name of what is declared, or of which the test of their own says it.
OTHERS = {"db", "down", "forget", "init", "list", "locks", "maintain", "new", "queues", "records", "setup", "status", "up"}


@pytest.mark.parametrize("command", UNKNOWN)
def test_an_unknown_name_is_one_line(petstore: Project, command: str) -> None:
    """The line names the kind and the name, and nothing else is printed."""
    done = petstore.run_here(*command.split())
    name = "99" if "99" in command else "nix"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"syncs: no {UNKNOWN[command]} ")
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_stored_is_known(petstore: Project) -> None:
    """A client, queue or type that is declared no longer can be looked at while something of it is stored."""
    petstore.run_here("run", "petstore.pets", "--wait", "0", PETSTORE_BASE_URL="http://127.0.0.1:9/")
    petstore.run_here("pause", "petstore")
    petstore.write("syncs/petstore.py", petstore.folder.joinpath("syncs/petstore.py").read_text().replace('"petstore', '"shop'))
    assert petstore.run_here("pauses", "petstore").returncode == 0
    assert petstore.run_here("notices", "shop").returncode == 0
    assert petstore.run_here("jobs", "--queue", "shop").stderr == "syncs: no such jobs\n"
    close = petstore.run_here("jobs", "--type", "shop.pet")
    assert close.stderr.endswith("did you mean 'shop.pets'?\n")


def test_no_command_is_forgotten() -> None:
    """Each command stands in one of the lists above."""
    assert isinstance(program, click.Group)
    named = {command.split()[0] for command in UNKNOWN}
    assert set(program.list_commands(click.Context(program))) - named - OTHERS == set()
