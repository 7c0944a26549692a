"""The words of notices: what may be said of an error, and the text of a letter. Pure.

A notice goes to mailboxes and chats, so it holds no payload: keys of entities, and of an error what our own adapters say (they
quote neither query nor body), or the class of an exception, or the `Failure` that somebody wrote for people, without what it
quotes.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

KEYS = 5
"""Examples of each cause."""

MOST_CAUSES = 5
"""Causes that are told apart; all others are counted as one."""

OTHERS = "other errors"

_LONGEST = 200
_REQUEST = re.compile(r"([A-Z]{3,7}) (\w[\w+.-]*://\S+): (.+)")
# `ValueError: …`, `sqlalchemy.exc.IntegrityError: …`: the text of a foreign exception may quote anything.
_CLASS = re.compile(r"(?<!\S)((?:\w+\.)*(?:[A-Z][a-z0-9]*){2,}|[A-Z]\w*(?:Error|Exception|Warning)): ", re.ASCII)
_OWN = re.compile(r"(listing|sent, no answer|as a probe, no attempt used): (.*)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|[\u2018\u201c\u201e\u00ab][^\u2019\u201d\u00bb]*[\u2019\u201d\u00bb]")
_GROUPED = re.compile(r"\{.*\}|\[.*\]|<[^>]*>")
_MAIL = re.compile(r"[^\s@]+@[^\s@]+")
_LONG = re.compile(r"(?<!\S)(?!\w+://)\S{25,}")
_QUERY = re.compile(r"(\w+://[^\s?#]+)[?#]\S*")
_SIGN_IN = re.compile(r"(?<=://)[^/\s]*@")
_DIGITS = re.compile(r"\d+")


def clean(message: str, *, key: str | None = None, payload: Any = None) -> str:
    """Return what may be said of an error, on one line.

    Args:
        message: of a failure, or the reason of a pause; secrets are masked already.
        key: of the entity it is about, which is named elsewhere.
        payload: of the job: nothing of it may stand in the text.
    """
    line = printable(str(message))
    if own := _OWN.fullmatch(line):
        return f"{own[1]}: {clean(own[2], key=key, payload=payload)}"[:_LONGEST]
    if request := _REQUEST.fullmatch(line):
        # Our adapters' own text. Keys in its path are what makes ten thousand equal errors different.
        url = _without(_QUERY.sub(r"\1", _SIGN_IN.sub("", request[2])), [key] if key else [])
        return _cut(f"{request[1]} {url}: {_plain(request[3], key, payload)}")
    if named := _CLASS.search(line):
        return _cut(_plain(line[: named.start()], key, payload) + named[1])
    return _cut(_plain(line, key, payload)) or "no reason given"


def printable(text: str) -> str:
    """Return a text on one line, without what moves a terminal's cursor or turns its words around."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _plain(text: str, key: str | None, payload: Any) -> str:
    text = _QUERY.sub(r"\1", text)
    for pattern in (_QUOTED, _GROUPED, _MAIL, _LONG):
        text = pattern.sub("…", text)
    # A word of one or two letters says nothing of anybody; taken out, it would take half of each sentence with it.
    leaves = sorted({leaf for leaf in _leaves(payload) if len(leaf) > 2 or leaf.isdigit()}, key=len, reverse=True)
    return _without(text, [*leaves, *([key] if key else [])])


def _without(text: str, words: Iterable[str]) -> str:
    for word in words:
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "…", text)
    return text


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def sign(text: str) -> str:
    """Return the fingerprint of a cleaned text: the same for errors that differ in a number only, other than a status."""
    shape = _DIGITS.sub(lambda found: found[0] if len(found[0]) == 3 else "#", text)
    return hashlib.sha256(shape.encode()).hexdigest()[:12]


def span(seconds: float) -> str:
    """Return a duration as people say it: `45 s`, `17 min`, `3 h 20 min`, `2 days 4 h`."""
    seconds = max(0, round(seconds))
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, over = divmod(hours, 24)
    return f"{days} days {over} h" if over else f"{days} days"


def clock(when: datetime) -> str:
    """Return a moment as letters say it."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names in a row, the first of many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def causes_text(causes: Sequence[Mapping[str, Any]]) -> str:
    """Return the causes with their counts and first examples, one below the other."""
    lines = []
    for cause in causes:
        lines.append(f"{cause['count']:,} times: {cause['text']}" if cause["count"] > 1 else cause["text"])
        if cause["keys"]:
            more = ", …" if cause["count"] > len(cause["keys"]) else ""
            lines.append(f"    {', '.join(cause['keys'])}{more}")
    return "\n".join(lines)


def body(parts: Iterable[tuple[str, str]]) -> str:
    """Return the text of a letter: each part under its heading, without those that say nothing."""
    return "\n\n".join(f"{head}\n" + "\n".join(f"  {line}" for line in text.splitlines()) for head, text in parts if text) + "\n"
