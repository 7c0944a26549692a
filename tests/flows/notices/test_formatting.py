"""How messages write durations, names and causes."""

from flows.notices.formatting import body_text, causes_text, names_text


def test_a_body_says_only_what_there_is() -> None:
    """Parts without a text are left out; many names are cut short; keys stand below their cause."""
    assert body_text([("What", "one\ntwo"), ("Why", ""), ("Next", "three")]) == "What\n  one\n  two\n\nNext\n  three\n"
    assert names_text(["a", "b"]) == "a, b"
    assert names_text([str(number) for number in range(20)], most=2) == "0, 1 and 18 more"
    causes = [
        {"text": "ValueError", "count": 7, "keys": ["a", "b", "c", "d", "e"]}, {"text": "KeyError", "count": 1, "keys": ["f"]},
        {"text": "503", "count": 1, "keys": []},
    ]  # fmt: skip
    assert causes_text(causes) == "7 times: ValueError\n    a, b, c, d, e, …\nKeyError\n    f\n503"
