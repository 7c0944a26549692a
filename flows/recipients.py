"""Who is told: the recipients of a client by level, and the way back from what a row says of one. Sends nothing.

Rows know a recipient by a fingerprint, for the text may hold a password or a token; whoever sends looks it up in the declaration.
"""

import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import ClassVar

from flows.channels import check, masked
from flows.declaration import Client
from flows.settings import Settings, project_settings
from jobs.notice import Addressee

log = logging.getLogger("syncs.notices")

LEVELS = ("notice", "warning", "error")


@functools.lru_cache(maxsize=1000)
def fingerprint(recipient: str) -> str:
    """Return what rows, and names in Prefect, know a recipient by.

    Slow on purpose: both are read by others, and a password in an Apprise URL may be a short one.
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

    #: Said once in each process.
    _warned: ClassVar[set[str]] = set()

    def __init__(self, clients: Mapping[str, Client], settings: Settings | None = None) -> None:
        self._clients = clients
        self._settings = settings or project_settings()

    @property
    def window(self) -> float:
        """Seconds in which one cause is told once."""
        return self._settings.notify_window

    def of(self, client: Client, level: str) -> list[str]:
        """Return the recipients of a level: the client's own, else the project's (SC-23); an empty list is nobody."""
        own: list[str] | None = getattr(client.notify, level)
        found: list[str] = getattr(self._settings, f"notify_{level}") if own is None else own
        return list(dict.fromkeys(found))

    def addressees(self, client: Client, level: str) -> list[Addressee]:
        """Return the recipients of a level as rows know them. One that cannot be used is named in the log, once, and kept: a
        setting that is missing today may be there tomorrow, and until then `syncs notices` shows what waits.
        """
        found = self.of(client, level)
        for recipient in found:
            self._warn(client.id, level, recipient)
        return [Addressee(fingerprint(recipient), masked(recipient)) for recipient in found]

    def find(self, client: str, print_: str) -> str | None:
        """Return the recipient of a client with this fingerprint, or `None` where nothing declares it (any more)."""
        declared = self._clients.get(client)
        if declared is None:
            return None
        return next((one for level in LEVELS for one in self.of(declared, level) if fingerprint(one) == print_), None)

    def _warn(self, client: str, level: str, recipient: str) -> None:
        reason = check(recipient)
        if reason is not None and (said := f"{client}: a recipient for {level} cannot be used: {reason}") not in self._warned:
            self._warned.add(said)
            log.warning("%s", said)


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
