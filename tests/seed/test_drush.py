"""Drush's queue commands, row by row, on the command line `syncs`."""

import json
import re
import subprocess
import sys

import pytest

from tests.support.seed_helpers import Project, states

ORDERS = """
import time
from contextlib import nullcontext
from flows import Client, JobType
from jobs import Failure, Queue

def process(job, _):
    time.sleep(job.payload.get("takes", 0))
    if job.payload.get("bad"):
        return Failure("no", retry=False)

shop = Client("shop", connect=lambda _: nullcontext())
orders = JobType("shop.order", shop, process=process, concurrency=1)
slow = Queue("slow", lease=1234)
letters = JobType("shop.letter", shop, process=process, queue="slow")
"""


@pytest.mark.rows("DR-01", "E-69")
def test_a_run_has_limits_of_time_and_number(here: Project) -> None:
    """`--max-jobs` and `--time-limit` end it, 0 is none, and successes are told from failures."""
    here.write(ORDERS)
    here.syncs("enqueue", "shop.order", '[{"bad": true}, {}, {}, {}]', "--many")
    found = here.document("work", "shop", "--max-jobs", "3")
    assert (found["processed"], found["succeeded"], found["failed"]) == (3, 2, 1)
    assert here.document("work", "shop", "--time-limit", "0", "--until-empty")["processed"] == 1
    here.syncs("enqueue", "shop.order", json.dumps([{"takes": 0.1}] * 30), "--many")
    done = here.document("work", "shop", "--time-limit", "0.6")["processed"]
    assert 0 <= done < 30  # none, where the machine stalls
    assert states(here.store) == {"success": 3 + done, "failure": 1, "queued": 30 - done}
    out = here.syncs("work", "shop", "--max-jobs", "1")[1]
    assert re.fullmatch(r"Processed 1 jobs from the shop queue in \d+\.\d\d seconds: 1 succeeded, 0 failed\.\n", out)


@pytest.mark.rows("DR-03")
def test_an_unknown_queue_names_those_that_there_are(here: Project) -> None:
    """One line, exit 2."""
    here.write(ORDERS)
    assert here.syncs("work", "slwo", "--until-empty") == (2, "", "syncs: no queue is called 'slwo'; declared are: shop, slow\n")


@pytest.mark.rows("DR-06")
def test_queues_are_completed(project: Project) -> None:
    """A shell completes the names of queues behind `work`."""
    project.write(ORDERS)
    script = (
        "import os; os.environ.update(_SYNCS_COMPLETE='bash_complete', COMP_WORDS='syncs work sl', COMP_CWORD='2');"
        "from flows.cli import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=project.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.stdout.splitlines() == ["plain,slow"], found.stderr


@pytest.mark.rows("DR-02", "E-53")
def test_a_queue_that_suspends_itself_is_no_error(here: Project) -> None:
    """A job pauses its client: `work` exits 0, says nothing of an error, and the list says until when."""
    here.write(ORDERS.replace('return Failure("no", retry=False)', "return __import__('jobs').Pause(600, 'closed')"))
    here.syncs("enqueue", "shop.order", '[{"bad": true}, {}]', "--many")
    code, _, err = here.syncs("work", "--until-empty")
    # After five seconds, on a busy machine, it says how far it is.
    assert (code, [line for line in err.splitlines() if not line.startswith("work: ")]) == (0, [])
    queue = next(one for one in here.document("queues") if one["queue"] == "shop")
    assert (queue["queued"], queue["failure"], queue["paused"]) == (2, 0, True)
