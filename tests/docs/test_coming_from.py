"""`docs/coming-from-dlt.md` and `docs/coming-from-airbyte.md`: their files run, and their tables name what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import Page, Petstore

PAGES = ("docs/coming-from-dlt.md", "docs/coming-from-airbyte.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_file_runs(pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any, name: str) -> None:
    """The file of the page stores 25 pets, and then finds nothing to do."""
    (block,) = [block for block in pages[name].blocks if block.language == "python"]
    (project / "syncs/petstore.py").write_text(block.text)
    first, second = run_here("petstore.pets"), run_here("petstore.pets")
    assert (first["state"], first["succeeded"]) == ("success", 25)
    assert (second["state"], second["unchanged"]) == ("success", 25)


@pytest.mark.parametrize("name", PAGES)
def test_the_table_names_what_there_is(pages: dict[str, Page], table_rows: Any, check_names: Any, name: str) -> None:
    """Each call, parameter, command and option in the second column exists under that name."""
    here = " ".join(row[1] for row in table_rows(pages[name].section("## Words")))
    assert {"Listing", "Cursor", "Since", "Retry", "env"} <= check_names(here)
