"""The events that Prefect gets of jobs: few, and complete."""

import json
from typing import Any

import pytest
from prefect.events import emit_event
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

from flows.orchestration.tracking.job_events import EVENT, EVERY, JobEvents
from flows.progress import Progress
from tests.support.prefect_project import free_port


class Watch:
    """A clock that goes when told to, and what was sent."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[dict[str, Any]] = []
        self.events = JobEvents("shop.pets", emit=lambda **event: self.sent.append(event), clock=lambda: self.now)


@pytest.mark.rows("AQ-54")
def test_ten_thousand_jobs_are_a_handful_of_events() -> None:
    """A minute of work, looked at after each job: one event each five seconds and one at the end, which add up."""
    watch, progress = Watch(), Progress()
    for number in range(10_000):
        progress.succeeded += number % 10 != 0
        progress.retried += number % 10 == 0
        watch.now += 60 / 10_000
        watch.events.report(progress)
    watch.events.report(progress, is_last=True)
    watch.events.report(progress, is_last=True)
    assert len(watch.sent) <= 60 / EVERY + 1
    payloads = [event["payload"] for event in watch.sent]
    assert sum(one["jobs"] for one in payloads) == 10_000
    assert (sum(one["succeeded"] for one in payloads), sum(one["retried"] for one in payloads)) == (9_000, 1_000)
    assert [one["last"] for one in payloads] == [False] * (len(payloads) - 1) + [True]


def test_nothing_done_is_no_event() -> None:
    """Pages alone are not told."""
    watch = Watch()
    watch.now += 60
    watch.events.report(Progress(pages=3, listed=30))
    watch.events.report(Progress(pages=3, listed=30), is_last=True)
    assert watch.sent == []


def test_the_event_is_one_that_prefect_takes() -> None:
    """Sent by Prefect's own function to its client for tests: resource and numbers arrive, and nothing of any job."""
    # Without a server of its own, which Prefect would start.
    updates = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
    EventsWorker.set_client_override(AssertingEventsClient)
    AssertingEventsClient.reset()
    try:
        with temporary_settings(updates=updates):
            events = JobEvents("shop.pets", emit=emit_event)
            events.report(Progress(failed=2, failures=[("key-71ac", "message-71ac")]), is_last=True)
            EventsWorker.instance().drain()
        (event,) = [one for client in AssertingEventsClient.all for one in client.events if one.event == EVENT]
    finally:
        EventsWorker.set_client_override(None)
        AssertingEventsClient.reset()
    assert event.resource["prefect.resource.id"] == "sync-clients.shop.pets"
    assert (event.payload["failed"], event.payload["jobs"]) == (2, 2)
    assert "71ac" not in json.dumps(event.payload)
