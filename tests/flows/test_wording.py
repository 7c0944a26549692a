"""The words of notices: what may be said of an error, and what makes two errors the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.wording import body, causes_text, clean, listed, sign, span


@pytest.mark.parametrize(
    ("message", "said"),
    [
        # Whoever wrote it did not mask its sign-in; and nothing moves the cursor of a terminal.
        ("GET https://robot:geheim@shop.example/rows: 401", "GET https://shop.example/rows: 401"),
        ("listing: no \x1b[31mroom\x07 \u202e here", "listing: no [31mroom here"),
        # Ours: neither query nor body is in it; the key is named elsewhere.
        (
            "GET https://shop.example/rows/k-1: 503 Service Unavailable",
            "GET https://shop.example/rows/…: 503 Service Unavailable",
        ),
        (
            "listing: POST https://shop.example/rows: no answer in 30 s",
            "listing: POST https://shop.example/rows: no answer in 30 s",
        ),
        (
            "sent, no answer: POST https://shop.example/rows: timed out",
            "sent, no answer: POST https://shop.example/rows: timed out",
        ),
        ("timed out after 5 s, waiting for GET https://x.example/", "timed out after 5 s, waiting for GET https://x.example/"),
        (
            "see https://shop.example/a-path-that-is-rather-long?token=s3cret",
            "see https://shop.example/a-path-that-is-rather-long",
        ),
        # Of a foreign exception the class.
        ("ValueError: bad name Bob", "ValueError"),
        ("listing: KeyError: 'Bob'", "listing: KeyError"),
        ("sqlalchemy.exc.IntegrityError: (x) [parameters: ('Bob',)]", "sqlalchemy.exc.IntegrityError"),
        ("could not book: JSONDecodeError: Bob", "could not book: JSONDecodeError"),
        ("ValidationError: 1 error\n  name: Bob", "ValidationError"),
        # What somebody wrote for people, without what it quotes.
        ("no room for Bob", "no room for …"),
        ("no room for 'Tim', sorry", "no room for …, sorry"),
        ('bad record {"a": [1, 2]} of tim@example.org', "bad record … of …"),
        ("k-1 is not there, k-10 is", "… is not there, k-10 is"),
        ("token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9 refused", "token … refused"),
        ("", "no reason given"),
    ],
)
def test_what_may_be_said(message: str, said: str) -> None:
    """Nothing that an error may quote of somebody's data."""
    assert clean(message, key="k-1", payload={"name": "Bob", "data": [{"zip": 12345}]}) == said


@given(st.text(min_size=3, max_size=20), st.sampled_from(["no room for {}", "ValueError: {}", "{}", "a {} b", "'{}'"]))
def test_no_value_of_a_payload_is_said(value: str, text: str) -> None:
    """Whatever it is, and wherever it stands."""
    word = " ".join(value.split())
    said = clean(text.format(value), payload={"deep": [{"value": word}]})
    if len(word) > 2 and word.strip("…") and word not in text:
        assert word not in said.replace("no reason given", "")


def test_the_same_error_has_the_same_sign() -> None:
    """Numbers make no other error, statuses do."""
    assert sign("timed out after 3 s") == sign("timed out after 17 s")
    assert sign("GET https://x.example/: 503") != sign("GET https://x.example/: 401")
    assert sign("a") != sign("b")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"), (89, "89 s"), (90, "2 min"), (3599, "1 h"), (3660, "1 h 1 min"), (100_000, "27 h 47 min"),
        (200_000, "2 days 7 h"), (-1, "0 s"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    """Two units at most."""
    assert span(seconds) == said


def test_a_body_says_only_what_there_is() -> None:
    """Parts without a text are left out; many names are cut short; keys stand below their cause."""
    assert body([("What", "one\ntwo"), ("Why", ""), ("Next", "three")]) == "What\n  one\n  two\n\nNext\n  three\n"
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(20)], most=2) == "0, 1 and 18 more"
    causes = [
        {"text": "ValueError", "count": 7, "keys": ["a", "b", "c", "d", "e"]}, {"text": "KeyError", "count": 1, "keys": ["f"]},
        {"text": "503", "count": 1, "keys": []},
    ]  # fmt: skip
    assert causes_text(causes) == "7 times: ValueError\n    a, b, c, d, e, …\nKeyError\n    f\n503"
