"""The SOAP adapter: calls operations of a service that a WSDL describes, over our own HTTP, with zeep for the XML.

zeep's own transport (requests) is not used: connections, time limits, certificates and credentials are those of `transport`.
Importing it is cheap; zeep is imported when a client is made.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

from clients import exchange
from clients.auth import MASK, Auth, Basic, Credentials, secrets_in
from clients.bodies import ENCODINGS
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    GoneError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    TimedOutError,
    UnknownOutcomeError,
)
from clients.pace import Pace
from clients.statuses import GATEWAYS, REDIRECTS, error_of
from clients.urls import Origin, encode_params, origin_of, public_url, split_userinfo, with_query
from clients.version import VERSION

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from clients.soap_service import Reply, Service
    from clients.transport import Answer, RawHeaders, Wire

MAX_BYTES = 64 * 1024 * 1024
MAX_REDIRECTS = 5
MAX_AGE = 3600.0
TOTAL = 3
"""So many times its time limit for a phase may a whole exchange take, however much trickles in meanwhile."""

_ACCEPT = "text/xml, application/soap+xml, application/xml;q=0.9, multipart/related;q=0.8, */*;q=0.1"


class SoapClient:
    """A connection to one SOAP service, 1.1 or 1.2, for many threads at once. Use it as a context manager.

    The WSDL is read at the first call. What its HTTP answers say about when to come again counts as it does for `HttpClient`: a
    refusal or a server's fault with `Retry-After` is a `RateLimitedError`, and a budget that is used up holds further calls
    back. Credentials go to the origin of the WSDL, or to that of `address` where it is given, and
    nowhere else: a WSDL that names another origin for its calls is refused, and so is one that imports documents of another
    origin. DTDs, entities and redirected calls are refused. Nothing that was sent is sent again.

    Args:
        wsdl: URL or path of the WSDL; a user and password in the URL become Basic auth.
        auth: how to sign in over HTTP.
        timeout: seconds for each phase of loading a document of the WSDL; three times that for all of it.
        operation_timeout: seconds for each phase of a call; three times that for all of it.
        address: where calls go, over what the WSDL says.
        service, port: which of the WSDL's; by default the first service, and its first port that speaks SOAP.
        wsse: a sign-in of zeep's that goes into the envelope, such as `zeep.wsse.UsernameToken(user, password)`.
        faults: what fault codes of this service mean, such as `{"NotFound": GoneError}`; see `envelope.fault_error`.
        writes: operations that change something: where no answer comes to one, it is an `UnknownOutcomeError`, and nobody
            repeats it blindly.
        trusted: further origins that the WSDL may import documents from; they get no credentials.
        cache: folder that keeps the WSDL for other processes; in memory it is kept anyway.
        max_age: seconds until a kept WSDL is asked for again; while it cannot be had, the old one serves.
        verify: as for `HttpClient`.
        strict: False lets zeep accept answers that do not quite fit the WSDL.
        max_bytes: size of an answer that is still read.

    Raises:
        ModuleNotFoundError: zeep is not installed.
        ValueError: a URL is not one, a number is not positive, or there are two sign-ins.
    """

    #: One client serves any number of threads; see `flows.connection`.
    thread_safe = True

    def __init__(
        self,
        wsdl: str | PathLike[str],
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
        from clients.envelope import check_xml
        from clients.transport import Wire
        from clients.wsdl import Documents

        if min(timeout, operation_timeout, max_bytes) <= 0 or max_age < 0:
            raise ValueError("timeout, operation_timeout and max_bytes must be positive, max_age not negative")
        location, user = split_userinfo(fspath(wsdl))
        if user is not None:
            if auth is not None:
                raise ValueError("give auth or a user in the URL of the WSDL, not both")
            auth = Basic(*user)
        self._auth, self._wsse, self._faults, self._writes = auth, wsse, dict(faults or {}), frozenset(writes)
        self._address = address
        self._names = service, port
        self._strict = strict
        self._documents = Documents(
            location, self._get, trusted={origin_of(one) for one in trusted}, folder=cache, max_age=max_age,
            check=lambda content, url: check_xml(content, what="the WSDL", url=url, method="GET"),
        )  # fmt: skip
        self._origins: set[Origin] = set() if self._documents.local is not None else {origin_of(location)}
        if address is not None:
            self._origins.add(origin_of(address))
        self._loading, self._calling = (
            Wire(timeout=seconds, total=TOTAL * seconds, verify=verify, transport=None, max_bytes=max_bytes)
            for seconds in (timeout, operation_timeout)
        )
        #: By origin: the WSDL may come from elsewhere.
        self._paces: dict[Origin, Pace] = {}
        self._lock = threading.Lock()
        self._service: Service | None = None

    def __repr__(self) -> str:
        return f"SoapClient({public_url(self._documents.root)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Closing twice does nothing more."""
        self._loading.close()
        self._calling.close()

    @property
    def requests(self) -> int:
        """How many requests were sent, those for the WSDL included."""
        return self._loading.requests + self._calling.requests

    @property
    def operations(self) -> list[str]:
        """The names of the service's operations, sorted. Reads the WSDL.

        Raises:
            ClientError: it cannot be had or read.
        """
        return sorted(self._open().binding.all())

    def call(self, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """Call an operation and return its answer as plain JSON values; see `plain` for what becomes of XML's.

        An answer that is not an object by itself (a number, a list) stands under the name that the WSDL gives it:
        `{"addResult": 3}`. One without content is `{}`.

        Args:
            operation: its name in the WSDL.
            arguments: by name; dicts and lists where the WSDL has complex types. `_soapheaders` goes into the header.

        Raises:
            RejectedError: no such operation, the arguments do not fit the WSDL, a fault that is the caller's, or a WSDL that
                points elsewhere.
            UnknownOutcomeError: no answer came to one of `writes`, or only a gateway's.
            AuthRefusedError, RateLimitedError, TransientError, UnreadableError: as the tree in `errors` says.
        """
        service = self._open()
        if operation not in service.binding.all():
            known = ", ".join(sorted(service.binding.all()))
            raise RejectedError(
                f"the service has no operation {operation!r}; it has: {known}"[:500], method="POST", url=service.url
            )
        content, headers = service.request(operation, arguments)
        recorder, reads = exchange.current(), operation not in self._writes
        named = contextlib.nullcontext() if recorder is None else recorder.calling(operation, repeatable=reads)
        try:
            with named:
                reply = self._exchange(service.url, content, headers)
        except (TimedOutError, BrokenAnswerError, ServerError) as error:
            if reads or (isinstance(error, ServerError) and error.status not in GATEWAYS):
                raise
            raise UnknownOutcomeError(
                f"{error.message}: {operation!r} was sent, and may or may not have been done", method="POST", url=service.url
            ) from None
        return {} if reply is None else service.result(operation, reply)

    def _exchange(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply | None:
        """Send a call and return the envelope that came back; a sign-in that ran out is renewed once."""
        answer, used = self._send(self._calling, "POST", url, content, headers)
        try:
            return self._reply(answer, url)
        except AuthRefusedError:
            if not self._renew(used):
                raise
        answer, _ = self._send(self._calling, "POST", url, content, headers)
        return self._reply(answer, url)

    def _renew(self, refused: Credentials | None) -> bool:
        """Tell whether there is a newer sign-in than the one that was refused."""
        renew = getattr(self._auth, "renew", None)
        return refused is not None and renew is not None and bool(renew(refused))

    def _open(self) -> Service:
        with self._lock:
            if self._service is None:
                from clients.soap_service import Service

                service = Service(self._documents, wsse=self._wsse, strict=self._strict, names=self._names, url=self._address)
                self._check_address(service)
                self._service = service
            return self._service

    def _check_address(self, service: Service) -> None:
        """Refuse a WSDL that sends calls, and with them the credentials, to an origin that nobody declared (law 9)."""
        try:
            scheme, host, port = origin_of(service.url)
        except ValueError:
            raise RejectedError("the WSDL says no http address for its calls; give SoapClient(…, address=…)") from None
        if (scheme, host, port) in self._origins or (self._documents.local and self._auth is None and self._wsse is None):
            return
        raise RejectedError(
            f"the WSDL sends calls to another origin, {scheme}://{host}:{port}; "
            "if it is right, say so with SoapClient(…, address=…)"
        )  # fmt: skip

    def _get(self, url: str) -> bytes:
        """Fetch a document; redirects are followed within its origin."""
        here = origin_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"Accept": "text/xml, application/xml, */*;q=0.1"}
            answer, used = self._send(self._loading, "GET", url, None, headers)
            if answer.status == 401 and self._renew(used):
                answer, _ = self._send(self._loading, "GET", url, None, headers)
            error = error_of(answer.status, answer.headers, method="GET", url=url)
            if error is not None:
                raise _away(error)
            if answer.status not in REDIRECTS:
                return answer.content
            from clients.target import parse_target

            try:
                url = parse_target(url).join(answer.header(b"location"))
                elsewhere = origin_of(url) != here
            except ValueError:
                elsewhere = True
            if elsewhere:
                raise RedirectRefusedError(
                    "the WSDL is redirected to another origin", method="GET", url=url, status=answer.status
                )
        raise RedirectRefusedError(f"more than {MAX_REDIRECTS} redirects", method="GET", url=url)

    def _send(
        self, wire: Wire, method: str, url: str, content: bytes | None, headers: Mapping[str, str]
    ) -> tuple[Answer, Credentials | None]:
        """Send a request; return the answer, and the credentials that went along, if any."""
        from clients.target import parse_target

        target = parse_target(url)
        ours = self._auth is not None and target.origin in self._origins
        used = self._auth.credentials() if self._auth is not None and ours else None
        credentials = used or Credentials()
        if credentials.params:
            target = parse_target(with_query(url, encode_params(dict(credentials.params))))
        merged = {"Accept": _ACCEPT, "Accept-Encoding": ENCODINGS, "User-Agent": f"sync-clients/{VERSION}", **headers}
        merged.update(credentials.headers)
        raw: RawHeaders = [(name.encode("ascii"), value.encode()) for name, value in merged.items()]
        pace = self._paces.setdefault(target.origin, Pace())
        pace.hold(method=method, url=url)
        answer = wire.send(method, target, raw, content, shown=url)
        pace.heed(answer.raw_headers)
        return answer, used

    def _reply(self, answer: Answer, url: str) -> Reply | None:
        """Return the answer's content if it is an envelope without fault; None where there is none.

        Raises:
            ClientError: what the status or the fault stands for.
        """
        from clients.envelope import body_tag, fault_error, fault_of, in_utf8, open_envelope, root_part
        from clients.soap_service import Reply

        status, headers = answer.status, answer.headers
        refused = error_of(status, headers, method="POST", url=url)
        if isinstance(refused, AuthRefusedError | RateLimitedError):
            # Whatever fault came along.
            raise refused
        if status in REDIRECTS:
            raise RedirectRefusedError(
                f"{status}, which would send the call again", method="POST", url=url, status=status
            )  # fmt: skip
        if refused is None and not answer.content:
            return None
        content_type = headers.get("content-type", "")
        content = in_utf8(answer.content, content_type)
        try:
            root = open_envelope(root_part(content, content_type), url=url)
        except ClientError:
            if refused is not None:
                raise _away(refused) from None
            raise
        fault = fault_of(root)
        if fault is not None:
            recorder = exchange.current()
            if recorder is not None:
                recorder.faulted(self._masked("/".join(fault.codes)) or "without a code")
            error = fault_error(fault, status=status, headers=headers, faults=self._faults, url=url)
            error.message = self._masked(error.message)
            error.args = (error.message,)
            raise error
        if refused is not None:
            raise _away(refused)
        return Reply(content, content_type, body_tag(root))

    def _masked(self, text: str) -> str:
        """Take our credentials out of what a service says: some repeat the password they refuse."""
        found = secrets_in(self._auth.credentials()) if self._auth is not None else set()
        password = getattr(self._wsse, "password", None)
        found |= {password} if isinstance(password, str) and len(password) > 3 else set()
        for secret in sorted(found, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


def _away(error: ClientError) -> ClientError:
    """Return what a status means where it is about the service: a service that is not there says nothing of its entities."""
    if isinstance(error, GoneError):
        return ServerError(f"{error.message}: the service is not there", method=error.method, url=error.url)
    return error
