"""Writes the messages about a notice: what happened, since when, what it means, what happens next, what a person can do."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flows.events import FAILED, PARTIAL, PAUSED, RECOVERED, RESUMED
from flows.notices.causes import LATE
from flows.notices.formatting import body_text, causes_text, count_text, names_text
from flows.notices.notice_context import NoticeContext
from flows.time_text import duration_text, moment_text
from jobs.notices.notice import NewMessage, Notice
from jobs.notices.unreported_failures import COUNT_LIMIT

Parts = list[tuple[str, str]]
"""Headings with their texts; parts without a text are left out."""

_WHY = {
    "level": "generic errors in a row",
    "enforced": "the remote side does not let us in",
    "asked": "the remote side asks us to wait",
    "person": "by hand",
    "window": "a declared maintenance window",
}


class MessageTemplates:
    """Writes messages about one client.

    Args:
        client: its id.
        context: its declarations, recipients and the run that has just ended.
        now: the moment.
    """

    def __init__(self, client: str, context: NoticeContext, now: datetime) -> None:
        self._client, self._context, self._now = client, context, now

    def message(self, notice: Notice, what: str, fresh: Sequence[Mapping[str, Any]] = ()) -> NewMessage:
        """Write one message.

        Args:
            notice: what it is about.
            what: opened, more, digest or recovered.
            fresh: the new causes, for `more`.
        """
        headline, parts = (self._of_client if notice.subject == "" else self._of_subject)(notice, what, fresh)
        if self._context.link and what != "digest":
            parts.append(("Look", self._context.link))
        data = self._data(notice, what, headline)
        # The end goes also to those who got it at a lower level.
        levels = notice.facts.get("levels", [notice.level]) if notice.closed_at is not None else [notice.level]
        return NewMessage(
            notice=notice,
            what=what,
            event=data["event"],
            level=notice.level,
            subject=f"[{notice.level}] {headline}"[:200],
            body=body_text([("", headline + "."), *parts]).lstrip(),
            data=data,
            to=list(dict.fromkeys(one for level in levels for one in self._context.recipients(level))),
        )

    # -- a client --------------------------------------------------------------------------------------------------------------

    def _of_client(self, notice: Notice, what: str, fresh: Sequence[Mapping[str, Any]]) -> tuple[str, Parts]:
        if what == "recovered":
            return self._client_recovered(notice)
        name, facts = self._client, notice.facts
        until = moment_text(datetime.fromisoformat(facts["until"])) if facts.get("until") else ""
        end = f"until {until}" if until else "until a person resumes it"
        if notice.closed_at is not None:
            headline = f"{name} was paused {count_text(notice.count, 'time')}, and is open now"
        elif what == "digest":
            headline = f"{name} is still paused, {end}"
        else:
            headline = f"{name} is paused {end}" if what == "opened" else f"{name} is paused {end}, for another reason"
        shown = fresh if what == "more" and fresh else notice.causes
        why = _WHY.get(str(facts.get("cause")), "")
        set_by = f" ({facts['set_by']})" if facts.get("cause") == "person" and facts.get("set_by") else ""
        is_planned = facts.get("cause") in ("person", "window")
        if until:
            then = f"At {until} one request tests {name}: if it succeeds, work goes on."
            then += "" if is_planned else " If not, it is paused again, for longer."
        else:
            then = f"Nothing until somebody resumes {name}."
        return headline, [
            ("What happened", causes_text(shown) + (f"\n({why}{set_by})" if why else "")),
            ("Since", moment_text(notice.opened_at) + _times(notice.count)),
            ("What it means", self._means()),
            ("What happens next", then),
            ("What you can do", "" if notice.closed_at is not None else self._commands(ends=bool(until), is_planned=is_planned)),
        ]

    def _client_recovered(self, notice: Notice) -> tuple[str, Parts]:
        how = "answers again" if notice.closed_by == "probe" else "goes on"
        by = "" if notice.closed_by in ("probe", "clock", "") else f", resumed by {notice.closed_by}"
        return f"{self._client} {how} after {_lasted(notice)}{by}", [
            ("What it was", causes_text(notice.causes)),
            ("From", _from_to(notice) + _times(notice.count)),
            ("What waited", self._waited()),
        ]

    def _means(self) -> str:
        names = [*self._context.syncs, *self._context.job_types]
        who = f"{names_text(names)} {'waits' if len(names) == 1 else 'wait'}" if names else "All its jobs wait"
        return f"{who}; nothing is lost, and no retry is used."

    def _commands(self, *, ends: bool, is_planned: bool) -> str:
        lines = [] if is_planned else [f"`syncs check {self._client}` shows what it answers now"]
        lines.append(f"`syncs resume {self._client}` lets it go on " + ("at once" if ends else "once that is fixed"))
        return "\n".join([*lines, "`syncs pauses` lists all pauses"])

    def _waited(self) -> str:
        count = self._context.waiting
        if not count:
            return "Nothing is left over."
        jobs = f"More than {COUNT_LIMIT:,} jobs" if count >= COUNT_LIMIT else count_text(count, "job")
        return f"{jobs} waited and {'is' if count == 1 else 'are'} processed now."

    # -- a sync or a job type --------------------------------------------------------------------------------------------------

    def _of_subject(self, notice: Notice, what: str, fresh: Sequence[Mapping[str, Any]]) -> tuple[str, Parts]:
        if what == "recovered":
            return self._subject_recovered(notice)
        name, is_sync = notice.subject, notice.subject in self._context.syncs
        shown = fresh if what == "more" and fresh else notice.causes
        parts = [("What happened", causes_text(shown)), ("Since", moment_text(notice.opened_at))]
        if {cause["cause"] for cause in shown} == {LATE}:
            return f"{name} is late", [
                *parts,
                ("What it means", "What is stored is as old as that, or older."),
                ("What happens next", "The next run that succeeds ends this, and says so."),
                ("What you can do", f"`syncs runs {name}` shows its last runs, `syncs run {name}` runs it now"),
            ]
        if notice.closed_at is None:
            parts += [
                ("What it means", self._harm(is_sync, notice)),
                ("What happens next", self._next(is_sync)),
                ("What you can do", self._remedies(name, notice)),
            ]
        if what == "digest":
            headline = (
                f"{name}: {notice.count - notice.told_count:,} more since {moment_text(notice.told_at or notice.opened_at)}"
            )
            return headline + (", and all is well now" if notice.closed_at is not None else ""), parts
        return self._headline(notice, what, sum(cause["count"] for cause in (shown if what == "more" else notice.causes))), parts

    def _headline(self, notice: Notice, what: str, failed: int) -> str:
        name, ended = notice.subject, self._context.ended
        if ended is None or ended.sync != name:
            if notice.kind == "api":
                return f"{name}: the listing failed"
            is_sync = name in self._context.syncs
            counted = count_text(failed, "entity", "entities") if is_sync else count_text(failed, "job")
        elif ended.stopped in ("error", "loop", "short"):
            return f"{name}: the listing {'came up short' if ended.stopped == 'short' else 'failed'}"
        elif not ended.failed:
            return f"{name} ended with a remark"
        else:
            total = max(ended.succeeded + ended.unchanged + ended.gone + ended.failed, failed)
            counted = f"{failed:,} of {total:,} entities"
        return f"{name}: {counted} failed" + (", for another reason" if what == "more" else "")

    def _subject_recovered(self, notice: Notice) -> tuple[str, Parts]:
        ended = self._context.ended
        succeeded = f": {ended.succeeded:,} succeeded" if ended is not None else ""
        return f"{notice.subject} is well again after {_lasted(notice)}", [
            ("What it was", causes_text(notice.causes)),
            ("From", _from_to(notice)),
            ("What waited", f"The last run went well{succeeded}."),
        ]

    @staticmethod
    def _harm(is_sync: bool, notice: Notice) -> str:
        if notice.kind == "api":
            return "What was listed is stored; what was not keeps the state of the last run. Nothing was deleted."
        if is_sync:
            return "These entities keep the state of their last success; all others are in step."
        return "These jobs have used up their retries and are not tried again by themselves."

    @staticmethod
    def _next(is_sync: bool) -> str:
        if is_sync:
            return "The next run asks for them again, and says when all is well."
        return "Nothing until somebody looks at them."

    @staticmethod
    def _remedies(name: str, notice: Notice) -> str:
        if notice.kind == "api":
            return f"`syncs run {name}` tries it now"
        return (
            f"`syncs jobs --type {name} --state failure` lists them, `syncs job ID` shows one with its error\n"
            f"`syncs retry --type {name} --state failure` queues them again"
        )

    # -- for machines ----------------------------------------------------------------------------------------------------------

    def _data(self, notice: Notice, what: str, headline: str) -> dict[str, Any]:
        context, is_over = self._context, what == "recovered" or notice.closed_at is not None
        if notice.subject == "":
            event = RESUMED if is_over else PAUSED
        elif is_over:
            event = RECOVERED
        else:
            event = FAILED if notice.level == "error" else PARTIAL
        facts = notice.facts if notice.subject == "" else {}
        end = notice.closed_at or self._now
        data: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "event": event,
            "what": what,
            "client": self._client,
            "sync": notice.subject,
            "kind": notice.kind,
            "level": notice.level,
            "summary": headline,
            "count": notice.count,
            "causes": [{name: cause[name] for name in ("text", "count", "keys")} for cause in notice.causes],
            "since": notice.opened_at.isoformat(),
            "until": facts.get("until"),
            "ended": None if notice.closed_at is None else notice.closed_at.isoformat(),
            "by": notice.closed_by,
            "seconds": round((end - notice.opened_at).total_seconds(), 3),
            "at": self._now.isoformat(),
            "affected": [*context.syncs, *context.job_types] if notice.subject == "" else [notice.subject],
        }
        if facts:
            data |= {"cause": facts.get("cause"), "reason": facts.get("reason"), "pause_level": facts.get("level")}
        if what == "recovered":
            data["waiting"] = context.waiting
        if context.ended is not None and context.ended.sync == notice.subject:
            data["run_state"] = context.ended.state
        if context.run:
            data["run"] = context.run
        if context.link:
            data["link"] = context.link
        return data


def _times(count: int) -> str:
    return f", paused {count:,} times" if count > 1 else ""


def _from_to(notice: Notice) -> str:
    assert notice.closed_at is not None
    return f"{moment_text(notice.opened_at)} to {moment_text(notice.closed_at)}"


def _lasted(notice: Notice) -> str:
    assert notice.closed_at is not None
    return duration_text((notice.closed_at - notice.opened_at).total_seconds())
