"""Every row of the ancestors' features has a test that names it, or stands in docs/coming-from-drupal.md as done otherwise."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

PAGE = ROOT / "docs" / "coming-from-drupal.md"
#: All rows of the features of sync_clients, Advanced Queue, DataSync and Drupal's core.
ROWS = {
    f"{name}-{number:02}"
    for name, numbers in (
        ("AQ", range(1, 68)),
        ("BA", range(1, 22)),
        ("CR", range(1, 13)),
        ("DS", range(1, 20)),
        ("QA", range(1, 23)),
        ("DR", range(1, 8)),
        ("LK", range(1, 12)),
        ("E", (*range(1, 45), *range(50, 81), *range(90, 101))),
        ("SC", range(1, 36)),
    )
    for number in numbers
}
_ROW = re.compile(r"\b([A-Z]{1,2})-(\d+)(?:…(\d+))?")


def marked() -> Iterator[tuple[str, Path]]:
    """Yield each row that a test is marked with, and the file."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rows":
                yield from ((one.value, path) for one in node.args if isinstance(one, ast.Constant))


def done_otherwise() -> set[str]:
    """Return the rows of the page's last table."""
    found = set()
    for line in PAGE.read_text().partition("## Done otherwise")[2].splitlines():
        for name, first, last in _ROW.findall(line.partition("|")[2].partition("|")[0]):
            found |= {f"{name}-{number:02}" for number in range(int(first), int(last or first) + 1)}
    return found


def test_every_row_is_proved_or_explained() -> None:
    """No row is forgotten."""
    missing = ROWS - {row for row, _ in marked()} - done_otherwise()
    assert sorted(missing) == []


def test_no_row_is_misspelt() -> None:
    """A mark names a row or a test of the lists that there are, as they spell it."""
    spelt = re.compile(r"^(?:(?:AQ|DS|QA|DR|LK|E|SC|BA|CR)-\d{2,3}|[TMI]\d{1,2})$")
    assert [(row, path.name) for row, path in marked() if not spelt.match(str(row))] == []
