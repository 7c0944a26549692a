"""What the progress artifact says."""

import pytest

from flows.orchestration.tracking.progress_artifact import describe, percentage
from flows.progress import Progress


@pytest.mark.rows("E-38", "BA-08")
@pytest.mark.parametrize(
    ("progress", "share", "text"),
    [
        (Progress(), 0.0, "x: 0 of 0 entities listed so far"),
        (Progress(listing_ended=True), 100.0, "x: 0 of 0 entities"),
        (Progress(listed=100, queued=100, succeeded=100), 99.0, "x: 100 of 100 entities listed so far"),
        (
            Progress(listed=7910, queued=7910, succeeded=4197, failed=3, listing_ended=True),
            53.1,
            "x: 4,200 of 7,910 entities, 3 failed",
        ),
        (Progress(listed=7910, queued=7910, succeeded=7909, listing_ended=True), 99.9, "x: 7,909 of 7,910 entities"),
        (Progress(listed=10, unchanged=10, listing_ended=True), 100.0, "x: 10 of 10 entities"),
        (Progress(queued=4, succeeded=2, snoozed=9, put_off={3, 4}, listing_ended=True), 50.0, "x: 2 of 4 entities, 2 put off"),
    ],
)
def test_share_and_words(progress: Progress, share: float, text: str) -> None:
    """Never 100 % while more may come; thousands have commas; what needs a look is named."""
    assert percentage(progress) == share
    assert describe("x", progress) == text
