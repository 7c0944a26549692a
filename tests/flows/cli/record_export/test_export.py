"""Exports: each format reads back as it was written, a formula is none, and a file is whole or not there."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from flows.cli.record_export import export as module
from flows.cli.record_export.export import check_target, export
from flows.errors import UsageError
from jobs import JobStore
from jobs.reading.records import RecordFilter
from tests.support.store_helpers import LANE, content, done, enqueue, finish, reading, take

ROWS: list[dict[str, Any]] = [
    {"id": "a", "name": "=HYPERLINK(1)", "n": -5, "price": 1.5, "ok": True, "tags": ["x", "é"], "mixed": 1},
    {"id": "b", "name": "+49 170 12", "n": None, "price": 2, "ok": False, "mixed": "one", "version": "theirs"},
    {"id": "c", "name": 'line\nbreak, "quoted"', "late": 2**70},
]


@pytest.fixture
def full(store: JobStore) -> JobStore:
    """Store these rows."""
    enqueue(store, [one["id"] for one in ROWS])
    rows = {one["id"]: one for one in ROWS}
    finish(store, *(done(job, content=content(rows[job.key], "1")) for job in take(store)))
    return store


def write(store: JobStore, path: Path, *, raw: bool = False, limit: int | None = None) -> int:
    """Export all of it."""
    said: list[int] = []
    with reading(store) as reader:
        count = export(reader, RecordFilter(LANE.type), path, limit=limit, is_raw=raw, on_progress=lambda _, n: said.append(n))
    assert said[-1] == count
    return count


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv(full: JobStore, tmp_path: Path) -> None:
    """A column for each field; what a spreadsheet would run begins with an apostrophe, numbers and phone numbers stay."""
    assert write(full, tmp_path / "a.csv") == 3
    rows = read(tmp_path / "a.csv")
    assert [one["key"] for one in rows] == ["a", "b", "c"]
    assert [one["name"] for one in rows] == ["'=HYPERLINK(1)", "+49 170 12", 'line\nbreak, "quoted"']
    first, second, third = rows
    assert (first["n"], first["price"], first["ok"], first["tags"], first["mixed"]) == ("-5", "1.5", "true", '["x","é"]', "1")
    assert (second["version"], second["data.version"], second["n"]) == ("1", "theirs", "")
    assert third["late"] == str(2**70)
    assert datetime.fromisoformat(first["synced_at"]).tzinfo is not None
    write(full, tmp_path / "raw.csv", raw=True, limit=1)
    (only,) = read(tmp_path / "raw.csv")
    assert only["name"] == "=HYPERLINK(1)"


@pytest.mark.parametrize(
    ("text", "is_formula"),
    [("=1", True), ("@SUM(A1)", True), ("+cmd|' /C calc'!A0", True), ("-1+A2", True), ("\t=1", True), ("-12.5", False),
     ("+1 (2) 3-4/5", False), ("a=1", False), ("", False)],
)  # fmt: skip
def test_formulas(text: str, is_formula: bool) -> None:
    """What begins as a formula and may call something."""
    from flows.cli.record_export.text_files import _FORMULA

    assert (_FORMULA.match(text) is not None) is is_formula


def test_json_lines(full: JobStore, tmp_path: Path) -> None:
    """Each line is a record with its data as it is."""
    assert write(full, tmp_path / "a.jsonl") == 3
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [one["data"] for one in rows] == ROWS
    assert (rows[0]["key"], rows[0]["version"], rows[0]["deleted_at"]) == ("a", "1", None)


def test_parquet(full: JobStore, tmp_path: Path) -> None:
    """With types: mixed and nested values are JSON text, times are times."""
    write(full, tmp_path / "a.parquet")
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [one["name"] for one in rows] == [one["name"] for one in ROWS]
    assert [(one["n"], one["price"], one["ok"]) for one in rows] == [(-5, 1.5, True), (None, 2.0, False), (None, None, None)]
    assert [one["mixed"] for one in rows] == ["1", '"one"', None]
    assert (rows[0]["tags"], rows[2]["late"]) == ('["x","é"]', str(2**70))
    assert isinstance(rows[0]["synced_at"], datetime)
    assert rows[0]["synced_at"].tzinfo is not None
    assert abs((datetime.now(UTC) - rows[0]["synced_at"]).total_seconds()) < 3600


def test_a_file_is_whole_or_as_before(full: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the middle leaves the old file and nothing else; a whole one replaces it and keeps its mode."""
    path = tmp_path / "a.csv"
    path.write_text("old")
    path.chmod(0o640)
    with monkeypatch.context() as patched:
        patched.setattr(module.CsvFile, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(full, path)
    assert path.read_text() == "old"
    write(full, path)
    assert path.read_text().startswith("key,version,")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("name", "words"), [("a.xls", "must end in .csv"), ("none/a.csv", "no folder"), ("folder.csv", "a folder")]
)
def test_targets_that_are_refused(tmp_path: Path, name: str, words: str) -> None:
    """Before anything is read."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=words):
        check_target(tmp_path / name)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'sync-clients\[export\]'"):
        check_target(tmp_path / "a.parquet")
