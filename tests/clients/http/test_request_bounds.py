"""What an HTTP client must not be talked into: waiting for ever, asking too soon, repeating, forgetting, trusting."""

from __future__ import annotations

import datetime as dt
import gzip
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients import (
    AuthRefusedError,
    Bearer,
    BrokenAnswerError,
    ConnectFailedError,
    HttpClient,
    Listing,
    NextLink,
    NotModifiedError,
    OAuth2ClientCredentials,
    PageError,
    RateLimitedError,
    RedirectRefusedError,
    ServerError,
    TimedOutError,
    TooLargeError,
    UnknownOutcomeError,
    UnreadableError,
    Validator,
)
from syncs_testing import Reply, serving

Serve = Callable[..., Any]


@pytest.mark.parametrize("headers_too", [False, True])
def test_a_byte_a_second_has_an_end(headers_too: bool) -> None:
    """A server that drips headers or body is given up after the total time, though each byte comes in time."""
    reply = Reply({"a": "x" * 100}, drip=0.5, drip_headers=headers_too)
    began = time.monotonic()
    with serving(lambda seen: reply) as server, HttpClient(server.url, timeout=1.0, total_timeout=0.5) as client:
        with pytest.raises(TimedOutError, match="in time"):
            client.get_json("a")

        assert 0.4 < time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply({}, headers={"X-Large": "x" * 1_000_000}), TooLargeError),
        (Reply(gzip.compress(b"0" * 100_000_000, 1), headers={"Content-Encoding": "gzip"}), TooLargeError),
        (Reply({}, headers={"Content-Encoding": "gzip"}), BrokenAnswerError),
        (Reply(b'{"a": "\xe9"}'), UnreadableError),
        (Reply(b'{"a": [1, 2'), UnreadableError),
    ],
)
def test_hostile_answers_are_clear_errors(reply: Reply, kind: type[Exception]) -> None:
    """Headers of a megabyte, a bomb, gzip that is none, a wrong charset, JSON cut off: an error each, and it goes on."""
    with serving(lambda seen: reply if seen.path == "/bad" else Reply({"ok": 1})) as server, HttpClient(server.url) as client:
        with pytest.raises(kind):
            client.get_json("bad")

        assert client.get_json("good") == {"ok": 1}


def test_a_charset_that_is_declared_counts() -> None:
    """JSON in another charset is read when the answer says so."""
    reply = Reply('{"a": "é"}'.encode("latin-1"), headers={"Content-Type": "application/json; charset=iso-8859-1"})
    with serving(lambda seen: reply) as server, HttpClient(server.url) as client:
        assert client.get_json("a") == {"a": "é"}


def test_a_budget_of_zero_waits_or_pauses() -> None:
    """A second is waited here; an hour is an error before anything is sent, and lasts exactly as long (law 6)."""
    left = [{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, {"RateLimit": "limit=5, remaining=0, reset=3600"}]
    with serving(lambda seen: Reply({}, headers=left.pop(0) if left else {})) as server, HttpClient(server.url) as client:
        began = time.monotonic()
        client.get_json("a")
        client.get_json("a")

        assert 0.9 < time.monotonic() - began < 30

        with pytest.raises(RateLimitedError, match="nothing was sent") as caught:
            client.get_json("a")

        assert caught.value.retry_after == pytest.approx(3600, abs=60)

        assert len(server.seen) == 2


def test_another_origin_has_no_say_in_our_budget() -> None:
    """What an answer from elsewhere says of its budget holds nothing back."""
    empty = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
    spent, plain = Reply({}, headers=empty), Reply({})
    with serving(lambda seen: spent) as other, serving(lambda seen: plain) as server, HttpClient(server.url) as client:
        client.get_json(f"{other.url}/a")
        client.get_json("a")


@pytest.mark.parametrize("kind", ["reset", "silent", "504"])
@pytest.mark.parametrize(
    ("method", "key", "unknown"),
    [("POST", None, True), ("PATCH", None, True), ("POST", "k1", False), ("PUT", None, False), ("DELETE", None, False)],
)
def test_sent_and_no_answer(kind: str, method: str, key: str | None, unknown: bool) -> None:
    """What may have been done and must not be done twice is an error of its own; it is sent once, with its key."""
    replies = {"reset": Reply({"a": 1}, cut=2), "silent": Reply({}, silent=5), "504": Reply({}, 504)}
    with serving(lambda seen: replies[kind]) as server, HttpClient(server.url, timeout=0.3) as client:
        with pytest.raises(Exception) as caught:
            client.request(method, "a", json={"x": 1}, idempotency_key=key)

        assert isinstance(caught.value, UnknownOutcomeError) == unknown

        assert [seen.headers.get("idempotency-key") for seen in server.seen] == [key]


def test_never_sent_is_not_unknown() -> None:
    """A refused connection sent nothing, so that a POST may be tried again."""
    with serving(lambda seen: Reply({})) as server:
        url = server.url
    with HttpClient(url) as client, pytest.raises(ConnectFailedError):
        client.post_json("a", {}, idempotency_key="k")


def test_a_listing_by_post_only_reads() -> None:
    """A search by POST that gets no answer is trouble, not an unknown outcome."""
    with serving(lambda seen: Reply([], cut=1)) as server, HttpClient(server.url) as client, pytest.raises(Exception) as caught:
        list(Listing("search", method="POST", json={"q": 1})(client))

    assert not isinstance(caught.value, UnknownOutcomeError)


@pytest.mark.parametrize("verdict", ["busy", ServerError("busy"), None])
def test_errors_in_a_good_answer(verdict: Any) -> None:
    """`accept` sees each decoded answer, and what it says is raised, in listings too."""
    accept = lambda body: verdict if "error" in body else None  # noqa: E731
    reply = Reply({"error": "e", "data": [{"id": 1}]})
    with serving(lambda seen: reply) as server, HttpClient(server.url, accept=accept) as client:
        for call in (lambda: client.get_json("a"), lambda: list(Listing("a", items="data")(client))):
            if verdict is None:
                call()
                continue
            with pytest.raises(ServerError if isinstance(verdict, Exception) else UnreadableError, match="busy"):
                call()


class Kept(dict[tuple[str, str, str], Validator]):
    """Validators in memory."""

    def get(self, *place: str) -> Validator | None:  # type: ignore[override]
        """What is known of a place."""
        return super().get(place)  # type: ignore[arg-type]

    def put(self, identity: str, method: str, url: str, validator: Validator) -> None:
        """Keep it."""
        self[identity, method, url] = validator


def conditional(seen: Any) -> Reply:
    """An API with validators, another for each token."""
    etag = f'"{seen.headers["authorization"]}"'
    if seen.headers.get("if-none-match") == etag:
        return Reply(b"", 304, {"ETag": etag})
    return Reply({"for": etag}, headers={"ETag": etag, "Last-Modified": "Wed, 20 May 2026 10:00:00 GMT"})


def test_304_is_not_modified() -> None:
    """With a validator, given or kept, an unchanged answer is an outcome of its own, and never another sign-in's."""
    kept = Kept()
    with serving(conditional) as server:
        for token in ("a", "b"):
            with HttpClient(server.url, auth=Bearer(token), validators=kept) as client:
                assert client.get_json("x")["for"] == f'"Bearer {token}"'

                with pytest.raises(NotModifiedError):
                    client.get_json("x")
        with HttpClient(server.url, auth=Bearer("a")) as client:
            with pytest.raises(NotModifiedError):
                client.get_json("x", if_none_match='"Bearer a"')

            assert client.get_json("x", if_none_match='"old"')
    first, *_ = kept

    assert len({identity for identity, _, _ in kept}) == 2

    assert first[1:] == ("GET", f"{server.url}/x")

    assert "Bearer" not in repr(list(kept))


def test_identity_outlives_tokens(serve: Serve) -> None:
    """With tokens that come and go, the identity is who signed in."""
    issuer = serve(lambda seen: (200, {}, {"access_token": f"t{time.monotonic_ns()}"}))
    one, two, other = (OAuth2ClientCredentials(issuer.url, name, "s") for name in ("me", "me", "you"))
    identities = [HttpClient("http://h.example", auth=auth).identity for auth in (one, two, other)]

    assert identities[0] == identities[1] != identities[2]

    assert issuer.seen == []


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for `localhost`, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + pem)
    return path


@pytest.fixture
def tls(certificate: Path) -> Iterator[Callable[[dict[str, Any]], int]]:
    """Start TLS servers that answer with headers and `{"next": …}`."""
    running = []

    def start(headers: dict[str, Any], status: int = 200, body: bytes = b"{}") -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return int(server.server_address[1])

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_certificates_are_checked(tls: Any, certificate: Path) -> None:
    """A certificate nobody vouches for, or for another name, ends in an error before anything is sent."""
    port = tls({})
    for url, verify in ((f"https://localhost:{port}", True), (f"https://127.0.0.1:{port}", str(certificate))):
        with (
            HttpClient(url, auth=Bearer("s3cret"), verify=verify) as client,
            pytest.raises(ConnectFailedError, match="certificate"),
        ):
            client.get_json("a")
    with HttpClient(f"https://localhost:{port}", verify=str(certificate)) as client:
        assert client.get_json("a") == {}


def test_https_to_a_port_without_tls_asks_for_http(serve: Serve) -> None:
    """Where the answer is no TLS, the message asks whether the URL begins with http://."""
    url = serve().url.replace("http://", "https://")
    with HttpClient(url) as client, pytest.raises(ConnectFailedError, match=r"TLS failed: [A-Z_]+; is it http://\?$"):
        client.get_json("a")


def test_no_way_from_https_to_http(tls: Any, certificate: Path, serve: Serve) -> None:
    """Neither a redirect nor a next link leads from https to http, where the answer could be anybody's."""
    plain = serve()
    redirecting = tls({"Location": f"{plain.url}/a"}, 302)
    linking = tls({}, 200, b'{"data": [], "next": "%s/a"}' % plain.url.encode())
    redirected = HttpClient(f"https://localhost:{redirecting}", verify=str(certificate))
    with redirected, pytest.raises(RedirectRefusedError, match="from https to http"):
        redirected.get_json("a")
    with (
        HttpClient(f"https://localhost:{linking}", verify=str(certificate)) as client,
        pytest.raises(PageError, match="https to http"),
    ):
        list(Listing("pets", NextLink(), items="data")(client))

    assert plain.seen == []


def test_401_without_a_renewal_is_an_auth_error(serve: Serve) -> None:
    """A sign-in that cannot be renewed is refused once, not asked again."""
    server = serve(lambda seen: (401, {}, {}))
    with HttpClient(server.url, auth=Bearer("t")) as client, pytest.raises(AuthRefusedError):
        client.get_json("a")

    assert len(server.seen) == 1


@pytest.mark.parametrize("name", ["timeout", "total_timeout", "max_bytes"])
def test_bounds_are_positive(name: str) -> None:
    """A bound of nothing is refused when the client is made."""
    with pytest.raises(ValueError, match="must be positive"):
        HttpClient("http://h.example", **{name: 0})  # type: ignore[arg-type]


def test_the_backend_of_the_transport_is_bounded() -> None:
    """The private field that carries the total time is still where httpx 0.28 has it."""
    assert hasattr(httpx.HTTPTransport()._pool, "_network_backend")
