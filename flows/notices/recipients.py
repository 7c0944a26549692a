"""Finds the recipients of a client by level, and the recipient that a stored fingerprint stands for.

The tables hold fingerprints, because a recipient may contain a password or a token.
"""

import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import ClassVar

from flows.channels import check, masked
from flows.channels.message import LEVELS
from flows.declarations.client import Client
from flows.project.settings import Settings, project_settings
from jobs.notices.notice import RecipientRef

log = logging.getLogger("syncs.notices")


@functools.lru_cache(maxsize=1000)
def fingerprint(recipient: str) -> str:
    """Return what stands for a recipient in tables and in names on the Prefect server.

    Slow on purpose: other people can read both, and a password in an Apprise URL may be short.
    """
    return hashlib.pbkdf2_hmac("sha256", recipient.encode(), b"sync-clients", 50_000).hex()[:16]


class Recipients:
    """The recipients of some clients.

    Args:
        clients: by id.
        settings: the project's; by default those of the environment.

    Raises:
        SettingsError: a setting is wrong.
    """

    #: Each warning is logged once in a process.
    _warned: ClassVar[set[str]] = set()

    def __init__(self, clients: Mapping[str, Client], settings: Settings | None = None) -> None:
        self._clients = clients
        self._settings = settings or project_settings()

    @property
    def window(self) -> float:
        """Seconds in which one cause is reported once."""
        return self._settings.notify_window

    def of(self, client: Client, level: str) -> list[str]:
        """Return the recipients of a level: the client's own, else the project's. An empty list means nobody."""
        own: list[str] | None = getattr(client.notify, level)
        found: list[str] = getattr(self._settings, f"notify_{level}") if own is None else own
        return list(dict.fromkeys(found))

    def addressees(self, client: Client, level: str) -> list[RecipientRef]:
        """Return the recipients of a level as the tables hold them.

        One that cannot be used is logged once and kept: a setting that is missing may be set later, and until then
        `syncs notices` shows what waits.
        """
        found = self.of(client, level)
        for recipient in found:
            self._warn(client.id, level, recipient)
        return [RecipientRef(fingerprint(recipient), masked(recipient)) for recipient in found]

    def find(self, client: str, known: str) -> str | None:
        """Return the recipient of a client with this fingerprint, or `None` if none is declared (any more)."""
        declared = self._clients.get(client)
        if declared is None:
            return None
        return next((one for level in LEVELS for one in self.of(declared, level) if fingerprint(one) == known), None)

    def _warn(self, client: str, level: str, recipient: str) -> None:
        reason = check(recipient)
        if reason is not None and (warning := f"{client}: a recipient for {level} cannot be used: {reason}") not in self._warned:
            self._warned.add(warning)
            log.warning("%s", warning)


def problems(clients: Iterable[Client], settings: Settings | None = None) -> list[str]:
    """Return one line for each recipient that cannot be used, without secrets: for `syncs check` and `syncs setup`.

    Raises:
        SettingsError: a setting is wrong.
    """
    recipients = Recipients({}, settings)
    found: dict[str, None] = {}
    for client in clients:
        for level in LEVELS:
            own = getattr(client.notify, level) is not None
            name = f"{client.id}: notify.{level}" if own else f"SYNCS_{f'notify_{level}'.upper()}"
            for recipient in recipients.of(client, level):
                if (reason := check(recipient)) is not None:
                    found[f"{name}: {reason}"] = None
    return list(found)
