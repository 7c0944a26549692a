"""OAuth 2 without a person: client credentials, and refresh tokens that rotate (RFC 6749, sections 4.4 and 6).

`token_store` keeps the tokens. The token endpoint may be of another origin than the API: the client's credentials go only there,
and no redirect is followed with them.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from clients.auth import MASK, Basic, Credentials, Secret, header_value, reveal
from clients.environment import Declared, Env
from clients.errors import AuthRefusedError, ConnectFailedError
from clients.token_store import MemoryTokens, Token, TokenLostError, TokenStore, digest_of

if TYPE_CHECKING:
    import ssl

_LEEWAY = 30.0
"""Seconds before its end at which a token is renewed."""
_MAX_BYTES = 1 << 20
_RETRY_RENEWAL = 10.0
"""Seconds until a token that was refused as soon as it came is replaced: another one would not be better."""
_CODES = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}
)


class _Renewing(Declared):
    """A sign-in by tokens that are fetched when they are needed, and renewed when they end or are refused."""

    def __init__(
        self,
        token_url: str | Env,
        client_id: str | Env,
        client_secret: str | Secret,
        grant: dict[str, str],
        *,
        scope: str | Env | None,
        store: TokenStore | None,
        timeout: float,
        verify: bool | str | ssl.SSLContext,
    ) -> None:
        # With an env() among them, this object signs nobody in: `resolved` makes another one when the client connects.
        self._url, self._client = _shown(token_url), _shown(client_id)
        self._scope = _shown(scope) if scope else None
        self._secret = client_secret
        self._grant = {**grant, **({"scope": self._scope} if self._scope else {})}
        self._store: TokenStore = MemoryTokens() if store is None else store
        self._timeout = timeout
        self._verify = verify
        self._lock = threading.Lock()
        self._current: tuple[Token, Credentials] | None = None
        self._refused_at_once: tuple[Credentials, float] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({MASK})"

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Identifies who is signed in, independent of the current token."""
        return ("oauth2", self._url, self._client, self._scope)

    def credentials(self) -> Credentials:
        """Return what to add to the next request; fetches a token if there is none that is still good.

        Raises:
            AuthRefusedError: the token endpoint refuses us.
            ClientError: it did not answer.
        """
        current = self._current
        if current is None or not current[0].is_good(now=time.time()):
            current = self._renewed(None if current is None else current[1])
        return current[1]

    def param_names(self) -> frozenset[str]:
        """Return nothing: tokens travel in a header."""
        return frozenset()

    def renew(self, refused: Credentials, *, again: bool = False) -> bool:
        """Renew a token that an API refused; return whether there is another one now.

        When eight threads are refused with one token, one of them renews it, and seven find it renewed.

        Args:
            again: these credentials are themselves the renewed ones.

        Raises:
            AuthRefusedError: the token endpoint refuses us.
            ClientError: it did not answer.
        """
        if again:
            self._refused_at_once = (refused, time.monotonic())
            return False
        last, at = self._refused_at_once or (None, 0.0)
        if last is refused and time.monotonic() - at < _RETRY_RENEWAL:
            return False
        return self._renewed(refused)[1] is not refused

    def _renewed(self, refused: Credentials | None) -> tuple[Token, Credentials]:
        """Return a token that is not the one refused: from another thread, from the store, or a new one."""
        try:
            # Before the lock: the thread that holds the lock may need the database that this thread holds.
            getattr(self._store, "ready", _nothing)()
            with self._lock:
                current = self._current
                if current is not None and current[1] is not refused and current[0].is_good(now=time.time()):
                    return current
                refused_token = None if current is None or current[1] is not refused else current[0]
                with self._store.lease():
                    token = self._fetched(refused_token)
                self._current = (token, _bearer(token))
                return self._current
        except TimeoutError as error:
            raise ConnectFailedError(f"no token: {error}", method="POST", url=self._url) from error

    def _fetched(self, refused_token: Token | None) -> Token:
        """Return the store's token if it was renewed meanwhile, else a new one. Called within the lease."""
        stored = self._store.load()
        ours = stored if stored is not None and stored.origin == self._origin() else None
        refused_text = None if refused_token is None else refused_token.access_token
        if ours is not None and ours.is_good(now=time.time()) and ours.access_token != refused_text:
            return ours
        with self._spending(ours):
            new = self._ask(ours)
        if self._store.swap(stored, new):
            return new
        # The lease ended meanwhile, and another process was quicker: its token counts.
        return self._store.load() or new

    def _spending(self, known: Token | None) -> AbstractContextManager[None]:
        """Return the store's context for sending a refresh token, if it has one."""
        refresh, spending = self._form(known).get("refresh_token"), getattr(self._store, "spending", None)
        found: AbstractContextManager[None] = nullcontext() if refresh is None or spending is None else spending(refresh)
        return found

    def _origin(self) -> str:
        """Return the digest of the declared sign-in: another one in the settings makes stored tokens worthless."""
        return digest_of(self._url, self._client, *self._grant.values())

    def _form(self, known: Token | None) -> dict[str, str]:
        return dict(self._grant)

    def _ask(self, known: Token | None) -> Token:
        form = self._form(known)
        asked = time.time()
        status, body = self._post(form, in_body=True)
        code = _code(body)
        if status >= 400 and code in ("", "invalid_client", "invalid_request"):
            # Some endpoints accept the client's credentials in the form, some in a header, as the standard requires.
            status, body = self._post(form, in_body=False)
            code = _code(body) or code
        if status >= 400:
            # A 404 here must not become `GoneError`, which would mean that the entity is gone.
            text = f"the token endpoint refuses us: {status} {code}".rstrip()
            raise AuthRefusedError(text, method="POST", url=self._url)
        token = body.get("access_token") if isinstance(body, dict) else None
        token = token.strip() if isinstance(token, str) else ""
        if not token or not token.isprintable():
            if isinstance(body, dict) and body.get("error"):
                # GitHub refuses with status 200.
                raise AuthRefusedError(f"the token endpoint refuses us: {status} {code}".rstrip(), method="POST", url=self._url)
            # An answer that is cut off, a page in HTML, or another API's: the refresh token may be spent nevertheless.
            text = "the token endpoint's answer has no access_token, or none that a header can carry"
            raise TokenLostError(text, method="POST", url=self._url)
        life = _seconds(body.get("expires_in"))
        refresh = body.get("refresh_token")
        return Token(
            token,
            None if life is None else asked + life - min(_LEEWAY, life / 10),
            refresh if isinstance(refresh, str) and refresh else form.get("refresh_token"),
            self._origin(),
        )

    def _post(self, form: dict[str, str], *, in_body: bool) -> tuple[int, Any]:
        from clients.http.client import HttpClient

        secret = reveal(self._secret)
        auth = None if in_body else Basic(_quoted(self._client), _quoted(secret))
        with HttpClient(self._url, auth=auth, timeout=self._timeout, verify=self._verify, max_bytes=_MAX_BYTES) as http:
            return http.post_form("", form | {"client_id": self._client, "client_secret": secret} if in_body else form)


class OAuth2ClientCredentials(_Renewing):
    """Signs in with tokens for the client itself.

    The first token is fetched with the first request, the next one shortly before the first ends, or after a 401.

    Args:
        token_url: of the token endpoint, which may be of another origin than the API.
        client_id, client_secret: sent in the form; where that is refused, by Basic auth.
        scope: scopes, separated by spaces.
        store: keeps the token for other processes.
        timeout, verify: as for `HttpClient`.
    """

    def __init__(
        self,
        token_url: str | Env,
        client_id: str | Env,
        client_secret: str | Secret,
        *,
        scope: str | Env | None = None,
        store: TokenStore | None = None,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
    ) -> None:
        grant = {"grant_type": "client_credentials"}
        super().__init__(token_url, client_id, client_secret, grant, scope=scope, store=store, timeout=timeout, verify=verify)


class OAuth2RefreshToken(_Renewing):
    """Signs in with tokens that are fetched with a refresh token, which may change with each use.

    Args:
        token_url, client_id, client_secret, scope, timeout, verify: as for `OAuth2ClientCredentials`.
        refresh_token: the first one. Another one here makes stored tokens worthless.
        store: keeps the newest token. Where refresh tokens rotate, all workers must share it, and it must be durable.
    """

    def __init__(
        self,
        token_url: str | Env,
        client_id: str | Env,
        client_secret: str | Secret,
        refresh_token: str | Secret,
        *,
        store: TokenStore | None = None,
        scope: str | Env | None = None,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
    ) -> None:
        self._first = refresh_token
        grant = {"grant_type": "refresh_token"}
        super().__init__(token_url, client_id, client_secret, grant, scope=scope, store=store, timeout=timeout, verify=verify)

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Identifies who is signed in, independent of the current token."""
        # One app signs in for many people; their first refresh token tells them apart.
        return (*super().identity, self._origin())

    def _origin(self) -> str:
        return digest_of(self._url, self._client, *self._grant.values(), reveal(self._first))

    def _form(self, known: Token | None) -> dict[str, str]:
        refresh = known.refresh_token if known is not None and known.refresh_token else reveal(self._first)
        return {**self._grant, "refresh_token": refresh}


def _shown(value: str | Env) -> str:
    return repr(value) if isinstance(value, Env) else value


def _nothing() -> None:
    return None


def _bearer(token: Token) -> Credentials:
    return Credentials((("Authorization", f"Bearer {header_value(token.access_token, what='token')}"),))


def _code(body: Any) -> str:
    """Return the error code of RFC 6749, section 5.2; another text may be anything."""
    code = body.get("error") if isinstance(body, dict) else None
    return code if isinstance(code, str) and code in _CODES else ""


def _quoted(text: str) -> str:
    # RFC 6749, section 2.3.1: both are form-encoded before they become Basic auth.
    from urllib.parse import quote_plus

    return quote_plus(text)


def _seconds(value: Any) -> float | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    # Those who send a life of zero mean that the token does not expire.
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None
