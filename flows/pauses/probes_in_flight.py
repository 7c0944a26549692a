"""The probes of this process that have no answer yet, and what their answers mean for the pauses that they test."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flows.declarations.client import Client
from flows.notices.observer import Observer
from flows.pauses.error_streak import Claim, ErrorStreaks
from flows.pauses.local_lacks import LocalLacks
from flows.pauses.open_pauses import OpenPauses
from jobs.job import Job, Verdict
from jobs.outcome import Failure, Pause, Snooze
from jobs.pauses.probe import Probe
from jobs.store import JobStore


class ProbesInFlight:
    """The probes of one process. Thread-safe.

    Args:
        store: where they are reported.
        clients: by id.
        pauses: those that they test.
        streaks: errors in a row; those from before a probe no longer count.
        lacks: gets what kept a probe from being sent.
        worker: the name under which a client stays paused.
        retry_database: does database work, again while the database is away.
        observer: is informed of pauses that end here.
    """

    def __init__(
        self,
        store: JobStore,
        clients: Mapping[str, Client],
        pauses: OpenPauses,
        *,
        streaks: ErrorStreaks,
        lacks: LocalLacks,
        worker: str,
        retry_database: Callable[[Callable[[], Any]], Any],
        observer: Observer,
    ) -> None:
        self._store = store
        self._clients = clients
        self._pauses = pauses
        self._streaks = streaks
        self._lacks = lacks
        self._worker = worker
        self._retry_database = retry_database
        self._observer = observer
        #: By claim the probe that a job is to answer, or did.
        self.claims: dict[Claim, Probe] = {}
        #: By client the probe without an answer.
        self._unanswered: dict[str, Probe] = {}
        self._lock = threading.Lock()

    def begun(self, probe: Probe) -> None:
        """Take note that this process may probe a client whose pause has run out."""
        self._pauses.probed(probe)
        self._streaks.forget(probe.client)
        self._unanswered[probe.client] = probe

    def expect_answer(self, probe: Probe, jobs: Sequence[Job]) -> None:
        """Take the result of one of these jobs for the probe's."""
        self.claims.update(((job.id, job.claim_no), probe) for job in jobs)

    def is_probing(self, client: str) -> bool:
        """Tell whether this process probes a client and has no answer yet."""
        return client in self._unanswered

    def answered(self, probe: Probe, verdict: Verdict | None) -> None:
        """Report the result of a probe. Only the first call for a probe has an effect.

        Args:
            probe: whose.
            verdict: on its request, `None` if there was none. A snooze says nothing about the client.
        """
        with self._lock:
            if self._unanswered.get(probe.client) is not probe:
                return
            del self._unanswered[probe.client]
        client, policy = self._clients[probe.client], self._clients[probe.client].pause
        if verdict is not None and verdict.ours:
            self._lacks.add(probe.client, verdict)
            verdict = None
        healthy: bool | None = True
        more: dict[str, Any] = {"reason": ""}
        outcome = None if verdict is None else verdict.outcome
        if verdict is None or isinstance(outcome, Snooze):
            healthy = None
        elif isinstance(outcome, Pause):
            healthy, more = False, {"reason": outcome.reason, "when": self._pauses.end_of(outcome), "cause": verdict.cause}
        elif verdict.trouble:
            healthy, more = False, {"reason": outcome.message if isinstance(outcome, Failure) else ""}
        end = partial(self._store.probes.end, probe, healthy, durations=policy.durations, set_by=self._worker, **more)
        pausing = self._retry_database(end)
        if healthy and pausing is not None:
            # What its job still reports is about the client that is open again.
            late = replace(probe, generation=probe.generation + 1)
            self._pauses.reopened(probe.client, late.generation)
            self.claims.update({claim: late for claim, of in list(self.claims.items()) if of is probe})
            self._observer.resumed(client, by="probe")
        elif not healthy:
            self._pauses.not_reopened(probe.client, pausing)

    def ended(self, probe: Probe, jobs: Sequence[Job] = ()) -> None:
        """Take note that a probe is over; without an answer, the next one may try."""
        try:
            self.answered(probe, None)
        finally:
            for job in jobs:
                self.claims.pop((job.id, job.claim_no), None)
