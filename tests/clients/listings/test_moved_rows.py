"""Samples of pages stay few and even, and gaps are rows between known ones."""

from __future__ import annotations

import pytest

from clients import PageRequest
from clients.listings.moved_rows import MAX_SAMPLES, GapDetector, PageSample


@pytest.mark.parametrize("pages", [1, 2, 16, 17, 100, 1000])
def test_a_sample_is_small_and_has_the_last_page(pages: int) -> None:
    """However many pages there are, the chosen ones are distinct, few, and begin with the last one."""
    sample = PageSample()
    for number in range(pages):
        sample.add(PageRequest({"page": number}), b"%d" % number)

    chosen = [request.params["page"] for request, _ in sample.choose(5)]

    assert chosen[0] == pages - 1
    assert len(set(chosen)) == len(chosen) == min(5, pages)
    assert len(list(sample.choose(10_000))) <= MAX_SAMPLES + 1


@pytest.mark.parametrize(
    ("pages", "looks", "chosen"),
    [(1, 0, []), (1, 1, []), (2, 0, [0]), (2, 1, [0]), (3, 0, [0, 1]), (5, 0, [0, 2]), (5, 1, [0]), (9, 1, [4]), (9, 2, [4])],
)
def test_where_the_end_is_known_few_pages_are_enough(pages: int, looks: int, chosen: list[int]) -> None:
    """With a look behind the end they are two, and never the last page; of an only page nothing is read again."""
    sample = PageSample()
    for number in range(pages):
        sample.add(PageRequest({"page": number}), b"%d" % number)

    assert [request.params["page"] for request, _ in sample.choose(looks=looks)] == chosen

    assert len(sample.choose(4, looks=looks)) == min(4, pages)


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ([True, True, False, False], 0),
        ([False, False, True], 0),
        ([False, True, False], 1),
        ([True, False, True, True, False], 2),
    ],
)
def test_only_new_rows_between_known_ones_are_gaps(new: list[bool], found: int) -> None:
    """New rows in front of all and behind all have just been added; those in between were missed."""
    gaps = GapDetector()
    for is_new in new:
        gaps.add_page([is_new])

    assert gaps.found == found
