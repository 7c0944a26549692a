"""What went wrong, sorted: from failures to causes with their counts and first keys. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flows.wording import KEYS, OTHERS, clean, printable, sign
from jobs.notice import News


@dataclass(frozen=True, slots=True)
class Cause:
    """What went wrong, how often, and the first keys of what it went wrong with."""

    text: str
    count: int = 1
    keys: tuple[str, ...] = ()
    #: What it is known by; by default its text.
    sign: str = ""
    #: When it was first seen; by default now.
    at: datetime | None = None


def causes_of(news: Sequence[News], payloads: Callable[[list[int]], Mapping[int, Any]]) -> list[Cause]:
    """Sort failures by cause, with their counts and first keys.

    Args:
        news: of one sync or job type.
        payloads: returns those of jobs, so that nothing of them stands in a text.
    """
    heaps: dict[str, list[News]] = {}
    for one in news:
        heaps.setdefault(sign(clean(one.message, key=one.key)), []).append(one)
    first = [heap[0] for heap in list(heaps.values())[:50]]
    known = payloads([one.job_id for one in first])
    causes = []
    for heap in heaps.values():
        one = heap[0]
        text = clean(one.message, key=one.key, payload=known[one.job_id]) if one.job_id in known else ""
        # One whose payload is gone, or too many to look at: what its text quotes, nobody knows.
        text = text or (OTHERS if not _is_ours(one.message) else clean(one.message, key=one.key))
        causes.append(Cause(text, len(heap), tuple(map(name_of, heap[:KEYS])), at=min(found.at for found in heap)))
    return joined(causes)


def joined(causes: Sequence[Cause]) -> list[Cause]:
    """Put causes of the same text together, the most frequent first."""
    found: dict[str, Cause] = {}
    for one in causes:
        before = found.get(one.text)
        if before is not None:
            first = min((at for at in (before.at, one.at) if at is not None), default=None)
            one = Cause(one.text, before.count + one.count, (*before.keys, *one.keys)[:KEYS], at=first)  # noqa: PLW2901
        found[one.text] = one
    return sorted(found.values(), key=lambda cause: (cause.text == OTHERS, -cause.count))


def _is_ours(message: str) -> bool:
    return message.startswith(("GET ", "POST ", "PUT ", "PATCH ", "DELETE ", "HEAD ", "timed out after", "poison: "))


def name_of(one: News) -> str:
    """Return how people know the job of a failure: by its entity's key, or by its number."""
    return shown(one.key) if one.key is not None else f"job {one.job_id}"


def shown(key: str) -> str:
    """Return a key as letters show it: whatever it is, it is one line."""
    text = printable(key)
    return text if len(text) <= 80 else text[:79] + "…"
