"""Faulty replies of an API under attack: refusals, redirects, broken bodies and misleading headers. One function each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from syncs_testing.api import Api
from syncs_testing.server import Reply, Seen


def at_second(make: Callable[[Api], Reply]) -> Callable[[Api, Seen], Reply | None]:
    """Reply to the second request and all later ones, or to the only one of a single page, with what `make` returns."""
    return lambda api, seen: make(api) if api.asked >= 2 or api.style.kind == "SinglePage" else None


def redirected(api: Api, seen: Seen) -> Reply | None:
    """Redirect to another origin."""
    return (
        Reply(b"", 302, {"Location": f"{api.other}{seen.target}"}) if api.asked >= 2 or api.style.kind == "SinglePage" else None
    )


def moved_here(api: Api, seen: Seen) -> Reply | None:
    """Redirect to the same URL, with `Retry-After`."""
    if api.asked == 2:
        return Reply(b"", 301, {"Location": seen.target, "Retry-After": "0"})
    return None


def cut_json(api: Api) -> Reply:
    """Return JSON that is cut off."""
    text = json.dumps({"data": api.rows[:3]}).encode()
    return Reply(text[:-10])


def bomb(api: Api) -> Reply:
    """Return 300 MB in 300 kB."""
    return Reply(gzip.compress(b"[" + b"0," * 150_000_000 + b"0]", 1), headers={"Content-Encoding": "gzip"})


def limited(value: Callable[[], str], status: int = 429) -> Callable[[Api, Seen], Reply | None]:
    """Refuse, with `Retry-After`."""
    return at_second(lambda api: Reply({}, status, {"Retry-After": value()}))


def moment(seconds: float) -> str:
    """Return an HTTP date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def skewed(api: Api) -> Reply:
    """Refuse, with a clock that is ten minutes ahead."""
    return Reply({}, 429, {"Date": moment(600), "Retry-After": moment(630)})


def iso(seconds: float) -> str:
    """Return an ISO date with seven decimals."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def epoch(seconds: float, factor: int = 1) -> str:
    """Return seconds since the epoch, times a factor."""
    return str(int((datetime.now(UTC).timestamp() + seconds) * factor))


def budget(headers: dict[str, str]) -> Callable[[Api, Seen, Reply], Reply]:
    """Add headers."""

    def spoil(api: Api, seen: Seen, reply: Reply) -> Reply:
        reply.headers.update(headers)
        return reply

    return spoil


def broken(**kind: Any) -> Callable[[Api, Seen, Reply], Reply]:
    """Break the second answer."""

    def spoil(api: Api, seen: Seen, reply: Reply) -> Reply:
        if api.asked >= 2 or api.style.kind == "SinglePage":
            for name, value in kind.items():
                setattr(reply, name, value)
        return reply

    return spoil


def charset(api: Api, seen: Seen, reply: Reply) -> Reply:
    """Send bytes that are not UTF-8."""
    reply.body = json.dumps(reply.body)[:-1].encode() + b', "name": "\xff\xfe caf\xe9"}'
    reply.headers["Content-Type"] = "application/json; charset=utf-8"
    return reply


def packed(api: Api, seen: Seen, reply: Reply) -> Reply:
    """Announce gzip, but send plain bytes."""
    reply.headers["Content-Encoding"] = "gzip"
    return reply


def gone_behind(api: Api, seen: Seen, reply: Reply) -> Reply:
    """Answer 404 for pages behind the last one."""
    return reply if api.style.start(seen, api.rows)[0] < len(api.rows) else Reply({}, 404)


def complaint(api: Api) -> Reply:
    """Return an error with status 200."""
    return Reply({"error": "busy"})


def login(api: Api) -> Reply:
    """Return a login page, with status 200."""
    return Reply(b"<html>Please sign in", headers={"Content-Type": "text/html"})
