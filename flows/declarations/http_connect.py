"""`HttpConnect`: the `connect` of a client that is declared by its URL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients import HttpClient
from clients.auth import Auth, Secret, header_name
from clients.environment import Env, EnvValues, resolved
from clients.urls import origin_of, split_userinfo
from flows.declarations.validation import is_duration

TIMEOUT = 30.0
"""Seconds for each phase of a request, by default."""


@dataclass(frozen=True)
class HttpConnect:
    """Connects to an HTTP API with what its client declares.

    Args:
        url, auth, headers, timeout: as for `Client`.
    """

    url: str | Env
    auth: Auth | None = None
    headers: Mapping[str, str | Secret] | None = None
    timeout: float | None = None

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading a variable.

        Raises:
            TypeError, ValueError: the text says which field, and contains no value that may be secret.
        """
        if not isinstance(self.url, str | Env):
            raise TypeError(f"url must be text, or env(…), got {type(self.url).__name__}")
        if isinstance(self.url, str):
            self._check_url(self.url)
        if self.auth is not None and not (callable(getattr(self.auth, "credentials", None)) or hasattr(self.auth, "auth_flow")):
            raise TypeError(f'auth must be a sign-in such as Bearer(env("TOKEN")), got {type(self.auth).__name__}')
        if self.headers is not None and not isinstance(self.headers, Mapping):
            raise TypeError(f"headers must be a mapping, got {type(self.headers).__name__}")
        for name in self.headers or ():
            header_name(name)
        if self.timeout is not None and not is_duration(self.timeout):
            raise ValueError(f"timeout must be a number of seconds above 0, got {self.timeout!r}")

    def check_values(self, values: EnvValues) -> None:
        """Refuse values of variables that no request can be made with.

        Raises:
            ValueError: the text contains none of them.
        """
        if isinstance(self.url, Env):
            try:
                self._check_url(values.of(self.url))
            except ValueError as error:
                raise ValueError(f"{self.url.name} is wrong: {error}") from None
        resolved(self.auth, values.of)

    def __call__(self, settings: Any) -> HttpClient:
        """Return the connection.

        Args:
            settings: the values of the variables; those that it lacks, and all if it is something else, are read now.

        Raises:
            LocalError: a variable is not set.
            ValueError: a value cannot be sent.
        """
        values = settings if isinstance(settings, EnvValues) else EnvValues({})
        url, auth, headers = resolved((self.url, self.auth, self.headers), values.of)
        return HttpClient(url, auth=auth, headers=headers, timeout=TIMEOUT if self.timeout is None else self.timeout)

    def _check_url(self, url: str) -> None:
        try:
            origin_of(split_userinfo(url)[0])
        except ValueError as error:
            raise ValueError(f"the url is {error}" if isinstance(self.url, str) else str(error)) from None
