"""GraphQL over HTTP: its answers have errors with a good status, also beside data that is only partly there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clients.errors import AuthRefusedError, ClientError, RateLimitedError, UnreadableError

_MEMBERS = frozenset({"data", "errors", "extensions"})
_RATE_LIMIT = frozenset({"RATE_LIMITED", "RATELIMITED", "RATE_LIMIT_EXCEEDED", "THROTTLED", "TOO_MANY_REQUESTS"})
_AUTH = frozenset({"UNAUTHENTICATED", "UNAUTHORIZED"})


def is_query(sent: Any) -> bool:
    """Say whether the JSON body of a request is a GraphQL operation, or several."""
    if isinstance(sent, list):
        return bool(sent) and all(map(is_query, sent))
    return isinstance(sent, dict) and isinstance(sent.get("query"), str)


def error_of_answer(sent: Any, body: Any, *, method: str, url: str, status: int) -> ClientError | None:
    """Return the error of an answer of GraphQL that has some, or None.

    Args:
        sent: the JSON body of the request; None without one, or with a persisted query in the URL. Then only an answer that has
            no other members than GraphQL's is one.
        body: the decoded answer.
    """
    errors = list(_errors(body, by_shape=not is_query(sent)))
    if not errors:
        return None
    codes = {code.upper() for error in errors for code in _codes(error)}
    message = f"the answer of GraphQL has errors ({len(errors)}), so that something is missing"
    kind: type[ClientError] = UnreadableError
    if codes & _RATE_LIMIT:
        kind = RateLimitedError
    elif codes & _AUTH:
        kind = AuthRefusedError
    return kind(message, method=method, url=url, status=status if kind is UnreadableError else None)


def _errors(body: Any, *, by_shape: bool) -> Iterator[Any]:
    for answer in body if isinstance(body, list) and not by_shape else [body]:
        errors = answer.get("errors") if isinstance(answer, dict) else None
        if not isinstance(errors, list):
            continue
        if not by_shape or (answer.keys() <= _MEMBERS and all(isinstance(one, dict) and "message" in one for one in errors)):
            yield from errors


def _codes(error: Any) -> Iterator[str]:
    """Yield what an error calls itself: `extensions.code` (Apollo, Shopify), or `type` (GitHub)."""
    if isinstance(error, dict):
        extensions = error.get("extensions")
        for code in (error.get("type"), extensions.get("code") if isinstance(extensions, dict) else None):
            if isinstance(code, str):
                yield code
