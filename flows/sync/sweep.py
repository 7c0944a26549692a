"""Deletes the records that a complete listing no longer has, as far as it proves that (docs/architecture.md, law 8)."""

from flows.execution.delete_guard import flawed_text, how_to_allow
from flows.execution.entity_executor import EntityExecutor
from flows.progress import Progress
from flows.sync.listing_end import Ended
from jobs.job import Lane
from jobs.listing.listing_claim import ListingClaim
from jobs.listing.sweep import SweepResult
from jobs.store import JobStore


def sweep(
    executor: EntityExecutor,
    store: JobStore,
    claim: ListingClaim,
    lane: Lane,
    *,
    ended: Ended,
    progress: Progress,
    allow: bool,
) -> SweepResult:
    """Delete what the listing of a run no longer shows; return how many records, or why none.

    Args:
        executor: of the sync; deletes.
        store: where the records are.
        claim: of the run.
        lane: of its jobs.
        ended: how the listing ended.
        progress: the run's numbers; records that could not be deleted count as failed.
        allow: a person has confirmed that any number may be deleted.
    """
    sync = executor.sync
    if ended.stopped != "end" or not sync.delete_missing or claim.is_filtered:
        return SweepResult(0)
    if progress.later:
        # Those are there, but this listing has not stamped them; the next one that finds them ready sweeps.
        return SweepResult(0)
    if progress.flawed:
        return SweepResult(0, flawed_text(progress.flawed))
    if claim.flawed:
        return SweepResult(0, f"{flawed_text(claim.flawed)}; they were listed before it was interrupted")
    swept = store.sweeps.run(
        claim,
        lane,
        max_share=sync.max_delete_share,
        delete=executor.deleter(),
        rows=executor.row_deleter,
        allow=allow,
        how=how_to_allow(sync),
        doubt=ended.doubt,
    )
    for key, error in swept.errors:
        progress.fail(key, error)
    return swept
