"""Decides by the answers of clients when they pause: after errors in a row, and where an answer asks for it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from flows.declarations.client import Client
from flows.execution.job_counts import reason_of
from flows.notices.observer import NULL_OBSERVER, Observer
from flows.pauses.blame import Blame
from flows.pauses.error_streak import ErrorStreaks
from flows.pauses.local_lacks import LocalLacks
from flows.pauses.open_pauses import OpenPauses
from flows.pauses.probes_in_flight import ProbesInFlight
from flows.pauses.self_tests import SelfTests
from jobs.job import Job, JobResult, Verdict
from jobs.outcome import Failure, Pause, Snooze, Success
from jobs.pauses.pause import OpenPause
from jobs.pauses.probe import Probe
from jobs.store import JobStore

REFRESH_EVERY = 0.1
"""Seconds between two looks for pauses that other processes have begun: jobs in hand that have not begun then go back."""


class Health:
    """Watches the clients of one process and reports their answers to the store, which decides whether errors mean a pause.

    Args:
        store: where pauses are.
        clients: by type of job.
        worker: the name under which it pauses.
        retry_database: does database work, again while the database is away.
        observer: is informed of pauses that begin and end here.
        respect_pauses: whether pauses keep jobs in hand from beginning; a person may want one worked all the same.
        tests: of the clients that can be tested.
        forget_pace: see `Blame`.
        forget_refusals: see `OpenPauses`.
    """

    def __init__(
        self,
        store: JobStore,
        clients: Mapping[str, Client],
        *,
        worker: str,
        retry_database: Callable[[Callable[[], Any]], Any],
        observer: Observer = NULL_OBSERVER,
        respect_pauses: bool = True,
        tests: SelfTests | None = None,
        forget_pace: Callable[[str], None] = lambda _: None,
        forget_refusals: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._types = clients
        self._clients = {client.id: client for client in clients.values()}
        self._worker = worker
        self._retry_database = retry_database
        self._respect_pauses = respect_pauses
        #: Clients whose last reported answer was a success, with its generation; of all others errors may be counted somewhere.
        self._healthy: dict[str, int] = {}
        self._streaks = ErrorStreaks()
        #: Decides whether a job is alone in trouble.
        self.blame = Blame(store, tests or SelfTests({}), self._streaks, retry_database=retry_database, forget_pace=forget_pace)
        #: Types of jobs that this process cannot work because of itself, and clients that it cannot probe.
        self.lacks = LocalLacks()
        #: The pauses that this process knows of.
        self.pauses = OpenPauses(
            store,
            self._clients,
            worker=worker,
            retry_database=retry_database,
            observer=observer,
            forget_refusals=forget_refusals,
        )
        #: Its probes.
        self.probes = ProbesInFlight(
            store,
            self._clients,
            self.pauses,
            streaks=self._streaks,
            lacks=self.lacks,
            worker=worker,
            retry_database=retry_database,
            observer=observer,
        )
        self._reporting = threading.Lock()

    # -- before a request ------------------------------------------------------------------------------------------------------

    def has_pending_errors(self, type: str) -> bool:
        """Tell whether a client's errors in a row suffice for a pause, while the store has not decided about it."""
        if not self._streaks.errors:
            return False
        client = self._types[type]
        length = self._streaks.length(client.id)
        return length > 0 and length >= client.pause.after

    def may_begin(self, job: Job) -> bool:
        """Tell whether a job in hand may begin now: nobody has paused its client, and no decision about that is pending."""
        if self.lacks.known and self.lacks.holds(job.lane.type):
            return False
        if not self._respect_pauses:
            return True
        pauses = self.pauses
        if time.monotonic() - pauses.refreshed_at >= REFRESH_EVERY:
            pauses.refresh()
        if pauses.in_force and job.lane.client in pauses.in_force:
            return False
        if self._streaks.errors and self.has_pending_errors(job.lane.type):
            return False
        if pauses.generations.get(job.lane.client) != job.client_generation:
            pauses.sends_under(job.lane.client, job.client_generation)
        return True

    # -- answers ---------------------------------------------------------------------------------------------------------------

    def on_result(self, done: JobResult) -> JobResult:
        """Take note of a result before it is finished: a paused client gets no further request.

        Returns:
            The result; of trouble that is this job's alone, its failure; of a probe's job that met trouble, one that puts the
            job back without using an attempt.
        """
        job = done.job
        probe = self.probes.claims.get((job.id, job.claim_no)) if self.probes.claims else None
        if isinstance(done.verdict.outcome, Pause) and job.lane.client not in self.pauses.in_force:
            done = self.blame.of_refusal(done, is_probe=probe is not None)
        done = self._without_own(done)
        verdict = done.verdict
        if verdict.ours:
            return self._on_ours(done, probe)
        if self.lacks.known:
            self.lacks.remove(job.lane.type)
            self.lacks.remove(job.lane.client)
        if probe is not None:
            if verdict.trouble and self.blame.is_own_trouble(probe):
                self.probes.answered(probe, Verdict(Success()))
                return done
            self.probes.answered(probe, verdict)
            return self.blame.spared(done)
        if isinstance(verdict.outcome, Pause):
            self.pauses.begin(job.lane.client, verdict.outcome, verdict.cause, generation=job.client_generation)
            return self.blame.spared(done) if self.blame.is_alone(job) else done
        if not isinstance(verdict.outcome, Snooze):
            self._streaks.add(job, trouble=verdict.trouble)
            if verdict.trouble:
                self._excuse(job)
            elif not isinstance(verdict.outcome, Failure) and self.blame.tested:
                self.blame.succeeded(job.lane.client)
        return done

    def _without_own(self, done: JobResult) -> JobResult:
        """Let a job use up its attempts that alone meets what looks like a lack of ours, again and again."""
        job, verdict = done.job, done.verdict
        if verdict.ours and self.lacks.is_alone(job.lane.type, job.id):
            return done._replace(verdict=verdict._replace(ours=False))
        return done

    def _on_ours(self, done: JobResult, probe: Probe | None) -> JobResult:
        """Take note of a job that our own process could not work; it goes back, and its probe has no result."""
        self.lacks.add(done.job.lane.type, done.verdict)
        if probe is not None:
            self.probes.answered(probe, done.verdict)
        return done

    def _excuse(self, job: Job) -> None:
        """Ask, before errors in a row pause a client, whether they are those of single jobs."""
        client = job.lane.client
        if self.has_pending_errors(job.lane.type):
            found = self.blame.excuse(client, job.client_generation)
            if found is not None and isinstance(found.outcome, Pause):
                self.pauses.begin(client, found.outcome, found.cause, generation=job.client_generation)

    def report(self, settled: Sequence[JobResult]) -> None:
        """Report to the store how each client answered.

        In the order in which they answered: neither batches nor the jobs of one, of which some have a transaction of their own,
        are committed in that order.
        """
        answers: dict[tuple[str, int], list[tuple[int, JobResult]]] = {}
        for number, one in sorted(zip(self._streaks.take_numbers(settled), settled, strict=True), key=itemgetter(0)):
            job, outcome = one.job, one.verdict.outcome
            probe = self.probes.claims.get((job.id, job.claim_no)) if self.probes.claims else None
            generation = job.client_generation if probe is None else probe.generation
            if one.verdict.ours:
                # So it may have turned out in `save`.
                self.lacks.add(job.lane.type, one.verdict)
                continue
            # `save` may have turned a success into a pause.
            if isinstance(outcome, Pause):
                self.pauses.begin(job.lane.client, outcome, one.verdict.cause, generation=generation)
            elif probe is None and not isinstance(outcome, Snooze):
                answers.setdefault((job.lane.client, generation), []).append((number, one))
        for (client, generation), numbered in answers.items():
            # Successes of a client that was healthy before: the common case, which costs nothing.
            if self._healthy.get(client) == generation and not any(one.verdict.trouble for _, one in numbered):
                continue
            # One batch after the other, so that the store gets them in order.
            with self._reporting:
                self._report(client, generation, numbered)

    def _report(self, client: str, generation: int, numbered: Sequence[tuple[int, JobResult]]) -> None:
        report = self._streaks.to_report(client, generation, [(number, one.verdict.trouble) for number, one in numbered])
        pausing = None
        if report:
            if report[-1]:
                self._healthy.pop(client, None)
            else:
                self._healthy[client] = generation
            reason = next((reason_of(one) for _, one in reversed(numbered) if one.verdict.trouble), "")
            pausing = self.report_answers(client, report, reason, generation=generation)
        self._streaks.reported(client, [one for _, one in numbered], report, paused=pausing is not None)

    def report_answers(self, client: str, troubles: Sequence[bool], reason: str, *, generation: int | None) -> OpenPause | None:
        """Report answers to the store, in order; return the pause if they led to one.

        Args:
            client: who answered.
            troubles: for each answer, whether it was a generic error.
            reason: what the last error was.
            generation: under which the requests began.
        """
        policy = self._clients[client].pause
        hear = partial(
            self._store.pauses.record_answers,
            client,
            troubles,
            after=policy.after,
            durations=policy.durations,
            reason=reason,
            set_by=self._worker,
            generation=generation,
        )
        return self.pauses.add(self._retry_database(hear))
