"""Decides which lane goes next: rotation among lanes, and priority that grows with waiting. Executes no query."""

from collections.abc import Iterable, Sequence

from jobs.claiming.priorities import Level
from jobs.job import Lane

AGEING = 60.0
"""Seconds of waiting that count as much as one step of priority."""

AGED_SHARE = 4
"""While more urgent jobs are due, jobs that go first because of their age get every fourth place."""


class Rotation:
    """The order of lanes in one process. Threads may share it: a lost update costs one place in the rotation."""

    def __init__(self) -> None:
        self._number = 0
        self._clients: dict[str, int] = {}
        self._lanes: dict[Lane, int] = {}
        self._urgent_owed = 0

    def order(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Sort lanes: those first whose client, and which themselves, were served longest ago; else in the order given."""
        return sorted(lanes, key=lambda lane: (self._clients.get(lane.client, 0), self._lanes.get(lane, 0)))

    def mark_served(self, lanes: Iterable[Lane]) -> None:
        """Record that these lanes were served, in this order."""
        for lane in lanes:
            self._number += 1
            self._clients[lane.client] = self._lanes[lane] = self._number

    @property
    def may_age(self) -> bool:
        """Whether the more urgent jobs have had their share since the last aged ones."""
        return self._urgent_owed <= 0

    def count(self, urgent: int, aged: int = 0) -> None:
        """Count jobs that were claimed in the order of priorities, and those claimed before it because of their age."""
        self._urgent_owed = max(0, self._urgent_owed - urgent) + aged * (AGED_SHARE - 1)


def outranking(levels: Sequence[Level], ageing: float) -> list[Level]:
    """Return the levels that outrank the most urgent one because they have waited longer; the highest rank first.

    Args:
        levels: what waits.
        ageing: seconds that count as a step of priority.
    """

    def rank(level: Level) -> float:
        return level.priority + level.waited / ageing

    top = max((level.priority for level in levels), default=0)
    bar = max((rank(level) for level in levels if level.priority == top), default=0.0)
    return sorted((level for level in levels if level.priority < top and rank(level) > bar), key=rank, reverse=True)
