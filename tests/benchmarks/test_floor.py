"""The floor that the store is measured against: a real lease table, so that the ratio means something."""

from collections.abc import Iterator

import pytest

from benchmarks.floor import Floor, drain, open_floor, payload


@pytest.fixture
def floor(empty_database_url: str) -> Iterator[Floor]:
    """A floor with ten jobs."""
    found = open_floor(empty_database_url)
    found.enqueue([payload(number) for number in range(10)])
    yield found
    found.close()


@pytest.mark.parametrize("batch", [1, 7])
def test_it_drains_each_job_once(empty_database_url: str, batch: int) -> None:
    """Every job is claimed and finished, and the speeds are numbers; `drain` itself counts."""
    found = drain(empty_database_url, n=40, batch=batch)
    assert found["drain"] > 0
    assert found["enqueue"] > 0


def test_no_job_is_claimed_twice(empty_database_url: str, floor: Floor) -> None:
    """Two claimers share the jobs."""
    other = open_floor(empty_database_url)
    claims = [*floor.claim(4, "a"), *other.claim(4, "b"), *floor.claim(4, "a")]
    other.close()
    assert len({job_id for job_id, _, _ in claims}) == len(claims) == 10
    assert sorted(found["data"]["alpha_3"] for _, _, found in claims) == [f"k{number:07d}" for number in range(10)]


def test_a_finish_is_fenced(floor: Floor) -> None:
    """A finish counts once, and not at all under another claim's number."""
    claims = floor.claim(10, "a")
    assert floor.finish([(job_id, claim_no + 1, None) for job_id, claim_no, _ in claims], "late") == 0
    assert floor.finish(claims, "done") == 10
    assert floor.finish(claims, "again") == 0
    assert floor.claim(10, "a") == []


def test_a_queued_twin_is_left_out(floor: Floor) -> None:
    """The unique index on fingerprints holds for queued jobs, and only for those."""
    floor.enqueue([payload(3)])
    assert len(floor.claim(20, "a")) == 10
    floor.enqueue([payload(3)])
    assert len(floor.claim(20, "a")) == 1
