"""What a review by a misbehaving server found: one test a finding, over real sockets where a socket matters."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients import (
    Auth,
    AuthRefusedError,
    Basic,
    Bearer,
    Credentials,
    Cursor,
    HttpClient,
    Keyset,
    LinkHeader,
    Listing,
    NextLink,
    OAuth2ClientCredentials,
    OAuth2RefreshToken,
    PageError,
    PageNumber,
    RateLimitedError,
    RedirectRefusedError,
    ShortError,
    SinglePage,
    TooLargeError,
    TotalPages,
    UnknownOutcomeError,
    UnreadableError,
)
from clients.http.rate_limits.rate_fields import MAX_LENGTH
from clients.http.rate_limits.rate_limit_headers import budgets, wait
from clients.http.rate_limits.throttle import MIN_WAIT
from clients.http.response import OversizeError, decode_json, is_heavy, read_body
from clients.http.status import error_of
from clients.listings.loops_and_completeness import REMEMBERED, Completeness
from clients.token_store import MemoryTokens, Token, TokenLostError

Serve = Callable[..., Any]


# -- rate headers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
def test_a_long_header_stops_nobody(name: str) -> None:
    """Reading a number takes time by the square of its digits, with all threads waiting: a header of 90 kB took minutes."""
    spent = []
    for digits in (MAX_LENGTH, 20 * MAX_LENGTH):
        began = time.process_time()
        for _ in range(3):
            assert wait({name: "1" * digits, "x-ratelimit-remaining": "0"}) is None
        spent.append(time.process_time() - began)

    assert spent[1] < 5 * spent[0] + 0.01


@pytest.mark.parametrize(
    "headers",
    [{"retry-after": "0"}, {"retry-after": "Wed, 20 May 2020 10:00:00 GMT"}, {"retry-after-ms": "1"}],
)
@pytest.mark.parametrize("status", [403, 429, 503])
def test_come_again_at_once_is_a_second(headers: dict[str, str], status: int) -> None:
    """A refusal that says to come again at once cost a worker 333 requests a second, without end and without an attempt."""
    error = error_of(status, headers, method="GET", url="http://h/a")

    assert isinstance(error, RateLimitedError)

    assert error.retry_after == MIN_WAIT == 1.0


def test_a_retry_after_of_zero_gives_way_to_a_budget() -> None:
    """FreshBooks sends `Retry-After: 0` with every answer; the budget beside it knows better. One that says more counts."""
    spent = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}

    assert (wait({"retry-after": "0", **spent}) or 0).seconds == 60  # type: ignore[union-attr]

    assert (wait({"retry-after": "5", **spent}) or 0).seconds == 5  # type: ignore[union-attr]

    assert (wait({"retry-after": "0"}) or 1).seconds == 0  # type: ignore[union-attr]


def test_a_limit_of_zero_is_none() -> None:
    """An answer that came says by `Limit: 0` that there is no limit; nobody waits for one."""
    (budget,) = budgets({"x-ratelimit-limit": "0", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3600"})

    assert budget.wait == 0


# -- bodies ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "unicode_escape", "raw-unicode-escape"])
def test_a_charset_that_is_none(charset: str, serve: Serve) -> None:
    """Codecs of Python that are no charsets raise what nobody expects, or take time by the square of the length."""
    server = serve(lambda seen: (200, {"Content-Type": f"application/json; charset={charset}"}, b'{"a":"\xe9"}'))
    with HttpClient(server.url) as http, pytest.raises(UnreadableError, match="not JSON at position"):
        http.get_json("a")


def test_a_charset_does_not_cost_the_square() -> None:
    """Decoding as `punycode` took 2 s for 300 kB, four times as long for twice as much."""
    body = b'["' + b"a" * 100_000 + b"-" + b"b9a" * 60_000
    began = time.process_time()
    for _ in range(10):
        decode_json(body, content_type="; charset=latin-1")
    plain = time.process_time() - began
    began = time.process_time()
    decode_json(body, content_type="; charset=punycode")

    assert time.process_time() - began < 5 * plain + 0.01


def test_as_deep_as_it_gets() -> None:
    """A number beyond 64 bits below a thousand brackets is unreadable, and no RecursionError."""
    body = b"[" * 1020 + b"1" * 20 + b"]" * 1020

    assert decode_json(body, content_type="") == (None, 0)


def test_what_unpacks_to_nothing_has_an_end() -> None:
    """Empty gzip members for ever, or empty blocks, passed no limit: only the total timeout ended them."""
    taken = itertools.count()

    def chunks() -> Iterator[bytes]:
        while next(taken) < 10_000:
            yield gzip.compress(b"") * 1000

    with pytest.raises(OversizeError):
        read_body(chunks(), encoding="gzip", limit=1 << 20)

    assert next(taken) < 100


def test_a_body_of_too_many_objects(serve: Serve) -> None:
    """64 kB of gzip that become 22 million lists are refused before they are 2 GB of objects; a page of small ones is fine."""
    bomb = gzip.compress(b"[" + b"[]," * 22_000_000 + b"0]")

    assert len(bomb) < 70_000

    server = serve(lambda seen: (200, {"Content-Encoding": "gzip"}, bomb))
    with HttpClient(server.url) as http, pytest.raises(TooLargeError, match="more lists and objects than the client accepts"):
        http.get_json("a")

    assert not is_heavy(b"[" + b'{"id":1234567},' * 4_000_000 + b"0]", limit=64 << 20)


# -- the wire -------------------------------------------------------------------------------------------------------------------


def test_a_slow_reader_has_an_end() -> None:
    """A server that takes a big request a little at a time is given up after the total time, though each bit goes in time."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    read = [0]
    over = threading.Event()

    def sip() -> None:
        connection, _ = listener.accept()
        with connection:
            while not over.wait(0.05) and (data := connection.recv(50_000)):
                read[0] += len(data)

    thread = threading.Thread(target=sip)
    thread.start()
    size = 32 << 20
    began = time.monotonic()
    with HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=5, total_timeout=0.5) as http:
        with pytest.raises(UnknownOutcomeError):
            http.request("POST", "a", content=b"x" * size)

        assert time.monotonic() - began < 20
    over.set()
    thread.join()
    listener.close()

    assert read[0] < size


@pytest.mark.parametrize("status", [300, 305, 306, 399])
def test_a_3xx_that_leads_nowhere_is_no_answer(status: int, serve: Serve) -> None:
    """What stands in the body of a 300 is not what was asked for; a listing of nothing could delete everything."""
    server = serve(lambda seen: (status, {}, []))
    with HttpClient(server.url) as http, pytest.raises(RedirectRefusedError, match=f"{status}, which is not followed"):
        http.get_json("a")


@pytest.mark.parametrize("status", [502, 504, 520, 522, 524, 598, 599])
def test_gateways_do_not_know(status: int, serve: Serve) -> None:
    """Cloudflare's 524 says no more than a 504: the POST may have been done. A GET is tried again."""
    server = serve(lambda seen: (status, {}, {}))
    with HttpClient(server.url) as http:
        with pytest.raises(UnknownOutcomeError):
            http.post_json("a", {})
        with pytest.raises(Exception, match=str(status)) as caught:
            http.get_json("a")

        assert type(caught.value).__name__ == "ServerError"


class Eager:
    """A sign-in of somebody's own that always has something newer."""

    def credentials(self) -> Credentials:
        """Return some."""
        return Credentials((("Authorization", "Bearer x"),))

    def param_names(self) -> frozenset[str]:
        """Return none."""
        return frozenset()

    def renew(self, refused: Credentials, *, again: bool = False) -> bool:
        """Say yes."""
        return True


def test_a_sign_in_is_renewed_once(serve: Serve) -> None:
    """An `Auth` that says yes for ever does not ask for ever."""
    server = serve(lambda seen: (401 if len(server.seen) < 50 else 200, {}, {}))
    auth: Auth = Eager()
    with HttpClient(server.url, auth=auth) as http, pytest.raises(AuthRefusedError):
        http.get_json("a")

    assert len(server.seen) == 2


@pytest.mark.parametrize("auth", [Bearer("t0ken-of-twelve"), Basic("me", "t0ken-of-twelve")])
@pytest.mark.parametrize("paginator", [NextLink(), LinkHeader()])
def test_a_token_in_a_link_is_not_stored(auth: Any, paginator: Any, serve: Serve) -> None:
    """Facebook's next links repeat the token that came in a header: it is taken out, of the cursor and of what is sent."""

    def respond(seen: Any) -> Any:
        link = f"{server.url}/pets?access_token=t0ken-of-twelve&after=2&x=t0ken"
        if "after" in seen.query:
            return 200, {}, {"data": [{"id": 2}]}
        return 200, {"Link": f'<{link}>; rel="next"'}, {"data": [{"id": 1}], "next": link}

    server = serve(respond)
    with HttpClient(server.url, auth=auth) as http:
        first, second = Listing("pets", paginator, items="data")(http)

    assert "t0ken-of" not in repr(first.cursor)

    assert server.seen[1].query == {"after": "2", "x": "t0ken"}

    assert [entity.key for entity in second.items] == ["2"]


# -- listings -------------------------------------------------------------------------------------------------------------------


def test_what_stands_twice_in_one_page_is_no_repetition(serve: Serve) -> None:
    """`repeated` counts what an earlier page had; counted here, too, it made a complete listing `short`."""
    pages = [[1, 1, 2], [3, 2, 2, 1], []]
    server = serve(lambda seen: (200, {}, {"data": [{"id": n} for n in pages[min(int(seen.query["page"]), 3) - 1]], "total": 3}))
    with HttpClient(server.url) as http:
        found = list(Listing("pets", PageNumber(), items="data", total="total", recheck=0)(http))

    assert [page.repeated for page in found] == [0, 2, 0]


def test_what_the_overlap_drops_is_no_repetition(serve: Serve) -> None:
    """Of rows that come again with the edge, those that are as they were are dropped, and those that changed count."""

    def respond(seen: Any) -> Any:
        rows = {None: ["a1", "b1", "c2"], "1": ["b1", "b1", "c2", "d3"], "2": ["c2", "d3"], "3": []}
        return 200, {}, [{"id": row[0], "at": row[1], "n": len(seen.target)} for row in rows[seen.query.get("at")]]

    server = serve(respond)
    with HttpClient(server.url) as http:
        found = list(Listing("pets", Keyset("at", "at"))(http))

    # Each row that came again has changed: `n` is the length of the request.
    assert [page.repeated for page in found][:2] == [0, 2]


def test_graphql_errors_beside_rows(serve: Serve) -> None:
    """GraphQL answers what it has and says what it has not: rows beside errors are not the whole page."""
    server = serve(lambda seen: (200, {}, {"data": {"pets": [{"id": 1}]}, "errors": [{"message": "shard 2 is down"}]}))
    query = {"query": "{ pets { id } }"}
    with HttpClient(server.url) as http:
        with pytest.raises(PageError, match="GraphQL has errors"):
            list(Listing("graphql", items="data.pets", method="POST", json=query)(http))

        assert len(list(Listing("search", items="data.pets", method="POST", json={"q": "x"})(http))) == 1


@pytest.mark.parametrize(
    ("params", "rows", "doubt"),
    [
        ({"limit": 37}, 37, True),
        ({"limit": "37"}, 37, True),
        ({"limit": 38}, 37, False),
        (None, 100, False),
        ({"v": 1}, 1, False),
    ],
)
def test_as_many_rows_as_were_asked_for(params: Any, rows: int, doubt: bool, serve: Serve) -> None:
    """A page as full as it was asked to be, and no paginator: nobody can tell whether that is all. A round one is only told."""
    server = serve(lambda seen: (200, {}, [{"id": n} for n in range(rows)]))
    with HttpClient(server.url) as http:
        (page,) = Listing("pets", SinglePage(), params=params)(http)

    assert bool(page.doubt) is doubt


def messages(server: Any, **bodies: Any) -> Any:
    """An API that pages by cursor or number over five pages, some of which are another body."""

    def respond(seen: Any) -> Any:
        page = int(seen.query.get("cursor", seen.query.get("page", 1)))
        if f"p{page}" in bodies:
            return 200, {}, bodies[f"p{page}"]
        data = [{"id": page * 10 + n} for n in range(3)] if page <= 5 else []
        return 200, {}, {"data": data, "next": page + 1 if page < 5 else None}

    return server(respond)


@pytest.mark.parametrize(
    ("paginator", "bodies", "ended"),
    [
        # Promised by a cursor, and no page.
        (Cursor("next"), {"p5": {"message": "Internal error"}}, "short"),
        (Cursor("next"), {"p3": {"detail": "slow down"}}, "short"),
        # How APIs say that there is nothing: null, an empty list.
        (Cursor("next"), {"p5": {"data": None, "message": "Internal error"}}, "end"),
        (Cursor("next"), {"p5": {"data": [], "message": "no more"}}, "end"),
        # A page that a cursor announced and that has no list says nothing.
        (Cursor("next"), {"p5": {"kind": "pets"}}, "doubt"),
        (Cursor("next"), {"p5": {"message": "OK"}}, "doubt"),
        # Numbers are counted up until nothing more comes, whatever the words for it are.
        (PageNumber(), {"p6": {"message": "No pets found"}, "p7": {"message": "No pets found"}}, "doubt"),
        # In the middle of pages it is an error, also when it stays.
        (PageNumber(), {"p3": {"message": "Internal error"}}, "short"),
        (PageNumber(), {"p3": {"message": "OK"}}, "end"),
    ],
)
def test_a_message_in_place_of_rows(paginator: Any, bodies: Any, ended: str, serve: Serve) -> None:
    """A page without its member for the rows and with words instead is no end where a page was promised, or rows follow."""
    server = messages(serve, **bodies)
    with HttpClient(server.url) as http:
        pages = Listing("pets", paginator, items="data")(http)
        if ended == "short":
            with pytest.raises(ShortError, match="in its place: maybe an error with a good status"):
                list(pages)
        else:
            assert [bool(page.doubt) for page in pages][-1] is (ended == "doubt")

    assert pages.stopped == ended.replace("doubt", "end")


def test_an_error_that_does_not_stay_is_read_again(serve: Serve) -> None:
    """A page that was a message once is read again with all others, and its rows come."""
    asked: list[str] = []

    def respond(seen: Any) -> Any:
        page = seen.query["page"]
        asked.append(page)
        if page == "2" and asked.count("2") == 1:
            return 200, {}, {"msg": "try later"}
        return 200, {}, {"data": [{"id": f"{page}{n}"} for n in range(3)] if int(page) <= 4 else []}

    server = serve(respond)
    with HttpClient(server.url) as http:
        pages = Listing("pets", PageNumber(), items="data")(http)
        keys = {entity.key for page in pages for entity in page.items}

    assert (len(keys), pages.stopped, pages.passes) == (12, "end", 1)


def test_a_last_page_by_number_after_a_message(serve: Serve) -> None:
    """Also when the page behind it is the last one."""

    def respond(seen: Any) -> Any:
        page = int(seen.query["page"])
        return 200, {}, {"message": "oops", "n": 3} if page == 2 else {"data": [{"id": page}] if page < 4 else [], "n": 3}

    server = serve(respond)
    with HttpClient(server.url) as http, pytest.raises(ShortError, match="'message'"):
        list(Listing("pets", TotalPages(path="n"), items="data", recheck=0)(http))


def test_a_page_that_is_known_shows_nothing_new() -> None:
    """A server that wraps around behind more rows than are remembered did count them twice, and reached its total so."""
    memory = Completeness()
    size = 100
    pages = [[f"k{n}" for n in range(start, start + size)] for start in range(0, REMEMBERED + 50 * size, size)]
    for page in pages:
        memory.add_page(page, total=len(pages) * size + 50 * size)
    for page in pages[:50]:
        assert memory.add_page(page).fresh == 0

    assert (memory.distinct, memory.missing) == (len(pages) * size, 50 * size)


def test_how_far_the_clocks_differ(serve: Serve) -> None:
    """The first page says by how much the remote clock is ahead, never too much; the others say nothing of it."""
    server = serve(lambda seen: (200, {}, {"data": [{"id": 1}] if seen.query["page"] == "1" else []}))
    with HttpClient(server.url) as http:
        first, *others = Listing("pets", PageNumber(), items="data")(http)

    assert first.skew is not None

    assert -3 < first.skew <= 0

    assert [page.skew for page in others] == [None] * len(others)


# -- sign-in --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        (b'{"access_token": "abc", "refresh_to', True),
        ({"accessToken": "abc"}, True),
        ({"access_token": "a\nb"}, True),
        ([], True),
        ({"error": "bad_refresh_token"}, False),
    ],
)
def test_an_answer_without_a_token(body: Any, lost: bool, serve: Serve) -> None:
    """A token endpoint that takes the refresh token and gives none may have spent it; one that says error has not."""
    endpoint, api = serve(lambda seen: (200, {}, body)), serve()
    auth = OAuth2RefreshToken(endpoint.url, "me", "s3cret", "s3cret-r")
    with HttpClient(api.url, auth=auth) as http, pytest.raises(AuthRefusedError) as caught:
        http.get_json("a")

    assert isinstance(caught.value, TokenLostError) is lost

    assert "s3cret" not in str(caught.value)


def test_a_token_with_white_space(serve: Serve) -> None:
    """A line break behind a token is not part of it; refused, it would have been fetched and refused for ever."""
    endpoint, api = serve(lambda seen: (200, {}, {"access_token": " abc\n", "expires_in": 3600})), serve()
    with HttpClient(api.url, auth=OAuth2ClientCredentials(endpoint.url, "me", "s3cret")) as http:
        http.get_json("a")

    assert api.seen[0].headers["authorization"] == "Bearer abc"


def test_a_life_of_zero_is_no_life(serve: Serve) -> None:
    """`expires_in: 0` does not cost a renewal for each request."""
    endpoint, api = serve(lambda seen: (200, {}, {"access_token": "abc", "expires_in": 0})), serve()
    with HttpClient(api.url, auth=OAuth2ClientCredentials(endpoint.url, "me", "s3cret")) as http:
        for _ in range(3):
            http.get_json("a")

    assert len(endpoint.seen) == 1


def test_two_people_of_one_app_are_two_identities() -> None:
    """What is kept for one sign-in is not offered to another, also where both came through the same app."""
    one, same, other = (OAuth2RefreshToken("http://h/t", "app", "s3cret", refresh) for refresh in ("ann", "ann", "bob"))

    def identity(auth: Any) -> str:
        with HttpClient("http://h", auth=auth) as http:
            return http.identity

    assert identity(one) == identity(same) != identity(other)

    store = MemoryTokens()
    store.swap(None, Token("t", None, "r"))

    assert "ann" not in repr(one.identity)
