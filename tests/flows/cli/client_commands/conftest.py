"""The servers of `adapter_servers`, as fixtures."""

from tests.support.adapter_servers import (  # noqa: F401 - fixtures
    _no_kept_wsdl,
    certificate,
    serve_ftp,
    serve_raw_ftp,
    serve_sftp,
    serve_shop,
    shop,
    trusting,
)
