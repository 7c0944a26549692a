"""The SOAP adapter against a spyne service, 1.1 and 1.2, and against answers that no proper service gives."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adapters_kit import Shop

from clients import (
    ApiKey,
    AuthRefusedError,
    Basic,
    Bearer,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    SoapClient,
    TimedOutError,
    TooLargeError,
    UnknownOutcomeError,
    UnreadableError,
    wsdl,
)
from clients.envelope import Fault, fault_error

Serve = Callable[..., Shop]

TOKEN = "token-that-nobody-may-see"


@pytest.fixture(params=[11, 12], ids=["soap11", "soap12"])
def either(request: pytest.FixtureRequest, serve_shop: Serve) -> Shop:
    """A service of each version."""
    return serve_shop(request.param)


def client_of(shop: Shop, **options: Any) -> SoapClient:
    """Return a client of a service."""
    return SoapClient(f"{shop.url}?wsdl", **options)


def says(body: str | bytes, status: int = 200, **headers: str) -> Callable[[str, str], Any]:
    """Return an answer to every POST."""
    content = body.encode() if isinstance(body, str) else body
    named = {"Content-Type": "text/xml; charset=utf-8", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda method, path: (status, named, content) if method == "POST" else None


def fault11(code: str, text: str = "no", extra: str = "") -> str:
    """Return a fault of SOAP 1.1."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
        f"<faultcode {extra}>{code}</faultcode><faultstring>{text}</faultstring></s:Fault></s:Body></s:Envelope>"
    )


def fault12(code: str, sub: str = "", text: str = "no") -> str:
    """Return a fault of SOAP 1.2."""
    subcode = f"<s:Subcode><s:Value>{sub}</s:Value></s:Subcode>" if sub else ""
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>'
        f'<s:Code><s:Value>s:{code}</s:Value>{subcode}</s:Code><s:Reason><s:Text xml:lang="en">{text}</s:Text></s:Reason>'
        "</s:Fault></s:Body></s:Envelope>"
    )


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


# -- faults


FAULTS: list[tuple[str, type[ClientError]]] = [
    ("Client", RejectedError), ("Client.Whatever", RejectedError), ("Server", ServerError), ("Server.Busy", ServerError),
    ("Client.Authentication", AuthRefusedError), ("Server.Unauthorized", AuthRefusedError),
    ("MustUnderstand", RejectedError), ("VersionMismatch", RejectedError), ("TooManyRequests", RateLimitedError),
    ("FailedAuthentication", AuthRefusedError), ("InvalidSecurityToken", AuthRefusedError), ("NoSuchThing", RejectedError),
    ("INVALID_SESSION_ID", AuthRefusedError), ("AccessDeniedException", AuthRefusedError),
    ("AuthenticationFault", AuthRefusedError),
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(("code", "kind"), FAULTS, ids=[code for code, _ in FAULTS])
def test_fault_codes_have_their_meaning(shop: Shop, status: int, code: str, kind: type[ClientError]) -> None:
    """With a prefix or without, and whatever the HTTP status says, 200 included."""
    for prefix, extra in (("", ""), ("s:", ""), ("wsse:", 'xmlns:wsse="http://docs.oasis-open.org/wss"'), ("undeclared:", "")):
        shop.instead = says(fault11(prefix + code, "because", extra), status)
        with client_of(shop) as client, pytest.raises(ClientError) as caught:
            client.call("add", a=1, b=2)

        assert type(caught.value) is kind
        assert f"SOAP fault {code}: because" in str(caught.value)
        assert caught.value.status is None


@pytest.mark.parametrize(
    ("code", "sub", "kind"),
    [("Sender", "", RejectedError), ("Receiver", "", ServerError), ("Sender", "m:NoSuchThing", RejectedError),
     ("Sender", "wsse:FailedAuthentication", AuthRefusedError), ("Receiver", "m:TooManyRequests", RateLimitedError),
     ("DataEncodingUnknown", "", RejectedError), ("MustUnderstand", "", RejectedError)],
)  # fmt: skip
def test_faults_of_soap_12(serve_shop: Serve, code: str, sub: str, kind: type[ClientError]) -> None:
    """Code and subcodes; the special one counts."""
    shop = serve_shop(12)
    for status in (200, 400, 500):
        shop.instead = says(fault12(code, sub), status, Content_Type="application/soap+xml")
        with client_of(shop) as client, pytest.raises(ClientError) as caught:
            client.call("add", a=1, b=2)

        assert type(caught.value) is kind


def test_faults_of_the_real_service(either: Shop) -> None:
    """What spyne raises arrives as what it is."""
    either.faults = {1: "Client.NotFound", 2: "Server", 3: "Client.Authentication"}
    with client_of(either) as client:
        for number, kind in ((1, RejectedError), (2, ServerError), (3, AuthRefusedError)):
            with pytest.raises(kind, match="the shop says no"):
                client.call("get", id=number)
        assert client.call("get", id=4)["id"] == 4


def test_service_says_what_its_codes_mean(shop: Shop) -> None:
    """Only the service's own documents know that a code means "gone"."""
    shop.faults = {1: "Client.NotFound"}
    with client_of(shop, faults={"NotFound": GoneError}) as client, pytest.raises(GoneError):
        client.call("get", id=1)
    with client_of(shop, faults={"Client.NotFound": GoneError}) as client, pytest.raises(GoneError):
        client.call("get", id=1)


def test_fault_without_a_code_is_judged_by_the_status() -> None:
    """A fault in 200 or 5xx is the server's, one in 4xx is ours."""
    kinds = {status: type(fault_error(Fault((), ""), status=status, faults={}, url="http://x/")) for status in (200, 400, 500)}

    assert kinds == {200: ServerError, 400: RejectedError, 500: ServerError}


def test_text_of_a_fault_is_one_short_line_without_our_secrets(shop: Shop) -> None:
    """Some services repeat the password that they refuse."""
    shop.instead = says(fault11("Client", f"bad\n\n token {TOKEN} or hunter2 " + "x" * 1000))
    for auth in (Bearer(TOKEN), Basic("ann", TOKEN), ApiKey(TOKEN), ApiKey(TOKEN, query="key")):
        with client_of(shop, auth=auth) as client, pytest.raises(RejectedError) as caught:
            client.call("add", a=1, b=2)

        assert TOKEN not in repr(caught.value)
        assert "bad token **********" in str(caught.value)
        assert len(str(caught.value)) < 600
        assert "\n" not in str(caught.value)


# -- statuses


@pytest.mark.parametrize(
    ("status", "headers", "kind", "seconds"),
    [(401, {}, AuthRefusedError, None), (403, {}, AuthRefusedError, None), (407, {}, AuthRefusedError, None),
     (429, {"Retry-After": "7"}, RateLimitedError, 7), (503, {"Retry-After": "9"}, RateLimitedError, 9),
     (503, {}, ServerError, None),
     (500, {}, ServerError, None), (502, {}, ServerError, None), (400, {}, RejectedError, None), (405, {}, RejectedError, None)],
)  # fmt: skip
def test_statuses_speak_where_no_fault_does(
    shop: Shop, status: int, headers: dict[str, str], kind: type[ClientError], seconds: float | None
) -> None:
    """HTML of a proxy, or nothing; sign-in and limits count whatever fault comes along."""
    bodies = ["<html>oh</html>", ""] + ([fault11("Client")] if kind in (AuthRefusedError, RateLimitedError) else [])
    for body in bodies:
        shop.instead = says(body, status, **headers)
        with client_of(shop) as client, pytest.raises(ClientError) as caught:
            client.call("add", a=1, b=2)

        assert type(caught.value) is kind
        assert getattr(caught.value, "retry_after", None) == seconds
        assert caught.value.status == status


@pytest.mark.parametrize(
    ("code", "headers", "kind", "seconds"),
    [
        ("Server", {"Retry-After": "7"}, RateLimitedError, 7), ("Server", {"Retry-After": "0"}, RateLimitedError, 1),
        ("Server.TooManyRequests", {"Retry-After": "7"}, RateLimitedError, 7),
        ("Server.TooManyRequests", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}, RateLimitedError, 9),
        ("Server.TooManyRequests", {}, RateLimitedError, None), ("Server", {}, ServerError, None),
        # Which call uses a budget up says nothing of what went wrong with it.
        ("Server", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}, ServerError, None),
        ("Client", {"Retry-After": "7"}, RejectedError, None), ("Client.Auth", {"Retry-After": "7"}, RejectedError, None),
        ("Client.Authentication", {"Retry-After": "7"}, AuthRefusedError, None),
        ("Server", {"Retry-After": "?"}, ServerError, None),
    ],
)  # fmt: skip
def test_fault_that_says_when_to_come_again(
    either: Shop, code: str, headers: dict[str, str], kind: type[ClientError], seconds: float | None
) -> None:
    """SOAP 1.1 has one status for all faults: there a `Retry-After` makes of a server's fault what 503 is elsewhere."""
    either.instead = says(fault11(code), 500, **headers)
    with client_of(either) as client, pytest.raises(ClientError) as caught:
        client.call("add", a=1, b=2)

    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after", None) == seconds
    assert (seconds is None) == ("come again in" not in str(caught.value))


def test_budget_that_is_used_up_holds_calls_back(shop: Shop) -> None:
    """A call is answered, and says that it was the last one: the next is not sent until the hour is over."""
    spent = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
    with client_of(shop) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
        shop.instead = says(fault11("Client.NotFound"), 500, **spent)
        with pytest.raises(RejectedError):
            client.call("add", a=1, b=2)
        shop.instead = lambda method, path: None
        sent = client.requests
        with pytest.raises(RateLimitedError, match="nothing was sent") as caught:
            client.call("add", a=1, b=2)
        assert client.requests == sent
        assert 3500 < (caught.value.retry_after or 0) <= 3600


def test_budget_that_is_soon_full_again_is_waited_for(shop: Shop) -> None:
    """A second is waited out by the call itself, once for all threads."""
    with client_of(shop) as client:
        shop.instead = says("", 200, **{"RateLimit-Remaining": "0", "RateLimit-Reset": "1"})
        client.call("nothing")
        shop.instead = lambda method, path: None
        began = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            assert [one["addResult"] for one in pool.map(lambda n: client.call("add", a=n, b=1), range(3))] == [1, 2, 3]
        assert 0.8 < time.monotonic() - began < 5


def test_budget_of_where_the_wsdl_is_says_nothing_of_the_service(shop: Shop, serve_shop: Serve) -> None:
    """They are two origins; each has a pace of its own."""
    elsewhere = serve_shop()
    with SoapClient(f"{shop.url}?wsdl", address=elsewhere.url) as client:
        wsdl = urllib.request.urlopen(f"{shop.url}?wsdl").read()
        shop.instead = lambda method, path: (
            200, {"Content-Type": "text/xml", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}, wsdl
        )  # fmt: skip
        assert client.call("add", a=1, b=2) == {"addResult": 3}
        assert client.call("add", a=1, b=2) == {"addResult": 3}


@pytest.mark.parametrize("status", [404, 410])
def test_service_that_is_not_there_says_nothing_of_its_entities(shop: Shop, status: int) -> None:
    """404 for the endpoint is trouble, and not an entity that is gone and would be deleted (law 8)."""
    shop.instead = says("not here", status)
    with client_of(shop) as client, pytest.raises(ServerError):
        client.call("get", id=1)


def test_redirected_call_is_refused(shop: Shop, serve_shop: Serve) -> None:
    """It would be sent again, perhaps elsewhere."""
    elsewhere = serve_shop()
    shop.instead = says("", 307, Location=elsewhere.url)
    with client_of(shop, auth=Bearer(TOKEN)) as client, pytest.raises(RedirectRefusedError):
        client.call("get", id=1)

    assert elsewhere.headers == []


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
            gate.wait(10)

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


# -- the WSDL


def test_wsdl_is_kept_and_its_absence_survived(shop: Shop) -> None:
    """A second client asks for it no more; when it is old and cannot be had, the old one goes on serving."""
    with client_of(shop) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    with client_of(shop) as client:
        client.call("add", a=1, b=2)
        assert client.requests == 1
    for status, body in ((503, b""), (404, b"gone"), (200, b"<html>maintenance</html>"[:0] + b"<!DOCTYPE html><html>")):
        shop.instead = lambda method, path, status=status, body=body: (status, {}, body) if method == "GET" else None  # type: ignore[misc]
        with client_of(shop, max_age=0) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
    shop.instead = lambda method, path: (401, {}, b"") if method == "GET" else None
    with client_of(shop, max_age=0) as client, pytest.raises(AuthRefusedError):
        client.call("add", a=1, b=2)


def test_wsdl_in_a_folder_outlives_the_process(shop: Shop, tmp_path: Path) -> None:
    """What another process kept serves where the service does not give its WSDL."""
    with client_of(shop, cache=tmp_path / "kept") as client:
        client.call("add", a=1, b=2)
    wsdl.forget()
    shop.instead = lambda method, path: (503, {}, b"") if method == "GET" else None
    with client_of(shop, cache=tmp_path / "kept") as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    wsdl.forget()
    with client_of(shop) as client, pytest.raises(ServerError):
        client.call("add", a=1, b=2)


def test_wsdl_that_failed_is_asked_for_again_by_the_next_call(shop: Shop) -> None:
    """One bad moment is not remembered."""
    shop.instead = lambda method, path: (503, {}, b"") if method == "GET" else None
    with client_of(shop) as client:
        with pytest.raises(ServerError):
            client.call("add", a=1, b=2)
        shop.instead = lambda method, path: None
        assert client.call("add", a=1, b=2) == {"addResult": 3}


def wsdl_of(shop: Shop) -> str:
    """Return the service's own WSDL."""
    import urllib.request

    with urllib.request.urlopen(f"{shop.url}?wsdl") as answer:
        text: str = answer.read().decode()
    return text


def serve_wsdl(shop: Shop, text: str, **others: str) -> None:
    """Let the service give another WSDL, and further documents by their path."""
    documents = {"/?wsdl": text, **{f"/{name.replace('_', '.')}": body for name, body in others.items()}}
    shop.instead = lambda method, path: (
        (200, {"Content-Type": "text/xml"}, documents[path].encode()) if method == "GET" and path in documents else None
    )


def test_wsdl_that_sends_calls_elsewhere_is_refused(shop: Shop, serve_shop: Serve) -> None:
    """Credentials go to the origin they were declared for (law 9): nothing is sent, unless the address is declared too."""
    elsewhere = serve_shop()
    serve_wsdl(shop, wsdl_of(shop).replace(shop.url, elsewhere.url))

    with client_of(shop, auth=Bearer(TOKEN)) as client, pytest.raises(RejectedError, match="another origin"):
        client.call("add", a=1, b=2)
    assert elsewhere.headers == []
    with client_of(shop, auth=Bearer(TOKEN), address=elsewhere.url) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    assert [one.get("authorization") for one in elsewhere.headers] == [f"Bearer {TOKEN}"]


IMPORT = '<xs:import namespace="extra" schemaLocation="{}"/>'
EXTRA = (
    '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="extra">'
    '<xs:element name="x" type="xs:string"/></xs:schema>'
)


def importing(text: str, location: str) -> str:
    """Return a WSDL whose first schema imports another one."""
    head, mark, rest = text.partition("<xs:schema ")
    inside, close, rest = rest.partition(">")
    return f"{head}{mark}{inside}{close}{IMPORT.format(location)}{rest}"


def test_schema_of_the_same_origin_is_imported(shop: Shop) -> None:
    """With the credentials, by a relative or an absolute address."""
    for location in ("extra.xsd", f"{shop.url}extra.xsd"):
        text = wsdl_of(shop)
        shop.headers.clear()
        wsdl.forget()
        serve_wsdl(shop, importing(text, location), extra_xsd=EXTRA)
        with client_of(shop, auth=Bearer(TOKEN)) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
            assert client.requests == 3
        assert {one.get("authorization") for one in shop.headers} == {f"Bearer {TOKEN}"}
        shop.instead = lambda method, path: None


@pytest.mark.parametrize("kind", ["http", "file", "path", "redirect", "ftp"])
def test_wsdl_that_points_elsewhere_is_refused(shop: Shop, serve_shop: Serve, tmp_path: Path, kind: str) -> None:
    """Another origin, a file of this machine, a redirect: nothing is fetched from there, and no credentials go there."""
    elsewhere = serve_shop()
    serve_extra = lambda method, path: (200, {}, EXTRA.encode())  # noqa: E731
    elsewhere.instead = serve_extra
    (tmp_path / "extra.xsd").write_text(EXTRA)
    location = {
        "http": f"{elsewhere.url}extra.xsd", "file": (tmp_path / "extra.xsd").as_uri(), "path": "../../../../etc/passwd",
        "redirect": "moved.xsd", "ftp": "ftp://127.0.0.1/extra.xsd",
    }[kind]  # fmt: skip
    text = importing(wsdl_of(shop), location)
    serve_wsdl(shop, text)
    served = shop.instead
    if kind == "redirect":
        shop.instead = lambda method, path: (
            (302, {"Location": f"{elsewhere.url}extra.xsd"}, b"") if path == "/moved.xsd" else served(method, path)
        )
    with client_of(shop, auth=Bearer(TOKEN)) as client, pytest.raises(ClientError) as caught:
        client.call("add", a=1, b=2)

    assert isinstance(caught.value, RejectedError | ServerError | UnreadableError)
    if kind in ("http", "file", "redirect"):
        assert isinstance(caught.value, RejectedError)
        assert "another origin" in str(caught.value) or "local file" in str(caught.value)
    assert elsewhere.headers == []
    if kind == "http":
        with client_of(shop, auth=Bearer(TOKEN), trusted=[elsewhere.url]) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
        assert [one.get("authorization") for one in elsewhere.headers] == [None]


def test_imports_without_end_are_refused(shop: Shop) -> None:
    """Each schema imports the next one."""
    text = importing(wsdl_of(shop), "1.xsd")

    def endless(method: str, path: str) -> Any:
        if method != "GET":
            return None
        if path == "/?wsdl":
            return 200, {}, text.encode()
        number = int(path[1:].partition(".")[0])
        space = "extra" if number == 1 else f"extra{number}"
        schema = EXTRA.replace('targetNamespace="extra"', f'targetNamespace="{space}"')
        return (
            200,
            {},
            schema.replace(
                "<xs:element", f'<xs:import namespace="extra{number + 1}" schemaLocation="{number + 1}.xsd"/><xs:element'
            ).encode(),
        )

    shop.instead = endless
    with client_of(shop) as client, pytest.raises(ClientError):
        client.call("add", a=1, b=2)
    assert client.requests <= 202


def test_schema_of_xml_itself_is_at_hand(shop: Shop) -> None:
    """WSDLs import xml:lang without saying where it is; nobody asks www.w3.org."""
    text = wsdl_of(shop)
    head, mark, rest = text.partition("<xs:schema ")
    inside, close, rest = rest.partition(">")
    serve_wsdl(shop, f'{head}{mark}{inside}{close}<xs:import namespace="http://www.w3.org/XML/1998/namespace"/>{rest}')
    with client_of(shop) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}


def test_wsdl_in_a_file(shop: Shop, tmp_path: Path) -> None:
    """With credentials its address has to be declared: a file has no origin."""
    path = tmp_path / "shop.wsdl"
    path.write_text(importing(wsdl_of(shop), "extra.xsd"))
    (tmp_path / "extra.xsd").write_text(EXTRA)

    with SoapClient(path) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    with SoapClient(path.as_uri(), auth=Bearer(TOKEN), address=shop.url) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    with SoapClient(path, auth=Bearer(TOKEN)) as client, pytest.raises(RejectedError, match="another origin"):
        client.call("add", a=1, b=2)
    with SoapClient(tmp_path / "no.wsdl") as client, pytest.raises(RejectedError, match="cannot be read"):
        client.call("add", a=1, b=2)


@pytest.mark.parametrize("text", ["<a/>", "hello", "<definitions xmlns='http://schemas.xmlsoap.org/wsdl/'/>"])
def test_wsdl_that_is_none_is_said_so(shop: Shop, text: str) -> None:
    """Not XML, not a WSDL, without a service."""
    shop.instead = lambda method, path: (200, {}, text.encode())
    with client_of(shop) as client, pytest.raises(ClientError) as caught:
        client.call("add", a=1, b=2)
    assert isinstance(caught.value, UnreadableError | RejectedError)


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
