"""How to talk to remote systems: adapters, sign-in, listings and paginators.

Knows no database, no jobs and no Prefect.
"""

from __future__ import annotations

from clients.auth import ApiKey, Auth, Basic, Bearer, Credentials
from clients.counting import Keyset, Offset, PageNumber, TotalPages
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    IncompleteError,
    LimitError,
    LoopError,
    NotModifiedError,
    PageError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    ShortError,
    TimedOutError,
    TooLargeError,
    TransientError,
    UnknownOutcomeError,
    UnreadableError,
)
from clients.file_listing import FtpListing
from clients.files import RemoteFile
from clients.ftp import FtpClient
from clients.http import HttpClient
from clients.listing import Listing
from clients.nested import Nested
from clients.oauth import OAuth2ClientCredentials, OAuth2RefreshToken
from clients.page import Entity, Page, PageAnswer, PageRequest, Paginator
from clients.paginators import Continue, Cursor, LinkHeader, NextLink, ODataLink, RelayCursor, SinglePage
from clients.paging import Paging
from clients.rates import Budget
from clients.sftp import SftpClient
from clients.soap import SoapClient
from clients.soap_listing import SoapListing
from clients.tokens import FileTokens, MemoryTokens, Token, TokenStore
from clients.validators import Validator, Validators
from clients.version import VERSION

__version__ = VERSION

__all__ = [
    "ApiKey",
    "Auth",
    "AuthRefusedError",
    "Basic",
    "Bearer",
    "BrokenAnswerError",
    "Budget",
    "ClientError",
    "ConnectFailedError",
    "Continue",
    "Credentials",
    "Cursor",
    "Entity",
    "FileTokens",
    "FtpClient",
    "FtpListing",
    "GoneError",
    "HttpClient",
    "IncompleteError",
    "Keyset",
    "LimitError",
    "LinkHeader",
    "Listing",
    "LoopError",
    "MemoryTokens",
    "Nested",
    "NextLink",
    "NotModifiedError",
    "OAuth2ClientCredentials",
    "OAuth2RefreshToken",
    "ODataLink",
    "Offset",
    "Page",
    "PageAnswer",
    "PageError",
    "PageNumber",
    "PageRequest",
    "Paginator",
    "Paging",
    "RateLimitedError",
    "RedirectRefusedError",
    "RejectedError",
    "RelayCursor",
    "RemoteFile",
    "ServerError",
    "SftpClient",
    "ShortError",
    "SinglePage",
    "SoapClient",
    "SoapListing",
    "TimedOutError",
    "Token",
    "TokenStore",
    "TooLargeError",
    "TotalPages",
    "TransientError",
    "UnknownOutcomeError",
    "UnreadableError",
    "Validator",
    "Validators",
]
