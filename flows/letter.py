"""The letters about a notice: what happened, since when, what it means, what happens next, what a person could do, where to look.

Pure; decides nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flows.house import House
from flows.wording import body, causes_text, clock, counted, listed, span
from jobs.notice import MOST_WAITING, Letter, Notice

PAUSED, RESUMED = "sync.client.paused", "sync.client.resumed"
FAILED, PARTIAL, RECOVERED = "sync.run.failed", "sync.run.partial", "sync.run.recovered"

_WHY = {
    "level": "generic errors in a row",
    "enforced": "the remote side does not let us in",
    "asked": "the remote side asks us to wait",
    "person": "by hand",
    "window": "a declared maintenance window",
}


class Letters:
    """Writes the letters of one look.

    Args:
        client: whose trouble it is.
        house: what there is to know of it.
        now: the moment.
    """

    def __init__(self, client: str, house: House, now: datetime) -> None:
        self._client, self._house, self._now = client, house, now

    def letter(self, notice: Notice, what: str, fresh: Sequence[Mapping[str, Any]] = ()) -> Letter:
        """Write one.

        Args:
            notice: what it is about.
            what: opened, more, digest or recovered.
            fresh: the causes that are new, in a letter of more.
        """
        if notice.subject == "":
            headline, parts = self._of_client(notice, what, fresh)
        else:
            headline, parts = self._of_subject(notice, what, fresh)
        subject = f"[{notice.level}] {headline}"[:200]
        if self._house.link and what != "digest":
            parts.append(("Look", self._house.link))
        data = self._data(notice, what, headline)
        # Whoever heard of it while it was a warning hears that it is over, too.
        levels = notice.facts.get("levels", [notice.level]) if notice.closed_at is not None else [notice.level]
        return Letter(
            notice, what, data["event"], notice.level, subject, body([("", headline + "."), *parts]).lstrip(), data,
            list(dict.fromkeys(one for level in levels for one in self._house.to(level))),
        )  # fmt: skip

    # -- a client --------------------------------------------------------------------------------------------------------------

    def _of_client(self, notice: Notice, what: str, fresh: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[str, str]]]:
        name, facts = self._client, notice.facts
        since = clock(notice.opened_at)
        until = facts.get("until")
        is_person = facts.get("cause") in ("person", "window")
        if what == "recovered":
            assert notice.closed_at is not None
            lasted = span((notice.closed_at - notice.opened_at).total_seconds())
            how = "answers again" if notice.closed_by == "probe" else "goes on"
            by = "" if notice.closed_by in ("probe", "clock", "") else f", resumed by {notice.closed_by}"
            return f"{name} {how} after {lasted}{by}", [
                ("What it was", causes_text(notice.causes)),
                ("From", f"{since} to {clock(notice.closed_at)}" + _times(notice.count)),
                ("What waited", self._waited()),
            ]
        end = f"until {clock(datetime.fromisoformat(until))}" if until else "until a person resumes it"
        if notice.closed_at is not None:
            headline = f"{name} was paused {counted(notice.count, 'time')}, and is open now"
        elif what == "digest":
            headline = f"{name} is still paused, {end}"
        else:
            headline = f"{name} is paused {end}" if what == "opened" else f"{name} is paused {end}, for another reason"
        shown = fresh if what == "more" and fresh else notice.causes
        why = _WHY.get(str(facts.get("cause")), "")
        set_by = f" ({facts['set_by']})" if facts.get("cause") == "person" and facts.get("set_by") else ""
        next_ = (
            f"At {clock(datetime.fromisoformat(until))} one request tries {name}: if it goes well, all goes on." if until else ""
        )
        if until and not is_person:
            next_ += " If not, it is paused again, for longer."
        return headline, [
            ("What happened", causes_text(shown) + (f"\n({why}{set_by})" if why else "")),
            ("Since", since + _times(notice.count)),
            ("What it means", self._means()),
            ("What happens next", next_ or f"Nothing until somebody resumes {name}."),
            ("What you can do", "" if notice.closed_at is not None else self._commands(bool(until), is_person)),
        ]  # fmt: skip

    def _means(self) -> str:
        names = [*self._house.syncs, *self._house.job_types]
        who = f"{listed(names)} {'waits' if len(names) == 1 else 'wait'}" if names else "All its jobs wait"
        return f"{who}; nothing is lost, and no retry is used."

    def _commands(self, ends: bool, is_person: bool) -> str:
        lines = [] if is_person else [f"`syncs check {self._client}` shows what it answers now"]
        lines.append(
            f"`syncs resume {self._client}` " + ("lets it go on at once" if ends else "lets it go on, once that is mended")
        )
        return "\n".join([*lines, "`syncs pauses` lists all pauses"])

    def _waited(self) -> str:
        count = self._house.waiting
        if not count:
            return "Nothing is left over."
        jobs = f"More than {MOST_WAITING:,} jobs" if count >= MOST_WAITING else counted(count, "job")
        return f"{jobs} waited and {'is' if count == 1 else 'are'} worked off now."

    # -- a sync or a job type --------------------------------------------------------------------------------------------------

    def _of_subject(self, notice: Notice, what: str, fresh: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[str, str]]]:
        name, ended = notice.subject, self._house.ended
        is_sync = name in self._house.syncs
        since = clock(notice.opened_at)
        if what == "recovered":
            assert notice.closed_at is not None
            lasted = span((notice.closed_at - notice.opened_at).total_seconds())
            return f"{name} is well again after {lasted}", [
                ("What it was", causes_text(notice.causes)),
                ("From", f"{since} to {clock(notice.closed_at)}"),
                (
                    "What waited",
                    "The last run went well" + (f": {ended.succeeded:,} succeeded" if ended is not None else "") + ".",
                ),
            ]
        things = "entity" if is_sync else "job"
        shown: Sequence[Mapping[str, Any]] = fresh if what == "more" and fresh else notice.causes
        failed = sum(cause["count"] for cause in (shown if what == "more" else notice.causes))
        of_run = ended is not None and ended.sync == name
        if what == "digest":
            headline = f"{name}: {notice.count - notice.told_count:,} more since {clock(notice.told_at or notice.opened_at)}"
            headline += ", and all is well now" if notice.closed_at is not None else ""
        elif of_run and ended is not None and ended.stopped in ("error", "loop", "short"):
            headline = f"{name}: the listing {'came up short' if ended.stopped == 'short' else 'failed'}"
        elif not of_run and notice.kind == "api":
            headline = f"{name}: the listing failed"
        elif of_run and ended is not None and not ended.failed:
            headline = f"{name} ended with a remark"
        else:
            of = f" of {max(ended.succeeded + ended.unchanged + ended.gone + ended.failed, failed):,}" if ended and of_run else ""
            count = counted(failed, things, "entities" if is_sync else "jobs") if not of else f"{failed:,}{of} entities"
            headline = f"{name}: {count} failed" + (", for another reason" if what == "more" else "")
        return headline, [
            ("What happened", causes_text(shown)),
            ("Since", since),
            ("What it means", "" if notice.closed_at is not None else self._harm(is_sync, notice)),
            *([] if notice.closed_at is not None else [
                ("What happens next", self._next(is_sync)), ("What you can do", self._remedies(name, notice)),
            ]),
        ]  # fmt: skip

    @staticmethod
    def _harm(is_sync: bool, notice: Notice) -> str:
        if notice.kind == "api":
            return "What was listed is stored; what was not keeps the state of the last run. Nothing was deleted."
        if is_sync:
            return "These entities keep the state of their last success; all others are in step."
        return "These jobs have used up their retries and are not tried again by themselves."

    @staticmethod
    def _next(is_sync: bool) -> str:
        return (
            "The next run asks for them again, and says when all is well." if is_sync else "Nothing until somebody looks at them."
        )

    @staticmethod
    def _remedies(name: str, notice: Notice) -> str:
        if notice.kind == "api":
            return f"`syncs run {name}` tries it now"
        return "\n".join(
            (
                f"`syncs jobs --type {name} --state failure` lists them, `syncs job ID` shows one with its error",
                f"`syncs retry --type {name} --state failure` queues them again",
            )
        )

    # -- for machines ----------------------------------------------------------------------------------------------------------

    def _data(self, notice: Notice, what: str, headline: str) -> dict[str, Any]:
        ended = self._house.ended
        if notice.subject == "":
            event = RESUMED if what == "recovered" or notice.closed_at is not None else PAUSED
        elif what == "recovered" or notice.closed_at is not None:
            event = RECOVERED
        else:
            event = FAILED if notice.level == "error" else PARTIAL
        facts = notice.facts if notice.subject == "" else {}
        end = notice.closed_at or self._now
        data: dict[str, Any] = {
            "id": uuid.uuid4().hex, "event": event, "what": what, "client": self._client, "sync": notice.subject,
            "kind": notice.kind, "level": notice.level, "summary": headline, "count": notice.count,
            "causes": [{name: cause[name] for name in ("text", "count", "keys")} for cause in notice.causes],
            "since": notice.opened_at.isoformat(), "until": facts.get("until"),
            "ended": None if notice.closed_at is None else notice.closed_at.isoformat(), "by": notice.closed_by,
            "seconds": round((end - notice.opened_at).total_seconds(), 3), "at": self._now.isoformat(),
            "affected": [*self._house.syncs, *self._house.job_types] if notice.subject == "" else [notice.subject],
        }  # fmt: skip
        if facts:
            data |= {"cause": facts.get("cause"), "reason": facts.get("reason"), "pause_level": facts.get("level")}
        if what == "recovered":
            data["waiting"] = self._house.waiting
        if ended is not None and ended.sync == notice.subject:
            data["run_state"] = ended.state
        if self._house.run:
            data["run"] = self._house.run
        if self._house.link:
            data["link"] = self._house.link
        return data


def _times(count: int) -> str:
    return f", paused {count:,} times" if count > 1 else ""
