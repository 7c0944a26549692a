"""Watches whether the Prefect server of a run still answers, and limits what a run spends on one that does not.

Seen with 3.9.1: Prefect tries each queued event eleven times in seven seconds, and the process does not end before the last
event was tried. With a server that died during a run of 600 task runs, that is an hour. A final state is tried six times, for a
minute.
"""

import logging

from prefect.context import SettingsContext, get_settings_context
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker, emit_events_to_cloud
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES

from flows.project.prefect_address import is_reachable

#: Seconds in which a busy server must answer.
_TIMEOUT = 5.0
#: Before the fourth and each further one, Prefect pauses for a second (3.9.1). A failed event is kept and sent with the next one.
_RECONNECTIONS = 2


class ServerHealth:
    """Knows whether the server of the present settings answers. Not thread-safe: one thread calls `check`."""

    def __init__(self) -> None:
        self._url = PREFECT_API_URL.value() or ""
        # Where `/health` cannot be read (Prefect Cloud, a private certificate), the server is assumed to answer.
        self._checkable = not emit_events_to_cloud() and is_reachable(self._url, _TIMEOUT)
        self._failures = 0
        if self._checkable:
            EventsWorker.set_client_override(PrefectEventsClient, api_url=self._url, reconnection_attempts=_RECONNECTIONS)

    @property
    def is_gone(self) -> bool:
        """Whether the last two checks in a row got no answer."""
        return self._failures >= 2

    def check(self) -> bool:
        """Ask the server once, and return whether it answers."""
        if self._checkable:
            self._failures = 0 if is_reachable(self._url, _TIMEOUT) else self._failures + 1
        return self._failures == 0


def disable_retries() -> None:
    """Send each further request of this context once only, and no further log line. For a run that has ended."""
    now = get_settings_context()
    # Entered and never left: Prefect sends the final state after the flow's function has returned, in its context.
    SettingsContext(
        profile=now.profile, settings=now.settings.copy_with_update(updates={PREFECT_CLIENT_MAX_RETRIES: 0})
    ).__enter__()
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.addFilter(lambda _: False)
