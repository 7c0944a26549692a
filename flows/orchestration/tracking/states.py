"""Makes the final state of a flow run from its result. Pure functions."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows.orchestration.server_names import NOT_RUN
from flows.project.redaction import printable_line
from flows.run_result import RunResult
from flows.time_text import moment_text

_LENGTH = 500


def not_run(error: Exception) -> State[Any]:
    """Return the final state of a flow run that could not begin its work.

    Args:
        error: a FlowsError or JobsError, whose text is one line without secrets.
    """
    return Failed(message=_short(f"{NOT_RUN}{error}"))


def run_message(result: RunResult) -> str:
    """Return the message of the state in one line, e.g. `7910 succeeded` or `12 of 7910 failed`."""
    if result.state == "paused":
        if result.message.startswith("Paused"):
            return _short(result.message)
        until = "until a person resumes it"
        if result.paused_until is not None:
            until = f"until {moment_text(result.paused_until)}"
        return _short(f"Paused {until}: {result.message}" if result.message else f"Paused {until}")
    if result.state == "skipped":
        return _short(result.message or "Another process runs this sync")
    done = result.succeeded + result.unchanged + result.gone + result.failed
    failed = f"{result.failed} of {done} failed" if result.failed else ""
    if result.state == "failed":
        return _short("; ".join(part for part in (failed, result.message) if part) or "failed")
    if result.state == "partial" and (result.message or failed):
        return _short(result.message or failed)
    counts = (
        (result.succeeded, "succeeded"),
        (result.unchanged, "unchanged"),
        (result.gone, "gone"),
        (result.deleted, "deleted"),
        (result.retrying, "failed and to be tried again"),
        (max(0, result.pending - result.retrying), "left for later"),
    )
    return ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing to do"


def flow_run_state(result: RunResult, *, stopped: bool = False) -> State[Any]:
    """Return the final state of the flow run; its data is the document of `syncs run --json`.

    Args:
        result: what the engine returned.
        stopped: whether the run was asked to stop before its end.
    """
    data, message = result.as_json(), run_message(result)
    if result.state == "failed":
        return Failed(message=message, data=data)
    if result.state == "paused":
        return Completed(name="Paused", message=message, data=data)
    if result.state == "skipped":
        return Completed(name="Skipped", message=message, data=data)
    if stopped:
        return Cancelled(message=f"Stopped by hand: {message}; the next run goes on from here", data=data)
    return Completed(message=message, data=data)


def _short(text: str) -> str:
    return printable_line(text, limit=_LENGTH)
