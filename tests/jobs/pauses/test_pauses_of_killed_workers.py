"""A client is paused in the middle of a drain while workers and probers are killed, on both databases (T15)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import JobStore
from jobs.db.clock import to_text
from jobs.job import Lane
from tests.support.store_helpers import (
    LANE,
    assert_invariants,
    change,
    enqueue,
    forked_workers,
    query,
    start_audit,
    states,
    wait_until,
)

pytestmark = pytest.mark.slow

STRANGER = Lane("default", "b", "b.things")
#: Claims of a client's jobs, in order, with the moment of each.
_CLAIMS = """
SELECT audit.job_id, audit.at FROM audit JOIN job ON job.id = audit.job_id
WHERE audit.new_state = 'processing' AND audit.old_state = 'queued' AND job.client = :client ORDER BY audit.n
"""


def claims(store: JobStore, client: str) -> list[datetime]:
    """Return when jobs of a client were claimed."""
    return [naive(found["at"]) for found in query(store, _CLAIMS, client=client)]


def naive(moment: Any) -> datetime:
    """Return a moment in UTC without a zone."""
    return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).replace(tzinfo=None)


@pytest.mark.rows("T15", "I9", "SC-14", "SC-20", "E-92")
@pytest.mark.parametrize("fault", ["probing", "after_probe_claim", "before_probe_end"])
def test_a_pause_in_the_middle_of_kills(store: JobStore, database_url: str, tmp_path: Path, fault: str, chaos: Any) -> None:
    """Nothing of the client begins in its pause, others go on; at its end one job goes first, also when its prober is killed."""
    start_audit(store)
    n = chaos.scaled(60, 400)
    enqueue(store, range(n))
    enqueue(store, range(n, 4 * n), STRANGER)
    effects = tmp_path / "effects"
    options = {"lanes": [LANE, STRANGER], "probes": True, "pace": 0.02, "batch": 4, "max_rescues": 10**6}
    with forked_workers(database_url, effects, **options) as children:
        workers = [children.spawn() for _ in range(3)]
        wait_until(lambda: states(store).get("success", 0) >= n // 4)
        pausing = store.pauses.open("api", 3600, cause="asked", reason="429", set_by="me")
        paused_at = naive(store.views.now())
        for worker in workers:
            children.kill(worker)
        # However far they have come: both clients have something left.
        enqueue(store, range(4 * n, 5 * n))
        enqueue(store, range(5 * n, 6 * n), STRANGER)
        # Alone, so that it is the one that probes, and dies of it.
        prober = children.spawn(fault=fault)
        wait_until(lambda: any(at > paused_at for at in claims(store, "b")))
        ends_at = store.views.now()
        change(store, "UPDATE pause SET until = :at WHERE ended_at IS NULL", at=to_text(ends_at) + "+00")
        children.wait(prober, timeout=60)
        children.killed.append(prober)
        died = naive(store.views.now())
        assert store.pauses.state("api").reopening is not None, "nobody is left to reopen the client"
        for _ in range(3):
            children.spawn()
    assert states(store) == {"success": 6 * n}
    assert_invariants(store, effects, killed=children.killed)

    assert pausing is not None
    until = naive(ends_at)
    (ended,) = store.pause_history.latest("api")
    assert (ended.ended_by, ended.probes) == ("probe", 2)
    reopened = naive(ended.ended_at)
    ours = claims(store, "api")
    assert not [at for at in ours if paused_at < at < until], "I9: a job of a paused client began"
    tries = [at for at in ours if until <= at < reopened]
    assert len(tries) == (1 if fault == "probing" else 2), "more than one job for each probe went before the client was open"
    # The next one need not wait for the lease of the dead prober, which is a minute.
    assert (reopened - died).total_seconds() < 30
    chaos.tell("pause, prober killed", jobs=6 * n, trouble=len(children.killed), seconds=(reopened - until).total_seconds())
