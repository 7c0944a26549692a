"""Text of an API in the file that `syncs new` writes."""

import ast
import itertools

from flows.drafting.source import text


def test_a_literal_is_the_text_that_it_stands_for() -> None:
    """Whatever names an API has, the file says exactly these, and nothing else."""
    for length in range(6):
        for letters in itertools.product("\\'\"a\n", repeat=length):
            value = "".join(letters)
            assert ast.literal_eval(text(value)) == value
    assert (text("x"), text("it's"), text('a"b'), text(7)) == ('"x"', '"it\'s"', "'a\"b'", "7")
