"""The tables that a run leaves in Prefect: what it came to, and which entities failed. Keys, counts and messages, no payloads."""

import json
import logging
import re
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate

from flows.orchestration.states import run_message
from flows.result import RunResult

log = logging.getLogger(__name__)

MAX_FAILURES = 100
_CELL = 300
_COUNTS = (
    "listed", "queued", "succeeded", "unchanged", "gone", "failed", "snoozed", "pending", "deleted", "pages", "requests",
)  # fmt: skip
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
    """Return the id as artifact keys allow it: `petstore.pets` becomes `petstore-pets`."""
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
    """Create the tables on the server. A server that does not take them changes nothing for the run.

    Args:
        result: what the run came to.
        flow_run_id: the flow run they belong to.
    """
    key = slug(result.sync)
    tables = [(f"{key}-summary", f"{result.sync}: {run_message(result)}", summary_table(result))]
    if result.failures:
        shown = min(len(result.failures), MAX_FAILURES)
        which = f"{shown} of {result.failed:,} failed entities" if shown < result.failed else "failed entities"
        tables.append((f"{key}-failures", f"{result.sync}: {which}", failure_table(result)))
    try:
        with get_client(sync_client=True) as client:
            for name, description, rows in tables:
                data, title = json.dumps(rows), _cell(description)
                client.create_artifact(
                    ArtifactCreate(type="table", key=name, description=title, data=data, flow_run_id=flow_run_id)
                )
    except Exception as error:  # noqa: BLE001 - law 14: the run is over and its result stands
        log.warning("Prefect does not take the summary: %s: %s", type(error).__name__, error)


def one_line(text: str) -> str:
    """Return one printable line of at most 300 characters; the remote side has a say in its text."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return line if len(line) <= _CELL else line[: _CELL - 1] + "…"


def _cell(text: str) -> str:
    """Return one line whose links, images, code and HTML the UI, which reads cells as Markdown, shows as they are written."""
    return re.sub(r"([\\`\[<])", r"\\\1", one_line(text))
