"""The digest of a listing: the same in each process."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from flows.sync.listing_digest import listing_digest

SETS = """
from types import SimpleNamespace
from flows.sync.listing_digest import listing_digest

def pages(http, since, kinds=frozenset({"p", "q", "r", "s"})):
    def is_one(x):
        return [y for y in x if (lambda z: z in {"a", "b", "c", "d"})(y)]
    return [one for one in is_one(http) if one in {("e", 1), ("f", 2), ("g", 3)} or since in {b"h", b"i", b"j"}]

print(listing_digest(SimpleNamespace(listing=pages, incremental={frozenset({"k", "l", "m"}): 1})))
"""


def test_sets_in_functions() -> None:
    """A set literal is a constant whose order differs between processes, in functions within functions too."""
    found = [
        subprocess.run(
            [sys.executable, "-c", SETS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert len(set(found)) == 1
    assert len(found[0].strip()) == 32


def test_another_constant() -> None:
    """A function that tests for something else is another one, however deep that stands."""

    def digest(source: str) -> str:
        names: dict[str, Any] = {}
        exec(source, names)
        sync: Any = SimpleNamespace(listing=names["pages"], incremental=None)
        return listing_digest(sync)

    deep = "pages = lambda a: " + "(lambda b: " * 10 + "a in {'x', VALUE}" + ")" * 10
    shallow = "pages = lambda a: a in {'x', VALUE}"
    for source in (deep, shallow):
        digests = [digest(source.replace("VALUE", one)) for one in ("'y'", "'z'", "('y', 1)", "('y', 2)", "1j", "2j", "...")]
        assert len(set(digests)) == 7
        assert digest(source.replace("VALUE", "'y'")) == digests[0]


def test_a_name_without_a_value_yet_is_left_out() -> None:
    """A function may know a name of the function around it before that has given it a value."""

    def digest(late: bool) -> str:
        def pages(conn: Any, since: Any) -> Any:
            return iter([value])

        sync: Any = SimpleNamespace(listing=pages, incremental=None)
        if late:
            return listing_digest(sync)
        value = "a"
        return listing_digest(sync)

    assert digest(late=True) != digest(late=False)
