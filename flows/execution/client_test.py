"""Asks a client for something that does not depend on a single job: its `check`, else the first page of a listing."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flows.declarations.client import Client
from flows.declarations.settings_argument import with_settings
from flows.declarations.sync import Sync
from flows.execution.executor_protocol import ConnectionSource, Executor
from flows.execution.outcomes import verdict_of
from flows.user_code import NotEnded, attempt, within
from jobs.job import Verdict
from jobs.outcome import Failure, Gone, Pause, Snooze, Success, Unchanged

CHECK_TIMEOUT, PAGE_TIMEOUT = 60.0, 300.0
"""Seconds that a `check`, and a first page, may take where no job of the client has a time-out: its jobs wait meanwhile."""

_NOT_FOUND = "the check asks for something that is not there (404 or 410)"


@dataclass(frozen=True, slots=True)
class ClientTest:
    """The test of one client. Calling it sends the request.

    Args:
        client: whom.
        connections: to it.
        judge: decides what an exception means.
        listing: of one of its syncs; asked for its first page where the client has no `check`.
        timeout: seconds; `None` for the defaults.
    """

    client: Client
    connections: ConnectionSource
    judge: Callable[[Exception], Verdict]
    listing: Any = None
    timeout: float | None = None

    def __call__(self, stop: threading.Event | None = None) -> Verdict:
        """Send the request; return what the answer says about the client.

        Whatever a `check` raises is trouble, and so is one that does not end: that is what it is for. A listing is the remote
        side's own: one that answers with an error of its own (404, a body that does not fit) shows that the client answers.

        Args:
            stop: ends it, as if it had not ended in time.
        """
        has_check = self.client.check is not None
        what, limit = ("the client's `check`", CHECK_TIMEOUT) if has_check else ("the first page of a listing", PAGE_TIMEOUT)
        try:
            return within(limit if self.timeout is None else self.timeout, self._ask, what=what, stop=stop)
        except NotEnded as late:
            return Verdict(Failure(str(late)), trouble=True)

    def _ask(self) -> Verdict:
        """Do it, with a connection of its own where threads do not share one."""
        check = self.client.check
        try:
            if check is None:
                return verdict_of(attempt(self._first_page, self.judge))
            verdict = verdict_of(attempt(lambda: check(self.connections.get()), self.judge))
        finally:
            self.connections.drop()
        if not verdict.ours and not isinstance(verdict.outcome, Success | Unchanged | Pause | Snooze):
            outcome = Failure(_NOT_FOUND) if isinstance(verdict.outcome, Gone) else verdict.outcome
            return verdict._replace(outcome=outcome, trouble=True)
        return verdict

    def _first_page(self) -> None:
        listing, connection = with_settings(self.listing, self.connections.settings), self.connections.get()
        if hasattr(listing, "__dataclass_fields__") and hasattr(listing, "recheck"):
            listing = replace(listing, recheck=0)
        pages = getattr(listing, "pages", None)
        next(iter(listing(connection, None) if pages is None else pages(connection, cursor=None)), None)


def tests_of(executors: Mapping[str, Executor], syncs: Iterable[Sync]) -> dict[str, ClientTest]:
    """Return the tests of the clients of these executors, by client; clients without `check` and listing have none.

    Args:
        executors: by type of job.
        syncs: those that are declared, of any client.
    """
    listings: dict[str, Any] = {}
    for sync in syncs:
        listings.setdefault(sync.client.id, sync.listing)
    timeouts: dict[str, list[float]] = {}
    for executor in executors.values():
        if executor.timeout is not None:
            timeouts.setdefault(executor.client.id, []).append(executor.timeout)
    tests: dict[str, ClientTest] = {}
    for executor in executors.values():
        client = executor.client
        if client.check is not None or client.id in listings:
            listing, limits = listings.get(client.id), timeouts.get(client.id)
            tests[client.id] = ClientTest(
                client, executor.connections, executor.judge, listing, None if limits is None else max(limits)
            )
    return tests


def answers_well(verdict: Verdict) -> bool:
    """Tell whether the answer to a test, or to a probe, shows that the client is well."""
    return not (verdict.trouble or verdict.ours or isinstance(verdict.outcome, Pause | Snooze))
