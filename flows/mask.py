"""Taking a client's secrets out of texts that are kept or shown (law 9)."""

from typing import Any

SHORTEST = 4
"""Characters; a shorter secret would blank half of every message."""


class Mask:
    """Replaces the values of a settings object's secrets by `***`.

    Args:
        settings: a pydantic model; every `SecretStr` in it is a secret. `None` has none.
    """

    def __init__(self, settings: Any = None) -> None:
        found = {
            value.get_secret_value()
            for value in (dict(settings).values() if settings is not None else ())
            if hasattr(value, "get_secret_value")
        }
        # The longest first: one secret may be a part of another.
        self._secrets = sorted((str(one) for one in found if len(str(one)) >= SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
