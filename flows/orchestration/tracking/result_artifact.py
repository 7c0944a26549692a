"""Publishes the summary of a run and its failed entities as Prefect tables, with keys, counts and messages, without payloads."""

import json
import logging
import re
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate

from flows.orchestration.tracking.states import run_message
from flows.project.redaction import printable_line
from flows.run_result import RunResult

log = logging.getLogger(__name__)

MAX_FAILURES = 100
_COUNTS = (
    "listed",
    "queued",
    "succeeded",
    "unchanged",
    "gone",
    "failed",
    "retrying",
    "snoozed",
    "pending",
    "deleted",
    "pages",
    "requests",
)
_STOPPED = {
    "end": "it was complete",
    "limit": "the limit was reached",
    "loop": "a page came twice",
    "short": "it had fewer items than it announced",
    "error": "an error",
    "paused": "the client is paused",
    "running": "another process runs this sync",
    "stop": "it was stopped",
}


def slug(name: str) -> str:
    """Return the id in the characters that an artifact key may have: `petstore.pets` becomes `petstore-pets`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "sync"


def summary_table(result: RunResult) -> list[dict[str, Any]]:
    """Return the rows of the summary."""
    rows: list[dict[str, Any]] = [{"what": name, "value": f"{getattr(result, name):,}"} for name in _COUNTS]
    rows.append({"what": "seconds", "value": f"{result.seconds:,.1f}"})
    rows.append({"what": "listing ended because", "value": _STOPPED.get(result.stopped, result.stopped)})
    if result.message:
        rows.append({"what": "message", "value": _cell(result.message)})
    return rows


def failure_table(result: RunResult) -> list[dict[str, str]]:
    """Return the rows of the failed entities, the first 100."""
    return [{"entity": _cell(key), "error": _cell(message)} for key, message in result.failures[:MAX_FAILURES]]


def publish(result: RunResult, flow_run_id: UUID | None) -> None:
    """Create the tables on the server. If the server refuses them, a warning is logged and the run is unaffected.

    Args:
        result: of the run.
        flow_run_id: the flow run they belong to.
    """
    key = slug(result.sync)
    tables = [(f"{key}-summary", f"{result.sync}: {run_message(result)}", summary_table(result))]
    if result.failures:
        shown = min(len(result.failures), MAX_FAILURES)
        which = f"{shown} of {result.failed:,} failed entities" if shown < result.failed else "failed entities"
        tables.append((f"{key}-failures", f"{result.sync}: {which}", failure_table(result)))
    if result.retries:
        rows = [{"entity": _cell(name), "error": _cell(message)} for name, message in result.retries]
        tables.append((f"{key}-retries", f"{result.sync}: {result.retrying:,} failed and will be tried again", rows))
    try:
        with get_client(sync_client=True) as client:
            for name, description, rows in tables:
                data, title = json.dumps(rows), _cell(description)
                client.create_artifact(
                    ArtifactCreate(type="table", key=name, description=title, data=data, flow_run_id=flow_run_id)
                )
    except Exception as error:  # noqa: BLE001 - the run has ended; a failure of Prefect must not change its result
        log.warning("Prefect does not take the summary: %s: %s", type(error).__name__, error)


def _cell(text: str) -> str:
    """Return one line in which links, images, code and HTML are escaped: the UI renders cells as Markdown (3.9.1)."""
    return re.sub(r"([\\`\[<])", r"\\\1", printable_line(text))
