"""Turns the trouble that the tables hold into stored notices and messages; `flows.notices.decision` decides which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.notices.causes import Cause, causes_of, joined
from flows.notices.decision import decide
from flows.notices.notice_context import NoticeContext
from flows.notices.recipients import Recipients
from flows.project.registry import Registry, load
from flows.time_text import duration_text, moment_text
from jobs.notices.notice import ClientSnapshot, NewMessage, Notice
from jobs.notices.unreported_failures import BATCH, NO_JOB, UnreportedFailure

if TYPE_CHECKING:
    from flows.declarations.client import Client
    from flows.declarations.sync import Sync
    from flows.run_result import RunResult
    from jobs.store import JobStore

TRIES = 20
"""Attempts to store the notices of one client when other processes store them first."""


class Collector:
    """Writes the notices and messages of some clients.

    Args:
        store: where they are.
        registry: what is declared; by default loaded when it is first needed.
        clients: whose notices it writes, by id.
        link, run: where people find the present run, and the id of its flow run.
        recipients: by default those of the declarations and the environment.
    """

    def __init__(
        self,
        store: JobStore,
        registry: Registry | None,
        clients: Mapping[str, Client],
        *,
        link: str = "",
        run: str = "",
        recipients: Recipients | None = None,
    ) -> None:
        self._store, self._clients = store, clients
        self._known_registry, self._known_recipients = registry, recipients
        self._link, self._run = link, run

    def collect(self, *, gather: float) -> int:
        """Write what nobody has reported yet; return how many messages were written.

        Args:
            gather: seconds that failures wait for further ones.

        Raises:
            SettingsError: the settings that name recipients cannot be read; everything waits.
            SQLAlchemyError: the database failed; nothing is lost.
        """
        if not self._clients:
            return 0
        changed = self._store.unreported.clients(self._clients, window=self._recipients().window, gather=gather)
        late = self._late()
        return sum(len(self._update(self._clients[name])[1]) for name in sorted({*changed, *late}))

    def run_ended(self, sync: Sync, result: RunResult) -> bool:
        """Write what the result of a run means; tell whether it ended the trouble of its sync.

        Raises:
            SettingsError, SQLAlchemyError: as in `collect`.
        """
        succeeded = result.state == "success" and not result.failed
        if succeeded and not self._store.unreported.has_trouble(sync.client.id, sync.id):
            # Nearly all runs: no notice is open and there is nothing to report.
            return False
        closed, _ = self._update(sync.client, sync, result)
        return sync.id in closed

    def _late(self) -> set[str]:
        """Return the clients whose syncs are late or were; only where it is known what is declared."""
        found = set()
        for sync in () if self._known_registry is None else self._known_registry.syncs.values():
            if sync.late_after is None or sync.client.id not in self._clients:
                continue
            if late_text(sync, self._store) or self._store.unreported.has_trouble(sync.client.id, sync.id):
                found.add(sync.client.id)
        return found

    def _update(
        self, client: Client, sync: Sync | None = None, result: RunResult | None = None
    ) -> tuple[list[str], list[NewMessage]]:
        """Return the syncs and job types whose notices were closed, and the messages that were written."""
        context = self._context(client, sync)
        closed: list[str] = []
        messages: list[NewMessage] = []
        for _ in range(TRIES):
            taken, failures, listings = self._read(client.id, "" if sync is None else sync.id)
            waiting = self._store.unreported.count_queued(client.id)
            late = {one.id: text for one in self._registry().of_client(client.id) if (text := late_text(one, self._store))}
            late.pop(_succeeded(result), None)
            known = replace(context, late=late, failures=failures, listings=listings, ended=result, waiting=waiting)

            def decided(trouble: ClientSnapshot, known: NoticeContext = known) -> tuple[list[Notice], list[NewMessage]]:
                notices, written = decide(trouble, known)
                closed[:] = [one.subject for one in notices if one.closed_at == trouble.now]
                messages[:] = written
                return notices, written

            if self._store.notices.update(client.id, taken, decided):
                return closed, messages
        return [], []

    def _read(self, client: str, ended: str) -> tuple[list[int], dict[str, list[Cause]], dict[str, UnreportedFailure]]:
        """Read what can be reported of a client now.

        Args:
            client: its id.
            ended: the sync whose run has just ended.

        Returns:
            The ids of the failures, their causes by sync or job type, and by sync the listings that failed in a run whose result
            is unknown.
        """
        taken: list[int] = []
        failures: dict[str, list[Cause]] = {}
        listings: dict[str, UnreportedFailure] = {}
        while True:
            news = self._store.unreported.failures(client, ended=ended, after=taken[-1] if taken else 0)
            by_type: dict[str, list[UnreportedFailure]] = {}
            for one in news:
                if one.job_id == NO_JOB:
                    # The result of the run that has just ended covers its listing.
                    listings |= {one.type: one} if one.type != ended else {}
                    continue
                by_type.setdefault(one.type, []).append(one)
            for name, found in by_type.items():
                failures[name] = joined([*failures.get(name, ()), *causes_of(found, self._store.unreported.payloads)])
            taken += [one.id for one in news]
            if len(news) < BATCH:
                return taken, failures, listings

    def _context(self, client: Client, sync: Sync | None) -> NoticeContext:
        registry, recipients = self._registry(), self._recipients()
        syncs = tuple(one.id for one in registry.of_client(client.id))
        if sync is not None and sync.id not in syncs:
            syncs = (*syncs, sync.id)
        return NoticeContext(
            syncs,
            tuple(one.id for one in registry.job_types_of(client.id)),
            lambda level: recipients.addressees(client, level),
            recipients.window,
            link=self._link,
            run=self._run,
            all_declared=not registry.broken,
        )

    def _registry(self) -> Registry:
        if self._known_registry is None:
            self._known_registry = load()
        return self._known_registry

    def _recipients(self) -> Recipients:
        if self._known_recipients is None:
            self._known_recipients = Recipients(self._clients)
        return self._known_recipients


def late_text(sync: Sync, store: JobStore) -> str:
    """Say since when no run of a sync has succeeded, if that is longer than its `late_after`; else empty."""
    if not isinstance(sync.late_after, float):
        return ""
    is_late, last = store.runs.is_late(sync.id, sync.late_after)
    if not is_late:
        return ""
    since = "no run has succeeded yet" if last is None else f"no run has succeeded since {moment_text(last)}"
    return f"{since}; it is late after {duration_text(sync.late_after)}"


def _succeeded(result: RunResult | None) -> str:
    """Return the sync of a run that is a success of the whole; the history may have it a little later."""
    return result.sync if result is not None and (result.state, result.stopped) == ("success", "end") else ""
