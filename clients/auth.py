"""Credentials as declared, and what each kind adds to a request. `http.origin` decides which requests get it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from dataclasses import dataclass, field
from typing import Protocol

from clients.environment import resolved, variables

MASK = "**********"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Secret(Protocol):
    """A secret that hides its value, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str:
        """Return the value."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What is added to one request, and only to requests of the declared origin."""

    headers: tuple[tuple[str, str], ...] = ()
    params: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Credentials({MASK})"


class Auth(Protocol):
    """A way to sign in. `credentials` is called before every request, so that it may return a renewed token.

    It may also have `renew(refused, again=False)`, called after a 401: it returns whether there are newer credentials now.
    `again` says that those which were refused are themselves the renewed ones.
    """

    def credentials(self) -> Credentials:
        """Return what to add to the next request."""
        ...

    def param_names(self) -> frozenset[str]:
        """Return the names of the query parameters that hold credentials, so that they can be taken out of links."""
        ...


class _Static:
    """Credentials that are known when they are declared, or when the variables are read that they are declared with."""

    __slots__ = ()
    _credentials: Credentials

    def credentials(self) -> Credentials:
        """Return what to add to the next request."""
        try:
            return self._credentials
        except AttributeError:
            # Declared with `env(…)`, and used without an adapter, which resolves it once.
            return resolved(self)._credentials

    def param_names(self) -> frozenset[str]:
        """Return the names of the query parameters that hold credentials."""
        return frozenset(name for name, _ in self.credentials().params)

    @property
    def _waits(self) -> bool:
        """Whether there is an `env(…)` among the arguments."""
        return next(variables(self), None) is not None

    def _keep(self, *, headers: tuple[tuple[str, str], ...] = (), params: tuple[tuple[str, str], ...] = ()) -> None:
        object.__setattr__(self, "_credentials", Credentials(headers, params))


@dataclass(frozen=True, slots=True, repr=False)
class Bearer(_Static):
    """`Authorization: Bearer <token>` (RFC 6750, section 2.1).

    Raises:
        ValueError: the token is empty or has a character that a header cannot carry.
    """

    token: str | Secret
    _credentials: Credentials = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self._waits:
            self._keep(headers=(("Authorization", f"Bearer {header_value(self.token, what='token')}"),))

    def __repr__(self) -> str:
        return f"Bearer({MASK})"


@dataclass(frozen=True, slots=True, repr=False)
class Basic(_Static):
    """`Authorization: Basic …`, as UTF-8 (RFC 7617).

    Raises:
        ValueError: the user has a colon or either has a control character.
    """

    user: str | Secret
    password: str | Secret
    _credentials: Credentials = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self._waits:
            return
        user, password = reveal(self.user), reveal(self.password)
        if ":" in user or any(ord(c) < 32 or ord(c) == 127 for c in user + password):
            raise ValueError("Basic: the user has a colon, or user or password has a control character (RFC 7617, section 2)")
        pair = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        self._keep(headers=(("Authorization", f"Basic {pair}"),))

    def __repr__(self) -> str:
        return f"Basic({MASK}, {MASK})"


@dataclass(frozen=True, slots=True, repr=False)
class ApiKey(_Static):
    """A key in a header, or in a query parameter. Without either name it is the header `X-API-Key`.

    Raises:
        ValueError: both `header` and `query` are given, or the key cannot be sent there.
    """

    value: str | Secret
    header: str | None = field(default=None, kw_only=True)
    query: str | None = field(default=None, kw_only=True)
    _credentials: Credentials = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self.header is not None and self.query is not None:
            raise ValueError("ApiKey: give header or query, not both")
        if self._waits:
            return
        if self.query is not None:
            if not self.query or not reveal(self.value):
                raise ValueError("ApiKey: the name of the parameter or the key is empty")
            self._keep(params=((self.query, reveal(self.value)),))
            return
        name = "X-API-Key" if self.header is None else self.header
        self._keep(headers=((header_name(name), header_value(self.value, what="key")),))

    def __repr__(self) -> str:
        where = f", query={self.query!r}" if self.query is not None else f", header={self.header or 'X-API-Key'!r}"
        return f"ApiKey({MASK}{where})"


def secrets_in(credentials: Credentials) -> set[str]:
    """Return the parts of credentials that a remote system may repeat: values, tokens in them, the password of Basic."""
    found = {value for _, value in (*credentials.headers, *credentials.params)}
    found |= {word for value in found for word in value.split()[1:]}
    for word in list(found):
        with contextlib.suppress(binascii.Error, UnicodeDecodeError, ValueError):
            found.add(base64.b64decode(word, validate=True).decode().partition(":")[2])
    # Masking a shorter one would blank half of every message.
    return {one for one in found if len(one) > 3}


def reveal(secret: str | Secret) -> str:
    """Return the plain text of a secret."""
    return secret if isinstance(secret, str) else secret.get_secret_value()


def header_value(value: str | Secret, *, what: str) -> str:
    """Return the plain text if a header can carry it (RFC 9110, section 5.5), else raise ValueError without it."""
    text = reveal(value)
    if not text or text != text.strip():
        raise ValueError(f"the {what} is empty or has white space around it")
    if any((ord(c) < 32 and c != "\t") or ord(c) == 127 for c in text):
        raise ValueError(f"the {what} has a line break or another control character")
    return text


def header_name(name: str) -> str:
    """Return `name` if it is a header name (RFC 9110, section 5.1), else raise ValueError."""
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"not a header name: {name!r}")
    return name
