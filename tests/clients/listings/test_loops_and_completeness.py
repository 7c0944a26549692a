"""The memory of a listing: bounded, and right about what repeats."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clients import LoopError, PageRequest
from clients.listings.loops_and_completeness import EMPTY_PAGES, MAX_STALE_PAGES, Completeness, Recent


def page(number: int, rows: int = 10) -> list[str]:
    """The keys of a page."""
    return [f"k{number * rows + n}" for n in range(rows)]


def pages_until(why: str, keys: Callable[[int], list[str]], memory: Completeness | None = None) -> int:
    """Show pages, each behind a new cursor, until that is a circle; return how many there were."""
    memory = memory or Completeness()

    def go_round() -> None:
        for number in range(5000):
            memory.add_page(keys(number))
            memory.check_request(PageRequest({"cursor": number}))

    with pytest.raises(LoopError, match=why):
        go_round()
    return memory.pages


def test_memory_is_bounded() -> None:
    """Of any number of values the last ones are kept, and what is forgotten counts as new."""
    recent = Recent(100)
    for start in range(0, 1000, 10):
        assert all(recent.add_all(range(start, start + 10)))

    assert len(recent) == 100

    assert 999 in recent

    assert 899 not in recent

    assert list(recent.add_all([999, 5, 5, 1001])) == [False, True, False, True]


def test_numbers() -> None:
    """Pages, rows and distinct entities are counted; one on two pages counts once, one without a key by its content."""
    memory = Completeness()
    memory.add_page(page(0))
    check = memory.add_page([*page(0)[-2:], *page(1), "k10"], keyless=["{}"], total=25)

    assert (check.fresh, sum(check.new)) == (11, 10)

    assert (memory.pages, memory.rows, memory.distinct, memory.total, memory.missing) == (2, 24, 21, 25, 4)


@pytest.mark.parametrize("totals", [(5, 3), (None, 3, None), (3, 5), (3, None, 4)])
def test_the_smallest_total_counts(totals: tuple[int | None, ...]) -> None:
    """Rows that come or go meanwhile need not be shown; a total that changes is remembered."""
    memory = Completeness()
    for number, total in enumerate(totals):
        memory.add_page([str(number)], total=total)
    # Behind the end an announcement says nothing new.
    memory.add_page([], total=0)

    assert memory.total == 3

    assert memory.moving == (len({one for one in totals if one is not None}) > 1)


def test_equal_pages_with_new_cursors_are_no_circle() -> None:
    """Two empty pages, and the same rows again behind another cursor, go on (n8n#12272)."""
    memory = Completeness()
    for number, keys in enumerate([page(0), [], [], page(0), page(0), page(1), page(1), page(2)]):
        memory.add_page(keys)
        memory.check_request(PageRequest({"cursor": number}))

    assert memory.distinct == 30


def test_circles_end() -> None:
    """The same request, pages without anything new, and empty ones, each for ever, all end; so does a circle of many pages."""
    memory = Completeness()
    memory.check_request(PageRequest({"page": 1}, memo={"look": 1}))
    with pytest.raises(LoopError, match="already had"):
        memory.check_request(PageRequest({"page": 1}))
    assert pages_until("only entities that earlier ones had", lambda number: page(0)) == 1 + MAX_STALE_PAGES + 2

    assert pages_until("only entities that earlier ones had", lambda number: page(number % 7)) == 7 + MAX_STALE_PAGES + 7 + 1

    assert pages_until("empty pages in a row", lambda number: []) == EMPTY_PAGES


def test_reading_again_is_no_circle() -> None:
    """A second reading shows nothing new for any number of pages, and still ends when it goes round."""
    memory = Completeness()
    for number in range(100):
        memory.add_page(page(number))
    memory.restart()
    for number in range(100):
        memory.add_page(page(number))
        memory.check_request(PageRequest({"page": number}))

    assert memory.distinct == 1000

    assert pages_until("only entities", lambda number: page(number % 3), memory) == 200 + 100 + MAX_STALE_PAGES + 1


def test_rows_without_keys_go_round_too() -> None:
    """A page of rows that have no key is known again by its content."""
    memory = Completeness()
    for number in range(3):
        memory.add_page([], keyless=["{'a': 1}"])
        if number < 2:
            memory.check_request(PageRequest({"page": number}), numbered=True)
    with pytest.raises(LoopError, match="the same page came 3 times"):
        memory.check_request(PageRequest({"page": 2}), numbered=True)

    assert memory.distinct == 1
