"""JSON is stored digit for digit, and what JSON does not have is refused, wherever it stands; both codecs do the same."""

import contextlib
import copy
import pickle
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clients.json_codec
import jobs.db.json_codec
from flows.plain_json import plain_json
from jobs import PayloadError
from jobs.fingerprint import content_hash

CODECS = [clients.json_codec, jobs.db.json_codec]

EXACT = [
    "1884518522.1684267241",
    "12345678901234567.89",
    "-0.12345678901234567891",
    "123456789012345678901234567890",
    "1e400",
    "-1E-400",
    "1e99999999999999999999",
    "9" * 5000,
]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("digits", EXACT)
@pytest.mark.parametrize("form", ["{}", "[{}]", '{{"a":{{"b":[1,{},null]}},"c":12345678901234567890123}}'])
def test_digits_are_kept(codec: Any, digits: str, form: str) -> None:
    """Whatever holds the number; and copies of it have them too."""
    text = form.format(digits).encode()
    value = codec.decode(text)
    for one in (value, copy.deepcopy(value), pickle.loads(pickle.dumps(value)), plain_json(value)):
        assert codec.encode(one) == text


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS


@given(value=st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=10))
def test_all_else_is_as_before(value: Any) -> None:
    """What a float holds is a float, in the spelling that it had before."""
    for codec in CODECS:
        text = codec.encode(value)
        assert codec.decode(text) == value
        assert codec.encode(codec.decode(text)) == text
        with contextlib.suppress(TypeError):  # orjson refuses whole numbers beyond 64 bits
            assert text == orjson.dumps(value)


def test_it_calculates_as_a_float() -> None:
    """Programs that expect a float go on; those that need the digits have them."""
    value = clients.json_codec.decode(b"[1884518522.1684267241]")[0]
    assert isinstance(value, float)
    assert value + 1 == 1884518523.1684268
    assert Decimal(str(value)) == Decimal("1884518522.1684267241")
    assert value != clients.json_codec.decode(b"1884518522.1684267499")
    assert value == jobs.db.json_codec.decode("1884518522.1684267241")
    assert f"{value:.2f}" == "1884518522.17"


def test_the_last_digit_counts() -> None:
    """In hashes of records and fingerprints of jobs."""
    one, other = (jobs.db.json_codec.decode(f'{{"a":1884518522.16842672{end}}}') for end in (41, 49))
    assert content_hash(one) != content_hash(other)


@dataclass
class Row:
    """A record that is an object."""

    amount: float


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", [lambda x: x, lambda x: [None, x], lambda x: {"a": {"b": (1, x)}}, Row])
def test_what_json_does_not_have(codec: Any, wrong: float, form: Any) -> None:
    """No number becomes null."""
    with pytest.raises((PayloadError, ValueError), match="NaN or an infinite number"):
        codec.encode(form(wrong))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("wrong", [{1, 2}, b"x", object(), {1: 2}, "\ud800", Decimal("NaN"), [2**70, {1}], int])
def test_what_has_no_form(codec: Any, wrong: Any) -> None:
    """It is refused, and not written as something else."""
    with pytest.raises((PayloadError, ValueError), match="not JSON"):
        codec.encode([wrong])


@pytest.mark.parametrize("number", EXACT[:3])
def test_a_single_number(number: str) -> None:
    """SQLite makes a number of a text that is one: it is refused before it is rounded."""
    with pytest.raises(PayloadError, match="SQLite would round"):
        jobs.db.json_codec.document(jobs.db.json_codec.decode(number))
