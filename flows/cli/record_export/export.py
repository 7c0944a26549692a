"""Exports records: reads them page by page, and puts the file in its place when it is whole."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from flows.cli.record_export.columns import Columns
from flows.cli.record_export.parquet_file import ParquetFile, check_pyarrow
from flows.cli.record_export.text_files import CsvFile, JsonLinesFile
from flows.errors import UsageError
from jobs.reading.reader import Reader
from jobs.reading.records import RecordFilter, RecordView, all_records

SUFFIXES = (".csv", ".jsonl", ".parquet")


class RecordFile(Protocol):
    """A file to which records are written."""

    def write(self, records: list[RecordView]) -> None:
        """Write these."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def check_target(path: Path) -> None:
    """Check that a file can be written, before anything is read.

    Raises:
        UsageError: its name says no known format, its folder does not exist, it is a folder, or the format needs an extra.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--to {str(path)!r}: the name must end in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise UsageError(f"--to {str(path)!r} is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--to {str(path)!r}: there is no folder {path.absolute().parent}")
    if path.suffix.lower() == ".parquet":
        check_pyarrow()


def export(
    reader: Reader, wanted: RecordFilter, path: Path, *, limit: int | None, is_raw: bool, on_progress: Callable[[str, int], None]
) -> int:
    """Write records to a file, as they are at one moment; return how many.

    A file that is there is replaced when the new one is whole; until then, and after an error, it stays.

    Args:
        reader: of the database.
        wanted: which.
        path: its ending says the format.
        limit: the most to write; `None` writes all.
        is_raw: CSV with texts that a spreadsheet takes for formulas.
        on_progress: called with what is done and the number of records so far.

    Raises:
        UsageError: the file cannot be written.
    """
    written = 0
    with reader.snapshot(), _replaced(path) as part:
        columns = Columns()
        if path.suffix.lower() != ".jsonl":
            # Once to know the columns, which a file has to say first.
            read = 0
            for page in all_records(reader, wanted, limit=limit):
                columns.see(page)
                read += len(page)
                on_progress("read", read)
        file = _open(part, path.suffix.lower(), columns, is_raw=is_raw)
        try:
            for page in all_records(reader, wanted, limit=limit):
                file.write(page)
                written += len(page)
                on_progress("written", written)
        finally:
            file.close()
    return written


def _open(path: Path, suffix: str, columns: Columns, *, is_raw: bool) -> RecordFile:
    if suffix == ".csv":
        return CsvFile(path, columns, is_raw=is_raw)
    return JsonLinesFile(path) if suffix == ".jsonl" else ParquetFile(path, columns)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Return the path of a file beside it, which takes its place when all went well."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if path.exists():
            part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
