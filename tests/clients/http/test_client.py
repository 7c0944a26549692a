"""The HTTP adapter against real servers: URLs, credentials, redirects, failures, limits, threads."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from clients import (
    ApiKey,
    AuthRefusedError,
    Basic,
    Bearer,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    HttpClient,
    NotReadyError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    TimedOutError,
    TooLargeError,
    UnreadableError,
)
from clients.package_version import VERSION

Serve = Callable[..., Any]


@pytest.mark.parametrize(
    ("base", "path", "params", "expected"),
    [
        ("/api", "pets/1", None, "/api/pets/1"),
        ("/api/", "pets/1", None, "/api/pets/1"),
        ("/api", "/pets/1", None, "/api/pets/1"),
        # A server's own paths, as an `href` has them.
        ("/dav", "/dav/me/x", None, "/dav/me/x"),
        ("/dav/", "/dav?a=1", None, "/dav?a=1"),
        ("/dav/", "dav/me", None, "/dav/dav/me"),
        ("/dav/", "/davos/me", None, "/dav/davos/me"),
        ("/api/", "/pets/1", None, "/api/pets/1"),
        ("", "pets", None, "/pets"),
        ("/", "pets/", None, "/pets/"),
        ("/api", "", None, "/api"),
        ("/api/", "", None, "/api/"),
        ("", "", None, "/"),
        ("/api", "", {"a": 1}, "/api?a=1"),
        ("/api", "?a=1", {"b": 2}, "/api?a=1&b=2"),
        ("/api", "pets?a=1#f", {"b": [2, 3], "c": None, "d": True}, "/api/pets?a=1&b=2&b=3&d=true"),
        ("/api?tenant=3", "pets", {"b": "x y"}, "/api/pets?b=x+y&tenant=3"),
        ("/api/?tenant=3#f", "", None, "/api/?tenant=3"),
        ("/api", "//other.example/pets", None, "/api//other.example/pets"),
        ("/api", "a b/ü", None, "/api/a%20b/%C3%BC"),
        ("/api", "a%2Fb", None, "/api/a%2Fb"),
    ],
)
def test_urls(base: str, path: str, params: Any, expected: str, serve: Serve) -> None:
    """Relative paths join the base URL with or without slashes; its query goes along."""
    server = serve()
    with HttpClient(server.url + base) as http:
        http.get_json(path, params)

    assert expected == server.seen[0].target


def test_what_is_sent(serve: Serve) -> None:
    """Declared headers and credentials are sent, those of the call win, and cookies are not kept."""
    server = serve(lambda seen: (200, {"Set-Cookie": "a=1"}, {}))
    with HttpClient(server.url, auth=Bearer(SecretStr("t")), headers={"X-A": "1", "accept": "text/x"}) as http:
        http.get_json("pets")
        http.request("get", "pets", headers={"x-a": "2"})
    first, second = (seen.headers for seen in server.seen)

    assert {
        "host": server.url.removeprefix("http://"),
        "accept": "text/x",
        "accept-encoding": "gzip, deflate",
        "user-agent": f"sync-clients/{VERSION}",
        "x-a": "1",
        "authorization": "Bearer t",
    } == first

    assert {**first, "x-a": "2"} == second


@pytest.mark.parametrize(
    ("call", "method", "content_type", "body"),
    [
        (lambda http: http.post_json("a", {"x": "é"}), "POST", "application/json", b'{"x":"\xc3\xa9"}'),
        (lambda http: http.request("PUT", "a", json=[1]), "PUT", "application/json", b"[1]"),
        (
            lambda http: http.request("post", "a", data={"x": "1 2"}),
            "POST",
            "application/x-www-form-urlencoded",
            b"x=1+2",
        ),
        (lambda http: http.request("POST", "a", content="é"), "POST", None, b"\xc3\xa9"),
        (
            lambda http: http.request("POST", "a", content=b"<a/>", headers={"content-type": "text/xml"}),
            "POST",
            "text/xml",
            b"<a/>",
        ),
        (lambda http: http.request("DELETE", "a"), "DELETE", None, b""),
    ],
)
def test_bodies_are_sent(call: Any, method: str, content_type: str | None, body: bytes, serve: Serve) -> None:
    """Each way to give a body sends it with its type and length."""
    server = serve()
    with HttpClient(server.url) as http:
        call(http)
    (seen,) = server.seen

    assert (method, content_type, body) == (seen.method, seen.headers.get("content-type"), seen.body)


def test_answers(serve: Serve) -> None:
    """JSON is decoded, an empty answer is None where one may be empty, and `request` gives the whole response."""
    server = serve(lambda seen: (200, {"Content-Encoding": "gzip", "X-A": "1"}, gzip.compress(b'{"a": 1}')))
    with HttpClient(server.url) as http:
        assert http.get_json("pets") == {"a": 1}

        response = http.request("GET", "pets", params={"b": 1})

        assert (200, {"a": 1}, "1", f"{server.url}/pets?b=1") == (
            response.status_code,
            response.json(),
            response.headers["x-a"],
            str(response.url),
        )
        server.respond = lambda seen: (204, {}, b"")

        assert http.get_json("pets") is None

        server.respond = lambda seen: (202, {}, b"")

        assert http.post_json("pets", {}) is None

        server.respond = lambda seen: (200, {}, b"")

        with pytest.raises(UnreadableError, match="no body"):
            http.get_json("pets")

        assert http.request("HEAD", "pets").status_code == 200

        server.respond = lambda seen: (304, {}, b"")

        assert http.request("GET", "pets").status_code == 304


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, AuthRefusedError),
        (403, {}, AuthRefusedError),
        (404, {}, GoneError),
        (410, {}, GoneError),
        (422, {}, RejectedError),
        (429, {"Retry-After": "3"}, RateLimitedError),
        (500, {}, ServerError),
        (503, {}, ServerError),
        (503, {"Retry-After": "0.5"}, RateLimitedError),
    ],
)
def test_refusals_are_errors(status: int, headers: dict[str, str], kind: type[ClientError], serve: Serve) -> None:
    """From 400 on every call raises the error of the status, once, without secrets, and keeps the client usable."""
    server = serve(lambda seen: (status, headers, {"error": "s3cret"}))
    with HttpClient(server.url.replace("http://", "http://me:s3cret@") + "?key=s3cret") as http:
        for call in (lambda: http.get_json("a?x=s3cret"), lambda: http.request("POST", "a", json={"x": "s3cret"})):
            with pytest.raises(kind) as caught:
                call()

            assert type(caught.value) is kind

            assert (status, f"{server.url}/a") == (caught.value.status, caught.value.url)

            assert "s3cret" not in f"{caught.value}{caught.value!r}{vars(caught.value)}"

        assert 2 == http.requests == len(server.seen)

        assert "s3cret" not in repr(http)


def test_retry_after_date(serve: Serve) -> None:
    """A date counts from the server's own clock, however wrong ours is."""
    headers = {"Retry-After": "Sun, 06 Nov 2033 08:50:07 GMT"}
    server = serve(lambda seen: (429, headers, {}))
    with HttpClient(server.url) as http, pytest.raises(RateLimitedError) as caught:
        http.get_json("a")

    assert caught.value.retry_after is not None

    assert caught.value.retry_after > 30 * 86400


def test_userinfo_becomes_basic_auth(serve: Serve) -> None:
    """User and password in the base URL are sent as Basic auth; two sign-ins are refused."""
    server = serve()
    with HttpClient(server.url.replace("http://", "http://me:p%40ss@")) as http:
        http.get_json("a")

    assert {Basic("me", "p@ss").credentials().headers[0][1]} == {seen.headers["authorization"] for seen in server.seen}

    with pytest.raises(ValueError, match="not both"):
        HttpClient("http://me:pass@h.example", auth=Bearer("t"))


@pytest.mark.parametrize("base", ["", "h.example", "ftp://h.example", "http://", "http://me:s3cret@h:x/", "https://[s3cret"])
def test_bad_base_urls(base: str) -> None:
    """What is not an http or https URL is refused without being repeated."""
    with pytest.raises(ValueError, match=r"^base_url: ") as caught:
        HttpClient(base)

    assert "s3cret" not in repr(caught.value)


@pytest.mark.parametrize("headers", [{"X-A": "s3cret\r\nX-B: 1"}, {"X A": "s3cret"}])
def test_bad_headers(headers: dict[str, str]) -> None:
    """A header with a line break is refused when the client is made, without being repeated."""
    with pytest.raises(ValueError) as caught:
        HttpClient("http://h.example", headers=headers)

    assert "s3cret" not in repr(caught.value)


@pytest.mark.parametrize("auth", [Bearer("s3cret"), Basic("me", "s3cret"), ApiKey("s3cret"), ApiKey("s3cret", query="key")])
@pytest.mark.parametrize("way", ["redirect", "absolute", "other host name"])
def test_another_origin_gets_no_credentials(auth: Any, way: str, serve: Serve) -> None:
    """A redirect and an absolute URL to another port or host carry no sign-in, declared header or echoed key."""
    other = serve(lambda seen: (200, {}, {"ok": 1}))
    there = f"{other.url}/x?key=s3cret&a=1"
    first = serve(lambda seen: (302, {"Location": there}, {}))
    if way == "other host name":
        first.respond = lambda seen: (
            302,
            {"Location": f"{first.url.replace('127.0.0.1', 'localhost')}/x?key=s3cret&a=1"},
            {},
        )
    headers = {"Cookie": "s3cret", "X-Tenant": "s3cret", "User-Agent": "me/1"}
    with HttpClient(f"{first.url}?key=s3cret", auth=auth, headers=headers) as http:
        if way == "absolute":
            http.get_json(there)
        elif way == "redirect":
            http.request("GET", "pets", headers={"X-Call": "s3cret"})
        else:
            with pytest.raises(RedirectRefusedError):
                http.get_json("pets")
    received = other.seen or first.seen[1:]

    assert received

    assert "s3cret" not in repr(received)

    assert (received[0].headers["user-agent"], received[0].query["a"]) == ("me/1", "1")


def test_our_own_origin_keeps_credentials(serve: Serve) -> None:
    """A redirect within the origin, and an absolute URL of it, are signed in exactly once."""
    server = serve()
    server.respond = lambda seen: (301, {"Location": "/new?key=old"}, {}) if seen.path == "/old" else (200, {}, {})
    with HttpClient(server.url, auth=ApiKey("k", query="key"), headers={"X-A": "1"}) as http:
        http.get_json("old")
        http.get_json(f"{server.url}/abs?key=old&a=1")

    assert [seen.target for seen in server.seen] == ["/old?key=k", "/new?key=k", "/abs?a=1&key=k"]

    assert [seen.headers["x-a"] for seen in server.seen] == ["1", "1", "1"]

    assert http.requests == 3


def test_redirects_are_limited(serve: Serve) -> None:
    """Ten redirects are followed, the eleventh is refused."""
    left = 11
    server = serve()
    server.respond = lambda seen: (307, {"Location": f"{seen.path}x"}, {}) if len(seen.path) <= left else (200, {}, {})
    with HttpClient(server.url) as http:
        http.get_json("a")

        assert len(server.seen) == 11
        left = 99
        with pytest.raises(RedirectRefusedError, match="more than 10 redirects"):
            http.get_json("a")

    assert len(server.seen) == 22


def test_unsafe_redirects(serve: Serve) -> None:
    """A POST is not sent again by a redirect; 303 turns it into a GET without its body."""
    server = serve(lambda seen: (307, {"Location": "/b"}, {}))
    with HttpClient(server.url) as http:
        for status in (301, 302, 307, 308):
            server.respond = lambda seen, status=status: (status, {"Location": "/b"}, {})
            with pytest.raises(RedirectRefusedError, match="send the request again"):
                http.post_json("a", {"x": 1})
        server.respond = lambda seen: (303, {"Location": "/b"}, {}) if seen.path == "/a" else (200, {}, {"ok": 1})

        assert http.post_json("a", {"x": 1}) == {"ok": 1}
    last = server.seen[-1]

    assert (last.method, last.path, last.body, last.headers.get("content-type")) == ("GET", "/b", b"", None)


@pytest.mark.parametrize(
    "headers", [{}, {"Location": "ftp://h/x"}, {"Location": "http://[s3cret"}, {"Location": "javascript:s3cret"}]
)
def test_redirects_to_nowhere(headers: dict[str, str], serve: Serve) -> None:
    """A redirect without a target, or to another kind of URL, is refused without repeating it."""
    server = serve(lambda seen: (302, headers, {}))
    with HttpClient(server.url) as http, pytest.raises(RedirectRefusedError) as caught:
        http.get_json("a")

    assert "s3cret" not in str(caught.value)

    assert caught.value.status == 302


def bound(one: socket.socket) -> int:
    """Bind a socket to a free port, and return that."""
    one.bind(("127.0.0.1", 0))
    port: int = one.getsockname()[1]
    return port


class _Counting(httpx.HTTPTransport):
    """Counts how often a connection is tried: a refused one leaves no trace at a server."""

    tried = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.tried += 1
        return super().handle_request(request)


def test_a_failed_connection_is_tried_at_most_twice_more() -> None:
    """Three attempts for a refused connection, nothing counted as sent, and it is over in about a second."""
    transport = _Counting()
    began = time.monotonic()
    with (
        # Bound, so that nobody else takes it, and not listening.
        socket.socket() as free,
        HttpClient(f"http://127.0.0.1:{bound(free)}", transport=transport) as http,
        pytest.raises(ConnectFailedError) as caught,
    ):
        http.get_json("a?x=s3cret")

    assert (transport.tried, http.requests) == (3, 0)

    assert time.monotonic() - began < 20

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"", BrokenAnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", BrokenAnswerError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", BrokenAnswerError),
        (b"SSH-2.0-s3cret\r\n\r\n", BrokenAnswerError),
        (b"HTTP/1.1 200 OK\r\ns3cret s3cret\r\n\r\n", BrokenAnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: br\r\n\r\ns3cret s3", UnreadableError),
    ],
)
def test_a_sent_request_is_never_sent_again(reply: bytes, kind: type[ClientError], serve_raw: Serve) -> None:
    """Whatever breaks after sending is an error at once: one connection, one request."""
    server = serve_raw(reply)
    with HttpClient(server.url) as http, pytest.raises(kind) as caught:
        http.get_json("a")

    assert (server.connections, http.requests) == (1, 1)

    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"


def test_timeouts(serve_raw: Serve) -> None:
    """A server that never answers is given up after the timeout, without another try."""
    server = serve_raw(None)
    began = time.monotonic()
    with HttpClient(server.url, timeout=0.2) as http, pytest.raises(TimedOutError):
        http.get_json("a")

    assert 0.15 < time.monotonic() - began < 20

    # The server's thread may come later than the end.
    while not server.connections:
        time.sleep(0.01)

    assert server.connections == 1


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_body_limit(headers: dict[str, str], serve: Serve) -> None:
    """A body is read up to the limit, packed or not, and refused beyond."""
    body = b"[" + b"1," * 40_000_00 + b"1]"
    server = serve(lambda seen: (200, headers, gzip.compress(body, 1) if headers else body))
    with HttpClient(server.url, max_bytes=len(body) - 1) as http, pytest.raises(TooLargeError, match="max_bytes"):
        http.get_json("a")
    with HttpClient(server.url, max_bytes=len(body)) as http:
        assert len(http.get_json("a")) == 4_000_001


def test_many_threads(serve: Serve) -> None:
    """Eight threads get their own answers, every request is counted, and connections are reused."""
    server = serve(lambda seen: (200, {}, {"path": seen.path}))
    wrong: list[str] = []

    def work(number: int) -> None:
        paths = [f"/{number}/{i}" for i in range(50)]
        wrong.extend(path for path in paths if http.get_json(path) != {"path": path})

    with HttpClient(server.url) as http:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert wrong == []

        assert 400 == http.requests == len(server.seen)

        assert len(http._pool._idle[next(iter(http._origin.origins))]) <= 8
    with pytest.raises(RuntimeError, match="closed"):
        http.get_json("a")


def test_a_renewed_sign_in_is_used(serve: Serve) -> None:
    """Credentials are asked for before every attempt, so a renewed token goes out with the next request."""

    class Renewing:
        count = 0

        def credentials(self) -> Any:
            self.count += 1
            return Bearer(f"t{self.count}").credentials()

        def param_names(self) -> frozenset[str]:
            return frozenset()

    server = serve()
    with HttpClient(server.url, auth=Renewing()) as http:
        http.get_json("a")
        http.get_json("a")

    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer t1", "Bearer t2"]


def test_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Proxies of the environment are used and may be excluded; .netrc is not read."""
    (tmp_path / "netrc").write_text("default login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    proxy, server = serve(), serve()
    monkeypatch.setenv("http_proxy", proxy.url)
    with HttpClient("http://h.example/api") as http:
        http.get_json("a")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HttpClient(server.url) as http:
        http.get_json("a")

    assert [[seen.target for seen in one.seen] for one in (proxy, server)] == [["http://h.example/api/a"], ["/a"]]

    assert ["authorization" in seen.headers for seen in proxy.seen + server.seen] == [False, False]


def test_no_secret_in_the_logs(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """At the most talkative level no log record has the token, the key or the query."""
    server = serve()
    with (
        caplog.at_level(logging.DEBUG),
        HttpClient(server.url, auth=ApiKey("s3cret", query="key"), headers={"X-A": "s3cret"}) as http,
    ):
        http.get_json("a", {"x": "s3cret"})

    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "seconds"), [({}, None), ({"Retry-After": "7"}, 7), ({"Retry-After": "0"}, 1), ({"Retry-After": "soon"}, None)]
)
def test_an_answer_that_is_not_ready(headers: dict[str, str], seconds: float | None, serve: Serve) -> None:
    """202 is no answer to what was asked for, and says when to ask again; to a command it is one."""
    server = serve(lambda seen: (202, headers, {"status": "computing"}))
    with HttpClient(server.url) as http:
        for call in (lambda: http.get_json("report"), lambda: http.answer("POST", "search", json={})):
            with pytest.raises(NotReadyError, match="202 Accepted, not ready yet") as caught:
                call()

            assert caught.value.retry_after == seconds

        assert http.post_json("reports", {}) == http.request("GET", "report").json() == {"status": "computing"}


@pytest.mark.parametrize(
    ("status", "headers", "whole"),
    [
        (203, {}, True),
        (206, {"Content-Range": "items 0-0/1"}, True),
        (206, {"Content-Range": "bytes 0-8/9"}, True),
        (206, {"Content-Range": "items 0-0/2"}, False),
        (206, {"Content-Range": "items 1-1/2"}, False),
        (206, {"Content-Range": "items 0-0/*"}, False),
        (206, {"Content-Range": "nonsense"}, False),
        (206, {}, False),
        (207, {}, False),
        (208, {}, False),
        (226, {}, False),
    ],
)
def test_an_answer_that_is_not_all(status: int, headers: dict[str, str], whole: bool, serve: Serve) -> None:
    """A part of a thing is not the thing."""
    server = serve(lambda seen: (status, headers, [{"id": 1}]))
    with HttpClient(server.url) as http:
        if whole:
            assert http.get_json("pets/1") == [{"id": 1}]
        else:
            with pytest.raises(UnreadableError, match=f"{status} .*not all"):
                http.get_json("pets/1")
