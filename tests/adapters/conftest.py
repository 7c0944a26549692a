"""The servers of `adapters_kit`, as fixtures."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from adapters_kit import (  # noqa: F401 - fixtures
    _no_kept_wsdl,
    certificate,
    serve_ftp,
    serve_raw_ftp,
    serve_sftp,
    serve_shop,
    shop,
    trusting,
)
