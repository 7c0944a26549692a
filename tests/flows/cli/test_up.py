"""`syncs up` before it starts anything: what it says of files that are broken or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.flows.conftest import Project


def test_what_is_broken_or_missing_is_named(project: Project) -> None:
    """A file that cannot be read, and a folder without declarations, are told; the home cannot be made, so nothing starts."""
    nowhere = {"PREFECT_HOME": "/proc/nowhere"}
    empty = project.run_here("up", **nowhere)
    project.write("syncs/broken.py", "x = (\n")
    broken = project.run_here("up", **nowhere)
    assert (empty.returncode, broken.returncode) == (2, 2)
    assert "nothing is declared, so nothing will run; `syncs init` writes an example" in empty.stderr
    assert "skipping syncs/broken.py: line 1: SyntaxError" in broken.stderr
    assert "nothing is declared" not in broken.stderr


def test_nothing_to_stop_where_nothing_can_be_written(project: Project) -> None:
    """A home that does not exist and cannot be made has no server: that is no error."""
    found = project.run_here("down", PREFECT_HOME="/proc/nowhere")
    assert (found.returncode, found.stdout) == (0, "nothing was running\n")
