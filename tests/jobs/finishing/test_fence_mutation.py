"""The fence is what makes the zombie test pass: without it that test fails, and so it is known to test something (T2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.store_helpers import copy_package, run_python

pytestmark = pytest.mark.slow

#: A worker sleeps through its lease, another one takes its job over, then the first one finishes.
ZOMBIE = """
import sys
from sqlalchemy import text
from jobs import Database, Failure, JobStore, Retry, Success
from jobs.job import JobResult, Lane, Verdict
from jobs.listing.page_plan import Item

store, lane = JobStore(Database(sys.argv[1])), Lane("default", "api", "api.things")
listing = store.listings.claim("api.things", "api", worker="far:1:1:1", lease=60)
store.pages.enqueue(listing, lane, [Item("finish"), Item("snooze"), Item("renew"), Item("release")], cursor=None)

zombies = {job.key: job for job in store.claim([lane], 10, worker="far:1:1:1", lease=60)}
with store.db.write() as connection:
    connection.execute(text("UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00'"))
assert store.rescues.run(["default"]) == 4
owners = {job.key: job for job in store.claim([lane], 10, worker="far:2:2:2", lease=60, suspects=True)}
assert len(owners) == 4

def finish(job):
    return store.finish([JobResult(job, Verdict(Success()), Retry())])[0].state

stale = {
    "finish": finish(zombies["finish"]),
    "snooze": store.finish([JobResult(zombies["snooze"], Verdict(Failure("late")), Retry())])[0].state,
    "renew": store.renew([(zombies["renew"].id, zombies["renew"].claim_no)], lease=60),
    "release": store.release([zombies["release"]], reason="late"),
}
current = {key: finish(job) for key, job in owners.items()}
store.close()
print("fenced" if stale == {"finish": "lost", "snooze": "lost", "renew": set(), "release": 0} else f"stale writes: {stale}")
print("owned" if set(current.values()) == {"success"} else f"owners lost: {current}")
"""


@pytest.mark.parametrize(
    "fence",
    [
        "",
        "job.c.id == claim.id",
        # State alone is what most queues check; it does not tell one owner from the next.
        "and_(job.c.id == claim.id, job.c.state == PROCESSING_LITERAL)",
    ],
    ids=["as it is", "no fence", "state alone"],
)
def test_the_zombie_test_fails_without_the_fence(database_url: str, tmp_path: Path, fence: str) -> None:
    """A stale worker writes nothing with the fence, and over its successor without it."""
    folder = tmp_path / "copy"
    folder.mkdir()
    module = copy_package(folder) / "finishing" / "fence.py"
    if fence:
        code, n = re.subn(
            r"(\ndef is_held\(.*?\n    return )[^\n]+", lambda found: found[1] + fence, module.read_text(), flags=re.DOTALL
        )
        assert n == 1
        module.write_text(code)
    found = run_python(ZOMBIE, database_url, PYTHONPATH=str(folder))
    assert found.returncode == 0, found.stderr
    if fence:
        assert found.stdout.splitlines()[0].startswith("stale writes"), found.stdout
    else:
        assert found.stdout.splitlines() == ["fenced", "owned"]
