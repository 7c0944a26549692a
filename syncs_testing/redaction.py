"""Removes secrets from recorded exchanges: by their names, by their places, and wherever the same values occur again."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlsplit, urlunsplit

MASK = "***"
MIN_GIVEN = 4
"""Characters of a secret that the caller names; a shorter one would be found everywhere."""
MIN_LEARNT = 8
"""Characters of a value that is a secret by its name or place."""

_KEPT_HEADERS = frozenset({"accept", "content-type", "if-modified-since", "if-none-match", "prefer", "soapaction"})
"""Headers of requests that are stored. Recordings are not matched by the others, and any of them may hold a key."""
_NAMES = re.compile(
    r"token|secret|passw|pwd|credential|authoriz|^auth$|signature|session|cookie|assertion|jwt"
    r"|(?:^|[_.-])(?:api|access|app|private|subscription|user)?[_.-]?(?:key|sig|sid|code|pin|otp)$|^app[_-]?id$",
    re.IGNORECASE,
)
_PAGING = re.compile(r"page|next|prev|cursor|contin|sync|delta|skip|start|resume", re.IGNORECASE)
_IN_BODIES = re.compile(
    r"(?:access|refresh|id|session|auth|bearer)token|(?:client|api)?secret(?:key)?|(?:api|private|session)key|sessionid"
    r"|passw(?:or)?d|passphrase|(?:client)?assertion|authorization",
)
"""Fields of bodies, in lower case and without punctuation; a mere `token` may be that of a page."""
_SIGN_IN = re.compile(
    r"(?:^|[/_.-])(?:token|tokens|login|logon|signin|sign-in|oauth2?|auth|authenticate|sessions?)/?$", re.IGNORECASE
)
_HARMLESS = frozenset(
    {"token_type", "scope", "expires_in", "expires", "expires_at", "error", "error_description", "grant_type", "client_id"}
)
_XML = re.compile(
    r"(<(?:[\w.-]+:)?(?:\w*(?:password|passwd|secret|token|apikey|sessionid)\w*)(?:\s[^>]*)?>)([^<]+)(?=</)", re.IGNORECASE
)


class Redactor:
    """Removes secrets from requests and answers, and remembers them, to find the same values elsewhere."""

    def __init__(self, mask: Callable[[str], str], secrets: Iterable[str]) -> None:
        self._mask = mask
        self._seen: set[str] = set()
        self._given = {form for secret in secrets for form in _forms(secret)}

    def text(self, text: str) -> str:
        """Mask known secrets."""
        return self._without(self._mask(text), self._given)

    def request(self, request: Any) -> Any:
        """Return a request as it is stored and compared."""
        added = self._added(request)
        for name, value in request.headers.items():
            if name.lower() not in _KEPT_HEADERS and (_NAMES.search(name) or _NAMES.search(name.removeprefix("X-"))):
                self._learn_header(value)
        request.headers = {name: self.text(value) for name, value in request.headers.items() if name.lower() in _KEPT_HEADERS}
        parts = urlsplit(request.uri)
        pairs = [
            (name, self._learn(value) if name in added or _is_secret(name) else self.text(value))
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
        query = "&".join(f"{quote_plus(name)}={quote_plus(value, safe='*')}" for name, value in pairs)
        host = parts.netloc.rpartition("@")[2]
        request.uri = urlunsplit((parts.scheme, host, self.text(parts.path), query, ""))
        if isinstance(request.body, (bytes, bytearray)) and request.body:
            request.body = self._body(bytes(request.body), sign_in=False)
        return request

    def interaction(self, request: Any, response: Any) -> tuple[Any, Any]:
        """Return an exchange as it is written into the file."""
        sign_in = request.method == "POST" and bool(
            _SIGN_IN.search(urlsplit(request.uri).path) or b"grant_type" in (request.body or b"")
        )
        headers = {}
        for name, values in response["headers"].items():
            if _is_secret(name):
                for value in values:
                    self._learn_header(value.partition(";")[0])
                continue
            headers[name] = [
                self._link(value) if name.lower() in ("link", "location", "content-location") else self.text(value)
                for value in values
            ]
        content = response["body"]["string"]
        content = content.encode() if isinstance(content, str) else bytes(content or b"")
        content = self._body(content, sign_in=sign_in)
        # Secrets that were found in this exchange and in those before it.
        content = self._without(content.decode("latin-1"), {one.encode().decode("latin-1") for one in self._seen}).encode(
            "latin-1"
        )
        headers = {
            name: [str(len(content))]
            if name.lower() == "content-length"
            else [self._without(value, self._seen) for value in values]
            for name, values in headers.items()
        }
        request.uri = self._without(request.uri, self._seen)
        if isinstance(request.body, (bytes, bytearray)):
            text = bytes(request.body).decode("latin-1")
            request.body = self._without(text, {one.encode().decode("latin-1") for one in self._seen}).encode("latin-1")
        return request, {**response, "headers": headers, "body": {**response["body"], "string": content}}

    @staticmethod
    def _added(request: Any) -> set[str]:
        """Return the names of the parameters that one of our clients added to the requested URL."""
        from clients.exchange_recorder import current_recorder

        recorder = current_recorder()
        pending = None if recorder is None else recorder.pending
        if pending is None:
            return set()
        shown = {name for name, _ in parse_qsl(urlsplit(pending.url).query, keep_blank_values=True)}
        return {name for name, _ in parse_qsl(urlsplit(request.uri).query, keep_blank_values=True)} - shown

    def _learn(self, value: str) -> str:
        if len(value) >= MIN_LEARNT and value != MASK:
            self._seen |= _forms(value)
        return MASK

    def _learn_header(self, value: str) -> None:
        """Remember a credential: `Bearer x`, `Basic …`, `a=b; c=d`, or the plain value."""
        self._learn(value)
        scheme, _, rest = value.partition(" ")
        if rest and "=" not in scheme:
            self._learn(rest)
            if scheme.lower() == "basic":
                with suppress(binascii.Error, UnicodeDecodeError):
                    self._learn(base64.b64decode(rest, validate=True).decode().partition(":")[2])
        for pair in value.split(";"):
            self._learn(pair.partition("=")[2].strip())

    def _link(self, value: str) -> str:
        """Mask the secret parameters of the URLs in a header."""
        hidden = re.sub(
            r"([?&])([^=&>]+)=([^&>;\s]*)", lambda found: f"{found[1]}{found[2]}={self._parameter(found[2], found[3])}", value
        )
        return self.text(hidden)

    def _parameter(self, name: str, value: str) -> str:
        return self._learn(unquote_plus(value)) if _is_secret(unquote_plus(name)) else value

    def _body(self, content: bytes, *, sign_in: bool) -> bytes:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")
            return self.text(text).encode("latin-1", "replace")
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, (dict, list)):
            hidden = self._json(value, sign_in=sign_in)
            if hidden != value:
                text = json.dumps(hidden, ensure_ascii=False)
        elif re.fullmatch(r"[^=&\s<{]+=[^&]*(&[^=&\s]+=[^&]*)*", text):
            pairs = (pair.partition("=") for pair in text.split("&"))
            text = "&".join(f"{name}={self._field(unquote_plus(name), value, sign_in)}" for name, _, value in pairs)
        elif "</" in text:
            text = _XML.sub(lambda found: found[1] + self._learn(found[2]), text)
        elif sign_in and value is not None:
            # The whole answer is a token.
            self._learn(text.strip().strip('"'))
            text = json.dumps(MASK)
        elif sign_in and text.strip():
            self._learn(text.strip())
            text = MASK
        return self.text(text).encode()

    def _field(self, name: str, value: str, sign_in: bool) -> str:
        if (_is_secret(name) or sign_in) and name not in _HARMLESS:
            return self._learn(unquote_plus(value))
        return value

    def _json(self, value: Any, *, sign_in: bool) -> Any:
        if isinstance(value, dict):
            return {name: self._member(name, inner, sign_in=sign_in) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._json(inner, sign_in=sign_in) for inner in value]
        return self._learn(value) if sign_in and isinstance(value, str) else value

    def _member(self, name: str, value: Any, *, sign_in: bool) -> Any:
        if isinstance(value, str) and value:
            # A sign-in may also return the URL of the API.
            is_token = sign_in and name not in _HARMLESS and not re.match(r"https?://[^?]*$", value)
            secret = _IN_BODIES.fullmatch(re.sub(r"[\W_]", "", name).lower()) is not None or is_token
            return self._learn(value) if secret else value
        return self._json(value, sign_in=sign_in)

    @staticmethod
    def _without(text: str, secrets: Iterable[str]) -> str:
        # The longest first: one may be a part of another.
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


def _is_secret(name: str) -> bool:
    return bool(_NAMES.search(name)) and not _PAGING.search(name)


def _forms(secret: str) -> set[str]:
    """Return the encodings in which a secret may occur in texts."""
    if len(secret) < MIN_GIVEN:
        return set()
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
