"""Groups failures by cause, with their counts and first keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flows.notices.error_text import OTHERS, printable_words, safe_text, signature
from jobs.notices.unreported_failures import UnreportedFailure

LATE = "late"
"""The signature of a cause: no run of a sync has succeeded for so long."""

KEYS = 5
"""Examples of each cause."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What went wrong, how often, and the first keys it went wrong with."""

    text: str
    count: int = 1
    keys: tuple[str, ...] = ()
    #: Tells whether two causes are the same; by default made from the text.
    signature: str = ""
    #: When it was first seen; by default now.
    at: datetime | None = None


def causes_of(news: Sequence[UnreportedFailure], payloads: Callable[[list[int]], Mapping[int, Any]]) -> list[Cause]:
    """Group failures by cause, with their counts and first keys.

    Args:
        news: failures of one sync or job type.
        payloads: returns the payloads of jobs by id; no value of them is left in a text.
    """
    groups: dict[str, list[UnreportedFailure]] = {}
    for one in news:
        groups.setdefault(signature(safe_text(one.message, key=one.key)), []).append(one)
    first = [group[0] for group in list(groups.values())[:50]]
    known = payloads([one.job_id for one in first])
    causes = []
    for group in groups.values():
        one = group[0]
        text = safe_text(one.message, key=one.key, payload=known[one.job_id]) if one.job_id in known else ""
        # Without the payload (it was deleted, or there are too many) it is unknown what the text quotes.
        text = text or (OTHERS if not _is_ours(one.message) else safe_text(one.message, key=one.key))
        causes.append(Cause(text, len(group), tuple(map(_name, group[:KEYS])), at=min(found.at for found in group)))
    return joined(causes)


def joined(causes: Sequence[Cause]) -> list[Cause]:
    """Merge causes with the same text; the most frequent comes first."""
    found: dict[str, Cause] = {}
    for one in causes:
        known = found.get(one.text)
        found[one.text] = one if known is None else _merged(known, one)
    return sorted(found.values(), key=lambda cause: (cause.text == OTHERS, -cause.count))


def _merged(one: Cause, other: Cause) -> Cause:
    first = min((at for at in (one.at, other.at) if at is not None), default=None)
    return Cause(one.text, one.count + other.count, (*one.keys, *other.keys)[:KEYS], at=first)


def _is_ours(message: str) -> bool:
    return message.startswith(("GET ", "POST ", "PUT ", "PATCH ", "DELETE ", "HEAD ", "timed out after", "poison: "))


def _name(one: UnreportedFailure) -> str:
    return shown_key(one.key) if one.key is not None else f"job {one.job_id}"


def shown_key(key: str) -> str:
    """Return a key as messages show it: on one line of at most 80 characters."""
    text = printable_words(key)
    return text if len(text) <= 80 else text[:79] + "…"
