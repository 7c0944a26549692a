"""The reader of rate headers: every form that was recorded, from whoever sends it, and what no sender can mean."""

from __future__ import annotations

import pytest

from clients import RateBudget, RateLimitedError
from clients.http.rate_limits.rate_fields import MAX_WAIT, http_date, is_general
from clients.http.rate_limits.rate_limit_headers import budgets, clock_skew, retry_after, wait
from clients.http.status import error_of

DATE = {"date": "Wed, 20 May 2026 10:00:00 GMT"}
NOW = http_date(DATE["date"]) or 0.0


@pytest.mark.parametrize(
    ("sender", "headers", "expected"),
    [
        ("GitLab", {"ratelimit-reset": "1779271260"}, RateBudget(resets_in=60)),
        ("Pennylane", {"ratelimit-reset": "1779274800"}, RateBudget(resets_in=3600)),
        ("Zendesk", {"ratelimit-reset": "10"}, RateBudget(resets_in=10)),
        ("Klaviyo", {"ratelimit-reset": "0", "ratelimit-remaining": "0"}, RateBudget(remaining=0, resets_in=0)),
        (
            "agentcard",
            {"ratelimit-reset": "128", "ratelimit-policy": "300;w=900"},
            RateBudget(limit=300, resets_in=128, window=900),
        ),
        ("Okta", {"x-rate-limit-reset": "1779271201"}, RateBudget(resets_in=1)),
        ("Timetastic", {"x-rate-limit-reset": "2026-05-20T10:00:37.9606191Z"}, RateBudget(resets_in=37.960619)),
        ("Zoho Books", {"x-rate-limit-reset": "23153"}, RateBudget(resets_in=23153)),
        ("Tripletex", {"x-rate-limit-reset": "0"}, RateBudget(resets_in=0)),
        (
            "BigCommerce",
            {"x-rate-limit-requests-left": "0", "x-rate-limit-requests-quota": "150", "x-rate-limit-time-reset-ms": "10723"},
            RateBudget(remaining=0, limit=150, resets_in=10.723, name="requests"),
        ),
        ("Discord", {"x-ratelimit-reset-after": "0.001"}, RateBudget(resets_in=0.001)),
        ("Close", {"ratelimit": "limit=240; remaining=239; reset=2"}, RateBudget(remaining=239, limit=240, resets_in=2)),
        (
            "draft 03",
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "5"},
            RateBudget(remaining=5, limit=100, window=60),
        ),
        ("draft 07", {"ratelimit": "limit=100, remaining=0, reset=5"}, RateBudget(remaining=0, limit=100, resets_in=5)),
        (
            "draft 09",
            {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
            RateBudget(remaining=50, limit=100, resets_in=30, window=60),
        ),
        ("draft 09, a token", {"ratelimit": "default;r=1;t=2"}, RateBudget(remaining=1, resets_in=2)),
        ("GitHub", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1779271230"}, RateBudget(remaining=0, resets_in=30)),
        ("epoch ms", {"x-ratelimit-reset": "1779271230500"}, RateBudget(resets_in=30.5)),
        ("an HTTP date", {"x-ratelimit-reset": "Wed, 20 May 2026 10:01:00 GMT"}, RateBudget(resets_in=60)),
        ("OpenAI", {"x-ratelimit-reset-requests": "6m0s"}, RateBudget(resets_in=360, name="requests")),
        ("Kong", {"x-ratelimit-remaining-minute": "3"}, RateBudget(remaining=3, window=60, name="minute")),
        (
            "Shopify",
            {"x-shopify-shop-api-call-limit": "32/40"},
            RateBudget(remaining=8, limit=40, name="x-shopify-shop-api-call-limit"),
        ),
    ],
)
def test_recorded_headers(sender: str, headers: dict[str, str], expected: RateBudget) -> None:
    """Each sender's headers are read as it means them, without being told who it is."""
    (budget,) = budgets({**headers, **DATE}, now=0)

    # A moment that is told is checked by what it gives: the seconds from the answer's own `Date`.
    for name in set(RateBudget.__slots__) - {"resets_at"}:
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


DAY, MONTH = 86400.0, MAX_WAIT
Told = tuple[str, float | None, float | None, float | None, float | None]


@pytest.mark.parametrize(
    ("sender", "headers", "expected"),
    [
        (
            "HubSpot",
            {
                "x-hubspot-ratelimit-daily": "250000",
                "x-hubspot-ratelimit-daily-remaining": "249000",
                "x-hubspot-ratelimit-interval-milliseconds": "10000",
                "x-hubspot-ratelimit-max": "100",
                "x-hubspot-ratelimit-remaining": "0",
                "x-hubspot-ratelimit-secondly": "10",
                "x-hubspot-ratelimit-secondly-remaining": "9",
            },
            [
                ("hubspot", 0, 100, None, 10),
                ("hubspot-secondly", 9, 10, None, 1),
                ("hubspot-daily", 249000, 250000, None, DAY),
            ],
        ),
        ("Docker", {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}, [("", 76, 100, None, 21600)]),
        (
            "Strava",
            {"x-ratelimit-limit": "200,2000", "x-ratelimit-usage": "10,1990"},
            [("#2", 10, 2000, None, None), ("", 190, 200, None, None)],
        ),
        (
            "sent twice",
            {"x-ratelimit-limit": "10, 100", "x-ratelimit-remaining": "9, 0", "x-ratelimit-reset": "1, 60"},
            [("#2", 0, 100, 60, None), ("", 9, 10, 1, None)],
        ),
        (
            "two windows of one name",
            {"ratelimit": '"default";r=5;t=1, "default";r=0;t=60', "ratelimit-policy": '"default";q=9;w=1, "default";q=99;w=60'},
            [("default#2", 0, 99, 60, 60), ("default", 5, 9, 1, 1)],
        ),
        (
            "two families",
            {"ratelimit-remaining": "7", "ratelimit-reset": "9", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3"},
            [("x", 0, None, 3, None), ("", 7, None, 9, None)],
        ),
        (
            "one budget in two families",
            {"ratelimit-remaining": "7", "ratelimit-reset": "9", "x-ratelimit-remaining": "7", "x-ratelimit-limit": "8"},
            [("", 7, 8, 9, None)],
        ),
        (
            "GitHub",
            {"x-ratelimit-limit": "30", "x-ratelimit-remaining": "3", "x-ratelimit-used": "27", "x-ratelimit-resource": "search"},
            [("search", 3, 30, None, None)],
        ),
        ("Salesforce", {"sforce-limit-info": "api-usage=18/5000"}, [("api-day", 4982, 5000, None, DAY)]),
        (
            "Facebook",
            {"x-app-usage": '{"call_count":28,"total_time":25,"total_cputime":97}'},
            [("app-hour", 3, 100, None, 3600)],
        ),
        (
            "Etsy",
            {
                "x-limit-per-second": "10",
                "x-remaining-this-second": "9",
                "x-limit-per-day": "10000",
                "x-remaining-today": "0",
            },
            [("day", 0, 10000, None, DAY), ("second", 9, 10, None, 1)],
        ),
        (
            "Xero",
            {"x-daylimit-remaining": "4990", "x-minlimit-remaining": "0", "x-appminlimit-remaining": "9990"},
            [("minute", 0, None, None, 60), ("day", 4990, None, None, DAY), ("appmin", 9990, None, None, 60)],
        ),
        ("Pipedrive", {"x-daily-requests-left": "0"}, [("daily-requests", 0, None, None, DAY)]),
        (
            "Riot",
            {"x-app-rate-limit": "20:1,100:120", "x-app-rate-limit-count": "1:1,100:120"},
            [("x-app-120", 0, 100, None, 120), ("x-app-1", 19, 20, None, 1)],
        ),
        (
            "Zendesk, one endpoint",
            {"zendesk-ratelimit-tickets-index": "total=100; remaining=0; resets=41"},
            [("zendesk-tickets-index", 0, 100, 41, None)],
        ),
        (
            "Linear",
            {
                "x-ratelimit-requests-limit": "1500",
                "x-ratelimit-requests-remaining": "1",
                "x-ratelimit-requests-reset": "1779271230500",
            },
            [("requests", 1, 1500, 30.5, None)],
        ),
        (
            "Trello",
            {
                "x-rate-limit-api-token-interval-ms": "10000",
                "x-rate-limit-api-token-max": "100",
                "x-rate-limit-api-token-remaining": "99",
            },
            [("api-token", 99, 100, None, 10)],
        ),
        ("Azure", {"x-ms-ratelimit-remaining-subscription-reads": "11999"}, [("subscription-reads", 11999, None, None, None)]),
        ("Freshdesk", {"x-ratelimit-total": "50", "x-ratelimit-remaining": "7"}, [("", 7, 50, None, None)]),
        (
            "milliseconds that are not called so",
            {"x-ratelimit-remaining-minute": "0", "x-ratelimit-reset-minute": "41000"},
            [("minute", 0, None, 41, 60)],
        ),
        ("used", {"x-ratelimit-limit": "60", "x-ratelimit-used": "60", "x-ratelimit-reset": "5"}, [("", 0, 60, 5, None)]),
    ],
)
def test_headers_of_vendors(sender: str, headers: dict[str, str], expected: list[Told]) -> None:
    """Budgets of one answer, the strictest first."""
    found = [(one.name, one.remaining, one.limit, one.resets_in, one.window) for one in budgets({**headers, **DATE}, now=0)]

    assert found == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit-reset": "9"}, 9),
        ({"x-ratelimit-reset": "9", "x-ratelimit-limit": "50"}, 9),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "9"}, None),
        ({"x-ms-retry-after-ms": "2500"}, 2.5),
        ({"x-ms-ratelimit-microsoft.consumption-tenant-retry-after": "30"}, 30),
        ({"x-ratelimit-retry-after": "4"}, 4),
    ],
)
def test_a_429_with_a_reset_and_nothing_else(headers: dict[str, str], expected: float | None) -> None:
    """A refusal for the rate says by its reset when to come again, also without what is left, and under other names."""
    found = wait(headers, refused=True)

    assert (None if found is None else found.seconds) == expected


@pytest.mark.parametrize(
    ("name", "general"),
    [
        ("", True), ("minute", True), ("#2", True), ("x", True), ("api-token", True), ("requests", True), ("default", True),
        ("call_join", False), ("search", False), ("zendesk-tickets-index", False), ("subscription-reads", False),
    ],
)  # fmt: skip
def test_names_of_operations(name: str, general: bool) -> None:
    """A budget that is named after a span of time, a unit or a user holds for all requests."""
    assert is_general(name) == general


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
        ("Wed, 20 May 2027 10:00:00 GMT", MAX_WAIT),
        ("99999999", MAX_WAIT),
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
        (429, {"retry-after": "99999999"}, MAX_WAIT, "1157 days are not believed, 31 are the most"),
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
