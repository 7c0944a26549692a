"""OAuth 2 tokens, and stores that keep them so that no two workers spend the same refresh token."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clients.auth import MASK
from clients.errors import AuthRefusedError

LEASE_TIMEOUT = 60.0
"""Seconds to wait for another renewal, which takes one request."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """What a token endpoint answered. Its repr hides it; `to_json` does not.

    Args:
        access_token: sent with requests.
        expires_at: when it is no longer used, in seconds since the epoch: half a minute before its end, or a tenth of a short
            life. None when the endpoint does not say.
        refresh_token: spent to get the next one; None where there is none.
        origin: a digest of the declared sign-in that the token was fetched with.
    """

    access_token: str
    expires_at: float | None = None
    refresh_token: str | None = None
    origin: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"Token({MASK}, expires_at={self.expires_at})"

    def is_good(self, *, now: float) -> bool:
        """Say whether it may still be used."""
        return self.expires_at is None or self.expires_at > now

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, secrets included: encrypt them, or store them where nobody else can read them."""
        return {
            "access_token": self.access_token,
            "expires_at": self.expires_at,
            "refresh_token": self.refresh_token,
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, stored: Any) -> Token | None:
        """Return the token that `to_json` gave, or None when it is not one."""
        if not isinstance(stored, dict) or not isinstance(stored.get("access_token"), str):
            return None
        return cls(stored["access_token"], stored.get("expires_at"), stored.get("refresh_token"), str(stored.get("origin", "")))


class TokenLostError(AuthRefusedError):
    """The token endpoint accepted the request, but its answer has no token: the refresh token may be spent."""


class TokenStore(Protocol):
    """Keeps the newest token of one sign-in for all threads, processes and machines that use it.

    A rotating refresh token works once. So a renewal takes the lease, calls `load`, and only if the stored token is still the one
    that was refused, spends its refresh token and calls `swap` with the new one before the lease ends.

    A store may also have `spending(refresh_token)`, a context around sending one, which raises `AuthRefusedError` when it was
    sent before with an unknown outcome; and `ready()`, called first, which raises `TimeoutError` when this thread may not wait
    for a renewal.
    """

    def load(self) -> Token | None:
        """Return the newest token, or None when there was none yet."""
        ...

    def swap(self, old: Token | None, new: Token) -> bool:
        """Replace `old` by `new` durably; return False if another token is stored now."""
        ...

    def lease(self) -> AbstractContextManager[None]:
        """Return a context that one renewal at a time can enter, and that ends if its process dies.

        Raises:
            TimeoutError: on entering: another renewal takes too long.
        """
        ...


class MemoryTokens:
    """Keeps the token in this process, for all its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leased = threading.Lock()
        self._token: Token | None = None

    def __repr__(self) -> str:
        return "MemoryTokens()"

    def load(self) -> Token | None:
        """Return the newest token."""
        with self._lock:
            return self._token

    def swap(self, old: Token | None, new: Token) -> bool:
        """Replace `old` by `new`."""
        with self._lock:
            if self._token != old:
                return False
            self._token = new
            return True

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Enter the only renewal of this process."""
        if not self._leased.acquire(timeout=LEASE_TIMEOUT):
            raise TimeoutError("another thread is renewing the token")
        try:
            yield
        finally:
            self._leased.release()


class FileTokens:
    """Keeps the token in a file that only its owner may read, for all processes of one machine.

    Args:
        path: of the file; a second one with the suffix `.lock` holds the lease (by `flock`, which ends with its process).
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = self._path.with_name(self._path.name + ".lock")

    def __repr__(self) -> str:
        return f"FileTokens({str(self._path)!r})"

    def load(self) -> Token | None:
        """Return the newest token, or None when the file is missing or has none."""
        try:
            return Token.from_json(json.loads(self._path.read_bytes()))
        except (FileNotFoundError, ValueError):
            return None

    def swap(self, old: Token | None, new: Token) -> bool:
        """Replace `old` by `new`; after a crash the file holds one of the two. Call it within the lease."""
        if self.load() != old:
            return False
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(new.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        return True

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Enter the only renewal on this machine."""
        import fcntl

        until = time.monotonic() + LEASE_TIMEOUT
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError("another process is renewing the token") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)


def digest_of(*parts: str | None) -> str:
    """Return 16 characters that identify secrets without revealing them."""
    text = "\0".join(part or "" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
