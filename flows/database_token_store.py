"""Keeps OAuth tokens in the database of the project, encrypted, so that all workers share them."""

import base64
import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clients.auth import Secret, reveal
from clients.environment import Env
from clients.errors import AuthRefusedError, ClientError, ConnectFailedError, RateLimitedError, RejectedError, ServerError
from clients.http.status import GATEWAYS
from clients.token_store import LEASE_TIMEOUT, Token, TokenLostError, digest_of
from flows.time_text import moment_text

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

    from jobs.oauth_tokens import Tokens
    from jobs.store import JobStore

log = logging.getLogger("syncs.tokens")

LEASE = 60.0
"""Seconds after which others take over from a machine that went silent; while it lives, its lease is renewed."""

_WAITS = (0.1, 0.3, 1.0, 3.0, 5.0, 5.0, 5.0, 5.0)
"""Seconds between the tries of keeping a token that exists nowhere else, while the database is away."""


def stored_tokens(name: str, secret: str | Secret, *, repeat: bool = False) -> "DatabaseTokenStore":
    """Return a store for the tokens of one sign-in: in the project's database, for all workers on all machines.

    No two of them spend one refresh token, and none is spent twice: also when a worker dies in the middle of it. Then nobody
    knows whether it was spent, and the sign-in is refused until a person gives it a new refresh token; unless refresh tokens
    were seen to stay the same, or `repeat` says that a second use does no harm.

    Args:
        name: of the sign-in; the client's id will do.
        secret: the client secret, from which the key is derived that seals the tokens: the database alone gives nothing away.
            With another one, what is stored cannot be read and counts as nothing.
        repeat: the token endpoint forgives a second use, so spend a refresh token again when its answer was lost.

    Raises:
        ValueError: there is no name, or no secret.
    """
    if not name:
        raise ValueError("stored_tokens needs a name, such as the client's id")
    if not isinstance(secret, Env) and not reveal(secret):
        raise ValueError(f"stored_tokens({name!r}) needs a secret to seal the tokens with")
    return DatabaseTokenStore(name, secret, repeat=repeat)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is sealed: the token, and what is known about spending its refresh token."""

    token: Token | None = None
    #: Stands for a refresh token that was sent and whose answer is not there.
    sent: str | None = None
    sent_at: float = 0.0
    #: Whether the last renewal brought the very refresh token that was spent for it.
    steady: bool = False


class DatabaseTokenStore:
    """A `TokenStore` of `clients` over the project's database; `stored_tokens` makes one. It opens nothing until it is used."""

    def __init__(self, name: str, secret: str | Secret, *, repeat: bool) -> None:
        self._name = name
        self._secret = secret
        self._repeat = repeat
        self._fernet: Fernet | None = None
        self._tokens: tuple[JobStore, Tokens] | None = None
        self._unread = 0

    def __repr__(self) -> str:
        return f"stored_tokens({self._name!r})"

    def load(self) -> Token | None:
        """Return the newest token; `None` where there is none, or none that the present secret can read."""
        return self._kept()[0].token

    def swap(self, old: Token | None, new: Token) -> bool:
        """Put `new` in the place of `old`, durably, and tell whether it was done."""
        kept, version = self._kept()
        if kept.token != old:
            return False
        spent = {kept.sent, None if old is None else _sign(old.refresh_token)} - {None}
        return self._put(_Kept(new, steady=_sign(new.refresh_token) in spent), version)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the only renewal, over all workers.

        Raises:
            TimeoutError: somebody else holds it for too long.
        """
        from jobs import LockHeld, LockLost

        self.ready()
        with ExitStack() as stack:
            try:
                stack.enter_context(self._store().locks.hold(f"token/{self._name}", lease=LEASE, wait=LEASE_TIMEOUT))
            except LockHeld as error:
                raise TimeoutError(str(error)) from None
            yield
            try:
                stack.close()
            except LockLost:
                # What was written was compared first, so that nothing of the one who took over is lost.
                log.warning("token %r: its renewal took longer than its lease", self._name)

    def ready(self) -> None:
        """Make sure that this thread may wait for a renewal and write.

        Raises:
            TimeoutError: it holds SQLite's one writer itself, so that it, or who renews just now, would wait for ever.
        """

        from jobs.db.job_session import current_session

        if current_session(self._store().db) is not None:
            raise TimeoutError("this job has written through its session, so that nobody else can; ask first, write last")

    @contextmanager
    def spending(self, refresh_token: str) -> Iterator[None]:
        """Note durably that a refresh token is about to be sent, for as long as nobody knows what became of it.

        Raises:
            AuthRefusedError: it was sent before, and the answer was lost.
        """
        kept, version = self._kept()
        if self._repeat or kept.steady:
            yield
            return
        sign = _sign(refresh_token)
        if kept.sent == sign:
            raise AuthRefusedError(self._lost(kept.sent_at))
        if not self._put(replace(kept, sent=sign, sent_at=time.time()), version):
            raise TimeoutError(f"another worker has the token {self._name!r} in hand")
        try:
            yield
        except ClientError as error:
            if _was_not_spent(error):
                self._put(kept, version + 1)
            raise

    def _lost(self, at: float) -> str:
        when = moment_text(datetime.fromtimestamp(at, UTC), seconds=True)
        return (
            f"token {self._name!r}: its refresh token was sent at {when} and the answer was lost, "
            "so it may be spent; sign in anew and set the new one, or give stored_tokens repeat=True if a second use does no harm"
        )

    # -- the database ----------------------------------------------------------------------------------------------------------

    def _store(self) -> "JobStore":
        from flows.enqueue import own_store

        return own_store()

    def _table(self) -> "Tokens":
        from jobs.oauth_tokens import Tokens

        store = self._store()
        if self._tokens is None or self._tokens[0] is not store:
            self._tokens = (store, Tokens(store.db))
        return self._tokens[1]

    def _kept(self) -> tuple[_Kept, int]:
        """Return what is kept, and its version; nothing where it cannot be read."""
        from cryptography.fernet import InvalidToken

        sealed = self._table().get(self._name)
        if sealed is None:
            return _Kept(), 0
        try:
            found = json.loads(self._cipher().decrypt(sealed.text.encode()))
        except InvalidToken:
            if self._unread != sealed.version:
                self._unread = sealed.version
                log.warning(
                    "token %r: what is stored was sealed with another client secret, so it counts as none; the sign-in begins "
                    "anew from its settings",
                    self._name,
                )
            return _Kept(), sealed.version
        return _Kept(Token.from_json(found["token"]), found["sent"], found["sent_at"], found["steady"]), sealed.version

    def _put(self, kept: _Kept, version: int) -> bool:
        from sqlalchemy.exc import SQLAlchemyError

        from flows.database_outage import is_outage
        from jobs import JobsError

        parts: dict[str, Any] = {
            "token": None if kept.token is None else kept.token.to_json(),
            "sent": kept.sent,
            "sent_at": kept.sent_at,
            "steady": kept.steady,
        }
        text = self._cipher().encrypt(json.dumps(parts).encode()).decode()
        for wait in _WAITS:
            try:
                return self._table().put(self._name, text, version=version) or self._has(text)
            except (SQLAlchemyError, JobsError) as error:
                if not is_outage(error):
                    raise
                log.warning("token %r: the database did not answer: %s", self._name, type(error).__name__)
            time.sleep(wait)
        return self._table().put(self._name, text, version=version) or self._has(text)

    def _has(self, text: str) -> bool:
        """Tell whether an earlier try was committed whose answer got lost; no two sealed texts are alike."""
        sealed = self._table().get(self._name)
        return sealed is not None and sealed.text == text

    def _cipher(self) -> "Fernet":
        if self._fernet is None:
            from cryptography.fernet import Fernet
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF

            # The name is part of the key, so that a row is of no use under another name.
            derive = HKDF(SHA256(), length=32, salt=b"sync-clients/token", info=self._name.encode("utf-8", "surrogatepass"))
            self._fernet = Fernet(base64.urlsafe_b64encode(derive.derive(reveal(self._secret).encode("utf-8", "surrogatepass"))))
        return self._fernet


def _sign(refresh_token: str | None) -> str | None:
    return None if refresh_token is None else digest_of(refresh_token)


def _was_not_spent(error: ClientError) -> bool:
    """Tell whether a token endpoint surely gave no token: it was not reached, or it said so."""
    if isinstance(error, ServerError):
        # A gateway speaks for itself only.
        return error.status not in GATEWAYS
    if isinstance(error, TokenLostError):
        return False
    return isinstance(error, ConnectFailedError | AuthRefusedError | RejectedError | RateLimitedError)
