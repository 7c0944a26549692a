"""The tables that a run leaves."""

import re

import pytest

from flows.orchestration.tracking.result_artifact import failure_table, slug, summary_table
from flows.run_result import RunResult


@pytest.mark.parametrize(
    ("name", "key"), [("petstore.pets", "petstore-pets"), ("A_b..C", "a-b-c"), ("-x-", "x"), ("äöü", "sync"), ("été", "t")]
)
def test_key_has_only_allowed_letters(name: str, key: str) -> None:
    """Artifact keys are lowercase letters, digits and dashes."""
    assert slug(name) == key
    assert re.fullmatch(r"[a-z0-9-]+", slug(name))


def test_summary_has_every_count() -> None:
    """Counts with commas, seconds, and why listing stopped, in words."""
    rows = summary_table(RunResult("a", "a", "partial", listed=7910, seconds=1.26, stopped="limit", message="m"))
    found = {row["what"]: row["value"] for row in rows}
    assert found["listed"] == "7,910"
    assert found["seconds"] == "1.3"
    assert found["listing ended because"] == "the limit was reached"
    assert found["message"] == "m"


def test_failures_are_bounded_and_printable() -> None:
    """At most 100 rows; no control characters; long texts are cut."""
    failures = tuple((f"k{i}\x1b[31m", "a\nb\x00" + "x" * 1000) for i in range(150))
    rows = failure_table(RunResult("a", "a", "partial", failed=150, failures=failures))
    assert len(rows) == 100
    assert rows[0]["entity"] == "k0 \\[31m"
    assert len(rows[0]["error"]) == 300
    assert rows[0]["error"].startswith("a b x")


def test_remote_text_is_no_markup() -> None:
    """An error text cannot bring an image, a link or HTML into the UI, which shows cells as Markdown."""
    text = "![x](http://t/p.png) <img src=x> `a`"
    rows = failure_table(RunResult("a", "a", "partial", failed=1, failures=(("k", text),)))
    assert rows[0]["error"] == r"!\[x](http://t/p.png) \<img src=x> \`a\`"
