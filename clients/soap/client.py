"""The SOAP adapter: calls operations of a service that a WSDL describes. zeep reads and writes the XML, `http.session` sends it.

zeep's own transport (requests) is not used, so connections, time limits, certificates and credentials are those of HTTP clients.
Importing this is cheap; zeep is imported when a client is made.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from clients.auth import MASK, Auth, secrets_in
from clients.environment import Env, resolved
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    BrokenBodyError,
    ClientError,
    GoneError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    TimedOutError,
    UnknownOutcomeError,
)
from clients.exchange_recorder import current_recorder
from clients.http.session import MAX_BYTES, Session
from clients.http.status import GATEWAYS, REDIRECTS, error_of
from clients.urls import origin_of, public_url

if TYPE_CHECKING:
    import ssl

    from clients.http.response import HttpResponse
    from clients.soap.service import Reply, Service

MAX_REDIRECTS = 5
MAX_AGE = 3600.0
TOTAL = 3
"""A whole exchange may take so many times its time limit for a phase, even if bytes keep coming."""

_ACCEPT = "text/xml, application/soap+xml, application/xml;q=0.9, multipart/related;q=0.8, */*;q=0.1"
_ACCEPT_WSDL = "text/xml, application/xml, */*;q=0.1"


class SoapClient(Session):
    """A connection to one SOAP service, 1.1 or 1.2, for many threads at once. Use it as a context manager.

    The WSDL is read at the first call. `Retry-After` and rate limits in HTTP headers count as they do for `HttpClient`: a
    refusal or a server's fault with `Retry-After` is a `RateLimitedError`, and a rate limit that is used up holds further calls
    back. Credentials go only to the origin of the WSDL, and to that of `address` where it is given: a WSDL that names another
    origin for its calls is refused, and so is one that imports documents of another origin. DTDs, entities and redirected
    calls are refused. A call that was sent is never sent again, except after a refused sign-in that could be renewed.

    Args:
        wsdl: URL or path of the WSDL; a user and password in the URL become Basic auth.
        auth: how to sign in over HTTP.
        timeout: seconds for each phase of loading a document of the WSDL; three times that for all of it.
        operation_timeout: seconds for each phase of a call; three times that for all of it.
        address: where calls go, instead of the address in the WSDL.
        service, port: which of the WSDL's; by default the first service, and its first port that speaks SOAP.
        wsse: a sign-in of zeep's that goes into the envelope, such as `zeep.wsse.UsernameToken(user, password)`.
        faults: what fault codes of this service mean, such as `{"NotFound": GoneError}`; see `fault.fault_error`.
        writes: operations that change something. Where no answer comes to one of them, that is an `UnknownOutcomeError`, so that
            it is not repeated blindly.
        trusted: further origins that the WSDL may import documents from; they get no credentials.
        cache: folder in which the WSDL is stored for other processes; it is kept in memory in any case.
        max_age: seconds until a stored WSDL is fetched again; while it cannot be fetched, the old one is used.
        verify: as for `HttpClient`.
        strict: False lets zeep accept answers that do not quite fit the WSDL.
        max_bytes: size of an answer that is still read.

    Raises:
        ModuleNotFoundError: zeep is not installed.
        ValueError: a URL is not one, a number is not positive, or there are two sign-ins.
    """

    #: One client serves any number of threads; see `flows.execution.connections`.
    thread_safe = True

    def __init__(
        self,
        wsdl: str | PathLike[str] | Env,
        *,
        auth: Auth | None = None,
        timeout: float = 30.0,
        operation_timeout: float = 60.0,
        address: str | None = None,
        service: str | None = None,
        port: str | None = None,
        wsse: Any = None,
        faults: Mapping[str, type[ClientError]] | None = None,
        writes: Collection[str] = (),
        trusted: Collection[str] = (),
        cache: str | PathLike[str] | None = None,
        max_age: float = MAX_AGE,
        verify: bool | str | ssl.SSLContext = True,
        strict: bool = True,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if find_spec("zeep") is None:
            raise ModuleNotFoundError("SoapClient needs zeep: pip install 'sync-clients[soap]'", name="zeep")
        from clients.http.origin import DeclaredOrigin, sign_in_of
        from clients.http.timeouts import Timeouts
        from clients.http.transport import ConnectionPool
        from clients.soap.envelope import check_xml
        from clients.soap.wsdl import Documents

        if min(timeout, operation_timeout, max_bytes) <= 0 or max_age < 0:
            raise ValueError("timeout, operation_timeout and max_bytes must be positive, max_age not negative")
        location, self._auth = sign_in_of(fspath(resolved(wsdl)), resolved(auth), what="the URL of the WSDL")
        self._wsse, self._faults, self._writes = wsse, dict(faults or {}), frozenset(writes)
        self._address = address
        self._names = service, port
        self._strict = strict
        self._documents = Documents(
            location,
            self._get,
            trusted={origin_of(one) for one in trusted},
            folder=cache,
            max_age=max_age,
            check=lambda content, url: check_xml(content, what="the WSDL", url=url, method="GET"),
        )
        origins = set() if self._documents.local is not None else {origin_of(location)}
        if address is not None:
            origins.add(origin_of(address))
        self._loading = Timeouts(timeout, TOTAL * timeout)
        calling = Timeouts(operation_timeout, TOTAL * operation_timeout)
        super().__init__(
            DeclaredOrigin(auth=self._auth, accept=_ACCEPT, origins=origins),
            ConnectionPool(timeouts=calling, verify=verify, transport=None, max_bytes=max_bytes),
        )
        self._lock = threading.Lock()
        self._service: Service | None = None

    def __repr__(self) -> str:
        return f"SoapClient({public_url(self._documents.root)!r})"

    @property
    def operations(self) -> list[str]:
        """The names of the service's operations, sorted. Reads the WSDL.

        Raises:
            ClientError: it cannot be fetched or read.
        """
        return sorted(self._open().binding.all())

    def call(self, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """Call an operation and return its answer as plain JSON values; see `values` for how XML is converted.

        An answer that is not an object by itself (a number, a list) is returned under the name that the WSDL gives it:
        `{"addResult": 3}`. One without content is `{}`.

        Args:
            operation: its name in the WSDL.
            arguments: by name; dicts and lists where the WSDL has complex types. `_soapheaders` goes into the header.

        Raises:
            RejectedError: there is no such operation, the arguments do not fit the WSDL, the service answered a client fault, or
                the WSDL names another origin.
            UnknownOutcomeError: no answer came to one of `writes`, or only one of a gateway.
            AuthRefusedError, RateLimitedError, TransientError, UnreadableError: as the tree in `errors` says.
        """
        return self._answer(operation, arguments)

    def call_page(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Do as `call` does for a page of a listing: where it has to fit the WSDL, what does not is a `BadValue` in its item."""
        return self._answer(operation, arguments, is_page=True)

    def _answer(self, operation: str, arguments: Mapping[str, Any], *, is_page: bool = False) -> dict[str, Any]:
        service = self._open()
        if operation not in service.binding.all():
            known = ", ".join(sorted(service.binding.all()))
            raise RejectedError(
                f"the service has no operation {operation!r}; it has: {known}"[:500], method="POST", url=service.url
            )
        content, headers = service.request(operation, arguments)
        recorder, reads = current_recorder(), operation not in self._writes
        named = contextlib.nullcontext() if recorder is None else recorder.operation(operation, repeatable=reads)
        try:
            with named:
                reply = self._call(service.url, content, headers)
        except (TimedOutError, BrokenAnswerError, BrokenBodyError, ServerError) as error:
            if reads or (isinstance(error, ServerError) and error.status not in GATEWAYS):
                raise
            raise UnknownOutcomeError(
                f"{error.message}: {operation!r} was sent, and may or may not have been done", method="POST", url=service.url
            ) from None
        return {} if reply is None else service.result(operation, reply, is_page=is_page)

    def _call(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply | None:
        """Send a call and return the envelope that came back; a refused sign-in is renewed once."""
        # Whether a call may be repeated depends on the operation, so `call` decides about it.
        answer, request = self._send("POST", url, content=content, headers=headers, repeatable=True)
        try:
            return self._reply(answer, url)
        except AuthRefusedError:
            if not self._origin.renew(request.credentials):
                raise
        answer, _ = self._send("POST", url, content=content, headers=headers, repeatable=True)
        return self._reply(answer, url)

    def _open(self) -> Service:
        with self._lock:
            if self._service is None:
                from clients.soap.service import Service

                service = Service(self._documents, wsse=self._wsse, strict=self._strict, names=self._names, url=self._address)
                self._check_address(service)
                self._service = service
            return self._service

    def _check_address(self, service: Service) -> None:
        """Refuse a WSDL that sends calls, and with them the credentials, to an undeclared origin."""
        try:
            scheme, host, port = origin_of(service.url)
        except ValueError:
            raise RejectedError("the WSDL says no http address for its calls; give SoapClient(…, address=…)") from None
        is_open = self._documents.local and self._auth is None and self._wsse is None
        if (scheme, host, port) not in self._origin.origins and not is_open:
            raise RejectedError(
                f"the WSDL sends calls to another origin, {scheme}://{host}:{port}; "
                "if it is right, say so with SoapClient(…, address=…)"
            )

    def _get(self, url: str) -> bytes:
        """Return a document of the WSDL; redirects are followed within its origin."""
        try:
            answer, _ = self._exchange(
                "GET",
                url,
                headers={"Accept": _ACCEPT_WSDL},
                timeouts=self._loading,
                max_redirects=MAX_REDIRECTS,
                same_origin=True,
            )
        except GoneError as error:
            raise _about_service(error) from None
        return answer.content

    def _reply(self, answer: HttpResponse, url: str) -> Reply | None:
        """Return the answer's content if it is an envelope without fault; None where there is none.

        Raises:
            ClientError: what the status or the fault stands for.
        """
        from clients.soap.envelope import body_tag, in_utf8, open_envelope, root_part
        from clients.soap.fault import fault_error, fault_of
        from clients.soap.service import Reply

        status, headers = answer.status, answer.headers
        refused = error_of(status, headers, method="POST", url=url, asks=answer.asks, learned=answer.learned)
        if isinstance(refused, AuthRefusedError | RateLimitedError):
            # The status counts, whatever fault is in the body.
            raise refused
        if status in REDIRECTS:
            raise RedirectRefusedError(f"{status}, which would send the call again", method="POST", url=url, status=status)
        if refused is None and not answer.content:
            return None
        content_type = headers.get("content-type", "")
        content = in_utf8(answer.content, content_type)
        try:
            root = open_envelope(root_part(content, content_type), url=url)
        except ClientError:
            if refused is not None:
                raise _about_service(refused) from None
            raise
        fault = fault_of(root)
        if fault is not None:
            recorder = current_recorder()
            if recorder is not None:
                recorder.set_fault(self._masked("/".join(fault.codes)) or "without a code")
            error = fault_error(fault, status=status, headers=headers, faults=self._faults, url=url)
            error.message = self._masked(error.message)
            error.args = (error.message,)
            raise error
        if refused is not None:
            raise _about_service(refused)
        return Reply(content, content_type, body_tag(root))

    def _masked(self, text: str) -> str:
        """Mask our credentials in a service's message: some repeat the password that they refuse."""
        found = secrets_in(self._auth.credentials()) if self._auth is not None else set()
        password = getattr(self._wsse, "password", None)
        found |= {password} if isinstance(password, str) and len(password) > 3 else set()
        for secret in sorted(found, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


def _about_service(error: ClientError) -> ClientError:
    """Return what a status means where it is about the service: 404 of a service does not mean that an entity is gone."""
    if isinstance(error, GoneError):
        return ServerError(f"{error.message}: the service is not there", method=error.method, url=error.url)
    return error
