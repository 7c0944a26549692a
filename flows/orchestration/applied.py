"""What setting up did to one thing on the server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Applied:
    """One thing that should be on the server, and what was done for it."""

    #: work pool, work queue, deployment, block, automation or variable.
    kind: str
    name: str
    #: created, updated, unchanged or deleted.
    change: str
