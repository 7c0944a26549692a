"""Builds requests so that credentials, declared headers and the base URL's query go only to the origins they were declared for.

The rule is docs/architecture.md, law 9. Everything that a request carries is decided here; `session` only sends it.
Imports httpx, so `session` imports this module when a client is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from clients.auth import Auth, Basic, Credentials, Secret, header_name, header_value, reveal, secrets_in
from clients.environment import resolved
from clients.errors import RejectedError
from clients.http.allowed_hosts import AllowedHosts, HostRefusedError
from clients.http.response import ENCODINGS, RawHeaders
from clients.http.target import Target, parse_target
from clients.package_version import VERSION
from clients.urls import Origin, encode_params, is_absolute, split_userinfo, with_query, without_params, without_values

Headers = dict[str, tuple[str, str]]
"""Lower-case name -> (name as it is sent, value)."""

MIN_SECRET_LENGTH = 12
"""A value of this length in a link that equals our secret is not there by chance."""

_SENT_EVERYWHERE = frozenset({"accept", "user-agent"})


class PreparedRequest(NamedTuple):
    """What is sent, but for the body."""

    #: Without anything that only our origins get, for messages.
    url: str
    target: Target
    headers: RawHeaders
    #: That are part of it; None for another origin, and without a sign-in.
    credentials: Credentials | None


class DeclaredOrigin:
    """The origins of one remote system, with what only requests to them carry.

    Args:
        auth: how to sign in.
        headers: sent with every request to these origins.
        accept: the default of `Accept`.
        base_url: absolute, without user part; relative paths join it, and its query goes with every request. It is one of the
            origins. Without it, all URLs must be absolute.
        origins: further ones.
        allowed_hosts: see `AllowedHosts`; without a base URL there is no such limit.

    Raises:
        ValueError: `base_url` is not an absolute http or https URL, a header cannot be sent, or a host is none.
    """

    def __init__(
        self,
        *,
        auth: Auth | None,
        headers: Mapping[str, str | Secret] | None = None,
        accept: str = "application/json",
        base_url: str | None = None,
        origins: Collection[Origin] = (),
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self._auth = auth = resolved(auth)
        self.headers = merged_headers({"Accept": accept, "User-Agent": f"sync-clients/{VERSION}"}, headers or {})
        self.origins = frozenset(origins)
        self.root = self._query = ""
        self._base: Target | None = None
        self._hosts: AllowedHosts | None = None
        if base_url is not None:
            try:
                self._base = parse_target(base_url)
            except ValueError as exc:
                raise ValueError(f"base_url: {exc}") from None
            self.origins |= {self._base.origin}
            self._hosts = AllowedHosts(*self._base.origin[1:], allowed_hosts)
            self.root, _, self._query = base_url.partition("?")
        slash = self.root.find("/", self.root.find("://") + 3)
        #: Where the path begins in a URL that is built on the base URL.
        self._path_at = slash if slash >= 0 else len(self.root)
        self._folder = self.root if self.root.endswith("/") else f"{self.root}/"
        #: Parts of a path up to the first one below the base URL.
        self.depth = self._folder[self._path_at :].count("/") + 1
        own = {unquote_plus(pair.partition("=")[0]) for pair in self._query.split("&") if pair}
        self._own_params = frozenset(own | (auth.param_names() if auth is not None else frozenset()))
        #: Headers of a request without any of its own, and the credentials that they were built with.
        self._default: tuple[Credentials | None, RawHeaders] | None = None

    @property
    def identity(self) -> str:
        """A digest of the credentials and declared headers: different for each sign-in, without revealing a secret."""
        known = getattr(self._auth, "identity", None) or (self._auth.credentials() if self._auth is not None else None)
        parts = (known.headers, known.params) if isinstance(known, Credentials) else known
        text = repr((parts, sorted(self.headers.values()), self._query))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def url(self, path: str, params: Mapping[str, Any] | None = None) -> str:
        """Return the absolute URL of a path, without anything that `prepare` adds."""
        query = encode_params(params) if params else ""
        if "://" in path and is_absolute(path):
            return with_query(self.without_credentials(path), query)
        path = path.partition("#")[0]
        if not path or path.startswith("?"):
            url = self.root + path
        elif path.startswith("/") and f"{path.partition('?')[0]}/".startswith(self._folder[self._path_at :]):
            # The path of the base URL is in it already: it is the server's own, such as an `href` of a body.
            url = self.root[: self._path_at] + path
        else:
            url = self._folder + path.removeprefix("/")
        return with_query(url, query) if query else url

    def prepare(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        only_for: Origin | None = None,
    ) -> PreparedRequest:
        """Return a request with the credentials, query and headers that belong to its origin.

        Args:
            path: relative to the base URL, or an absolute URL.
            headers: of this request, over the declared ones.
            only_for: the origin that `headers` are for; None for any.

        Raises:
            RejectedError: the URL cannot be requested.
            ClientError: `auth` could not sign in.
        """
        url = self.url(path, params)
        credentials: Credentials | None = None
        is_ours = True
        try:
            if self._base is not None and not ("://" in path and is_absolute(path)):
                credentials, query = self._sign_in()
                full = with_query(url, query) if query else url
                target = self._base.beside(full[self._path_at :]) or parse_target(full)
            else:
                target = parse_target(url)
                is_ours = target.origin in self.origins
                if is_ours:
                    credentials, query = self._sign_in()
                    target = parse_target(with_query(url, query)) if query else target
                else:
                    self.check_link(target)
                    target = replace(target, hosts=self._hosts)
        except HostRefusedError as exc:
            raise RejectedError(f"not sent: {exc}", method=method, url=url) from None
        except ValueError as exc:
            raise RejectedError(str(exc), method=method, url=url) from None
        if headers and only_for is not None and target.origin != only_for:
            headers = None
        if not is_ours:
            neutral = {name: pair for name, pair in self.headers.items() if name in _SENT_EVERYWHERE}
            raw = raw_headers(merged_headers(dict(neutral.values()), headers or {}))
        elif headers:
            raw = raw_headers(self._with_auth(credentials, headers))
        else:
            # The same credentials give the same headers; only a renewed sign-in builds them again.
            default = self._default
            if default is None or default[0] is not credentials:
                default = self._default = (credentials, raw_headers(self._with_auth(credentials, {})))
            raw = default[1]
        return PreparedRequest(url, target, raw, credentials)

    def check_link(self, target: Target) -> None:
        """Refuse a link to a host that is not allowed.

        Raises:
            HostRefusedError: it is not.
        """
        if self._hosts is not None and target.origin not in self.origins:
            self._hosts.check_host(target.origin[1])

    def renew(self, refused: Credentials | None, *, again: bool = False) -> bool:
        """Say whether there are newer credentials than those that were refused.

        Args:
            again: these are themselves the renewed ones.
        """
        renew = getattr(self._auth, "renew", None)
        if refused is None or renew is None:
            return False
        return bool(renew(refused, again=True) if again else renew(refused))

    def without_credentials(self, url: str) -> str:
        """Return `url` without what `prepare` adds, so that it may be stored."""
        url = without_params(split_userinfo(url)[0], self._own_params)
        if "?" not in url or self._default is None or (known := self._default[0]) is None:
            return url
        # Some APIs put the token that came in a header into the links that they return (Facebook's `paging.next`).
        return without_values(url, {secret for secret in secrets_in(known) if len(secret) >= MIN_SECRET_LENGTH})

    def _sign_in(self) -> tuple[Credentials | None, str]:
        """Return the credentials of the next request, and the query that goes with it."""
        if self._auth is None:
            return None, self._query
        credentials = self._auth.credentials()
        if not credentials.params:
            return credentials, self._query
        return credentials, "&".join(filter(None, (self._query, encode_params(dict(credentials.params)))))

    def _with_auth(self, credentials: Credentials | None, headers: Mapping[str, str | Secret]) -> Headers:
        both = merged_headers(dict(self.headers.values()), headers)
        return merged_headers(dict(both.values()), dict(credentials.headers) if credentials is not None else {})


def sign_in_of(url: str, auth: Auth | None, *, what: str) -> tuple[str, Auth | None]:
    """Return `url` without its user part, and the sign-in: `auth`, or Basic with the user and password of `url`.

    Raises:
        ValueError: both are given. `what` says which URL it is.
    """
    url, user = split_userinfo(url)
    if user is None:
        return url, auth
    if auth is not None:
        raise ValueError(f"give auth or a user in {what}, not both")
    return url, Basic(*user)


def merged_headers(headers: Mapping[str, str], over: Mapping[str, str | Secret]) -> Headers:
    """Return both, those of `over` first where a name is in both.

    Raises:
        ValueError: `over` has one that HTTP cannot carry.
    """
    merged = {name.lower(): (name, value) for name, value in headers.items()}
    for name, value in over.items():
        text = "" if reveal(value) == "" else header_value(value, what=f"header {header_name(name)}")
        merged[name.lower()] = (header_name(name), text)
    return merged


def raw_headers(headers: Headers) -> RawHeaders:
    """Return the bytes that are sent, with the encodings that we can read."""
    raw = [(name.encode("ascii"), value.encode()) for name, value in headers.values()]
    if "accept-encoding" not in headers:
        raw.append((b"Accept-Encoding", ENCODINGS.encode()))
    return raw
