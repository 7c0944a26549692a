"""Lines of folders as servers write them: read, or refused, never passed over in silence."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.files.ftp_list import Entry, read_facts, read_line, read_stamp

NOW = datetime(2024, 3, 10, 12, 0, tzinfo=UTC)


def at(*parts: int) -> datetime:
    """Return a moment in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


UNIX = [
    ("-rw-r--r--   1 ftp      ftp          1234 Jan 12 10:33 a.csv", ("a.csv", "file", 1234, at(2024, 1, 12, 10, 33))),
    ("-rw-r--r--   1 1000     1000         1234 Jan 12  2023 a.csv", ("a.csv", "file", 1234, at(2023, 1, 12))),
    ("-rw-r--r--   1 u g 0 Dec 31 23:59 empty", ("empty", "file", 0, at(2023, 12, 31, 23, 59))),
    ("-rw-r--r--   1 u g 5 Mar 11 08:00 tomorrow", ("tomorrow", "file", 5, at(2024, 3, 11, 8, 0))),
    ("-rw-r--r--   1 u g 5 Mar 12 13:00 last-year", ("last-year", "file", 5, at(2023, 3, 12, 13, 0))),
    ("-rw-r--r--   1 u g 5 Feb 29 10:00 leap", ("leap", "file", 5, at(2024, 2, 29, 10, 0))),
    ("-rw-r--r--   1 u g 5 Jan  1 10:00 a name  with spaces .txt", ("a name  with spaces .txt", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 u g 5 Jan  1 10:00  leading", (" leading", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 u g 5 Jan  1 10:00 12 Jan  1 2020 x", ("12 Jan  1 2020 x", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 u g 5 Jan  1 10:00 -rf", ("-rf", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 u g 5 Jan  1 10:00 ümläut", ("ümläut", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 DOM\\Domain Users 5 Jan  1 10:00 x", ("x", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 u 99999999999 Jan  1 10:00 big", ("big", "file", 99999999999, at(2024, 1, 1, 10))),
    ("-rw-rw-r--+  1 u g 5 Jan  1 10:00 acl", ("acl", "file", 5, at(2024, 1, 1, 10))),
    ("-rw-r--r--.  1 u g 5 Jan  1 10:00 selinux", ("selinux", "file", 5, at(2024, 1, 1, 10))),
    ("-rwsr-sr-t   1 u g 5 Jan  1 10:00 bits", ("bits", "file", 5, at(2024, 1, 1, 10))),
    ("drwxr-xr-x   2 u g 4096 Jan  1 10:00 sub", ("sub", "folder", None, at(2024, 1, 1, 10))),
    ("lrwxrwxrwx   1 u g 9 Jan  1 10:00 link -> ../etc/passwd", ("link", "link", None, at(2024, 1, 1, 10))),
    ("crw-rw-rw-   1 root root 1, 3 Jan  1 10:00 null", ("null", "other", None, at(2024, 1, 1, 10))),
    ("prw-r--r--   1 u g 0 Jan  1 10:00 pipe", ("pipe", "other", None, at(2024, 1, 1, 10))),
    ("-rw-r--r--   1 u g 5 12 Jan 10:33 day-first", ("day-first", "file", 5, at(2024, 1, 12, 10, 33))),
    ("-rw-r--r--   1 u g 5 2022-01-12 10:33 iso", ("iso", "file", 5, at(2022, 1, 12, 10, 33))),
    ("-rw-r--r--   1 u g 5 2022-01-12 10:33:05.123456789 +0200 full-iso", ("full-iso", "file", 5, at(2022, 1, 12, 8, 33, 5))),
    ("-rw-r--r--   1 u g 5 JAN  1 10:00 loud", ("loud", "file", 5, at(2024, 1, 1, 10))),
]
DOS = [
    ("01-12-24  10:33AM                 1234 a.csv", ("a.csv", "file", 1234, at(2024, 1, 12, 10, 33))),
    ("01-12-24  12:05AM                 1,234 midnight.csv", ("midnight.csv", "file", 1234, at(2024, 1, 12, 0, 5))),
    ("01-12-2024  12:05PM                 7 noon", ("noon", "file", 7, at(2024, 1, 12, 12, 5))),
    ("12-31-99  11:59PM                 7 old", ("old", "file", 7, at(1999, 12, 31, 23, 59))),
    ("2024-01-12  22:33                 7 day", ("day", "file", 7, at(2024, 1, 12, 22, 33))),
    ("01-12-24  10:33AM       <DIR>          sub folder", ("sub folder", "folder", None, at(2024, 1, 12, 10, 33))),
    ("01-12-24  10:33AM       <JUNCTION>     j", ("j", "folder", None, at(2024, 1, 12, 10, 33))),
    ("01-12-24  10:33AM            5 a name  with spaces.txt", ("a name  with spaces.txt", "file", 5, at(2024, 1, 12, 10, 33))),
]


@pytest.mark.parametrize(("line", "expected"), UNIX + DOS, ids=[line[-24:] for line, _ in UNIX + DOS])
def test_lines_of_list_are_read(line: str, expected: tuple[object, ...]) -> None:
    """Both forms, with all that their servers do to them."""
    entry = read_line(line, now=NOW)

    assert entry is not None
    assert (entry.name, entry.kind, entry.size, entry.modified_at) == expected
    assert not entry.exact


@pytest.mark.parametrize("line", ["", "  ", "total 12", "total 1.5K", "insgesamt 8", "drwxr-xr-x 2 u g 4096 Jan 1 10:00 ..",
                                  "01-12-24  10:33AM       <DIR>          ."])  # fmt: skip
def test_what_is_no_entry_is_none(line: str) -> None:
    """Sums, the folder itself and its parent."""
    assert read_line(line, now=NOW) is None


@pytest.mark.parametrize(
    "line",
    ["-rw-r--r-- 1 u g 5 Mär 12 10:33 a", "-rw-r--r-- 1 u g 5 1月 12 10:33 a", "-rw-r--r-- 1 u g 5 Foo 12 10:33 a",
     "-rw-r--r-- 1 u g 5 Feb 30 10:33 a", "-rw-r--r-- 1 u g 5 Jan 12 25:33 a", "-rw-r--r-- 1 u g 5 Jan 12 10:33",
     "13-32-24  10:33AM 5 a",
     "+i8388621.29609,m824255902,/,\tdev", "ls: no such file", "-rw-r--r-- 1 u g 5 2022-01-12 2022 a", "x" * 5000],
)  # fmt: skip
def test_what_nobody_can_read_is_an_error(line: str) -> None:
    """Other languages, other systems, nonsense: a ValueError, so that the entry is counted as unread."""
    with pytest.raises(ValueError):
        read_line(line, now=NOW)


@given(st.text(max_size=200))
def test_no_line_breaks_the_reader(line: str) -> None:
    """Whatever comes, it is an entry, None or a ValueError."""
    for read in (lambda: read_line(line, now=NOW), lambda: read_facts(line)):
        try:
            found = read()
        except ValueError:
            continue
        assert found is None or isinstance(found, Entry)


def test_facts_of_mlsd_are_read() -> None:
    """RFC 3659, 7: any case, any order, fractions, names with semicolons and spaces."""
    assert read_facts("Type=file;Size=12;Modify=20240131235959.5; a; b=c.csv") == Entry(
        "a; b=c.csv", "file", 12, datetime(2024, 1, 31, 23, 59, 59, 500000, UTC), exact=True
    )
    assert read_facts("modify=20240131235959;type=dir; sub") == Entry("sub", "folder")
    assert read_facts("type=OS.unix=slink:/etc; link") == Entry("link", "link")
    assert read_facts("type=cdir; .") is None
    assert read_facts("type=pdir; ..") is None
    assert read_facts("type=file;size=-1; odd") == Entry("odd", "file")


@pytest.mark.parametrize(
    "line", ["", "a.csv", "type=file;", "type=file; ", "type=file;modify=yesterday; a", "type=file;modify=20241331000000; a"]
)
def test_facts_that_are_none_are_an_error(line: str) -> None:
    """A line without facts, without a name, or with a time that is none."""
    with pytest.raises(ValueError):
        read_facts(line)


def test_stamps_are_utc() -> None:
    """RFC 3659, 2.3."""
    assert read_stamp("20240131235959") == at(2024, 1, 31, 23, 59, 59)
