"""How one job is shown: what it carries, what it waits for, and each try at it. Asks nobody."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.cli.answer import Answer, cell, table, to_json

if TYPE_CHECKING:
    from jobs.view import AttemptView, JobDetail


def shown(detail: "JobDetail") -> Answer:
    """Return one job as document and text."""
    whole = asdict(detail)
    head = whole.pop("job")
    tries = whole.pop("attempts")
    # `attempts` is a number in the list of jobs, and the same number here.
    document: dict[str, Any] = {**head, **whole, "tries": tries}
    width = max(map(len, document))
    lines = [
        f"{key.replace('_', ' '):<{width}}  {_line(key, value)}"
        for key, value in document.items()
        if key not in ("payload", "tries")
    ]
    lines += ["", "payload", to_json(detail.payload)]
    if detail.attempts:
        lines += ["", _attempts(detail.attempts)]
        exchanges = [line for one in detail.attempts for line in _exchanges(one)]
        if exchanges:
            lines += ["", table(("CLAIM", "REQUEST", "ANSWER"), exchanges)]
        if trace := next((one.traceback for one in reversed(detail.attempts) if one.traceback), None):
            lines += ["", trace.rstrip()]
    return Answer(document, "\n".join(lines))


def _line(key: str, value: Any) -> str:
    if key == "checkpoint_bytes" and value is not None:
        return f"{value:,} (the job noted something for its next attempt)"
    # An id is a name, to be copied: no thousands separators.
    return str(value) if type(value) is int else cell(value)


def _attempts(tries: "list[AttemptView]") -> str:
    phased = any(one.phase for one in tries)
    headers = ("CLAIM", *(("PHASE",) if phased else ()), "STARTED AT", "ENDED AT", "OUTCOME", "WORKER", "ERROR")
    rows = [
        (one.claim_no, *((one.phase,) if phased else ()), one.started_at, one.ended_at, one.outcome, one.worker, one.error)
        for one in tries
    ]
    return table(headers, rows)


def _exchanges(one: "AttemptView") -> list[tuple[Any, Any, Any]]:
    found = one.exchanges if isinstance(one.exchanges, list) else []
    return [(one.claim_no, each.get("request"), each.get("response")) for each in found if isinstance(each, dict)]
