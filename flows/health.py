"""How the clients of one process answer: trouble in a row, and the pauses that come of it. Knows no thread and no batch."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flows.declaration import Client
from flows.tally import reason_of
from jobs.job import Done, Job, Settled
from jobs.outcome import Pause, Snooze
from jobs.pause import Pausing
from jobs.store import JobStore


class Health:
    """Takes note of answers and tells the store, which decides.

    Args:
        store: where pauses are.
        clients: by type of job.
        worker: who notes it.
        patient: does database work, again while the database is away.
    """

    def __init__(
        self, store: JobStore, clients: Mapping[str, Client], *, worker: str, patient: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self._store = store
        self._clients = clients
        self._worker = worker
        self._patient = patient
        #: Clients that were paused while we worked: what is not begun goes back.
        self.paused: dict[str, Pausing] = {}
        #: Clients that this process knows to be well; what an earlier one noted of the others may still have to be forgotten.
        self._well: set[str] = set()
        #: Generic errors in a row by client, until the store has heard of them.
        self._row: dict[str, int] = {}
        self._lock = threading.Lock()

    def in_doubt(self, type: str) -> bool:
        """Tell whether a client seems to be in trouble, while the store has not decided yet whether that is a pause."""
        client = self._clients[type]
        return self._row.get(client.id, 0) >= client.pause.after

    def notice(self, done: Done) -> None:
        """Look at an answer at once: a client that must be left alone gets no further request."""
        client, outcome = done.job.lane.client, done.verdict.outcome
        if isinstance(outcome, Pause):
            self._pause(done.job, outcome, done.verdict.cause)
        elif not isinstance(outcome, Snooze):
            self._row[client] = self._row.get(client, 0) + 1 if done.verdict.trouble else 0

    def hear(self, settled: Sequence[Settled]) -> None:
        """Tell the store how each client answered; it decides whether trouble adds up to a pause."""
        answers: dict[str, list[Settled]] = {}
        for one in settled:
            # What a save made of a success may be a pause, too.
            if isinstance(one.verdict.outcome, Pause):
                self._pause(one.job, one.verdict.outcome, one.verdict.cause)
            elif not isinstance(one.verdict.outcome, Snooze):
                answers.setdefault(one.job.lane.client, []).append(one)
        for client, ones in answers.items():
            troubles = [one.verdict.trouble for one in ones]
            # A client that was well and is well needs no note; this is the common case and costs nothing.
            if not any(troubles) and client in self._well:
                continue
            (self._well.discard if troubles[-1] else self._well.add)(client)
            policy = self._clients[ones[0].job.lane.type].pause
            reason = next((reason_of(one) for one in reversed(ones) if one.verdict.trouble), "")
            hear = partial(
                self._store.hear, client, troubles, after=policy.after, durations=policy.durations, reason=reason,
                set_by=self._worker,
            )  # fmt: skip
            pausing = self._patient(hear)
            if pausing is not None:
                self.paused[client] = pausing
            self._row[client] = 0

    def forget(self, known: Mapping[str, Pausing]) -> None:
        """Forget pauses that a claim has read since: the row is the truth, and what it let through may be worked."""
        for client, pausing in known.items():
            if self.paused.get(client) is pausing:
                self.paused.pop(client, None)

    def _pause(self, job: Job, outcome: Pause, cause: str) -> None:
        """Pause a client, before its job is finished: a job that goes back is available at once, and nobody may claim it."""
        client = job.lane.client
        with self._lock:
            if client not in self.paused:
                pause = partial(self._store.pause, client, outcome.when, cause=cause, reason=outcome.reason, set_by=self._worker)
                self.paused[client] = self._patient(pause)
