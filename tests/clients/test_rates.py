"""The reader of rate headers: every form that was recorded, from whoever sends it, and what no sender can mean."""

from __future__ import annotations

import pytest

from clients import Budget, RateLimitedError
from clients.rates import LONGEST, budgets, clock_skew, http_date, retry_after, wait
from clients.statuses import error_of

DATE = {"date": "Wed, 20 May 2026 10:00:00 GMT"}
NOW = http_date(DATE["date"]) or 0.0


@pytest.mark.parametrize(
    ("sender", "headers", "expected"),
    [
        ("GitLab", {"ratelimit-reset": "1779271260"}, Budget(resets_in=60)),
        ("Pennylane", {"ratelimit-reset": "1779274800"}, Budget(resets_in=3600)),
        ("Zendesk", {"ratelimit-reset": "10"}, Budget(resets_in=10)),
        ("Klaviyo", {"ratelimit-reset": "0", "ratelimit-remaining": "0"}, Budget(remaining=0, resets_in=0)),
        ("agentcard", {"ratelimit-reset": "128", "ratelimit-policy": "300;w=900"}, Budget(limit=300, resets_in=128, window=900)),
        ("Okta", {"x-rate-limit-reset": "1779271201"}, Budget(resets_in=1)),
        ("Timetastic", {"x-rate-limit-reset": "2026-05-20T10:00:37.9606191Z"}, Budget(resets_in=37.960619)),
        ("Zoho Books", {"x-rate-limit-reset": "23153"}, Budget(resets_in=23153)),
        ("Tripletex", {"x-rate-limit-reset": "0"}, Budget(resets_in=0)),
        (
            "BigCommerce",
            {"x-rate-limit-requests-left": "0", "x-rate-limit-requests-quota": "150", "x-rate-limit-time-reset-ms": "10723"},
            Budget(remaining=0, limit=150, resets_in=10.723, name="requests"),
        ),
        ("Discord", {"x-ratelimit-reset-after": "0.001"}, Budget(resets_in=0.001)),
        ("Close", {"ratelimit": "limit=240; remaining=239; reset=2"}, Budget(remaining=239, limit=240, resets_in=2)),
        ("draft 03", {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "5"}, Budget(remaining=5, limit=100)),
        ("draft 07", {"ratelimit": "limit=100, remaining=0, reset=5"}, Budget(remaining=0, limit=100, resets_in=5)),
        (
            "draft 09",
            {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            Budget(remaining=50, limit=100, resets_in=30, window=60),
        ),
        ("draft 09, a token", {"ratelimit": "default;r=1;t=2"}, Budget(remaining=1, resets_in=2)),
        ("GitHub", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1779271230"}, Budget(remaining=0, resets_in=30)),
        ("epoch ms", {"x-ratelimit-reset": "1779271230500"}, Budget(resets_in=30.5)),
        ("an HTTP date", {"x-ratelimit-reset": "Wed, 20 May 2026 10:01:00 GMT"}, Budget(resets_in=60)),
        ("OpenAI", {"x-ratelimit-reset-requests": "6m0s"}, Budget(resets_in=360, name="requests")),
        ("Kong", {"x-ratelimit-remaining-minute": "3"}, Budget(remaining=3, window=60, name="minute")),
        (
            "Shopify",
            {"x-shopify-shop-api-call-limit": "32/40"},
            Budget(remaining=8, limit=40, name="x-shopify-shop-api-call-limit"),
        ),
    ],
)
def test_recorded_headers(sender: str, headers: dict[str, str], expected: Budget) -> None:
    """Each sender's headers are read as it means them, without being told who it is."""
    (budget,) = budgets({**headers, **DATE}, now=0)

    for name in Budget.__slots__:
        assert getattr(budget, name) == (pytest.approx(getattr(expected, name), abs=1e-5) if name != "name" else expected.name)


def test_the_strictest_of_several_windows_comes_first() -> None:
    """A minute that has room does not hide an hour that has none (nango#4428); monday's two budgets are told apart."""
    several = {"x-ratelimit-remaining-minute": "9", "x-ratelimit-remaining-hour": "0", "x-ratelimit-reset-hour": "600"}

    assert [(one.name, one.wait) for one in budgets(several)] == [("hour", 600), ("minute", 0)]

    monday = {
        "ratelimit": '"minuteRate";r=1318, "concurrency";r=4',
        "ratelimit-policy": '"minuteRate";q=1335;w=60, "concurrency";q=80;qu="concurrent-requests"',
    }

    assert [(one.name, one.remaining, one.limit, one.window) for one in budgets(monday)] == [
        ("concurrency", 4, 80, None),
        ("minuteRate", 1318, 1335, 60),
    ]

    assert wait(monday) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ratelimit": "garbage,,;;="},
        {"ratelimit": '"unfinished;r=1'},
        {"ratelimit": "\xff"},
        {"ratelimit": '("a" "b");r=0'},
        {"ratelimit-policy": "=;w=1"},
        {"x-ratelimit-remaining": "-1"},
        {"x-ratelimit-remaining": "many"},
        {"x-ratelimit-reset": "soon"},
        {"x-generated-rate": "1"},
    ],
)
def test_what_cannot_be_read_says_nothing(headers: dict[str, str]) -> None:
    """A broken or foreign header is no budget and no wait."""
    assert budgets(headers) == []

    assert wait(headers) is None


def test_structured_fields_at_their_edges() -> None:
    """Display strings, byte sequences, dates, decimals, booleans and inner lists are no numbers, and break nothing."""
    field = '%"x";r=1, :aGk=:;r=2, @1;r=3, 1.5;w=2, ?1;r=4, ("a");r=5, "b";r=?1;t=x, "c";r=6.5;t=0'
    names = {one.name: one.remaining for one in budgets({"ratelimit": field})}

    assert names["c"] == 6.5

    assert "b" not in names or names["b"] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("Wed, 20 May 2026 10:00:37 GMT", 37),
        ("2026-05-20T10:00:09Z", 9),
        ("2026-05-20 12:00:09.1234567+0200", 9.123456),
        ("1779271260", 60),
        ("1779271260000", 60),
        ("1m30s", 90),
        ("3, 5", 3),
        ("Wed, 20 May 2026 09:00:00 GMT", 0),
        ("Wed, 20 May 2027 10:00:00 GMT", LONGEST),
        ("99999999", LONGEST),
        ("-3", None),
        ("1e3", None),
        ("2026-13-45T99:00:00Z", None),
        ("x" * 5000, None),
        ("9" * 5000, None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    """Seconds, decimals, dates and moments are read from the answer's own clock; what is absurd is bounded."""
    found = retry_after({"retry-after": value, **DATE}, now=0)

    assert found == (None if expected is None else pytest.approx(expected, abs=1e-5))


def test_neither_clock_has_to_be_right() -> None:
    """Ten minutes of skew change nothing, and are told."""
    skewed = {"date": "Wed, 20 May 2026 10:10:00 GMT", "retry-after": "Wed, 20 May 2026 10:10:30 GMT"}

    assert retry_after(skewed, now=NOW) == 30

    assert clock_skew(skewed, now=NOW) == 600


@pytest.mark.parametrize(
    ("status", "headers", "seconds", "said"),
    [
        (429, {"retry-after": "7"}, 7, "come again in 7 s (retry-after)"),
        (429, {"retry-after": "99999999"}, LONGEST, "1157 days are not believed, 31 are the most"),
        (429, {"retry-after": "-3"}, None, "Retry-After cannot be read"),
        (429, {"retry-after-ms": "1500", "retry-after": "1"}, 1.5, "come again in 1.5 s (retry-after-ms)"),
        (429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1779271230"}, 30, "come again in 30 s (rate limit)"),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1779271230"}, 30, "come again in 30 s (rate limit)"),
        (503, {"retry-after": "Wed, 20 May 2026 10:00:05 GMT"}, 5, "come again in 5 s (retry-after)"),
    ],
)
def test_refusals_say_how_long(status: int, headers: dict[str, str], seconds: float | None, said: str) -> None:
    """A refusal carries the wait that its headers ask for, and says when it does not believe them."""
    error = error_of(status, {**headers, **DATE}, method="GET", url="http://h/a")

    assert isinstance(error, RateLimitedError)

    assert error.retry_after == seconds

    assert said in str(error)
