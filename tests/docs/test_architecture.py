"""docs/architecture.md names files that exist and every folder of the packages; comments cite only its laws."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("clients", "jobs", "flows")


def folders() -> list[Path]:
    """Return every folder with modules below the packages, without the migrations."""
    found = {path.parent.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    return sorted(path for path in found if "migrations" not in path.parts)


def test_every_path_on_the_page_exists() -> None:
    """A file that was renamed is renamed on the page too."""
    paths = set(re.findall(r"`((?:clients|jobs|flows|syncs_testing|benchmarks|docs)/[\w/.]*)`", PAGE))

    assert len(paths) > 40
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_every_folder_is_on_the_page_in_its_own_words() -> None:
    """The table of folders has each folder, with the first line of its package's docstring."""
    expected = {}
    for folder in folders():
        if len(folder.parts) > 1:
            text = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text()))
            expected[f"{folder}/"] = (text or "").splitlines()[0]

    assert dict(re.findall(r"^\| `(\S+/)` \| (.+) \|$", PAGE, re.MULTILINE)) == expected


def test_the_table_answers_forty_questions() -> None:
    """Each row of "Where is what" asks a question and names at least one file."""
    rows = re.findall(r"^\| (.+\?) \| (`.+`) \|$", PAGE.partition("## Where is what")[2], re.MULTILINE)

    assert len(rows) >= 40
    assert len({question for question, _ in rows}) == len(rows)


def test_the_laws_that_comments_cite_are_on_the_page() -> None:
    """`docs/architecture.md, law 8` has a law 8."""
    laws = {int(number) for number in re.findall(r"^(\d+)\. \*\*", PAGE, re.MULTILINE)}
    cited = {
        int(number)
        for package in (*PACKAGES, "syncs_testing")
        for path in (ROOT / package).rglob("*.py")
        for number in re.findall(r"\blaw (\d+)", path.read_text())
    }

    assert laws == set(range(1, 18))
    assert cited <= laws


def test_modules_and_folders_are_small() -> None:
    """A module has at most 300 lines, and a folder at most 15 modules beside its `__init__.py`."""
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    folders_of = Counter(path.parent.relative_to(ROOT) for path in modules if path.name != "__init__.py")

    assert len(modules) > 300
    assert [str(path) for path in modules if len(path.read_text().splitlines()) > 300] == []
    assert [str(folder) for folder, count in folders_of.items() if count > 15] == []
