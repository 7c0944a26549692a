"""What some kinds of requests share: the budgets that their answers tell, and the pace that was learned from refusals.

All kinds of requests to one origin share one scope, until answers show that a kind has budgets of its own: another limit under
the same name, or a count that goes on where that kind left it and not where others did.

A budget that bears the name of an operation, told beside others, holds back only kinds of requests that were seen to use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clients.http.rate_limits.learned_pace import LearnedPace
from clients.http.rate_limits.rate_fields import is_general
from clients.http.rate_limits.rate_limit_headers import RateBudget
from clients.http.rate_limits.told_budget import ROUNDED, ToldBudget

Kind = tuple[str, str, int]
"""Requests that are alike: method, beginning of the path, number of its parts."""

MAX_BUDGETS = 16
"""Budgets of one scope; a remote side that invents names must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an answer told of one budget."""

    kind: Kind
    number: int
    remaining: float
    resets_at: float | None

    def continues(self, other: Seen) -> bool:
        """Say whether both are of one window."""
        if self.resets_at is None or other.resets_at is None:
            return False
        return abs(self.resets_at - other.resets_at) <= ROUNDED


@dataclass(slots=True)
class Scope:
    """Requests that share budgets. Not thread-safe: the throttle's lock protects it.

    Attributes:
        sent: requests so far.
        in_flight: those without an answer.
        members: processes that share the budgets, this one included.
        rank: of this process among them, from 0.
        is_new: others use the budgets, and no answer has come yet.
        blocked_until: when a refusal has asked us to come again.
    """

    sent: int = 0
    in_flight: int = 0
    members: int = 1
    rank: int = 0
    is_new: bool = False
    blocked_until: float = 0.0
    pace: LearnedPace = field(default_factory=LearnedPace)
    budgets: dict[str, ToldBudget] = field(default_factory=dict)
    #: By budget: what the last answer told, and the last one of each kind.
    _last: dict[str, Seen] = field(default_factory=dict)
    _of_kind: dict[tuple[str, Kind], Seen] = field(default_factory=dict)
    #: Whether requests of a kind use a budget that bears the name of an operation.
    _uses: dict[tuple[str, Kind], bool] = field(default_factory=dict)
    #: Until when kinds are blocked by themselves.
    _blocked: dict[Kind, float] = field(default_factory=dict)
    #: The budgets that answers to a kind tell.
    _told_to: dict[Kind, set[str]] = field(default_factory=dict)
    _several: bool = False

    def wait(self, kind: Kind, now: float) -> float:
        """Return the seconds until the next request of a kind may be sent; infinite for when an answer comes."""
        longest = self.wait_of_all(kind, now)
        if self._blocked:
            longest = max(longest, self._blocked.get(kind, 0.0) - now)
        for name, budget in self.budgets.items():
            if self._several and not is_general(name) and self.binds(name, kind):
                longest = max(longest, budget.wait(now, in_flight=self.in_flight))
        return longest

    def wait_of_all(self, kind: Kind, now: float) -> float:
        """Return the seconds until the next request may be sent, by what holds for requests of all kinds."""
        longest = max(self.blocked_until - now, self.pace.wait(now, in_flight=self.in_flight))
        if self.is_new and self.in_flight:
            # Others use the budget up, and the first answer tells what they have left.
            return float("inf")
        for name, budget in self.budgets.items():
            if (not self._several or is_general(name)) and self.binds(name, kind):
                longest = max(longest, budget.wait(now, in_flight=self.in_flight))
        return longest

    def take(self, kind: Kind, now: float) -> int:
        """Count a request that is sent now; return its number."""
        self.sent += 1
        self.in_flight += 1
        if self.pace.base:
            self.pace.take(now)
        for name, budget in self.budgets.items():
            if self.binds(name, kind):
                budget.take(self.sent)
        return self.sent

    def binds(self, name: str, kind: Kind) -> bool:
        """Say whether a budget holds back requests of a kind: one that their answers tell, if any came."""
        if (told := self._told_to.get(kind)) is not None and name not in told:
            return False
        return not self._several or is_general(name) or self._uses.get((name, kind), False)

    def has_own_budget(self, kind: Kind, told: Sequence[RateBudget], number: int, now: float) -> bool:
        """Say whether an answer shows that its kind has a budget of its own under the name of one of this scope."""
        for budget in told:
            known, last = self.budgets.get(budget.name), self._last.get(budget.name)
            if known is None or last is None or last.kind == kind or budget.remaining is None:
                continue
            if budget.limit is not None and known.limit is not None and known.is_limit_told and budget.limit != known.limit:
                return True
            seen = _seen(kind, number, budget, now)
            mine = self._of_kind.get((budget.name, kind))
            slack = 2.0 + self.in_flight * known.cost
            if mine is None or not seen.continues(mine) or abs(seen.remaining - last.remaining) <= slack:
                continue
            if 0 <= mine.remaining - seen.remaining <= slack:
                return True
        return False

    def hear(
        self,
        kind: Kind,
        told: Sequence[RateBudget],
        number: int,
        now: float,
        *,
        good: bool,
        remote_now: float | None = None,
    ) -> None:
        """Take note of the budgets in an answer.

        Args:
            good: the request was not refused.
            remote_now: seconds since the epoch by the remote clock, where that is known.
        """
        self._several = self._several or len(told) > 1
        for budget in told:
            if budget.remaining is None or budget.limit == 0:
                # Some servers send a limit of zero with good answers, which means that there is no limit.
                continue
            name = budget.name
            known = self.budgets.get(name)
            if known is None:
                if len(self.budgets) >= MAX_BUDGETS:
                    continue
                known = self.budgets[name] = ToldBudget(sent=self.sent)
                known.share(self.members, self.rank)
            seen, last = _seen(kind, number, budget, now), self._last.get(name)
            if good and last is not None and last.kind == kind and number > last.number:
                if seen.remaining < last.remaining:
                    self._uses[name, kind] = True
                elif seen.remaining == last.remaining:
                    self._uses[name, kind] = False
            elif not good and seen.remaining <= 0:
                self._uses[name, kind] = True
            self._last[name] = self._of_kind[name, kind] = seen
            self._told_to.setdefault(kind, set()).add(name)
            known.hear(budget, number, now, in_flight=self.in_flight, remote_now=remote_now)

    def share(self, members: int, rank: int) -> None:
        """Take note of how many processes share the budgets, and which of them this one is."""
        self.members, self.rank = members, rank
        for budget in self.budgets.values():
            budget.share(members, rank)

    def is_own(self, told: Sequence[RateBudget]) -> bool:
        """Say whether a refusal is explained by a used up budget of an operation, beside others that have something left."""
        spent = [one.name for one in told if one.remaining is not None and one.remaining <= 0]
        return bool(spent) and len(told) > len(spent) and not any(is_general(name) for name in spent)

    def refused(
        self, kind: Kind, told: Sequence[RateBudget], number: int, now: float, *, retry_after: float | None
    ) -> float | None:
        """Take note of a refusal; return the seconds to wait, None when nothing is known about that.

        Args:
            told: the budgets in its headers.
            retry_after: by the answer.
        """
        if retry_after is not None and self.is_own(told):
            self._blocked[kind] = now + retry_after
            return retry_after
        spent = any(one.remaining is not None and one.remaining <= 0 for one in told)
        for name, budget in self.budgets.items():
            if self.binds(name, kind):
                spent = spent or budget.is_spent(in_flight=self.in_flight + 1)
                budget.refused(number, now)
        if retry_after is not None:
            self.blocked_until = max(self.blocked_until, now + retry_after)
        if spent and retry_after is not None:
            # The budget is known; what was sent beyond it were others, or a window that began late.
            return retry_after
        return self.pace.refused(number, self.sent, now, retry_after=retry_after)

    def forget_refusals(self, now: float, *, longer_than: float) -> None:
        """Forget what holds requests back for more than so many seconds: one request finds out whether it still does."""
        latest = now + longer_than
        spent = [
            name
            for name, one in self.budgets.items()
            if one.left < one.cost and one.resets_at is not None and one.resets_at > latest
        ]
        is_held = self.pace.forget_refusal(latest, now) or self.blocked_until > latest
        if self.blocked_until > latest:
            self.blocked_until = now
        self._blocked = {kind: until for kind, until in self._blocked.items() if until <= latest}
        for name in spent:
            del self.budgets[name]
            self._last.pop(name, None)
        self.is_new = self.is_new or is_held or bool(spent)


def _seen(kind: Kind, number: int, budget: RateBudget, now: float) -> Seen:
    return Seen(kind, number, budget.remaining or 0.0, None if budget.resets_in is None else now + budget.resets_in)
