"""Sends the progress of a run to Prefect, as an artifact and as events, in a thread that the engine never waits for."""

import logging
import threading
from contextlib import ExitStack
from contextvars import Context
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from flows.orchestration.tracking.job_events import JobEvents
from flows.orchestration.tracking.server_health import ServerHealth
from flows.progress import Progress

log = logging.getLogger(__name__)

#: Seconds between two updates. One takes 0.4 s while the engine's threads are busy.
INTERVAL = 1.5
_CLOSE_SECONDS = 10.0


def percentage(progress: Progress) -> float:
    """Return how much is done, from 0 to 100; 100 only at the end, and while the listing goes on at most 99."""
    known, done = _known(progress), _done(progress)
    if known == 0:
        return 100.0 if progress.listing_ended else 0.0
    if done >= known and progress.listing_ended:
        return 100.0
    return min(round(100 * done / known, 1), 99.9 if progress.listing_ended else 99.0)


def describe(title: str, progress: Progress) -> str:
    """Return one line: `languages: 4,200 of 7,910 entities, 3 failed`."""
    so_far = "" if progress.listing_ended else " listed so far"
    parts = [f"{title}: {_done(progress):,} of {_known(progress):,} entities{so_far}"]
    parts += [f"{count:,} {word}" for count, word in ((progress.failed, "failed"), (len(progress.put_off), "put off")) if count]
    return ", ".join(parts) + (f"; {progress.waiting}" if progress.waiting else "")


def _done(progress: Progress) -> int:
    return progress.worked + progress.unchanged


def _known(progress: Progress) -> int:
    return max(progress.listed, progress.queued, _done(progress))


class ProgressReport:
    """Creates and updates one progress artifact of the flow run in whose context it is started.

    Args:
        title: the sync's id, or `work`.
        key: of the artifact: lowercase letters, digits, dashes.
    """

    def __init__(self, title: str, *, key: str) -> None:
        self._title = title
        self._key = key
        self._progress: Progress | None = None
        self._artifact: UUID | None = None
        self._sent: tuple[float, str] | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._server: ServerHealth
        self._client = ExitStack()
        self._api: SyncPrefectClient | None = None
        self._is_failing = False
        #: How often the server has answered again after it had gone.
        self.returns = 0
        self._events = JobEvents(title)

    def start(self, context: Context) -> None:
        """Start the thread, within this context."""
        # Made here and not in the thread: it also sets how the first events are sent.
        self._server = ServerHealth()
        self._thread = threading.Thread(target=context.run, args=(self._report,), name="progress-report", daemon=True)
        self._thread.start()

    def update(self, progress: Progress) -> None:
        """Set the numbers that the thread sends next."""
        self._progress = progress

    @property
    def server_gone(self) -> bool:
        """Whether the server has stopped answering; it may answer again later."""
        return self._server.is_gone

    def close(self) -> None:
        """Send the last numbers and end, within ten seconds."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _report(self) -> None:
        flow_run = FlowRunContext.get()
        run_id = flow_run.flow_run.id if flow_run is not None and flow_run.flow_run is not None else None
        ended = False
        with self._client:
            while not ended:
                ended = self._end.wait(0.1 if self._sent is None else INTERVAL)
                self._report_once(run_id, is_last=ended)
        # `is_gone` takes two failures in a row.
        if not self._server.check():
            self._server.check()

    def _report_once(self, run_id: UUID | None, *, is_last: bool) -> None:
        """Send the numbers, if the server answers. No error ends the thread: it decides for the whole run whether it does."""
        was_gone = self._server.is_gone
        if not self._server.check():
            return
        self.returns += was_gone
        try:
            if self._api is None:
                self._api = self._client.enter_context(get_client(sync_client=True))
            self._send(self._api, run_id)
            if self._progress is not None:
                self._events.report(self._progress, is_last=is_last)
            self._is_failing = False
        except ObjectNotFound:
            # Another server, or one whose database is new: it gets an artifact of its own.
            self._artifact = self._sent = None
        except Exception as error:  # noqa: BLE001 - a run must not fail because Prefect cannot show it
            if not self._is_failing:
                log.warning("Prefect does not show the progress: %s: %s", type(error).__name__, error)
            self._is_failing = True

    def _send(self, client: SyncPrefectClient, run_id: UUID | None) -> None:
        if self._progress is None:
            return
        now = (percentage(self._progress), describe(self._title, self._progress))
        if now == self._sent:
            return
        if self._artifact is None:
            made = client.create_artifact(
                ArtifactCreate(type="progress", key=self._key, data=now[0], description=now[1], flow_run_id=run_id)
            )
            self._artifact = made.id
        else:
            client.update_artifact(self._artifact, ArtifactUpdate(data=now[0], description=now[1]))
        self._sent = now
