"""`Target.beside` reads a path and a query as the parser would, or leaves them to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.http.target import parse_target

PARTS = st.sampled_from([*"aZ09._~-/?&=+%:@,;()'\"#[]{}|\\^ ", "..", "//", "%2F", "%zz", "%2f", "é", "\x00", "\n", "\u2028"])


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://API.example", "http://[::1]:81"])
@given(rest=st.lists(PARTS, max_size=12).map("".join))
def test_it_is_what_the_parser_says(origin: str, rest: str) -> None:
    """Same URL, same bytes on the wire, same origin and host."""
    found = parse_target(origin).beside(rest)
    if found is not None:
        parsed = parse_target(origin + rest)
        assert found == parsed
        assert (found.url.raw_path, found.url.port, found.url.raw_host) == (
            parsed.url.raw_path, parsed.url.port, parsed.url.raw_host,
        )  # fmt: skip
        assert str(found.url) == str(parsed.url)
        assert found.url._uri_reference == parsed.url._uri_reference


@pytest.mark.parametrize("rest", ["/pets", "/pets/1/", "/v1/a.b?page=2&q=%20x+y", "/a?"])
def test_the_common_ones_need_no_parser(rest: str) -> None:
    """The URLs of a listing and of its entities."""
    assert parse_target("http://127.0.0.1:8000/api").beside(rest) == parse_target(f"http://127.0.0.1:8000{rest}")


@pytest.mark.parametrize(
    "rest", ["", "pets", "/../pets", "/a/./b", "/a//b", "/a b", "/a%20b", "/a#b", "/a?b c", "/a\n", "@host/"]
)
def test_what_is_left_to_the_parser(rest: str) -> None:
    """Whatever it would resolve, encode or refuse."""
    assert parse_target("http://127.0.0.1:8000/api").beside(rest) is None
