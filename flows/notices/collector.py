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
        return sum(len(self._update(self._clients[name])[1]) for name in changed)

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
            known = replace(context, failures=failures, listings=listings, ended=result, waiting=waiting)

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
