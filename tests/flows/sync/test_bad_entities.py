"""Some entities are refused, limited, broken or gone for good: the run ends, and each of them stays alone with it."""

from collections import Counter
from collections.abc import Iterator

import pytest

from flows.sync import run as engine
from jobs import JobStore, Retry
from tests.support.fake_things_api import Fault, Remote, declare, live, query, serving

STATUSES = (403, 429, 500, 404)


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system with things."""
    with serving(Remote(page_size=50)) as found:
        yield found


@pytest.mark.rows("SC-08")
@pytest.mark.parametrize(("things", "each", "apart"), [(60, 1, 13), pytest.param(500, 5, 1, marks=pytest.mark.slow)])
def test_one_run_ends_with_all_others_stored(store: JobStore, remote: Remote, things: int, each: int, apart: int) -> None:
    """It is partial, within the time of its retries; the client is open, and there is one notice."""
    remote.fill(things)
    remote.delay = 0.005
    bad = {f"k{5 + apart * (number * each + k)}": status for number, status in enumerate(STATUSES) for k in range(each)}
    for key, status in bad.items():
        remote.faults[key] = Fault(status, headers={"Retry-After": "1"} if status == 429 else {})
    sync = declare(remote.url, retry=Retry(max_retries=2, delay=0.5), concurrency=8)
    result = engine.run(sync, store, wait=60)
    assert (result.state, result.pending) == ("partial", 0)
    assert (result.succeeded, result.failed, result.gone) == (things - 4 * each, 3 * each, each)
    assert {key for key, _ in result.failures} == {key for key, status in bad.items() if status != 404}
    assert live(store) == {*remote.things} - {*bad}
    assert not store.pauses.in_force(run_out=True)
    assert query(store, "SELECT count(*) AS n FROM pause WHERE cause <> 'asked'") == [{"n": 0}]
    assert query(store, "SELECT count(*) AS n FROM notice") == [{"n": 1}]
    asked = Counter({bad[key]: count for key, count in remote.details.items() if key in bad})
    assert asked[500] == 3
    assert asked[429] <= 5
    # Seconds in pauses, which a busy machine does not make more.
    assert result.waited < 60
