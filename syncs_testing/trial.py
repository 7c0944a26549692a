"""Runs one client against one attack, and judges what it listed and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from syncs_testing.api import SECRET, Api, Attack
from syncs_testing.server import Reply, Seen, serving
from syncs_testing.styles import Style

MAX_REQUESTS = 3000


@dataclass(frozen=True)
class Outcome:
    """The result of a trial; `wrong` is empty if the client passed."""

    attack: Attack
    style: Style
    keys: list[str]
    error: BaseException | None
    requests: int
    seconds: float
    wrong: list[str] = field(default_factory=list)

    @property
    def word(self) -> str:
        """One word for a table."""
        if self.wrong:
            return self.wrong[0].split(":")[0].upper()
        if self.error is None:
            return "all"
        return str(getattr(self.error, "stopped", "") or "error") if "Error" in type(self.error).__name__ else "error"


def attack_one(attack: Attack, style: Style, listed: Callable[[str], Iterable[Any]], *, patience: float = 10.0) -> Outcome:
    """List an API under attack, and judge the result.

    Args:
        listed: from the API's base URL to the keys that the client lists, or to its pages; signed in with `SECRET`.
        patience: seconds after which a client must have given up on a slow server.
    """
    api = Api(style, attack)
    elsewhere: list[Seen] = []

    def other(seen: Seen) -> Reply:
        elsewhere.append(seen)
        return api.respond(seen) if attack.answer is None else Reply({}, 404)

    with serving(api.respond, most=MAX_REQUESTS) as server, serving(other, most=MAX_REQUESTS) as foreign:
        api.url, api.other = server.url, foreign.url.replace("127.0.0.1", "localhost")
        keys: list[str] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                for one in listed(server.url):
                    keys.extend([one] if isinstance(one, str) else [entity.key for entity in one.items])
            except Exception as error:  # noqa: BLE001  # any exception is a result
                failed.append(error)

        began = time.monotonic()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(patience if attack.slow else 60)
        hangs = thread.is_alive()
        seconds = time.monotonic() - began
        endless = server.endless or foreign.endless
    error = failed[0] if failed else None
    wrong = [
        *([f"endless: more than {MAX_REQUESTS} requests"] if endless else []),
        *([f"hangs: {seconds:.0f} s"] if hangs else []),
    ]
    wrong += _judge(attack, api, keys, error)
    if any(SECRET in f"{seen.target}{seen.headers}{seen.body!r}" for seen in elsewhere):
        wrong.insert(0, "leak: the credentials were sent to another origin")
    if error is not None and SECRET in f"{error}{error!r}":
        wrong.insert(0, "leak: the error has the credentials in it")
    return Outcome(attack, style, keys=keys, error=error, requests=len(server.seen), seconds=seconds, wrong=wrong)


def _judge(attack: Attack, api: Api, keys: list[str], error: BaseException | None) -> list[str]:
    wrong = []
    lost = api.must - set(keys)
    if error is None and lost:
        wrong.append(f"lost: {len(lost)} of {len(api.must)} rows, without an error ({', '.join(sorted(lost)[:3])}, …)")
    if error is None and attack.expected == "error" and not lost:
        wrong.append("silent: it should have raised an error")
    if error is not None and attack.expected == "all":
        wrong.append(f"alarm: {type(error).__name__}: {error}")
    wait = getattr(error, "retry_after", None)
    if attack.wait is not None and wait is not None and not attack.wait[0] <= wait <= attack.wait[1]:
        wrong.append(f"wait: it would wait {wait} s")
    return wrong
