"""Decides which notices are opened, changed and closed, and which messages are sent. Pure.

One piece of trouble is one notice, with one message at its beginning and one at its end. In between, each further cause is a
message, at most `MAX_MESSAGES` in a window; a cause that was already sent is only counted, and sent in at most one digest in a
window.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from flows.channels.message import LEVELS
from flows.notices.causes import KEYS, LATE, Cause, shown_key
from flows.notices.error_text import OTHERS, safe_text, signature
from flows.notices.notice_context import NoticeContext
from flows.notices.templates import MessageTemplates
from flows.run_result import RunResult
from jobs.notices.notice import API, PROCESSING, ClientSnapshot, NewMessage, Notice, PauseSnapshot

SHORT_PAUSE = 600.0
"""Seconds; no message is sent about a pause that the API asked for and that is no longer."""

MAX_CAUSES = 5
"""Causes of a notice that are shown one by one; all others are counted together."""

MAX_MESSAGES = 4
"""Messages about one notice in a window; what comes after is in the digest."""

MAX_FLAPS = 5
"""Notices of one client, sync or job type that open and close in a window, after which further ones are only in digests."""


def decide(trouble: ClientSnapshot, context: NoticeContext) -> tuple[list[Notice], list[NewMessage]]:
    """Return the notices of a client that change, and the messages to send."""
    return _Decision(trouble, context).made()


class _Decision:
    """One decision about the trouble of a client."""

    def __init__(self, trouble: ClientSnapshot, context: NoticeContext) -> None:
        self._trouble, self._context, self._now = trouble, context, trouble.now
        self._window = timedelta(seconds=context.window)
        self._open = dict(trouble.open)
        self._changed: dict[int, Notice] = {}
        self._messages: list[NewMessage] = []
        self._templates = MessageTemplates(trouble.client, context, trouble.now)

    def made(self) -> tuple[list[Notice], list[NewMessage]]:
        # First of all: a new notice of the same subject would hide what was counted in the closed one.
        self._send_digests([one for one in self._trouble.closed.values() if one.is_muted])
        self._add_pauses()
        for subject, causes in self._context.failures.items():
            first = min(cause.at or self._now for cause in causes)
            self._add(subject, PROCESSING, self._level_of(subject), causes, at=first)
        for subject, news in self._context.listings.items():
            level = "warning" if news.key == "short" else "error"
            self._add(subject, API, level, [Cause(safe_text(news.message))], at=news.at)
        if self._context.ended is not None:
            self._add_run(self._context.ended)
        self._add_late()
        self._send_digests(self._open.values())
        self._close_quiet()
        return list(self._changed.values()), self._messages

    # -- pauses ----------------------------------------------------------------------------------------------------------------

    def _add_pauses(self) -> None:
        before = self._trouble.known_pause
        for one in self._trouble.pauses:
            if before is not None and not _is_replaced(before, one):
                self._close("", before.ended_by or "", before.ended_at)
            self._add_pause(one)
            before = one
        last = self._trouble.last_pause
        if last is None or last.ended_at is not None:
            self._close("", "" if last is None else last.ended_by or "", None if last is None else last.ended_at)

    def _add_pause(self, one: PauseSnapshot) -> None:
        is_old = one.ended_at is not None and self._now - one.ended_at > timedelta(days=1)
        if "" not in self._open and (is_old or not _is_reported(one)):
            return
        reason = safe_text(one.reason)
        cause = Cause(reason, signature=f"{one.cause}:{signature(reason)}")
        facts = {
            "pause": one.id,
            "cause": one.cause,
            "reason": reason,
            "set_by": one.set_by,
            "level": one.level,
            "since": one.started_at.isoformat(),
            "until": None if one.until is None else one.until.isoformat(),
        }
        self._add("", API, level_of(one), [cause], at=one.started_at, facts=facts, is_reported=_is_reported(one))

    # -- runs and jobs ---------------------------------------------------------------------------------------------------------

    def _level_of(self, subject: str) -> str:
        ended = self._context.ended
        if ended is not None and ended.sync == subject:
            return "error" if ended.state == "failed" else "warning"
        # Nothing repeats the job of a job type; the next run asks for the entities of a sync again.
        return "error" if subject in self._context.job_types else "warning"

    def _add_run(self, ended: RunResult) -> None:
        known = sum(cause.count for cause in self._context.failures.get(ended.sync, ()))
        level = "error" if ended.state == "failed" else "warning"
        if ended.flawed:
            self._add(ended.sync, PROCESSING, level, [Cause("listed items could not become entities", ended.flawed)])
        if (extra := ended.failed - ended.flawed - known) > 0 and ended.failures:
            # Failures without a job, such as deletes of a sweep.
            key, message = ended.failures[-1]
            keys = tuple(shown_key(key) for key, _ in ended.failures[-min(extra, KEYS) :])
            self._add(ended.sync, PROCESSING, level, [Cause(safe_text(message, key=key), extra, keys)])
        if ended.state in ("failed", "partial") and (ended.stopped in ("error", "loop", "short") or not (known or ended.failed)):
            kind = PROCESSING if ended.stopped == "end" else API
            self._add(ended.sync, kind, level, [Cause(safe_text(ended.message))])
        elif ended.state == "success" and ended.stopped == "end" and not known:
            self._close(ended.sync, "run")

    def _add_late(self) -> None:
        """Report once that a sync is late; what else is wrong with it may be why."""
        for subject, text in self._context.late.items():
            notice = self._open.get(subject)
            if notice is None or _entry(notice, LATE) is None:
                self._add(subject, PROCESSING, "warning", [Cause(text, signature=LATE)])
        for subject, notice in list(self._open.items()):
            is_in_time = subject in self._context.syncs and subject not in self._context.late
            if is_in_time and {one["cause"] for one in notice.causes} == {LATE}:
                # A worker that continued a listing has ended it.
                self._close(subject, "run")

    # -- notices ---------------------------------------------------------------------------------------------------------------

    def _add(
        self,
        subject: str,
        kind: str,
        level: str,
        causes: Sequence[Cause],
        *,
        at: datetime | None = None,
        facts: Mapping[str, Any] | None = None,
        is_reported: bool = True,
    ) -> None:
        """Add causes to the notice of a subject, and send a message if they are new."""
        notice = self._open.get(subject)
        is_new = notice is None
        if notice is None:
            notice = self._begin(subject, kind, level, at or self._now)
        is_higher, was_muted = LEVELS.index(level) > LEVELS.index(notice.level), notice.is_muted
        fresh = [entry for cause in causes if (entry := _count(notice, cause)) is not None]
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
        elif (fresh and is_reported) or is_higher:
            self._begin_window(notice)
            # A level rises twice at most, so that is always sent.
            if notice.letters < MAX_MESSAGES or is_higher:
                self._send(notice, "more", fresh)

    def _begin(self, subject: str, kind: str, level: str, at: datetime) -> Notice:
        last = self._trouble.closed.get(subject)
        recent = last is not None and self._now - last.window_at < self._window
        flaps = last.facts.get("flaps", 1) if last is not None and recent else 0
        if last is not None and flaps >= MAX_FLAPS:
            last.closed_at = last.closed_by = None
            last.is_muted = True
            notice = last
        else:
            notice = Notice(
                subject=subject,
                kind=kind,
                level=level,
                opened_at=at,
                updated_at=self._now,
                window_at=last.window_at if last is not None and recent else self._now,
                facts={"flaps": flaps + 1},
            )
        self._open[subject] = notice
        return notice

    def _send(self, notice: Notice, what: str, fresh: Sequence[dict[str, Any]] = ()) -> None:
        notice.facts = {**notice.facts, "levels": sorted({*notice.facts.get("levels", ()), notice.level}, key=LEVELS.index)}
        self._messages.append(self._templates.message(notice, what, fresh))
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

    def _is_window_over(self, notice: Notice) -> bool:
        return self._now - notice.window_at >= self._window

    def _begin_window(self, notice: Notice) -> None:
        if self._is_window_over(notice):
            notice.window_at, notice.letters = self._now, 0
            notice.facts = {**notice.facts, "flaps": 0}

    def _send_digests(self, notices: Iterable[Notice]) -> None:
        """Send what was counted and not sent in a window that is over."""
        for notice in notices:
            if self._is_window_over(notice) and notice.told_at is not None and notice.count > notice.told_count:
                self._begin_window(notice)
                self._changed[id(notice)] = notice
                notice.is_muted = False
                self._send(notice, "digest")

    def _close_quiet(self) -> None:
        """Close, without a message, notices to which nothing was added for a window and which no run can close."""
        for subject, notice in list(self._open.items()):
            # A run closes the notice of a sync. Job types have no runs, and neither has what is no longer declared.
            closed_by_run = subject in ("", *self._context.syncs) or not (
                self._context.all_declared or subject in self._context.job_types
            )
            if not closed_by_run and self._now - notice.updated_at >= self._window:
                notice.closed_at, notice.closed_by = self._now, "quiet"
                self._changed[id(notice)] = notice
                del self._open[subject]


def level_of(one: PauseSnapshot) -> str:
    """Return the level of a pause: `notice` by a person, a window or the API, `error` if it waits for a person."""
    if one.cause in ("person", "window"):
        return "notice"
    if one.cause == "enforced" or one.until is None:
        return "error"
    return "notice" if one.cause == "asked" else "warning"


def _is_replaced(one: PauseSnapshot, by: PauseSnapshot) -> bool:
    """Tell whether another pause replaced this one, so that the trouble goes on."""
    if one.ended_at is None or by.started_at - one.ended_at > timedelta(seconds=1):
        return False
    return one.ended_by == (by.set_by if by.cause == "person" else by.cause)


def _is_reported(one: PauseSnapshot) -> bool:
    """Tell whether a pause is worth a message: a short one that the API asked for is not."""
    return one.cause != "asked" or one.until is None or (one.until - one.started_at).total_seconds() > SHORT_PAUSE + 1


def _count(notice: Notice, cause: Cause) -> dict[str, Any] | None:
    """Add a cause to a notice; return its entry if no message had it yet."""
    known = cause.signature or signature(cause.text)
    entry = _entry(notice, known)
    if entry is None:
        text = cause.text
        if len(notice.causes) >= MAX_CAUSES:
            known = text = OTHERS
            entry = _entry(notice, known)
        if entry is None:
            entry = {"cause": known, "text": text, "count": 0, "keys": [], "told": False}
            notice.causes = [*notice.causes, entry]
    entry["count"] += cause.count
    entry["keys"] = list(dict.fromkeys([*entry["keys"], *cause.keys]))[:KEYS]
    return None if entry["told"] else entry


def _entry(notice: Notice, known: str) -> dict[str, Any] | None:
    return next((one for one in notice.causes if one["cause"] == known), None)
