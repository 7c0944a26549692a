"""Checks `max_delete_share`: how many records one pass may lose (`docs/architecture.md`, law 8). Pure functions."""


def gone_limit(records: int, max_share: float) -> int:
    """Return how many of so many records may be gone (404 or 410) in one pass: the share, and at least one."""
    return max(1, int(records * max_share))


def refusal(sync: str, missing: int, live: int, *, gone: int, listed: int, max_share: float, how: str, doubt: str = "") -> str:
    """Return why so many records must not be deleted, for a person; empty if they may be.

    Args:
        sync: whose they are.
        missing: those that the listing did not show.
        live: all that existed before it.
        gone: records that this pass has already lost because of 404 and 410; they count.
        listed: entities that the listing showed.
        max_share: of those that existed before. New records of this listing do not count: if all keys have changed, as after a
            change of the API, all old records are missing.
        how: the option with which a person confirms the deletion.
        doubt: why the listing may not be complete.
    """
    confirm = f"`syncs run {sync} {how}` deletes them"
    if not listed:
        return f"the listing came back empty; {missing} records were kept; {confirm}"
    if doubt:
        return f"{doubt}; {missing} of {live} records are missing, and all were kept; {confirm}"
    if missing + gone > max_share * (live + gone):
        return f"{missing} of {live} records are missing, more than the allowed {max_share:.0%}; all were kept; {confirm}"
    return ""
