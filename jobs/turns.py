"""Whose turn it is: lanes in rotation, and urgency that grows with waiting (M9). Pure but for its memory; knows no query."""

from collections.abc import Iterable, Sequence

from jobs.heads import Level
from jobs.job import Lane

AGEING = 60.0
"""Seconds of waiting that count as much as one step of priority."""

AGED_SHARE = 4
"""Jobs that go before more urgent ones because they waited get every so-manieth place, as long as there are more urgent ones."""


class Turns:
    """The turns of one process. Threads may share it: a lost update costs a turn and no more."""

    def __init__(self) -> None:
        self._number = 0
        self._clients: dict[str, int] = {}
        self._lanes: dict[Lane, int] = {}
        self._owed = 0

    def order(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Put those first whose client, and which themselves, were served longest ago; else they stay as they are."""
        return sorted(lanes, key=lambda lane: (self._clients.get(lane.client, 0), self._lanes.get(lane, 0)))

    def served(self, lanes: Iterable[Lane]) -> None:
        """Note that these lanes have had a turn, in this order."""
        for lane in lanes:
            self._number += 1
            self._clients[lane.client] = self._lanes[lane] = self._number

    @property
    def may_age(self) -> bool:
        """Whether the more urgent jobs have had their share since the last aged ones."""
        return self._owed <= 0

    def went(self, urgent: int, aged: int = 0) -> None:
        """Note how many jobs went in the order of priorities, and how many before it because of their age."""
        self._owed = max(0, self._owed - urgent) + aged * (AGED_SHARE - 1)


def aged(levels: Sequence[Level], ageing: float) -> list[Level]:
    """Return what by now outranks the most urgent jobs, because it has waited so much longer; the highest rank first.

    Args:
        levels: what waits.
        ageing: seconds that count as a step of priority.
    """

    def rank(level: Level) -> float:
        return level.priority + level.waited / ageing

    top = max((level.priority for level in levels), default=0)
    bar = max((rank(level) for level in levels if level.priority == top), default=0.0)
    return sorted((level for level in levels if level.priority < top and rank(level) > bar), key=rank, reverse=True)
