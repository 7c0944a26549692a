"""What people are told of, and when: from the trouble of a client to its notices and letters. Pure.

One piece of trouble is one notice, with one letter at its beginning and one at its end. In between, another cause is a letter of
its own, at most `MOST_LETTERS` in a window; the same cause is counted, and told in at most one digest in a window (SC-25, E-94).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from flows.cause import Cause, shown
from flows.house import House
from flows.letter import Letters
from flows.result import RunResult
from flows.wording import KEYS, MOST_CAUSES, OTHERS, clean, sign
from jobs.notice import API, PROCESSING, Letter, Notice, PauseNews, Trouble

LEVELS = ("notice", "warning", "error")

SHORT = 600.0
"""Seconds; a pause that the API asked for is no news if it is no longer."""

MOST_LETTERS = 4
"""Letters about one piece of trouble in a window, before it is left to the digest."""

FLAPS = 5
"""Troubles with one client, sync or job type in a window, each followed by a recovery, after which only digests tell of further
ones."""


def decide(trouble: Trouble, house: House) -> tuple[list[Notice], list[Letter]]:
    """Say what becomes of a client's notices, and what is sent."""
    return _Decision(trouble, house).made()


class _Decision:
    """One look at the trouble of a client; strictly private."""

    def __init__(self, trouble: Trouble, house: House) -> None:
        self._trouble, self._house, self._now = trouble, house, trouble.now
        self._open = dict(trouble.open)
        self._changed: dict[int, Notice] = {}
        self._letters: list[Letter] = []
        self._write = Letters(trouble.client, house, trouble.now)

    def made(self) -> tuple[list[Notice], list[Letter]]:
        # Before anything new begins: once it has, nobody would ask any more for what was counted of the last one.
        self._tell_counted([one for one in self._trouble.closed.values() if one.is_muted])
        before = self._trouble.known_pause
        for one in self._trouble.pauses:
            if before is not None and not _is_replaced(before, one):
                self._close("", before.ended_by or "", before.ended_at)
            self._take_pause(one)
            before = one
        self._look_for_end()
        for subject, causes in self._house.failures.items():
            first = min(cause.at or self._now for cause in causes)
            self._take(subject, PROCESSING, self._level_of(subject), causes, at=first)
        for subject, news in self._house.listings.items():
            level = "warning" if news.key == "short" else "error"
            self._take(subject, API, level, [Cause(clean(news.message))], at=news.at)
        if self._house.ended is not None:
            self._take_run(self._house.ended)
        self._look_back()
        return list(self._changed.values()), self._letters

    # -- pauses ----------------------------------------------------------------------------------------------------------------

    def _take_pause(self, one: PauseNews) -> None:
        known = self._open.get("")
        if known is None and (not _is_loud(one) or self._is_over_long_ago(one)):
            return
        reason = clean(one.reason)
        cause = Cause(reason, sign=f"{one.cause}:{sign(reason)}")
        facts = {
            "pause": one.id, "cause": one.cause, "reason": reason, "set_by": one.set_by, "level": one.level,
            "since": one.started_at.isoformat(), "until": None if one.until is None else one.until.isoformat(),
        }  # fmt: skip
        self._take("", API, level_of(one), [cause], at=one.started_at, facts=facts, loud=_is_loud(one))

    def _is_over_long_ago(self, one: PauseNews) -> bool:
        return one.ended_at is not None and self._now - one.ended_at > timedelta(days=1)

    def _look_for_end(self) -> None:
        last = self._trouble.last_pause
        if last is None or last.ended_at is not None:
            self._close("", "" if last is None else last.ended_by or "", None if last is None else last.ended_at)

    # -- runs and jobs ---------------------------------------------------------------------------------------------------------

    def _level_of(self, subject: str) -> str:
        ended = self._house.ended
        if ended is not None and ended.sync == subject:
            return "error" if ended.state == "failed" else "warning"
        # A job of a type is somebody's errand; an entity of a sync is asked for again.
        return "error" if subject in self._house.job_types else "warning"

    def _take_run(self, ended: RunResult) -> None:
        known = sum(cause.count for cause in self._house.failures.get(ended.sync, ()))
        level = "error" if ended.state == "failed" else "warning"
        if ended.flawed:
            self._take(ended.sync, PROCESSING, level, [Cause("listed items could not become entities", ended.flawed)])
        if (extra := ended.failed - ended.flawed - known) > 0 and ended.failures:
            # No job tells of them: deletes of a sweep that failed, for instance.
            key, message = ended.failures[-1]
            keys = tuple(shown(key) for key, _ in ended.failures[-min(extra, KEYS) :])
            self._take(ended.sync, PROCESSING, level, [Cause(clean(message, key=key), extra, keys)])
        if ended.state in ("failed", "partial") and (ended.stopped in ("error", "loop", "short") or not (known or ended.failed)):
            kind = PROCESSING if ended.stopped == "end" else API
            self._take(ended.sync, kind, level, [Cause(clean(ended.message))])
        elif ended.state == "success" and ended.stopped == "end" and not known:
            self._close(ended.sync, "run")

    # -- notices ---------------------------------------------------------------------------------------------------------------

    def _take(
        self, subject: str, kind: str, level: str, causes: Sequence[Cause], *, at: datetime | None = None,
        facts: Mapping[str, Any] | None = None, loud: bool = True,
    ) -> None:  # fmt: skip
        """Add to the notice of a subject, and say so if that is news."""
        notice = self._open.get(subject)
        is_new = notice is None
        if notice is None:
            notice = self._begin(subject, kind, level, at or self._now)
        is_higher, was_muted = LEVELS.index(level) > LEVELS.index(notice.level), notice.is_muted
        fresh = [entry for cause in causes if (entry := _add(notice, cause)) is not None]
        notice.level = level if is_higher else notice.level
        notice.count += sum(cause.count for cause in causes)
        notice.updated_at = self._now
        notice.facts = {**notice.facts, **(facts or {})}
        self._changed[id(notice)] = notice
        if was_muted and not is_higher:
            return
        notice.is_muted = False
        if is_new or was_muted:
            notice.opened_at = (at or self._now) if is_new else notice.opened_at
            self._send(notice, "opened")
        elif (fresh and loud) or is_higher:
            self._roll(notice)
            # A level rises twice at most: that never waits for a digest.
            if notice.letters < MOST_LETTERS or is_higher:
                self._send(notice, "more", fresh)

    def _begin(self, subject: str, kind: str, level: str, at: datetime) -> Notice:
        last = self._trouble.closed.get(subject)
        recent = last is not None and self._now - last.window_at < timedelta(seconds=self._house.window)
        flaps = last.facts.get("flaps", 1) if last is not None and recent else 0
        if last is not None and flaps >= FLAPS:
            last.closed_at = last.closed_by = None
            last.is_muted = True
            notice = last
        else:
            notice = Notice(subject, kind, level, at, self._now, last.window_at if last is not None and recent else self._now)
            notice.facts["flaps"] = flaps + 1
        self._open[subject] = notice
        return notice

    def _send(self, notice: Notice, what: str, fresh: Sequence[dict[str, Any]] = ()) -> None:
        notice.facts = {**notice.facts, "levels": sorted({*notice.facts.get("levels", ()), notice.level}, key=LEVELS.index)}
        self._letters.append(self._write.letter(notice, what, fresh))
        notice.letters += 1
        notice.told_count, notice.told_at = notice.count, self._now
        for entry in notice.causes:
            entry["told"] = True

    def _close(self, subject: str, by: str, at: datetime | None = None) -> None:
        notice = self._open.pop(subject, None)
        if notice is None:
            return
        notice.closed_at, notice.closed_by = max(at or self._now, notice.opened_at), by
        self._changed[id(notice)] = notice
        if not notice.is_muted:
            self._send(notice, "recovered")

    def _roll(self, notice: Notice) -> None:
        if self._now - notice.window_at >= timedelta(seconds=self._house.window):
            notice.window_at, notice.letters = self._now, 0
            notice.facts = {**notice.facts, "flaps": 0}

    def _look_back(self) -> None:
        """Tell what was counted in a window that is over; let go what has been quiet for one."""
        window = timedelta(seconds=self._house.window)
        self._tell_counted(self._open.values())
        for subject, notice in list(self._open.items()):
            # A sync is well when a run says so; a job type has no such run. One that is declared no more has neither.
            known = subject in ("", *self._house.syncs) or not (self._house.is_whole or subject in self._house.job_types)
            if not known and self._now - notice.updated_at >= window:
                notice.closed_at, notice.closed_by = self._now, "quiet"
                self._changed[id(notice)] = notice
                del self._open[subject]

    def _tell_counted(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            is_over = self._now - notice.window_at >= timedelta(seconds=self._house.window)
            if is_over and notice.told_at is not None and notice.count > notice.told_count:
                self._roll(notice)
                self._changed[id(notice)] = notice
                notice.is_muted = False
                self._send(notice, "digest")


def level_of(one: PauseNews) -> str:
    """Return the level of a pause: people and windows are no trouble, what waits for a person is an error (issue 5)."""
    if one.cause in ("person", "window"):
        return "notice"
    if one.cause == "enforced" or one.until is None:
        return "error"
    return "notice" if one.cause == "asked" else "warning"


def _is_replaced(one: PauseNews, by: PauseNews) -> bool:
    """Tell whether another pause took the place of this one: then the trouble goes on."""
    if one.ended_at is None or by.started_at - one.ended_at > timedelta(seconds=1):
        return False
    return one.ended_by == (by.set_by if by.cause == "person" else by.cause)


def _is_loud(one: PauseNews) -> bool:
    """Tell whether a pause is news: an API's own half minute is none."""
    return one.cause != "asked" or one.until is None or (one.until - one.started_at).total_seconds() > SHORT + 1


def _add(notice: Notice, cause: Cause) -> dict[str, Any] | None:
    """Count a cause; return it if nobody was told of it."""
    known = cause.sign or sign(cause.text)
    entry = next((one for one in notice.causes if one["cause"] == known), None)
    if entry is None:
        text = cause.text
        if len(notice.causes) >= MOST_CAUSES:
            known, text = OTHERS, OTHERS
            entry = next((one for one in notice.causes if one["cause"] == known), None)
        if entry is None:
            entry = {"cause": known, "text": text, "count": 0, "keys": [], "told": False}
            notice.causes = [*notice.causes, entry]
    entry["count"] += cause.count
    entry["keys"] = list(dict.fromkeys([*entry["keys"], *cause.keys]))[:KEYS]
    return None if entry["told"] else entry
