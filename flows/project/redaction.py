"""Makes text fit to be stored and shown: replaces a client's secrets by `***`, and cuts remote text to one printable line."""

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

from clients.environment import EnvValues
from clients.exchange_recorder import Recorder
from flows.project.printable_text import printable
from jobs.db.json_codec import encode
from jobs.outcome import one_line

SHORTEST = 4
"""Characters; a shorter secret would blank half of every message."""

SHORTEST_CODED = 6
"""Bytes; the base64 or hex of a shorter one may stand anywhere by chance."""

LINE_LENGTH = 300
"""Characters of a line, by default."""

BODY_LENGTH = 500
"""Characters that are kept of the body of a refusal."""

_ESCAPE = re.compile("%[0-9A-F]{2}")


def printable_line(text: str, *, limit: int = LINE_LENGTH) -> str:
    """Return the text on one line, without control characters, cut to `limit` characters."""
    return one_line(printable(str(text), instead=" "), limit=limit)


class Mask:
    """Replaces the values of a settings object's secrets by `***`.

    Args:
        settings: a pydantic model; every `SecretStr` in it is a secret. Or the values of `env(…)`, or a tuple of such. `None` has
            none.
    """

    def __init__(self, settings: Any = None) -> None:
        secrets = [secret for secret in _secrets(settings) if len(secret) >= SHORTEST]
        found = {form for secret in secrets for form in _forms(secret)}
        # Also of short passwords, and whole where the user is known.
        found |= {_basic(user, secret) for secret in secrets for user in _plain_texts(settings)}
        # The longest first: one secret may be a part of another.
        self._pattern = re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True)))) if found else None

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        return text if self._pattern is None else self._pattern.sub("***", text)


def masked_exchanges(recorder: Recorder, mask: Mask) -> str | None:
    """Return the recorded exchanges as JSON text, as `Recorder.summary` has them, `None` if there were none.

    Args:
        recorder: has recorded an attempt.
        mask: replaces the client's secrets, which may stand anywhere in a URL.
    """
    found = [{name: _storable(text) for name, text in one.items()} for one in masked_summary(recorder, mask)]
    return encode(found).decode() if found else None


def masked_summary(recorder: Recorder, mask: Mask) -> list[dict[str, str]]:
    """Return the recorded exchanges without the client's secrets; the `body` of a refusal is one line, cut to `BODY_LENGTH`."""
    found = [{name: mask(text) for name, text in one.items()} for one in recorder.summary]
    return [one | {"body": printable_line(one["body"], limit=BODY_LENGTH)} if "body" in one else one for one in found]


def _storable(text: str) -> str:
    # Half a surrogate pair cannot be written as JSON; the path of a request that was never sent may hold one.
    return text.encode(errors="replace").decode()


def _secrets(value: Any) -> Iterator[str]:
    """Yield every secret in a settings object, at any depth."""
    if hasattr(value, "get_secret_value"):
        secret = value.get_secret_value()
        yield secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)
    elif isinstance(value, EnvValues):
        yield from value.secrets
    elif isinstance(value, BaseModel | Mapping):
        for _, inner in value.items() if isinstance(value, Mapping) else value:
            yield from _secrets(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _secrets(inner)


def _forms(secret: str) -> set[str]:
    """Return the forms in which a text may show a secret: as it is, in a URL, JSON, HTML, hex, base64 and Python's repr."""
    data = secret.encode(errors="replace")
    quoted = {quote(data), quote(data, safe=""), quote_plus(data)}
    # A proxy or a log may quote a URL again, and some write `%2f` for `%2F`.
    quoted |= {quote(one, safe="") for one in quoted}
    quoted |= {_ESCAPE.sub(lambda found: found[0].lower(), one) for one in quoted}
    written = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    written |= {one.replace("/", "\\/") for one in written}
    coded = {data.hex(), data.hex().upper()} if len(data) >= SHORTEST_CODED else set()
    return {secret, repr(secret)[1:-1], html.escape(secret)} | quoted | written | coded | _base64_forms(data)


def _base64_forms(data: bytes) -> set[str]:
    """Return what is sure to stand in the base64 of any text that has the secret in it, such as `user:secret` of Basic.

    Three bytes become four characters, so there are three forms, without the characters that depend on what stands around it.
    """
    if len(data) < SHORTEST_CODED:
        return set()
    found = set()
    for before, start in ((0, 0), (1, 2), (2, 3)):
        end = (before + len(data)) * 8 // 6
        text = base64.b64encode(b"\0" * before + data).decode()[start:end]
        found |= {text, text.replace("+", "-").replace("/", "_"), quote(text, safe="")}
    return found


def _plain_texts(settings: Any) -> Iterator[str]:
    """Yield the plain texts of a settings object: one of them may be the user name of a password."""
    if isinstance(settings, BaseModel):
        yield from (value for _, value in settings if isinstance(value, str))
    elif isinstance(settings, EnvValues):
        yield from settings.values()
    elif isinstance(settings, tuple):
        for one in settings:
            yield from _plain_texts(one)


def _basic(user: str, secret: str) -> str:
    return base64.b64encode(f"{user}:{secret}".encode()).decode()
