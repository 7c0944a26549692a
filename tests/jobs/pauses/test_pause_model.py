"""Pauses against a plain Python model: whatever happens to a client, in any order, on both databases (M8, law 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from jobs import JobStore
from jobs.pauses.probe import Probe
from tests.support.store_helpers import ELSEWHERE, LANE, change, end_probe, enqueue, query, run_out, take

AFTER, HOUR = 3, 3600.0
#: How many generations ago a request began; most are answered in time.
AGES = st.sampled_from([0, 0, 0, 1, 2])


@dataclass
class Open:
    """The open pause, as the model has it."""

    id: int
    cause: str
    #: Seconds that it was set for; `None` waits for a person.
    seconds: float | None
    is_over: bool = False
    #: The number of the probe that is under way.
    probe: int | None = None
    probes: int = 0


class Machine(RuleBasedStateMachine):
    """One client beside its model; answers come from any generation that there ever was."""

    store: JobStore

    def __init__(self) -> None:
        super().__init__()
        for table in ("pause", "client", "job"):
            change(self.store, f"DELETE FROM {table}")
        enqueue(self.store, range(3))
        self.errors = self.level = self.generation = 0
        self.pause: Open | None = None
        self.probes: list[Probe] = []

    def begin(self, found: Any, cause: str, seconds: float | None) -> None:
        """Take note of a pause that must be new."""
        assert found is not None
        assert found.is_new
        assert (found.cause, found.level) == (cause, self.level)
        self.pause, self.generation = Open(found.id, cause, seconds), self.generation + 1

    @property
    def is_in_force(self) -> bool:
        """Whether the client is paused by the clock."""
        return self.pause is not None and not self.pause.is_over

    @rule(troubles=st.just([True] * 3) | st.lists(st.booleans(), min_size=1, max_size=4), age=AGES)
    def answers(self, troubles: list[bool], age: int) -> None:
        """Answers of this or an earlier generation."""
        found = self.store.pauses.record_answers(
            "api", troubles, after=AFTER, durations=[HOUR], reason="", set_by="w", generation=self.generation - age
        )
        if age or self.pause is not None:
            assert found is None
            return
        trouble = False
        for one in troubles:
            self.errors = self.errors + 1 if one else 0
            self.level = self.level if one else 0
            trouble = one and (trouble or self.errors >= AFTER)
        if trouble:
            self.errors, self.level = 0, self.level + 1
            self.begin(found, "level", HOUR)
        else:
            assert found is None

    @rule(
        seconds=st.sampled_from([HOUR / 2, HOUR, 2 * HOUR, None]),
        cause=st.sampled_from(["asked", "enforced", "window", "person"]), age=AGES,
    )  # fmt: skip
    def pauses(self, seconds: float | None, cause: str, age: int) -> None:
        """A person, a window, or an answer that asks for it."""
        generation = self.generation - age if cause in ("asked", "enforced") else None
        found = self.store.pauses.open("api", seconds, cause=cause, reason="", set_by="w", generation=generation)
        before = self.pause if self.is_in_force else None
        if generation is not None and age:
            assert (None if found is None else found.id) == (None if before is None else before.id)
            return
        assert found is not None
        # Of equal lengths the one that was set later lasts longer.
        lasts = before is not None and (before.seconds is None or (seconds is not None and before.seconds > seconds))
        if before is not None and lasts and cause != "person":
            assert (found.id, found.is_new) == (before.id, False)
            return
        self.begin(found, cause, before.seconds if before is not None and lasts else seconds)

    @rule()
    def resumes(self) -> None:
        """A person ends it."""
        assert self.store.pauses.resume("api", by="ada") is (self.pause is not None)
        self.errors = self.level = 0
        self.pause, self.generation = None, self.generation + 1

    @precondition(lambda self: self.is_in_force and self.pause.seconds is not None)
    @rule()
    def time_passes(self) -> None:
        """The clock ends the pause, and somebody tries."""
        run_out(self.store)
        assert self.pause is not None
        self.pause.is_over = True
        self.somebody_probes()

    @precondition(lambda self: self.pause is not None)
    @rule()
    def somebody_probes(self) -> None:
        """One may, where the pause has run out and nobody else does."""
        found = self.store.probes.begin("api", worker=ELSEWHERE, lease=600)
        if self.pause is None or not self.pause.is_over or self.pause.probe is not None:
            assert found is None
            return
        assert found is not None
        self.pause.probes += 1
        self.pause.probe = self.pause.probes
        assert (found.pause_id, found.token, found.generation) == (self.pause.id, self.pause.probe, self.generation)
        self.probes.append(found)

    @precondition(lambda self: self.pause is not None and self.pause.probe is not None)
    @rule()
    def a_prober_is_silent(self) -> None:
        """Its lease ends, and another one begins."""
        change(self.store, "UPDATE pause SET probe_until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL")
        assert self.pause is not None
        self.pause.probe = None
        self.somebody_probes()

    @precondition(lambda self: self.probes)
    @rule(data=st.data(), well=st.sampled_from([True, False, False, None]), asked=st.booleans())
    def a_probe_ends(self, data: st.DataObject, well: bool | None, asked: bool) -> None:
        """A probe tells how it went, also one that was overtaken; only the present one is believed."""
        one = data.draw(st.sampled_from(self.probes[-2:]))
        holds = self.pause is not None and (self.pause.id, self.pause.probe) == (one.pause_id, one.token)
        jobs = self.store.probes.claim_job(one, [LANE], worker=ELSEWHERE, lease=600)
        assert len(jobs) == holds
        self.store.release(jobs, reason="again")
        found = end_probe(self.store, one, well, **({"when": HOUR, "cause": "asked"} if asked else {"durations": [HOUR]}))
        if not holds:
            assert found is None
            return
        assert self.pause is not None
        if well is None:
            assert found is None
            self.pause.probe = None
        elif well:
            assert found is not None
            assert (found.id, found.is_new) == (self.pause.id, False)
            self.errors, self.level = 0, max(0, self.level - 1)
            self.pause, self.generation = None, self.generation + 1
        else:
            self.errors, self.level = 0, self.level if asked else self.level + 1
            self.begin(found, "asked" if asked else "level", HOUR)

    @invariant()
    def the_tables_say_the_same(self) -> None:
        """Mood, generation, standing, claims, and what waits for a probe."""
        for row in query(self.store, "SELECT errors, level, generation FROM client"):
            assert row == {"errors": self.errors, "level": self.level, "generation": self.generation}
        standing = self.store.pauses.state("api")
        assert standing.generation == self.generation
        in_force = self.pause.id if self.pause is not None and not self.pause.is_over else None
        over = self.pause.id if self.pause is not None and self.pause.is_over else None
        assert (None if standing.pausing is None else standing.pausing.id) == in_force
        assert (None if standing.reopening is None else standing.reopening.id) == over
        is_waiting = over is not None and self.pause is not None and self.pause.probe is None
        assert [one.id for one in self.store.probes.due()] == ([over] if is_waiting else [])
        assert query(self.store, "SELECT count(*) AS n FROM pause WHERE ended_at IS NULL") == [{"n": int(self.pause is not None)}]
        jobs = take(self.store)
        assert len(jobs) == (3 if self.pause is None else 0)
        assert {job.client_generation for job in jobs} <= {self.generation}
        self.store.release(jobs, reason="again")


@pytest.mark.rows("M8", "T13", "T15", "SC-20")
def test_any_order_of_pauses_probes_and_answers(open_store: Any) -> None:
    """Answers late and in time, people, windows, the clock, probers that answer, fall silent or come back: one story."""

    class OnStore(Machine):
        store = open_store(max_rescues=10**6)

    run_state_machine_as_test(
        OnStore,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        ),
    )
