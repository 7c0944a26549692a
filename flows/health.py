"""How the clients of one process answer: trouble in a row, and the pauses that come of it. Knows no thread and no batch."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from flows.declaration import Client
from flows.hours import Hours
from flows.streak import Streaks, claim_of
from flows.tally import reason_of
from flows.teller import SILENT, Teller
from jobs import JobsError
from jobs.job import Done, Job, Settled, Verdict
from jobs.outcome import Failure, Pause, Snooze
from jobs.pause import Pausing
from jobs.probe import Probe
from jobs.store import JobStore

GLANCE = 0.1
"""Seconds between two looks for pauses that other processes have begun: what is in hand and not begun then goes back."""

SPARED = 5
"""Times that a job may be the probe of a client in trouble without using an attempt; then the trouble could be its own."""

SOONEST = 1.0
"""Seconds that a pause lasts at least: with none, the client would be asked again and again, each time by a probe."""

_AS_PROBE = "as a probe, no attempt used: "


class Health:
    """Takes note of answers and tells the store, which decides.

    Args:
        store: where pauses are.
        clients: by type of job.
        worker: who notes it.
        patient: does database work, again while the database is away.
        told: who is told of pauses that begin and end here.
        heeds: whether pauses keep jobs in hand from being begun; a person may want one worked all the same.
    """

    def __init__(
        self, store: JobStore, clients: Mapping[str, Client], *, worker: str, patient: Callable[[Callable[[], Any]], Any],
        told: Teller = SILENT, heeds: bool = True,
    ) -> None:  # fmt: skip
        self._store = store
        self._types = clients
        self._clients = {client.id: client for client in clients.values()}
        self._worker = worker
        self._patient = patient
        self._told = told
        self._heeds = heeds
        self._hours = Hours(store, self._clients.values(), worker=worker)
        #: Clients that were paused while we worked: what is not begun goes back.
        self.paused: dict[str, Pausing] = {}
        #: Clients that this process knows to be well, and under which generation; of all others trouble may be noted somewhere.
        self._well: dict[str, int] = {}
        self._streaks = Streaks()
        #: Probes that nobody has answered yet, and the claims that are to answer them, or did.
        self._probes: dict[str, Probe] = {}
        self._probing: dict[tuple[int, int], Probe] = {}
        #: By client the pause that this process tests, or has tested well.
        self._tested: dict[str, int] = {}
        self._glanced_at = 0.0
        self._lock = threading.Lock()
        self._glancing, self._hearing = threading.Lock(), threading.Lock()

    # -- before a request ------------------------------------------------------------------------------------------------------

    def in_doubt(self, type: str) -> bool:
        """Tell whether a client seems to be in trouble, while the store has not decided yet whether that is a pause."""
        client = self._types[type]
        length = self._streaks.length(client.id)
        return length > 0 and length >= client.pause.after

    def may_begin(self, job: Job) -> bool:
        """Tell whether a job in hand may begin now: its client is not paused, by whomever, and not in doubt."""
        if not self._heeds:
            return True
        self._glance()
        return job.lane.client not in self.paused and not self.in_doubt(job.lane.type)

    def hold(self) -> None:
        """Pause the clients that have come into a declared window; asked before each claim and each page."""
        with self._lock:
            held = self._hours.hold()
        for pausing in held:
            self._note(pausing)

    def forget(self, known: Mapping[str, Pausing]) -> None:
        """Forget pauses that a claim has read since: the row is the truth, and what it let through may be worked."""
        for client, pausing in known.items():
            if self.paused.get(client) is pausing:
                self.paused.pop(client, None)

    def _glance(self) -> None:
        """Look now and then for windows and for pauses of other processes; one thread does, and the others go on.

        Run out is not over: what was in hand before is no second probe.
        """
        if time.monotonic() - self._glanced_at < GLANCE or not self._glancing.acquire(blocking=False):
            return
        try:
            # A database that is away is no reason to leave the client alone; the claims and finishes will wait for it.
            with suppress(SQLAlchemyError, JobsError):
                self.hold()
                found = self._store.pauses(run_out=True)
                # The right to test one may be taken just now: its job must begin.
                with self._lock:
                    for pausing in found:
                        if pausing.client in self._clients and pausing.id != self._tested.get(pausing.client):
                            self.paused.setdefault(pausing.client, pausing)
            self._glanced_at = time.monotonic()
        finally:
            self._glancing.release()

    # -- answers ---------------------------------------------------------------------------------------------------------------

    def notice(self, done: Done) -> Done:
        """Look at an answer at once: a client that must be left alone gets no further request.

        Returns:
            The answer; of a probe's job that met trouble one that puts it back without using an attempt (E-97).
        """
        client, outcome = done.job.lane.client, done.verdict.outcome
        probe = self._probing.get(claim_of(done.job)) if self._probing else None
        if probe is not None:
            self.answered(probe, done.verdict)
            return self._spared(done)
        if isinstance(outcome, Pause):
            self.pause(client, outcome, done.verdict.cause, generation=done.job.client_generation)
        elif not isinstance(outcome, Snooze):
            self._streaks.notice(done.job, trouble=done.verdict.trouble)
        return done

    def hear(self, settled: Sequence[Settled]) -> None:
        """Tell the store how each client answered; it decides whether trouble adds up to a pause.

        In the order in which they answered: neither batches nor the jobs of one, of which some have a transaction of their own,
        are committed in that order.
        """
        answers: dict[tuple[str, int], list[tuple[int, Settled]]] = {}
        for number, one in sorted(((self._streaks.number(one.job), one) for one in settled), key=itemgetter(0)):
            client, outcome, probe = one.job.lane.client, one.verdict.outcome, self._probing.get(claim_of(one.job))
            generation = one.job.client_generation if probe is None else probe.generation
            # What a save made of a success may be a pause, too.
            if isinstance(outcome, Pause):
                self.pause(client, outcome, one.verdict.cause, generation=generation)
            elif probe is None and not isinstance(outcome, Snooze):
                answers.setdefault((client, generation), []).append((number, one))
        for (client, generation), numbered in answers.items():
            ones = [one for _, one in numbered]
            # A client that was well and is well needs no note; this is the common case and costs nothing.
            if self._well.get(client) == generation and not any(one.verdict.trouble for one in ones):
                continue
            reason = next((reason_of(one) for one in reversed(ones) if one.verdict.trouble), "")
            # One batch after the other: what is in order here must come so to the store.
            with self._hearing:
                self._hear(client, generation, numbered, reason)

    def _hear(self, client: str, generation: int, numbered: Sequence[tuple[int, Settled]], reason: str) -> None:
        troubles = self._streaks.in_order(client, generation, [(number, one.verdict.trouble) for number, one in numbered])
        pausing = None
        if troubles:
            if troubles[-1]:
                self._well.pop(client, None)
            else:
                self._well[client] = generation
            pausing = self.trouble(client, troubles, reason, generation=generation)
        self._streaks.heard(client, [one for _, one in numbered], troubles, pauses=pausing is not None)

    def trouble(self, client: str, troubles: Sequence[bool], reason: str, *, generation: int | None) -> Pausing | None:
        """Tell the store of answers, in order; return the pause if they led to one.

        Args:
            client: who answered.
            troubles: for each answer, whether it was generic trouble.
            reason: what the last trouble was.
            generation: under which the requests began.
        """
        policy = self._clients[client].pause
        hear = partial(
            self._store.hear, client, troubles, after=policy.after, durations=policy.durations, reason=reason,
            set_by=self._worker, generation=generation,
        )  # fmt: skip
        return self._note(self._patient(hear))

    def pause(self, client: str, outcome: Pause, cause: str, *, generation: int | None) -> Pausing | None:
        """Pause a client, before the job that says so is finished: one that goes back is available at once.

        Args:
            client: whom.
            outcome: how long, and why.
            cause: of the pause.
            generation: under which the request began; what comes late changes nothing.

        Returns:
            The pause in force; `None` after a late answer where none is.
        """
        with self._lock:
            if (known := self.paused.get(client)) is not None:
                return known
            pause = partial(
                self._store.pause, client, self._when(outcome), cause=cause, reason=outcome.reason, set_by=self._worker,
                generation=generation,
            )  # fmt: skip
            pausing: Pausing | None = self._patient(pause)
        return self._note(pausing)

    def _when(self, outcome: Pause) -> float | datetime | None:
        if isinstance(outcome.when, datetime):
            soonest: datetime = self._patient(self._store.now) + timedelta(seconds=SOONEST)
            return max(outcome.when, soonest)
        return None if outcome.when is None else max(outcome.when, SOONEST)

    def _note(self, pausing: Pausing | None) -> Pausing | None:
        if pausing is not None:
            self.paused[pausing.client] = pausing
            if pausing.is_new:
                self._told.paused(self._clients[pausing.client], pausing)
        return pausing

    # -- probes ----------------------------------------------------------------------------------------------------------------

    def begin(self, probe: Probe) -> None:
        """Take note that this process has the right to probe a client: its pause has run out."""
        with self._lock:
            self._tested[probe.client] = probe.pause_id
            self.paused.pop(probe.client, None)
        self._streaks.forget(probe.client)
        self._probes[probe.client] = probe

    def expect(self, probe: Probe, jobs: Sequence[Job]) -> None:
        """The answer to one of these jobs is the probe's."""
        self._probing.update((claim_of(job), probe) for job in jobs)

    def is_probing(self, client: str) -> bool:
        """Tell whether this process probes a client, and has no answer yet."""
        return client in self._probes

    def answered(self, probe: Probe, verdict: Verdict | None) -> None:
        """Say what came of a probe, once; everything later changes nothing.

        Args:
            probe: whose.
            verdict: on its request, `None` if there was none. A snooze says nothing of the client.
        """
        with self._lock:
            if self._probes.get(probe.client) is not probe:
                return
            del self._probes[probe.client]
        client, policy = self._clients[probe.client], self._clients[probe.client].pause
        well: bool | None = True
        more: dict[str, Any] = {"reason": ""}
        outcome = None if verdict is None else verdict.outcome
        if verdict is None or isinstance(outcome, Snooze):
            well = None
        elif isinstance(outcome, Pause):
            well, more = False, {"reason": outcome.reason, "when": self._when(outcome), "cause": verdict.cause}
        elif verdict.trouble:
            well, more = False, {"reason": outcome.message if isinstance(outcome, Failure) else ""}
        end = partial(self._store.end_probe, probe, well, durations=policy.durations, set_by=self._worker, **more)
        pausing = self._patient(end)
        if well and pausing is not None:
            # What its job says later, it says of the client that is open again.
            late = replace(probe, generation=probe.generation + 1)
            self._probing.update({claim: late for claim, of in list(self._probing.items()) if of is probe})
            self._told.resumed(client, by="probe")
        elif not well:
            self._tested.pop(probe.client, None)
            self._note(pausing)

    def ended(self, probe: Probe, jobs: Sequence[Job] = ()) -> None:
        """Take note that a probe is over, answered or not: if not, the next one may try."""
        try:
            self.answered(probe, None)
        finally:
            for job in jobs:
                self._probing.pop(claim_of(job), None)

    def _spared(self, done: Done) -> Done:
        """Put a probe's job back that met trouble: it was to show how the client is, and it has.

        It waits as for its first retry: the next probe takes another one, if there is one. What may have been done is not
        repeated blindly, and a job that has been spared `SPARED` times uses its attempts.
        """
        outcome = done.verdict.outcome
        if not isinstance(outcome, Failure) or not done.verdict.trouble or done.verdict.unknown or not outcome.retry:
            return done
        tries = self._patient(partial(self._store.job, done.job.id)).attempts
        if sum((one.error or "").startswith(_AS_PROBE) for one in tries) >= SPARED:
            return done
        snooze = Snooze(min(done.retry.delay, done.retry.max_delay), _AS_PROBE + outcome.message)
        return done._replace(verdict=done.verdict._replace(outcome=snooze))
