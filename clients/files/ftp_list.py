"""Parses folder listings of FTP servers: the facts of MLSD (RFC 3659), and LIST in the forms of Unix and DOS.

There is no standard for LIST. A line that cannot be read raises ValueError: an entry that is skipped silently would look like a
file that is gone (aioftp#104).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LONGEST = 4096

_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
_UNIX = re.compile(
    r"(?P<kind>[-dlbcpsDn])[-rwxsStTlL]{9}[.+@]?\s*\d*\s+"
    r"(?:\S.*?\s)??(?P<size>\d+|\d+,\s*\d+)\s+"
    r"(?:(?P<month>[A-Za-z]{3})\s+(?P<day>\d{1,2})|(?P<day2>\d{1,2})\.?\s+(?P<month2>[A-Za-z]{3})|(?P<iso>\d{4}-\d{2}-\d{2}))\s+"
    rf"(?P<when>{_TIME}|\d{{4}})(?:\s(?P<zone>[+-]\d{{4}}))?\s(?P<name>.+)"
)
_DOS = re.compile(
    r"(?:(?P<month>\d{1,2})[-/](?P<day>\d{1,2})[-/](?P<year>\d{4}|\d{2})|(?P<iso>\d{4}-\d{2}-\d{2}))\s+"
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})\s*(?P<half>[AaPp][Mm])?\s+"
    r"(?:<(?P<mark>[A-Z]+)>\s+|(?P<size>\d[\d,.]*)\s)(?P<name>.+)"
)
_STAMP = re.compile(r"(\d{14})(?:\.(\d{1,9}))?")
_MONTHS = {
    name: number
    for number, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder.

    Args:
        name: as the server wrote it; not checked.
        kind: `file`, `folder`, `link` (to either) or `other`.
        size: bytes, if the server says so.
        modified_at: UTC.
        exact: whether the time is to the second and in UTC. LIST prints minutes or days, in whatever zone.
    """

    name: str
    kind: str
    size: int | None = None
    modified_at: datetime | None = None
    exact: bool = False


def read_facts(line: str) -> Entry | None:
    """Read a line of MLSD or MLST; None for the folder itself and its parent.

    Raises:
        ValueError: it is not such a line.
    """
    facts_text, space, name = line.lstrip(" ").partition(" ")
    if not space or not name or len(line) > LONGEST or "=" not in facts_text:
        raise ValueError("not a line of facts")
    facts = {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts_text.split(";") if fact)}
    kind = facts.get("type", "file").lower()
    if kind in ("cdir", "pdir"):
        return None
    size = facts.get("size", "")
    if kind == "dir":
        return Entry(name, "folder")
    word = "file" if kind == "file" else "link" if "link" in kind else "other"
    modified_at = read_stamp(facts["modify"]) if facts.get("modify") else None
    return Entry(name, word, int(size) if size.isdecimal() else None, modified_at, modified_at is not None)


def read_stamp(text: str) -> datetime:
    """Read a time of RFC 3659: `20240131235959`, with a fraction or without, in UTC.

    Raises:
        ValueError: it is not one.
    """
    found = _STAMP.fullmatch(text.strip())
    if found is None:
        raise ValueError("not a time of RFC 3659")
    moment = datetime.strptime(found[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return moment + timedelta(microseconds=int((found[2] or "0").ljust(6, "0")[:6]))


def read_line(line: str, *, now: datetime) -> Entry | None:
    """Read a line of LIST; None for a sum, the folder itself and its parent.

    Args:
        now: a time without a year is the latest such time before tomorrow.

    Raises:
        ValueError: it has none of the known forms.
    """
    if len(line) > LONGEST:
        raise ValueError("too long")
    stripped = line.strip()
    if not stripped or re.fullmatch(r"(?:total|insgesamt|gesamt|итого)\s+[\d.,]+\w?", stripped):
        return None
    if found := _UNIX.fullmatch(line.rstrip("\r\n")):
        entry = _unix(found, now)
    elif found := _DOS.fullmatch(line.rstrip("\r\n").lstrip(" ")):
        entry = _dos(found)
    else:
        raise ValueError("neither in Unix nor in DOS form")
    return None if entry.name in (".", "..") else entry


def _unix(found: re.Match[str], now: datetime) -> Entry:
    kind = {"-": "file", "d": "folder", "l": "link"}.get(found["kind"], "other")
    name = found["name"]
    if kind == "link":
        name = name.partition(" -> ")[0]
    if found["iso"]:
        try:
            moment = datetime.fromisoformat(f"{found['iso']} {_clock(found['when'])}{found['zone'] or '+0000'}").astimezone(UTC)
        except OverflowError:
            raise ValueError("no such time") from None
    else:
        month = _MONTHS.get((found["month"] or found["month2"]).lower())
        if month is None:
            raise ValueError("a month in another language")
        moment = _dated(month, int(found["day"] or found["day2"]), found["when"], now)
    # The size of a link is that of its text.
    size = int(found["size"]) if kind == "file" and found["size"].isdecimal() else None
    return Entry(name, kind, size, moment)


def _clock(text: str) -> str:
    if ":" not in text:
        raise ValueError("a year where a time belongs")
    hours, _, rest = text.partition(":")
    return f"{int(hours):02}:{rest.partition('.')[0]}"


def _dated(month: int, day: int, when: str, now: datetime) -> datetime:
    if ":" not in when:
        return datetime(int(when), month, day, tzinfo=UTC)
    hours, minutes, seconds = (*(int(float(part)) for part in when.split(":")), 0)[:3]
    for year in range(now.year + 1, now.year - 9, -1):
        try:
            moment = datetime(year, month, day, hours, minutes, seconds, tzinfo=UTC)
        except ValueError:
            if (month, day) != (2, 29):
                raise
            continue
        # A day of tolerance: the server may be in another zone.
        if moment <= now + timedelta(days=1):
            return moment
    raise ValueError("no such day")


def _dos(found: re.Match[str]) -> Entry:
    if found["iso"]:
        year, month, day = (int(part) for part in found["iso"].split("-"))
    else:
        year, month, day = int(found["year"]), int(found["month"]), int(found["day"])
        if year < 100:
            year += 1900 if year >= 70 else 2000
    hour = int(found["hour"])
    if found["half"]:
        hour = hour % 12 + (12 if found["half"].lower() == "pm" else 0)
    moment = datetime(year, month, day, hour, int(found["minute"]), tzinfo=UTC)
    if found["mark"] is None:
        return Entry(found["name"], "file", int(re.sub(r"[,.]", "", found["size"])), moment)
    kind = {"DIR": "folder", "JUNCTION": "folder", "SYMLINKD": "link", "SYMLINK": "link"}.get(found["mark"], "other")
    return Entry(found["name"], kind, None, moment)
