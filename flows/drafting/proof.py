"""Compares answers: is a second page another one, is an explicit first page the same, has a filter filtered."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from clients.json_codec import encode
from clients.listings.jmespaths import compile_path
from flows.sync.timestamps import Timestamp


class Verdict(Enum):
    """What a second answer is, beside the first."""

    OTHER = "another page: no row of the first one is on it"
    SAME = "the first page again"
    OVERLAP = "some rows of the first page, and others"
    EMPTY = "no rows"
    NO_LIST = "no list where the rows were"


def keys_of(rows: Sequence[Any], key: str | None) -> list[str]:
    """Return what tells rows apart: their keys, or their whole content where there is no key."""
    if key is not None:
        found = [compile_path(key)(row) for row in rows]
        if all(isinstance(one, str | int) for one in found):
            return [str(one) for one in found]
    return [encode(row, sort_keys=True).decode() for row in rows]


def judge(first: Sequence[str], second: Sequence[str] | None) -> Verdict:
    """Compare the keys of two answers."""
    if second is None:
        return Verdict.NO_LIST
    if not second:
        return Verdict.EMPTY
    common = set(first) & set(second)
    if not common:
        return Verdict.OTHER
    return Verdict.SAME if len(common) >= min(len(set(first)), len(set(second))) else Verdict.OVERLAP


def overlap(first: Sequence[str], second: Sequence[str]) -> int | None:
    """Return with how many of the last rows of the first answer the second one begins; None where it does not go on like that."""
    common = set(first) & set(second)
    shift = len(common)
    if shift and (list(first[-shift:]) != list(second[:shift]) or shift >= len(second)):
        return None
    return shift if second else None


def begins_with(longer: Sequence[str], first: Sequence[str]) -> bool:
    """Say whether an answer begins as the first one did."""
    size = min(len(longer), len(first))
    return size > 0 and list(longer[:size]) == list(first[:size])


def filter_marks(versions: Sequence[Any], most: int) -> list[Any]:
    """Return values of the version to filter by, each for a parameter of its own; none where there are too few.

    The smallest one is left out, so that an answer without a filter has rows before all marks; and every second one, so that a
    filter that leaves out the mark itself is not taken for the next one's.
    """
    ordered = _ordered(versions)
    return [value for _, value in ordered[1::2]][:most] if ordered is not None else []


def filtered_by(versions: Sequence[Any], marks: Sequence[Any]) -> int | None:
    """Return the number of the mark from which on all rows are, those of the mark included; None where there is none."""
    ordered = _ordered(versions)
    if not ordered:
        return None
    bounds = [Timestamp.of(mark) for mark in marks]
    return next((n for n, bound in enumerate(bounds) if bound is not None and bound.order == ordered[0][0]), None)


def _ordered(versions: Sequence[Any]) -> list[tuple[Any, Any]] | None:
    """Return the different values with their order, the smallest first; None where they have no common one."""
    read = [one for one in map(Timestamp.of, versions) if one is not None]
    if len(read) < len(versions) or len({one.kind for one in read}) > 1:
        return None
    return sorted({one.order: one.value for one in read}.items())
