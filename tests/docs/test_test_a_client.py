"""The examples of `docs/test-a-client.md`: pytest runs the attack suite, and the recording is replayed without its API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import syncs_testing.plugin
from syncs_testing import ATTACKS, Reply, Subject, serving
from tests import ROOT

if TYPE_CHECKING:
    from tests.docs.conftest import Page

NAME = "docs/test-a-client.md"


@pytest.fixture
def examples(pages: dict[str, Page]) -> list[str]:
    """The Python blocks of the page."""
    return [block.text for block in pages[NAME].blocks if block.language == "python"]


def test_one_fixture_is_the_whole_suite(examples: list[str], project: Path) -> None:
    """The first example, as the only file of a folder, is attacked in every way that fits, and holds.

    Without the slow servers, to which tests/attack puts the suite: a busy machine would look like one of them.
    """
    limits = "timeout=1, total_timeout=3"
    assert examples[0].count(limits) == 1
    (project / "test_pets.py").write_text(examples[0].replace(limits, "timeout=60"))
    slow = " or ".join(attack.name.replace(" ", "-") for attack in ATTACKS if attack.slow)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-k", f"not ({slow})", "test_pets.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.splitlines()[-1].split(" passed")[0]) > 40


def test_the_recording_is_replayed(examples: list[str], project: Path) -> None:
    """The second example records from an API, and then says the same without it."""
    scope: dict[str, Any] = {}
    exec(compile(examples[1], NAME, "exec"), scope)
    pages = {None: Reply({"data": [{"id": 1}], "next_cursor": "c"}), "c": Reply({"data": [{"id": 2}]})}
    with serving(lambda seen: pages[seen.query.get("cursor")]) as server:
        scope["test_pets"](server.url)
        assert len(server.seen) == 2
    scope["test_pets"](server.url)
    assert (project / "cassettes/pets.yaml").is_file()


def test_what_the_page_names_is_there(pages: dict[str, Page], table_rows: Any) -> None:
    """Each field of `Subject` has its row, and each fixture of the plugin its name."""
    page = pages[NAME]
    listed = [row[0].strip("`") for row in table_rows(page.section("## Attack it"))]
    assert listed == list(Subject.__dataclass_fields__)
    for name in ("AttackSuite", "SECRET", "Style", "Reply", "UnrecordedError", "recorded"):
        assert hasattr(syncs_testing, name)
        assert name in page.text
    for name in ("recording", "api_server"):
        assert hasattr(syncs_testing.plugin, name)
        assert f"`{name}`" in page.text
