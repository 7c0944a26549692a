"""OAuth 2 without a person: client credentials, and refresh tokens that rotate (RFC 6749, sections 4.4 and 6).

Knows what a token endpoint says; who keeps tokens is `tokens`' business. The token endpoint may be of another origin than the
API: the client's credentials go there and nowhere else, and no redirect is followed with them.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from clients.auth import MASK, Basic, Credentials, Secret, header_value, reveal
from clients.errors import AuthRefusedError, ConnectFailedError
from clients.tokens import MemoryTokens, Token, TokenLostError, TokenStore, digest_of

if TYPE_CHECKING:
    import ssl

_LEEWAY = 30.0
_MOST = 1 << 20
_SETTLE = 10.0
"""For so long a token that was refused as soon as it came is not replaced: another one would not be better."""
_CODES = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}
)


class _Renewing:
    """Strictly private: a sign-in by tokens that are fetched when they are needed, and renewed when they are refused."""

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | Secret,
        grant: dict[str, str],
        *,
        scope: str | None,
        store: TokenStore | None,
        timeout: float,
        verify: bool | str | ssl.SSLContext,
    ) -> None:
        self._url = token_url
        self._client = client_id
        self._secret = client_secret
        self._grant = {**grant, **({"scope": scope} if scope else {})}
        self._store: TokenStore = MemoryTokens() if store is None else store
        self._timeout = timeout
        self._verify = verify
        self._lock = threading.Lock()
        self._current: tuple[Token, Credentials] | None = None
        self._useless: tuple[Credentials, float] | None = None
        #: What stands for who is signed in, whatever the token of the hour.
        self.identity: tuple[str | None, ...] = ("oauth2", token_url, client_id, scope)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({MASK})"

    def credentials(self) -> Credentials:
        """Return what to add to the next request; fetches a token if there is none that is still good.

        Raises:
            AuthRefusedError: the token endpoint refuses us.
            ClientError: it could not be asked.
        """
        current = self._current
        if current is None or not current[0].is_good(now=time.time()):
            current = self._renewed(None if current is None else current[1])
        return current[1]

    def param_names(self) -> frozenset[str]:
        """Return nothing: tokens travel in a header."""
        return frozenset()

    def renew(self, refused: Credentials, *, again: bool = False) -> bool:
        """Take in that an API answered 401; tell whether there is another token now.

        Eight threads that were refused with one token make one renewal: seven find that it is done.

        Args:
            again: these credentials are themselves the renewed ones.

        Raises:
            AuthRefusedError: the token endpoint refuses us.
            ClientError: it could not be asked.
        """
        if again:
            self._useless = (refused, time.monotonic())
            return False
        useless = self._useless
        if useless is not None and useless[0] is refused and time.monotonic() - useless[1] < _SETTLE:
            return False
        return self._renewed(refused)[1] is not refused

    def _renewed(self, refused: Credentials | None) -> tuple[Token, Credentials]:
        """Return a token that is not the one refused: from another thread, from the store, or a new one."""
        try:
            # Before the lock: who holds it may need the database that this thread holds.
            getattr(self._store, "ready", _nothing)()
            with self._lock:
                current = self._current
                if current is not None and current[1] is not refused and current[0].is_good(now=time.time()):
                    return current
                worn = None if current is None or current[1] is not refused else current[0]
                with self._store.lease():
                    token = self._fetched(worn)
                self._current = (token, _bearer(token))
                return self._current
        except TimeoutError as error:
            raise ConnectFailedError(f"no token: {error}", method="POST", url=self._url) from error

    def _fetched(self, worn: Token | None) -> Token:
        """Within the lease: take the store's token if somebody renewed it meanwhile, else spend what there is."""
        stored = self._store.load()
        ours = stored if stored is not None and stored.origin == self._origin() else None
        if ours is not None and ours.is_good(now=time.time()) and (worn is None or ours.access_token != worn.access_token):
            return ours
        with self._spending(ours):
            new = self._ask(ours)
        if self._store.swap(stored, new):
            return new
        # The lease ran out under us, and another one was quicker: what is stored counts.
        return self._store.load() or new

    def _spending(self, known: Token | None) -> AbstractContextManager[None]:
        """Tell a store that wants to know it that a refresh token is on its way."""
        refresh, spending = self._form(known).get("refresh_token"), getattr(self._store, "spending", None)
        found: AbstractContextManager[None] = nullcontext() if refresh is None or spending is None else spending(refresh)
        return found

    def _origin(self) -> str:
        """Return what a stored token has to descend from: a new sign-in in the settings makes older ones worthless."""
        return digest_of(self._url, self._client, *self._grant.values())

    def _form(self, known: Token | None) -> dict[str, str]:
        return dict(self._grant)

    def _ask(self, known: Token | None) -> Token:
        form = self._form(known)
        asked = time.time()
        status, body = self._post(form, in_body=True)
        code = _code(body)
        if status >= 400 and code in ("", "invalid_client", "invalid_request"):
            # Some endpoints take the client's credentials in the form, some in a header, which is what the standard asks for.
            status, body = self._post(form, in_body=False)
            code = _code(body) or code
        if status >= 400:
            # Not 404 as 404: that would say that the entity is gone.
            text = f"the token endpoint refuses us: {status} {code}".rstrip()
            raise AuthRefusedError(text, method="POST", url=self._url)
        token = body.get("access_token") if isinstance(body, dict) else None
        token = token.strip() if isinstance(token, str) else ""
        if not token or not token.isprintable():
            if isinstance(body, dict) and body.get("error"):
                # GitHub refuses with status 200.
                raise AuthRefusedError(f"the token endpoint refuses us: {status} {code}".rstrip(), method="POST", url=self._url)
            # Cut off, a page for people, or another API's: the refresh token may be spent all the same.
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
        from clients.http import HttpClient

        secret = reveal(self._secret)
        auth = None if in_body else Basic(_quoted(self._client), _quoted(secret))
        with HttpClient(self._url, auth=auth, timeout=self._timeout, verify=self._verify, max_bytes=_MOST) as http:
            return http.post_form("", form | {"client_id": self._client, "client_secret": secret} if in_body else form)


class OAuth2ClientCredentials(_Renewing):
    """Signs in with tokens that this client gets for itself.

    The first token is fetched with the first request, the next one shortly before it ends, or when an API refuses it with 401.

    Args:
        token_url: of the token endpoint, which may be of another origin than the API.
        client_id, client_secret: sent in the form; where that is refused, by Basic auth.
        scope: what to ask for, separated by spaces.
        store: keeps the token, so that other processes need not fetch their own.
        timeout, verify: as for `HttpClient`.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | Secret,
        *,
        scope: str | None = None,
        store: TokenStore | None = None,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
    ) -> None:
        grant = {"grant_type": "client_credentials"}
        super().__init__(token_url, client_id, client_secret, grant, scope=scope, store=store, timeout=timeout, verify=verify)


class OAuth2RefreshToken(_Renewing):
    """Signs in with tokens got for a refresh token, which may change with each use.

    Args:
        token_url, client_id, client_secret, scope, timeout, verify: as for `OAuth2ClientCredentials`.
        refresh_token: the first one, from whoever gave their consent. Another one here makes stored tokens worthless.
        store: keeps the newest token. Where refresh tokens rotate, it has to be one that all workers share, and that lasts.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | Secret,
        refresh_token: str | Secret,
        *,
        store: TokenStore | None = None,
        scope: str | None = None,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
    ) -> None:
        self._first = refresh_token
        grant = {"grant_type": "refresh_token"}
        super().__init__(token_url, client_id, client_secret, grant, scope=scope, store=store, timeout=timeout, verify=verify)
        # One app signs in for many people: what stands for them is their first refresh token.
        self.identity = (*self.identity, self._origin())

    def _origin(self) -> str:
        return digest_of(self._url, self._client, *self._grant.values(), reveal(self._first))

    def _form(self, known: Token | None) -> dict[str, str]:
        refresh = known.refresh_token if known is not None and known.refresh_token else reveal(self._first)
        return {**self._grant, "refresh_token": refresh}


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
    # A life of zero is no life: whoever sends it means that the token does not end by itself.
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None
