"""jobs.enqueueing.duplicates: what becomes of duplicates, as a table, without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import DuplicateJob
from jobs.enqueueing.duplicates import NewJob, Place, Plan, Policy, Twin, check_policy, plan
from jobs.job import Lane
from tests.support.store_helpers import LANE, OTHER

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def new(payload: Any, identity: str | None = "f", **fields: Any) -> NewJob:
    """Make a new job."""
    return NewJob(LANE, payload, identity, **fields)


def both(new: Any, old: Any) -> Any:
    """Merge two payloads into one that shows their order."""
    return f"{new}({old})"


QUEUED = {("default", "f"): Twin(7, "old")}
OLD, FRESH = Place(None, 7, True), Place(0, None, False)

TABLE: list[tuple[Policy, list[Any], list[Any], dict[int, Any], list[Place]]] = [
    # policy, payloads of one fingerprint, inserted payloads, changed twins, places
    ("allow", ["a", "b"], ["a", "b"], {}, [FRESH, Place(1, None, False)]),
    ("discard", ["a", "b"], [], {}, [OLD, OLD]),
    ("replace", ["a"], [], {7: "a"}, [OLD]),
    ("replace", ["a", "b"], [], {7: "b"}, [OLD, OLD]),
    (both, ["a"], [], {7: "a(old)"}, [OLD]),
    (both, ["a", "b"], [], {7: "b(a(old))"}, [OLD, OLD]),
]


@pytest.mark.rows("AQ-19", "E-11")
@pytest.mark.parametrize(("policy", "payloads", "inserts", "updates", "places"), TABLE)
def test_duplicates_of_a_queued_job(
    policy: Policy, payloads: list[Any], inserts: list[Any], updates: dict[int, Any], places: list[Place]
) -> None:
    """Each policy against a twin that is queued."""
    found = plan([new(payload) for payload in payloads], QUEUED, policy)
    assert [one.payload for one in found.inserts] == inserts
    assert {job_id: one.payload for job_id, one in found.updates.items()} == updates
    assert found.places == places


@pytest.mark.rows("E-14", "AQ-19")
@pytest.mark.parametrize(
    ("policy", "stored"), [("allow", ["a", "b", "c"]), ("discard", ["a"]), ("replace", ["c"]), (both, ["c(b(a))"])]
)
def test_duplicates_within_one_call(policy: Policy, stored: list[Any]) -> None:
    """Twins that come together meet each other as if they had come one after the other."""
    found = plan([new("a"), new("b"), new("c")], {}, policy)
    assert [one.payload for one in found.inserts] == stored
    assert found.updates == {}
    if policy != "allow":
        assert found.places == [FRESH, Place(0, None, True), Place(0, None, True)]


@pytest.mark.rows("AQ-20", "E-14")
def test_reject_carries_both() -> None:
    """The error has the new job and the one that it duplicates, queued or of the same call."""
    with pytest.raises(DuplicateJob, match=r"api.things: the job duplicates job 7, which is queued") as caught:
        plan([new("x", "other"), new("a")], QUEUED, "reject")
    assert caught.value.job == new("a")
    assert caught.value.duplicates == (Twin(7, "old"),)
    with pytest.raises(DuplicateJob, match="another one of the same call") as caught:
        plan([new("a"), new("b")], {}, "reject")
    assert caught.value.job == new("b")
    assert caught.value.duplicates == (Twin(None, "a"),)


@pytest.mark.rows("AQ-17", "AQ-18", "AQ-22")
@pytest.mark.parametrize("policy", ["reject", "discard", "replace", both])
def test_what_is_no_duplicate(policy: Policy) -> None:
    """Another fingerprint, another queue, or none at all."""
    elsewhere = NewJob(Lane("elsewhere", "api", "api.things"), "b", "f")
    jobs = [new("a", "g"), elsewhere, new("c", None), new("c", None)]
    found = plan(jobs, QUEUED, policy)
    assert found == Plan(jobs, {}, [Place(index, None, False) for index in range(4)])


def test_allowed_duplicates_have_no_fingerprint() -> None:
    """The unique index would forbid what the policy allows."""
    assert [one.fingerprint for one in plan([new("a")], {}, "allow").inserts] == [None]
    assert [one.fingerprint for one in plan([new("a")], {}, "discard").inserts] == ["f"]


@pytest.mark.rows("AQ-28")
def test_a_delay_debounces_and_none_throttles() -> None:
    """The last time that was named counts; a job that names none changes none."""
    jobs = [new("a", delay=5), new("b"), new("c", available_at=NOON), new("d", priority=3)]
    for twins in ({}, QUEUED):
        found = plan(jobs, twins, "replace")
        (one,) = [*found.inserts, *found.updates.values()]
        assert (one.payload, one.delay, one.available_at, one.priority) == ("d", None, NOON, 3)
    (one,) = plan([new("a"), new("b", delay=0)], QUEUED, "replace").updates.values()
    assert one.delay == 0
    (one,) = plan([new("a"), new("b")], QUEUED, both).updates.values()
    assert one.delay is None


def test_a_merged_payload_has_a_serial_key_of_its_own() -> None:
    """The key follows the payload that is stored, not the one that was handed in."""
    jobs = [new("a", serial_key="of a")]
    for serial, expected in ((None, "of a"), (lambda payload: f"of {payload}", "of a(old)")):
        (one,) = plan(jobs, QUEUED, both, serial=serial).updates.values()
        assert one.serial_key == expected


@pytest.mark.parametrize("policy", ["", "merge", "Discard", None, 7])
def test_no_such_policy(policy: Any) -> None:
    """A wrong word is refused with the right ones."""
    with pytest.raises(ValueError, match="allow, reject, discard, replace or a function"):
        check_policy(policy)


@given(
    st.lists(
        st.tuples(st.sampled_from("fgh"), st.sampled_from([LANE, OTHER, Lane("q", "api", "t")]), st.integers()), max_size=12
    ),
    st.sampled_from(["allow", "discard", "replace", both]),
    st.sets(st.tuples(st.sampled_from(["default", "q"]), st.sampled_from("fgh"))),
)
def test_one_by_one_is_the_same_as_all_at_once(
    content: list[tuple[str, Lane, int]], policy: Policy, queued: set[tuple[str, str]]
) -> None:
    """A bulk call leaves what single calls in its order would leave."""
    jobs = [NewJob(lane, payload, identity) for identity, lane, payload in content]
    start = {identity: Twin(number, "old") for number, identity in enumerate(sorted(queued), 1)}

    at_once = plan(jobs, start, policy)
    whole = [(one.lane, one.payload) for one in at_once.inserts], {i: one.payload for i, one in at_once.updates.items()}

    rows: list[tuple[Lane, Any]] = []
    twins, updates = dict(start), {}
    for one in jobs:
        found = plan([one], twins, policy)
        for insert in found.inserts:
            rows.append((insert.lane, insert.payload))
            if insert.identity is not None:
                twins[insert.identity] = Twin(1000 + len(rows) - 1, insert.payload)
        for job_id, update in found.updates.items():
            assert update.identity is not None
            twins[update.identity] = Twin(job_id, update.payload)
            if job_id >= 1000:
                rows[job_id - 1000] = (rows[job_id - 1000][0] if policy == "allow" else update.lane, update.payload)
            else:
                updates[job_id] = update.payload
    assert [payload for _, payload in rows] == [payload for _, payload in whole[0]]
    assert updates == whole[1]
