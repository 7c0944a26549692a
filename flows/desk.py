"""Takes the trouble of clients from the tables to their notices: reads, lets `flows.notice` decide, stores. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.cause import Cause, causes_of, joined
from flows.house import House
from flows.notice import decide
from flows.recipients import Recipients
from flows.registry import Registry, load
from jobs.notice import BATCH, NO_JOB, Letter, News, Notice, Trouble

if TYPE_CHECKING:
    from flows.declaration import Client, Sync
    from flows.result import RunResult
    from jobs.store import JobStore

TRIES = 20
"""Looks at one client's news, where others take them before us."""


class Desk:
    """Where one process writes its notices.

    Args:
        store: where they are.
        registry: what is declared; read by itself, when it is first needed, where it is not given.
        clients: those it answers for, by id.
        link, run: where people find the present run, and the id of its flow run.
        recipients: who is told; by default as the environment says.
    """

    def __init__(
        self, store: JobStore, registry: Registry | None, clients: Mapping[str, Client], *, link: str = "", run: str = "",
        recipients: Recipients | None = None,
    ) -> None:  # fmt: skip
        self._store, self._registry, self._clients = store, registry, clients
        self._link, self._run, self._of = link, run, recipients

    def look(self, *, gather: float) -> int:
        """Take in whatever nobody was told of yet; return how many letters were written.

        Args:
            gather: seconds that failures wait for company.

        Raises:
            SettingsError: the settings that name recipients cannot be read; everything waits.
            SQLAlchemyError: the database failed; nothing is lost.
        """
        if not self._clients:
            return 0
        stirred = self._store.notices.stirred(self._clients, window=self._recipients().window, gather=gather)
        return sum(len(self._fold(self._clients[name])[1]) for name in stirred)

    def run_ended(self, sync: Sync, result: RunResult) -> bool:
        """Take in what a run came to; tell whether it has put an end to trouble with its sync.

        Raises:
            SettingsError, SQLAlchemyError: as in `look`.
        """
        is_well = result.state == "success" and not result.failed
        if is_well and not self._store.notices.concerns(sync.client.id, sync.id):
            # By far the most runs: neither is anything open, nor is there anything to say.
            return False
        ended, _ = self._fold(sync.client, sync, result)
        return sync.id in ended

    def _fold(self, client: Client, sync: Sync | None = None, result: RunResult | None = None) -> tuple[list[str], list[Letter]]:
        """Return whose trouble is over, with a letter or in silence, and the letters that were written."""
        house = self._house(client, sync)
        ended: list[str] = []
        letters: list[Letter] = []
        for _ in range(TRIES):
            taken, failures, listings = self._read(client.id, "" if sync is None else sync.id)
            waiting = self._store.notices.waiting(client.id)
            known = replace(house, failures=failures, listings=listings, ended=result, waiting=waiting)

            def judge(trouble: Trouble, known: House = known) -> tuple[list[Notice], list[Letter]]:
                notices, written = decide(trouble, known)
                ended[:] = [one.subject for one in notices if one.closed_at == trouble.now]
                letters[:] = written
                return notices, written

            if self._store.notices.fold(client.id, taken, judge):
                return ended, letters
        return [], []

    def _read(self, client: str, ended: str) -> tuple[list[int], dict[str, list[Cause]], dict[str, News]]:
        """Return the ids of the failures that can be told now, what they come to by sync or job type, and listings that failed
        in a run of which nobody knows what it came to, by sync.
        """
        notices, taken = self._store.notices, list[int]()
        failures: dict[str, list[Cause]] = {}
        listings: dict[str, News] = {}
        while True:
            news = notices.news(client, ended=ended, after=taken[-1] if taken else 0)
            by_type: dict[str, list[News]] = {}
            for one in news:
                if one.job_id == NO_JOB:
                    # The run that has just ended says so itself.
                    listings |= {one.type: one} if one.type != ended else {}
                    continue
                by_type.setdefault(one.type, []).append(one)
            for name, found in by_type.items():
                failures[name] = joined([*failures.get(name, ()), *causes_of(found, notices.payloads)])
            taken += [one.id for one in news]
            if len(news) < BATCH:
                return taken, failures, listings

    def _house(self, client: Client, sync: Sync | None) -> House:
        registry = self._declared()
        syncs = tuple(one.id for one in registry.of_client(client.id))
        if sync is not None and sync.id not in syncs:
            syncs = (*syncs, sync.id)
        types = tuple(one.id for one in registry.job_types_of(client.id))
        recipients = self._recipients()
        return House(
            syncs, types, lambda level: recipients.addressees(client, level), recipients.window, link=self._link, run=self._run,
            is_whole=not registry.broken,
        )  # fmt: skip

    def _declared(self) -> Registry:
        if self._registry is None:
            self._registry = load()
        return self._registry

    def _recipients(self) -> Recipients:
        if self._of is None:
            self._of = Recipients(self._clients)
        return self._of
