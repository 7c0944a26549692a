"""jobs.fingerprint: the identity of a job's content."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import PayloadError
from jobs.db.json_codec import encode
from jobs.fingerprint import canonical, content_hash, entity_fingerprint, fingerprint
from tests.support.store_helpers import run_python

TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)

GOLDEN = [
    # Stored in every database: changing one of these makes every waiting job a stranger to its next twin.
    ("mail", {"to": 1}, "45dcde8cde4d0847694a6ebb0bc51aa3"),
    ("mail", None, "ab0eb5b53428b2bb0187a442dc5831ea"),
    ("", "", "439083f38956ba51ece90631552c6ea2"),
    ("mäil", ["ü", 1.5, True, None, {"b": 1, "a": 2}], "03f81131360ace4456d57206bfd34334"),
    ("mail", 2**70, "f4a4d01b1b3f57d6bff3e576d6348c37"),
]


@pytest.mark.parametrize(("job_type", "value", "expected"), GOLDEN)
def test_golden_values(job_type: str, value: Any, expected: str) -> None:
    """Fingerprints are the same in every version."""
    assert fingerprint(job_type, value) == expected


def test_every_process_agrees() -> None:
    """The seed of Python's own hash does not matter."""
    script = (
        "from jobs.fingerprint import *; v = {chr(c): [c, {'z': c, 'a': 2**70}] for c in range(97, 120)};"
        "print(fingerprint('mail', v), content_hash(v), entity_fingerprint('a.b', 'k' * 200))"
    )
    found = {run_python(script, PYTHONHASHSEED=seed).stdout for seed in ("0", "1", "4711")}
    assert len(found) == 1
    assert found != {""}


@given(st.dictionaries(TEXT, JSON, min_size=2, max_size=5))
def test_key_order_does_not_matter(value: dict[str, Any]) -> None:
    """Objects with the same members are the same."""
    assert fingerprint("t", value) == fingerprint("t", dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a", ["b"]), ("a", "b")),
        (('a","b', "c"), ("a", 'b","c')),
        (("a", 1), ("a", "1")),
        (("a", 1), ("a", True)),
        (("a", None), ("a", "null")),
        (("a", {}), ("a", [])),
        (("a", 2**64), ("a", 2**64 + 1)),
        (("a", {"x": 2**70, "y": 1}), ("a", {"x": 2**70, "y": 2})),
    ],
)
def test_type_and_value_do_not_run_into_each_other(one: tuple[str, Any], other: tuple[str, Any]) -> None:
    """What differs has another fingerprint."""
    assert fingerprint(*one) != fingerprint(*other)


def test_entities_have_readable_fingerprints_while_they_are_short() -> None:
    """Sync and key as they are up to 100 characters, a hash beyond."""
    assert entity_fingerprint("api.things", "42") == "api.things/42"
    assert entity_fingerprint("api.things", "k" * 100) == "api.things/" + "k" * 100
    long = entity_fingerprint("api.things", "k" * 101)
    assert len(long) == 32
    assert long != entity_fingerprint("api.things", "k" * 102)


@given(JSON)
def test_json_is_its_own_canon(value: Any) -> None:
    """Canonical JSON of what was read from canonical JSON is the same text."""
    import json

    assert canonical(json.loads(canonical(value))) == canonical(value)


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, {"a": {1, 2}}, b"bytes", "\ud800", [2**70, object()], [2**70, "\ud800"], {"big": 2**70, "set": {1}}],
    ids=["object", "number as key", "set", "bytes", "surrogate", "big and object", "big and surrogate", "big and set"],
)
@pytest.mark.parametrize("function", [encode, canonical, content_hash])
def test_what_is_not_json_is_refused(function: Any, value: Any) -> None:
    """Values that JSON cannot hold are a PayloadError, beside big numbers too."""
    with pytest.raises(PayloadError):
        function(value)


def test_encode_keeps_the_order_of_keys_and_big_numbers() -> None:
    """A payload is stored as it came."""
    assert encode({"b": 1, "a": 2**70}) == b'{"b":1,"a":1180591620717411303424}'
    assert encode({"b": 1, "a": 2}) == b'{"b":1,"a":2}'
    assert sys.getsizeof(encode("x" * 10**6)) > 10**6
