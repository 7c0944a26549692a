"""Where the jobs of what is declared wait. Knows no job."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.declaration import Sync
    from flows.job_type import JobType
    from jobs.stray import Home


def homes(declared: "Iterable[Sync | JobType]") -> "list[Home]":
    """Return the home of each sync and job type."""
    from jobs.stray import Home

    return [Home(one.id, one.queue_id, one.client.id, getattr(one, "phases", ())) for one in declared]
