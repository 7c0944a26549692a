"""Connections to remote systems: adapters for HTTP, SOAP, FTP and SFTP, sign-in, listings and paginators.

What only SOAP, FTP and SFTP need comes with its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clients.auth import ApiKey, Auth, Basic, Bearer, Credentials
from clients.environment import Env, EnvValues, env
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    BrokenBodyError,
    ClientError,
    ConnectFailedError,
    GoneError,
    IncompleteError,
    LimitError,
    LocalError,
    LoopError,
    NotModifiedError,
    NotReadyError,
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
from clients.http.client import HttpClient
from clients.http.conditional import Validator, Validators
from clients.http.rate_limits.rate_limit_headers import RateBudget
from clients.listings.cursor_paginators import Continue, Cursor, HeaderCursor, LinkHeader, NextLink, ODataLink, RelayCursor
from clients.listings.http_listing import Listing
from clients.listings.nested_listing import Nested
from clients.listings.offset_paginators import Keyset, Offset, PageNumber, TotalPages
from clients.listings.page_iterator import Paging
from clients.listings.single_page import SinglePage
from clients.oauth import OAuth2ClientCredentials, OAuth2RefreshToken
from clients.package_version import VERSION
from clients.page import Entity, Page, PageAnswer, PageRequest, Paginator
from clients.quoted_path import quoted_path
from clients.token_store import FileTokens, MemoryTokens, Token, TokenStore

if TYPE_CHECKING:
    from clients.files.ftp import FtpClient
    from clients.files.sftp import SftpClient
    from clients.files.transfer import RemoteFile
    from clients.listings.file_listing import FtpListing
    from clients.listings.soap_listing import SoapListing
    from clients.soap.client import SoapClient

_LAZY = {
    "FtpClient": "clients.files.ftp",
    "FtpListing": "clients.listings.file_listing",
    "RemoteFile": "clients.files.transfer",
    "SftpClient": "clients.files.sftp",
    "SoapClient": "clients.soap.client",
    "SoapListing": "clients.listings.soap_listing",
}

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Return what comes with its first use, or what an old name stands for."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    if name == "Budget":
        import warnings

        warnings.warn("clients.Budget is now clients.RateBudget", DeprecationWarning, stacklevel=2)
        return RateBudget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ApiKey",
    "Auth",
    "AuthRefusedError",
    "Basic",
    "Bearer",
    "BrokenAnswerError",
    "BrokenBodyError",
    "ClientError",
    "ConnectFailedError",
    "Continue",
    "Credentials",
    "Cursor",
    "Entity",
    "Env",
    "EnvValues",
    "FileTokens",
    "FtpClient",
    "FtpListing",
    "GoneError",
    "HeaderCursor",
    "HttpClient",
    "IncompleteError",
    "Keyset",
    "LimitError",
    "LinkHeader",
    "Listing",
    "LocalError",
    "LoopError",
    "MemoryTokens",
    "Nested",
    "NextLink",
    "NotModifiedError",
    "NotReadyError",
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
    "RateBudget",
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
    "env",
    "quoted_path",
]
