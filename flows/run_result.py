"""The result of a run, from which its JSON, its final Prefect state and its exit code are made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of one run of a sync; the keys of `syncs run --json` (contract, Commands)."""

    sync: str
    client: str
    #: success, partial, failed, paused, skipped (another process runs this sync).
    state: str
    pages: int = 0
    listed: int = 0
    #: Of the listed: different ones. A listing may show one on two pages.
    distinct: int = 0
    queued: int = 0
    succeeded: int = 0
    unchanged: int = 0
    gone: int = 0
    failed: int = 0
    #: Of the failed: listed items that could not become entities, for want of a key.
    flawed: int = 0
    #: Entities whose last attempt failed and that will be tried again.
    retrying: int = 0
    snoozed: int = 0
    #: Jobs of this sync that are still queued, or that another worker has.
    pending: int = 0
    deleted: int = 0
    requests: int = 0
    seconds: float = 0.0
    #: Of these: in pauses that were waited for.
    waited: float = 0.0
    #: Why listing ended: end, short, limit, loop, error, paused, stop (asked to), running (another process runs this sync).
    stopped: str = "end"
    paused_until: datetime | None = None
    message: str = ""
    #: Of a dry run: entities that would be created, changed, fetched to see whether they changed, deleted; else `None`.
    created: int | None = None
    changed: int | None = None
    undecided: int | None = None
    would_delete: int | None = None
    #: Of a dry run: the first keys of each, by the names above.
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Up to 100 failed entities, (key, message); not part of the JSON's fixed keys.
    failures: tuple[tuple[str, str], ...] = field(default=())
    #: Up to 100 of those that will be tried again, (key, message); not part of the JSON's fixed keys.
    retries: tuple[tuple[str, str], ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 done, 1 something needs a person."""
        if self.state in ("success", "skipped"):
            return 0
        if self.state == "paused":
            return 0 if self.paused_until is not None else 1
        return 1

    def as_json(self) -> dict[str, Any]:
        """Return the document of `syncs run --json`."""
        document = asdict(self)
        for name in ("failures", "retries"):
            document[name] = [{"key": key, "message": message} for key, message in getattr(self, name)]
        document["examples"] = {name: list(keys) for name, keys in self.examples.items()}
        document["seconds"] = round(self.seconds, 3)
        document["paused_until"] = None if self.paused_until is None else self.paused_until.isoformat()
        return document
