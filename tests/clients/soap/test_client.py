"""The SOAP adapter against a spyne service, 1.1 and 1.2, and against answers that no proper service gives."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clients import (
    ApiKey,
    AuthRefusedError,
    Basic,
    Bearer,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    RejectedError,
    ServerError,
    SoapClient,
    TimedOutError,
    TooLargeError,
    UnknownOutcomeError,
    UnreadableError,
)
from clients.soap import wsdl
from tests.support.adapter_servers import Shop
from tests.support.soap_answers import TOKEN, client_of, fault11, says

# -- calls


def test_answers_are_plain_values(either: Shop) -> None:
    """Objects, numbers, lists, nothing: always a dict of JSON values, decimals digit for digit."""
    with client_of(either) as client:
        found = client.call("get", id=7)

        assert found == {
            "id": 7, "name": "thing 7 ü", "price": "1.10", "changed": "2024-01-02T03:04:05", "day": "2024-01-02",
            "took": "PT1M30S", "raw": "AP8=", "weight": 1.5, "good": True,
        }  # fmt: skip
        assert json.loads(json.dumps(found)) == found
        assert client.call("add", a=1, b=2**70) == {"addResult": 1 + 2**70}
        assert [one["id"] for one in client.call("all")["allResult"]] == [*range(25)]
        assert client.call("nothing") == {}
        assert client.call("echo", text=None) == {"echoResult": None}
        assert client.call("page", page=3, size=10)["things"]["Thing"][0]["id"] == 20
        assert "page" in client.operations


def test_arguments_that_do_not_fit_are_refused_and_not_sent(shop: Shop) -> None:
    """Unknown operations and arguments name what there is; nothing leaves the machine."""
    with client_of(shop) as client:
        with pytest.raises(RejectedError, match="it has: add"):
            client.call("sub", a=1)
        requests = client.requests
        with pytest.raises(RejectedError, match="unexpected keyword argument 'c'"):
            client.call("add", c=1)
        assert client.requests == requests


def test_one_client_serves_many_threads(shop: Shop) -> None:
    """It says that it is thread-safe, and is; the WSDL is read once."""
    with client_of(shop) as client, ThreadPoolExecutor(8) as pool:
        assert client.thread_safe
        assert [found["id"] for found in pool.map(lambda n: client.call("get", id=n), range(200))] == [*range(200)]
        assert client.requests == 201


def test_names_of_arguments_may_be_anything(shop: Shop) -> None:
    """Also that of `call`'s own parameter."""
    with client_of(shop) as client, pytest.raises(RejectedError, match="unexpected keyword argument 'operation'"):
        client.call("add", operation=1)


# -- bad answers


def envelope(body: str) -> str:
    """Return an envelope of SOAP 1.1."""
    return f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{body}</s:Body></s:Envelope>'


GOOD = envelope('<a:addResponse xmlns:a="shop"><a:addResult>3</a:addResult></a:addResponse>')
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "haha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)


def test_good_answer_by_hand(shop: Shop) -> None:
    """The answers below differ from this one by what is wrong with them."""
    for body in (GOOD, f"<?xml version='1.0' encoding='utf-8'?>\n<!-- hello -->\n{GOOD}", GOOD.encode("utf-16")):
        shop.instead = says(body)
        with client_of(shop) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}


@pytest.mark.parametrize("cut", [10, 60, 100, len(GOOD) - 20, len(GOOD) - 1])
def test_truncated_envelope_is_tried_again(shop: Shop, cut: int) -> None:
    """XML that breaks off with status 200 is a broken connection, not an answer (zeep#339)."""
    shop.instead = says(GOOD[:cut])
    with client_of(shop) as client, pytest.raises(BrokenAnswerError if cut > 11 else UnreadableError):
        client.call("add", a=1, b=2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<!DOCTYPE html><html><body>Maintenance</body></html>", "HTML"),
        ("<html>no", "HTML"), ("hello", "not a SOAP envelope"), (b"\x00\x01\x02", "not a SOAP envelope"),
        ("<Envelope/>", "not an envelope of SOAP"), (envelope("<a><b></a></b>"), "not well-formed"),
        (envelope('<a:addResponse xmlns:a="shop"><a:addResult>many</a:addResult></a:addResponse>'), "does not fit the WSDL"),
        (envelope('<a:other xmlns:a="shop"/>'), "does not fit the WSDL"), (envelope(""), "does not fit the WSDL"),
        (envelope("<a>" * 300 + "</a>" * 300), "too deep"),
        ("<?xml version='1.0' encoding='utf-7'?>" + GOOD, "encoding"),
        ("<?xml version='1.0' encoding='cp037'?>" + GOOD, "encoding"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_said_so(shop: Shop, body: str | bytes, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Pages in HTML, nonsense, values that do not fit: a failure of that one job that repeats nothing of it."""
    shop.instead = says(body)
    with client_of(shop) as client, pytest.raises(UnreadableError, match=said) as caught:
        client.call("add", a=1, b=2)
    assert "Maintenance" not in repr(caught.value)
    assert "many" not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    "bomb",
    [
        BOMB + envelope("<a>&j;</a>"), BOMB + envelope('<a b="&j;"/>'), (BOMB + envelope('<a b="&j;"/>')).encode("utf-16"),
        "<!-- x --><?pi x?>\n" + BOMB.partition("?>")[2] + envelope("&i;"),
        '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + envelope("<a>&x;</a>"),
        '<!DOCTYPE s SYSTEM "http://127.0.0.1:1/evil.dtd">' + envelope("<a/>"),
        '<!DOCTYPE s [<!ENTITY % x SYSTEM "http://127.0.0.1:1/evil.dtd"> %x;]>' + envelope("<a/>"),
    ],
)  # fmt: skip
def test_dtds_are_refused_unread(shop: Shop, bomb: str | bytes) -> None:
    """Billion laughs in text and attributes, external entities, external DTDs: in answers and in the WSDL."""
    shop.instead = says(bomb)
    with client_of(shop) as client, pytest.raises(UnreadableError, match="DTD"):
        client.call("add", a=1, b=2)

    content = bomb.encode() if isinstance(bomb, str) else bomb
    shop.instead = lambda method, path: (200, {"Content-Type": "text/xml"}, content)
    wsdl.forget()
    with client_of(shop) as client, pytest.raises(UnreadableError, match="DTD"):
        client.call("add", a=1, b=2)


def test_text_that_looks_like_a_dtd_is_text(shop: Shop) -> None:
    """A record may well hold a page in HTML."""
    with client_of(shop) as client:
        assert client.call("echo", text="<!DOCTYPE html>") == {"echoResult": "<!DOCTYPE html>"}


def test_charset_of_the_header_counts_where_the_xml_names_none(shop: Shop) -> None:
    """RFC 7303: text/xml; charset=iso-8859-1."""
    answer = envelope('<a:echoResponse xmlns:a="shop"><a:echoResult>größe</a:echoResult></a:echoResponse>')
    shop.instead = says(answer.encode("latin-1"), Content_Type="text/xml; charset=iso-8859-1")
    with client_of(shop) as client:
        assert client.call("echo", text="x") == {"echoResult": "größe"}


def test_answer_larger_than_the_limit_is_refused(shop: Shop) -> None:
    """Also one that grows when it is unpacked."""
    import gzip

    big = envelope(f'<a:echoResponse xmlns:a="shop"><a:echoResult>{"x" * 3_000_000}</a:echoResult></a:echoResponse>').encode()
    for body, headers in ((big, {}), (gzip.compress(big), {"Content_Encoding": "gzip"})):
        shop.instead = says(body, **headers)
        with client_of(shop, max_bytes=1_000_000) as client, pytest.raises(TooLargeError):
            client.call("echo", text="x")


def test_envelope_in_several_parts_is_read(shop: Shop) -> None:
    """multipart/related with the envelope in the first part; a fault in it is a fault."""

    def parts(body: str) -> bytes:
        return f"--b\r\nContent-Type: text/xml\r\n\r\n{body}\r\n--b--\r\n".encode()

    kind = 'multipart/related; boundary="b"; type="text/xml"'
    with client_of(shop) as client:
        shop.instead = says(parts(GOOD), Content_Type=kind)
        assert client.call("add", a=1, b=2) == {"addResult": 3}
        shop.instead = says(parts(fault11("Server")), 500, Content_Type=kind)
        with pytest.raises(ServerError):
            client.call("add", a=1, b=2)
        shop.instead = says(parts(BOMB + GOOD), Content_Type=kind)
        with pytest.raises(UnreadableError, match="DTD"):
            client.call("add", a=1, b=2)


# -- time limits


def test_both_time_limits_are_set(shop: Shop) -> None:
    """Loading the WSDL and calling have one each; neither waits for ever (zeep#140)."""
    gate = threading.Event()

    def slowly(method: str, path: str) -> None:
        if method == slow:
            gate.wait(60)

    shop.instead = slowly
    slow = "GET"
    with client_of(shop, timeout=0.3) as client, pytest.raises(TimedOutError):
        client.call("add", a=1, b=2)
    slow = "POST"
    with client_of(shop, operation_timeout=0.3) as client, pytest.raises(TimedOutError):
        client.call("add", a=1, b=2)
    gate.set()


def test_write_without_an_answer_has_an_outcome_of_its_own(shop: Shop) -> None:
    """Nobody repeats blindly what may have been done."""
    shop.instead = says(GOOD[:100])
    with client_of(shop, writes={"add"}) as client:
        with pytest.raises(UnknownOutcomeError):
            client.call("add", a=1, b=2)
        with pytest.raises(BrokenAnswerError):
            client.call("get", id=1)


@pytest.mark.parametrize(("status", "kind"), [(502, UnknownOutcomeError), (504, UnknownOutcomeError), (500, ServerError)])
def test_gateway_that_answers_a_write_knows_nothing_of_it(shop: Shop, status: int, kind: type[ClientError]) -> None:
    """What stands behind it may have done it; the service's own 500 says that it has not, and reading may always be repeated."""
    shop.instead = says("<html>Bad Gateway</html>", status)
    with client_of(shop, writes={"add"}) as client:
        with pytest.raises(kind):
            client.call("add", a=1, b=2)
        with pytest.raises(ServerError):
            client.call("get", id=1)


# -- signing in


def test_credentials_go_with_every_request_and_into_no_log(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """Bearer, Basic, keys in a header and in the query; also a user in the URL."""
    caplog.set_level(logging.DEBUG)
    for auth, expected in (
        (Bearer(TOKEN), {"authorization": f"Bearer {TOKEN}"}), (ApiKey(TOKEN, header="X-Key"), {"x_key": TOKEN}),
        (ApiKey(TOKEN, query="key"), {}), (Basic("ann", TOKEN), {}),
    ):  # fmt: skip
        wsdl.forget()
        shop.headers.clear()
        with client_of(shop, auth=auth) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
            assert TOKEN not in repr(client)
        assert len(shop.headers) == 2
        for seen in shop.headers:
            assert expected.items() <= seen.items()
    shop.headers.clear()
    with SoapClient(f"{shop.url.replace('//', '//ann:pw@')}?wsdl") as client:
        client.call("add", a=1, b=2)
    assert {seen["authorization"] for seen in shop.headers} == {"Basic YW5uOnB3"}
    assert TOKEN not in caplog.text


def test_sign_in_that_ran_out_is_renewed_once(shop: Shop) -> None:
    """An auth that can be renewed is asked once, on 401 and on a fault that says the same."""

    class Renewing:
        def __init__(self) -> None:
            self.now = "old"

        def credentials(self) -> Any:
            return Bearer(self.now).credentials()

        def param_names(self) -> frozenset[str]:
            return frozenset()

        def renew(self, refused: Any) -> bool:
            self.now, before = "new", self.now
            return before == "old"

    def until_new(method: str, path: str) -> Any:
        if method == "POST" and shop.headers[-1].get("authorization") != "Bearer new":
            return refusal
        return None

    shop.instead = until_new
    for refusal in ((401, {}, b""), (500, {}, fault11("wsse:FailedAuthentication").encode())):  # noqa: B007 - `until_new` reads it
        with client_of(shop, auth=Renewing()) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
    shop.instead = lambda method, path: (401, {}, b"") if method == "POST" else None
    with client_of(shop, auth=Renewing()) as client, pytest.raises(AuthRefusedError):
        client.call("add", a=1, b=2)


def test_sign_in_of_the_envelope(shop: Shop) -> None:
    """WS-Security of zeep's."""
    from zeep.wsse import UsernameToken

    shop.instead = says(fault11("wsse:FailedAuthentication", "wrong: hunter2"))
    with client_of(shop, wsse=UsernameToken("ann", "hunter2")) as client, pytest.raises(AuthRefusedError) as caught:
        client.call("add", a=1, b=2)
    assert "hunter2" not in repr(caught.value)


def test_certificate_that_does_not_match_is_refused(certificate: Path) -> None:
    """The WSDL is not read from somebody else, and nobody else gets the credentials."""
    import ssl
    from wsgiref.simple_server import make_server

    got: list[str] = []

    def respond(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        got.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b""]

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with make_server("127.0.0.1", 0, respond) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *args: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for url, verify in (
            (f"https://localhost:{server.server_port}/?wsdl", True),
            (f"https://127.0.0.1:{server.server_port}/?wsdl", str(certificate)),
        ):
            with SoapClient(url, auth=Bearer(TOKEN), verify=verify) as client, pytest.raises(ConnectFailedError):
                client.call("add", a=1, b=2)
        server.shutdown()
    assert got == []


def test_declaring_is_checked() -> None:
    """Two sign-ins, numbers out of range, URLs that are none."""
    for make in (
        lambda: SoapClient("http://a:b@x/?wsdl", auth=Bearer("t")), lambda: SoapClient("http://x/", timeout=0),
        lambda: SoapClient("http://x/", trusted=["nothing"]), lambda: SoapClient("http://x/", address="nothing"),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            make()
