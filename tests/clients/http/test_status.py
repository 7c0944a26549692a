"""Statuses and Retry-After as pure functions."""

from __future__ import annotations

import pytest

from clients.errors import (
    AuthRefusedError,
    ClientError,
    GoneError,
    RateLimitedError,
    RejectedError,
    ServerError,
)
from clients.http.rate_limits.rate_limit_headers import http_date, retry_after
from clients.http.status import error_of


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, {}, None),
        (204, {}, None),
        (304, {}, None),
        (400, {}, RejectedError),
        (401, {}, AuthRefusedError),
        (402, {}, RejectedError),
        (403, {}, AuthRefusedError),
        (404, {}, GoneError),
        (407, {}, AuthRefusedError),
        (408, {}, ServerError),
        (409, {}, RejectedError),
        (410, {}, GoneError),
        (422, {}, RejectedError),
        (425, {}, ServerError),
        (429, {}, RateLimitedError),
        (499, {}, RejectedError),
        (500, {}, ServerError),
        (500, {"retry-after": "3"}, ServerError),
        (502, {}, ServerError),
        (503, {}, ServerError),
        (503, {"retry-after": "soon"}, ServerError),
        (503, {"retry-after": "3"}, RateLimitedError),
        (599, {}, ServerError),
    ],
)
def test_status_table(status: int, headers: dict[str, str], expected: type[ClientError] | None) -> None:
    """Each status has one meaning."""
    error = error_of(status, headers, method="GET", url="https://h/a?x=1")

    assert expected is (None if error is None else type(error))
    assert error is None or error.status == status


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "0.001"}, 0.001),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:37 GMT", "date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0),
        ({"retry-after": "Sun Nov  6 08:49:37 1994", "date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": "Sun, 06 Nov 1994 09:49:37 GMT"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 37.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": "broken"}, 37.0),
    ],
)
def test_retry_after_table(headers: dict[str, str], expected: float | None) -> None:
    """Delta seconds, decimals and all three forms of an HTTP date are read; dates count from the answer's Date."""
    now = http_date("Sun, 06 Nov 1994 08:49:00 GMT")

    assert expected == retry_after(headers, now=now)
