"""Reduces the text of an error to what may be sent to mailboxes and chats, and tells which errors are the same.

Messages hold no payload. Of an error, they show what our own adapters say (which quotes neither query nor body), the class of an
exception, or the words of a `Failure` without what it quotes.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flows.project.printable_text import printable

OTHERS = "other errors"
"""Stands for causes that are not shown one by one."""

_LONGEST = 200
_REQUEST = re.compile(r"([A-Z]{3,7}) (\w[\w+.-]*://\S+): (.+)")
# `ValueError: …`, `sqlalchemy.exc.IntegrityError: …`: the text after the class may quote anything.
_CLASS = re.compile(r"(?<!\S)((?:\w+\.)*(?:[A-Z][a-z0-9]*){2,}|[A-Z]\w*(?:Error|Exception|Warning)): ", re.ASCII)
_OWN = re.compile(r"(listing|sent, no answer|as a probe, no attempt used): (.*)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|[\u2018\u201c\u201e\u00ab][^\u2019\u201d\u00bb]*[\u2019\u201d\u00bb]")
_GROUPED = re.compile(r"\{.*\}|\[.*\]|<[^>]*>")
_MAIL = re.compile(r"[^\s@]+@[^\s@]+")
_LONG = re.compile(r"(?<!\S)(?!\w+://)\S{25,}")
_QUERY = re.compile(r"(\w+://[^\s?#]+)[?#]\S*")
_SIGN_IN = re.compile(r"(?<=://)[^/\s]*@")
_DIGITS = re.compile(r"\d+")


def safe_text(message: str, *, key: str | None = None, payload: Any = None) -> str:
    """Return the part of an error's text that may be sent to people, on one line.

    Args:
        message: of a failure, or the reason of a pause; secrets are masked already.
        key: of the entity; messages name it elsewhere.
        payload: of the job; no value of it is left in the text.
    """
    line = printable_words(str(message))
    if own := _OWN.fullmatch(line):
        return f"{own[1]}: {safe_text(own[2], key=key, payload=payload)}"[:_LONGEST]
    if request := _REQUEST.fullmatch(line):
        # Our adapters wrote it. Without the key in its path, ten thousand equal errors have the same text.
        url = _without(_QUERY.sub(r"\1", _SIGN_IN.sub("", request[2])), [key] if key else [])
        return _cut(f"{request[1]} {url}: {_without_quotes(request[3], key, payload)}")
    if named := _CLASS.search(line):
        return _cut(_without_quotes(line[: named.start()], key, payload) + named[1])
    return _cut(_without_quotes(line, key, payload)) or "no reason given"


def printable_words(text: str) -> str:
    """Return a text on one line, without characters that move a terminal's cursor or change the direction of writing."""
    return " ".join(printable(text, instead=" ").split())


def _without_quotes(text: str, key: str | None, payload: Any) -> str:
    text = _QUERY.sub(r"\1", text)
    for pattern in (_QUOTED, _GROUPED, _MAIL, _LONG):
        text = pattern.sub("…", text)
    # Words of one or two letters reveal nothing, and removing them would remove half of each sentence.
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


def signature(text: str) -> str:
    """Return a short hash of a safe text that ignores all numbers but those of three digits, such as an HTTP status."""
    shape = _DIGITS.sub(lambda found: found[0] if len(found[0]) == 3 else "#", text)
    return hashlib.sha256(shape.encode()).hexdigest()[:12]
