"""Taking a client's secrets out of texts that are kept or shown (law 9)."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

SHORTEST = 4
"""Characters; a shorter secret would blank half of every message."""


class Mask:
    """Replaces the values of a settings object's secrets by `***`.

    Args:
        settings: a pydantic model; every `SecretStr` in it is a secret. `None` has none.
    """

    def __init__(self, settings: Any = None) -> None:
        secrets = [secret for secret in _secrets(settings) if len(secret) >= SHORTEST]
        found = {form for secret in secrets for form in _forms(secret)}
        found |= {_basic(user, secret) for secret in secrets for user in _plain(settings)}
        # The longest first: one secret may be a part of another.
        self._secrets = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _secrets(value: Any) -> Iterator[str]:
    """Yield every secret in a settings object, at any depth."""
    if hasattr(value, "get_secret_value"):
        secret = value.get_secret_value()
        yield secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)
    elif isinstance(value, BaseModel | Mapping):
        for _, inner in value.items() if isinstance(value, Mapping) else value:
            yield from _secrets(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _secrets(inner)


def _forms(secret: str) -> set[str]:
    """Return a secret as texts show it: as it is, in a URL, and in the repr of a string."""
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}


def _plain(settings: Any) -> Iterator[str]:
    """Yield the plain texts of a settings object: one of them may be the user that a password belongs to."""
    if isinstance(settings, BaseModel):
        yield from (value for _, value in settings if isinstance(value, str))


def _basic(user: str, secret: str) -> str:
    return base64.b64encode(f"{user}:{secret}".encode()).decode()
