"""Asks an API for `syncs new`: the only place that sends requests, at most six, with the limits and checks of `HttpClient`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from clients import AuthRefusedError, ClientError, GoneError, HttpClient, Listing, PageAnswer, RejectedError
from clients.auth import Auth
from clients.check_recorder import Inspector, RequestLimitError
from clients.page import PageRequest
from clients.quoted_path import quoted_path
from flows.errors import UsageError

MAX_REQUESTS = 6
"""Requests of one draft, redirects included."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request without an answer that can be used.

    Args:
        why: in one line.
        status: of HTTP, where there was one.
    """

    why: str
    status: int | None = None

    @property
    def is_strict(self) -> bool:
        """Whether the API may refuse parameters that it does not know."""
        return self.status in (400, 422)


class Conversation:
    """A few requests to one API.

    Args:
        url: of the client.
        path: of the listing.
        auth: with the values of its variables.
        most: requests.

    Raises:
        ValueError: the URL or the sign-in cannot be used.
    """

    def __init__(self, url: str, path: str, *, auth: Auth | None = None, most: int = MAX_REQUESTS) -> None:
        self._http = HttpClient(url, auth=auth)
        self._path = path
        self._most = most
        self._inspector = Inspector(max_requests=most)
        #: It said to slow down, or broke off: nothing more is asked.
        self._ended = False

    def __enter__(self) -> Self:
        self._inspector.__enter__()
        self._http.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.__exit__(kind, error, trace)
        self._inspector.__exit__(kind, error, trace)

    @property
    def requests(self) -> int:
        """Requests so far."""
        return self._inspector.requests

    @property
    def left(self) -> int:
        """Requests that may still be sent."""
        return 0 if self._ended else self._most - self._inspector.requests

    @property
    def inspector(self) -> Inspector:
        """What the answers have shown besides their content."""
        return self._inspector

    def first(self, params: Mapping[str, Any]) -> PageAnswer:
        """Ask for the listing as it is.

        Raises:
            UsageError: there is no answer to draft from.
        """
        try:
            return self._http.answer("GET", self._path, params=dict(params))
        except AuthRefusedError as error:
            how = "--auth bearer:VAR, basic:USERVAR:PASSVAR, header:NAME:VAR or query:NAME:VAR says how to sign in"
            raise UsageError(f"{error}; {how}. Nothing was written") from None
        except (ClientError, RequestLimitError, ValueError) as error:
            people = "; that is a page for people, is it the URL of the API?" if "text/html" in str(error) else ""
            raise UsageError(f"{error}{people}. Nothing was written".replace("?.", "?")) from None

    def page(self, params: Mapping[str, Any], request: PageRequest) -> PageAnswer | Refused:
        """Ask for a page as the listing will."""
        return self._ask(lambda: Listing(self._path, params=dict(params)).send(self._http, request, {}))

    def record(self, template: str, key: str) -> PageAnswer | Refused:
        """Ask for one entity.

        Args:
            template: its path, with `{key}`.
        """
        path = quoted_path(template.replace("{key}", "{}"), key)
        return self._ask(lambda: self._http.answer("GET", path))

    def document(self) -> Any:
        """Return the JSON at the path, for a description of the API.

        Raises:
            UsageError: there is none.
        """
        return self.first({}).body

    def _ask(self, send: Any) -> PageAnswer | Refused:
        if self.left <= 0:
            return Refused("no request is left")
        try:
            answer: PageAnswer = send()
        except RequestLimitError as error:
            return Refused(str(error))
        except (RejectedError, GoneError) as error:
            return Refused(error.message, error.status)
        except (ClientError, ValueError) as error:
            # Another request would make it worse: a rate limit, a server in trouble, a sign-in that ended.
            self._ended = not (getattr(error, "status", None) or 0) < 500 or getattr(error, "status", None) == 429
            return Refused(str(error), getattr(error, "status", None))
        return answer
