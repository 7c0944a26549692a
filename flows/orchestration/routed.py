"""The way of this process's notices through the project's Prefect server, if it has one that answers.

Imports Prefect when there is a notice to send, and not before: a worker that never tells anybody anything pays nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from flows.channels import Message
from flows.orchestration.address import api_url, is_there

if TYPE_CHECKING:
    from flows.orchestration.carrier import PrefectCarrier

#: Seconds that a server gets to say that it lives, and that a silent one is not asked again.
_TIMEOUT, _SILENCE = 2.0, 30.0

_lock = threading.Lock()
_carriers: dict[str, Routed] = {}


def project_carrier() -> Routed | None:
    """Return the carrier of the server that this project uses, the same one each time; `None` where none is configured."""
    url = api_url()
    if url is None:
        return None
    with _lock:
        return _carriers.setdefault(url, Routed(url))


class Routed:
    """A `Carrier` that asks first whether the server answers, so that nobody waits for one that is gone.

    Args:
        url: of the API.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._carrier: PrefectCarrier | None = None
        self._silent_until = 0.0

    def carry(self, message: Message, recipients: Sequence[str]) -> AbstractSet[str]:
        """Hand a message over, see `flows.channels.Carrier`."""
        carrier = self._there()
        return frozenset() if carrier is None else carrier.carry(message, recipients)

    def outcome(self, message: Message, recipients: Sequence[str]) -> Mapping[str, bool]:
        """Return what is known by now, see `flows.channels.Carrier`."""
        # One that has just taken a message is there; it is asked several times a second.
        carrier = self._carrier or self._there()
        return {} if carrier is None else carrier.outcome(message, recipients)

    def _there(self) -> PrefectCarrier | None:
        if time.monotonic() < self._silent_until:
            return None
        if not is_there(self._url, _TIMEOUT):
            self._silent_until = time.monotonic() + _SILENCE
            return None
        if self._carrier is None:
            from flows.orchestration.carrier import PrefectCarrier

            self._carrier = PrefectCarrier(self._url)
        return self._carrier
