"""How to talk to remote systems: adapters, sign-in, listings and paginators.

Knows no database, no jobs and no Prefect.
"""

from __future__ import annotations

from clients.auth import ApiKey, Auth, Basic, Bearer, Credentials
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    LoopError,
    PageError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    TimedOutError,
    TooLargeError,
    TransientError,
    UnreadableError,
)
from clients.http import HttpClient
from clients.listing import Listing
from clients.page import Entity, Page, PageAnswer, PageRequest, Paginator
from clients.paginators import (
    Continue,
    Cursor,
    Keyset,
    LinkHeader,
    NextLink,
    Offset,
    PageNumber,
    SinglePage,
    TotalPages,
)
from clients.version import VERSION

__version__ = VERSION

__all__ = [
    "ApiKey",
    "Auth",
    "AuthRefusedError",
    "Basic",
    "Bearer",
    "BrokenAnswerError",
    "ClientError",
    "ConnectFailedError",
    "Continue",
    "Credentials",
    "Cursor",
    "Entity",
    "GoneError",
    "HttpClient",
    "Keyset",
    "LinkHeader",
    "Listing",
    "LoopError",
    "NextLink",
    "Offset",
    "Page",
    "PageAnswer",
    "PageError",
    "PageNumber",
    "PageRequest",
    "Paginator",
    "RateLimitedError",
    "RedirectRefusedError",
    "RejectedError",
    "ServerError",
    "SinglePage",
    "TimedOutError",
    "TooLargeError",
    "TotalPages",
    "TransientError",
    "UnreadableError",
]
