"""Decides the state of a run: success, partial, failed or paused. Pure functions."""

from jobs.listing.delete_share import gone_limit

FAILED_SHARE = 0.1
"""More failed entities than this share, and the run as a whole has failed."""


def nothing_stored(*, listed: int, good: int, gone: int, retrying: int, put_off: int, max_gone_share: float) -> str:
    """Say why a run whose listing ended is no success although no entity need have failed; empty if it may be one.

    A path of `fetch` that leads nowhere answers 404 for each entity: that must not look like a table that is up to date.

    Args:
        listed: entities that this run dealt with.
        good: of those, the ones that succeeded or were unchanged.
        gone: of those, the ones whose fetch said that they are gone.
        retrying: of those, the ones that failed and will be tried again.
        put_off: of those, the ones that wait without having failed: not ready yet (202), or snoozed.
        max_gone_share: of the entities, this share may be gone; one always may.
    """
    if gone > gone_limit(listed, max_gone_share):
        return (
            f"{gone:,} of {listed:,} listed entities are gone (404 or 410) when they are fetched: is the path in `fetch` right?"
        )
    if (retrying or put_off) and not good and not gone:
        failed = f"{retrying:,} failed and will be tried again" if retrying else ""
        waiting = f"{put_off:,} were put off" if put_off else ""
        return f"none of {listed:,} entities was stored; {', '.join(filter(None, (failed, waiting)))}"
    return ""


def run_state(*, failed: int, worked: int, listing_failed: bool, paused: bool) -> str:
    """Decide the state of a run.

    Args:
        failed: entities that failed in this run.
        worked: entities that this run dealt with, the unchanged ones of the listing included.
        listing_failed: whether the run as a whole failed: the listing or the sign-in ended with an error, or nothing was stored.
        paused: whether the client is paused now.
    """
    if paused:
        return "paused"
    if listing_failed or (failed and failed > FAILED_SHARE * worked):
        return "failed"
    return "partial" if failed else "success"
