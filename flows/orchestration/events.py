"""What a run does about a server that has gone: queued events are not tried for long, requests are not repeated.

Prefect tries each queued event eleven times in seven seconds, and the process does not end before the last one was tried: with a
server that died under a run of 600 task runs, that is an hour. A final state is tried for a minute, three times.
"""

import logging

from prefect.context import SettingsContext, get_settings_context
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker, emit_events_to_cloud
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES

from flows.orchestration.address import is_there

#: Seconds that a busy server gets to say that it lives.
_TIMEOUT = 5.0
#: The most that goes without a pause of a second between two. An event that failed is kept, and sent with the next one.
_RECONNECTIONS = 2


class Server:
    """Knows whether the server of the present settings answers. Not thread-safe: one thread asks."""

    def __init__(self) -> None:
        self._url = PREFECT_API_URL.value() or ""
        # Where the question itself does not work (Prefect Cloud, a certificate of one's own), the server is taken to be there.
        self._askable = not emit_events_to_cloud() and is_there(self._url, _TIMEOUT)
        self._silences = 0
        if self._askable:
            EventsWorker.set_client_override(PrefectEventsClient, api_url=self._url, reconnection_attempts=_RECONNECTIONS)

    @property
    def gone(self) -> bool:
        """Whether it was silent twice in a row."""
        return self._silences >= 2

    def ask(self) -> bool:
        """Ask it, and tell whether it answers."""
        if self._askable:
            self._silences = 0 if is_there(self._url, _TIMEOUT) else self._silences + 1
        return self._silences == 0


def stop_repeating() -> None:
    """Let each further request of this context be tried once only, and send no further log line. For a run that has ended."""
    now = get_settings_context()
    # Entered and never left: the requests that matter come after the flow's function has returned, in its context.
    SettingsContext(
        profile=now.profile, settings=now.settings.copy_with_update(updates={PREFECT_CLIENT_MAX_RETRIES: 0})
    ).__enter__()
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.addFilter(lambda _: False)
