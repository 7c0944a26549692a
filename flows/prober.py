"""Testing a client whose pause has run out: one try, fleet-wide, before all others may come (law 5). Knows no thread."""

from collections.abc import Sequence
from functools import partial

from flows.declaration import Sync
from flows.hands import Hands, Work
from flows.verdict import attempt, verdict_of
from jobs.job import Job, Lane
from jobs.outcome import Failure, Gone, Pause, Snooze, Success, Unchanged
from jobs.pause import Pausing
from jobs.probe import Probe
from jobs.rescue import OnPoison
from jobs.store import JobStore

_NOTHING = "the check asks for something that is not there (404 or 410)"


class Prober:
    """Makes the one try: the client's declared `check` where there is one, else one due job of the client.

    Args:
        store: where pauses and jobs are.
        hands: who work the job, and what they know of the clients' health.
        lanes: what this process can work.
        lease: seconds, of the right to try and of the job.
        on_poison: told of jobs that ended because they keep killing their workers.
    """

    def __init__(
        self, store: JobStore, hands: Hands, lanes: Sequence[Lane], *, lease: float, on_poison: OnPoison | None = None
    ) -> None:
        self._store = store
        self._hands = hands
        self._lease = lease
        self._on_poison = on_poison
        self._lanes: dict[str, list[Lane]] = {}
        #: How the requests of a client are made and judged; any of its types tells.
        self._works: dict[str, Work] = {}
        for lane in lanes:
            self._lanes.setdefault(lane.client, []).append(lane)
            self._works.setdefault(lane.client, hands.works[lane.type])

    def due(self) -> list[Pausing]:
        """Return the pauses that have run out, that nobody probes, and for whose clients there is something to try."""
        return [
            pausing
            for pausing in self._store.reopening(self._lanes)
            if self._works[pausing.client].client.check is not None
            or self._store.is_due(self._lanes[pausing.client], probing=True)
        ]

    def test(self, client: str) -> int | None:
        """Test a client; tell how many jobs were worked for that. `None`: another worker was first.

        Raises:
            DatabaseLost: the database stayed away.
            Exception: an error of ours; the next one may try.
        """
        probe = self.begin(client)
        if probe is None:
            return None
        try:
            jobs = self.tries(probe)
        finally:
            # This thread goes, and its connection with it.
            self._works[client].drop()
        if jobs is None:
            self.end(probe)
        return jobs or 0

    def tries(self, probe: Probe, *, silent: bool = True) -> int | None:
        """Try, and let the right go.

        Args:
            probe: the right to.
            silent: also with a job that sends no request, if there is no other.

        Returns:
            How many jobs were worked for that; `None` where there is nothing to try with: then the right is kept.
        """
        jobs: list[Job] = []
        is_kept = False
        try:
            if self.has_check(probe.client):
                self.check(probe)
            else:
                jobs = self.claim(probe, silent=silent)
                is_kept = not jobs
                self.work(probe, jobs)
        finally:
            if not is_kept:
                self.end(probe, jobs)
        return None if is_kept else len(jobs)

    def begin(self, client: str) -> Probe | None:
        """Take the right to try; `None` where another one has it, or the client is open or paused."""
        worker = self._hands.worker
        probe: Probe | None = self._hands.patient(partial(self._store.begin_probe, client, worker=worker, lease=self._lease))
        if probe is not None:
            self._hands.keeper.hold_probe(probe)
            self._hands.health.begin(probe)
        return probe

    def has_check(self, client: str) -> bool:
        """Tell whether the client's declaration says how to try."""
        return self._works[client].client.check is not None

    def check(self, probe: Probe) -> None:
        """Try with the client's `check`. Whatever it raises is trouble: it was made to tell."""
        work = self._works[probe.client]
        check = work.client.check
        assert check is not None
        if self._hands.stop.is_set():
            return
        verdict = verdict_of(attempt(lambda: check(work.connect()), work.judge))
        if self._hands.stop.is_set() and not isinstance(verdict.outcome, Success | Unchanged):
            # Its connection may have been closed under it.
            return
        if not isinstance(verdict.outcome, Success | Unchanged | Pause | Snooze):
            outcome = Failure(_NOTHING) if isinstance(verdict.outcome, Gone) else verdict.outcome
            verdict = verdict._replace(outcome=outcome, trouble=True)
            work.drop()
        self._hands.health.answered(probe, verdict)

    def claim(self, probe: Probe, *, silent: bool) -> list[Job]:
        """Take one due job, if there is one; rather one that asks the remote side for something."""
        lanes = self._lanes[probe.client]
        asking = [lane for lane in lanes if not _is_silent(self._hands.works[lane.type])]
        for some in (asking, [lane for lane in lanes if silent and lane not in asking]):
            claim = partial(
                self._store.claim_probe, probe, some, worker=self._hands.worker, lease=self._lease, on_poison=self._on_poison
            )
            jobs: list[Job] = self._hands.patient(claim) if some else []
            if jobs:
                return jobs
        return []

    def work(self, probe: Probe, jobs: Sequence[Job]) -> None:
        """Try with this job; its answer is the probe's."""
        if jobs:
            self._hands.health.expect(probe, jobs)
            self._hands.batch(jobs)

    def end(self, probe: Probe, jobs: Sequence[Job] = ()) -> None:
        """Let the right go, whatever came of it."""
        self._hands.keeper.drop_probe(probe)
        self._hands.health.ended(probe, jobs)


def _is_silent(work: Work) -> bool:
    """Tell whether the jobs of a type send no request: their listing has brought everything already."""
    sync = getattr(work, "sync", None)
    return isinstance(sync, Sync) and sync.fetch is None
