"""The examples of `docs/write-a-sync.md` that are not HTTP, run as a person would run them, against real servers."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.support.adapter_servers import Ftp, Shop, fill


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the sync of an example, found by a word in it; settings come from the environment."""

    def start(word: str, sync: str, **settings: str) -> dict[str, Any]:
        text = (ROOT / "docs" / "write-a-sync.md").read_text()
        (example,) = [block for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if word in block]
        (tmp_path / "syncs").mkdir(exist_ok=True)
        (tmp_path / "syncs" / "example.py").write_text(example)
        environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), **settings}
        done = subprocess.run(
            [sys.executable, "-m", "flows", "run", sync, "--json"], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not any(value in done.stdout + done.stderr for name, value in settings.items() if name.endswith("PASSWORD"))
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return start


def records(tmp_path: Path) -> dict[str, Any]:
    """Return what was stored."""
    with closing(sqlite3.connect(tmp_path / "data" / "syncs.db")) as connection:
        return {key: json.loads(data) for key, data in connection.execute("SELECT key, data FROM record")}


def test_the_soap_example(run: Callable[..., dict[str, Any]], shop: Shop, tmp_path: Path) -> None:
    """25 things on three pages, each fetched by a call of its own, signed in."""
    found = run("SoapListing(", "warehouse.things", WAREHOUSE_WSDL=f"{shop.url}?wsdl", WAREHOUSE_PASSWORD="secret-of-ann")
    assert (found["state"], found["listed"], found["succeeded"]) == ("success", 25, 25)
    assert records(tmp_path)["7"]["name"] == "thing 7 ü"
    assert all(headers["authorization"].startswith("Basic ") for headers in shop.headers)


def test_the_ftp_example(run: Callable[..., dict[str, Any]], serve_ftp: Callable[..., Ftp], tmp_path: Path) -> None:
    """The price lists of a folder, and nothing else of it."""
    ftp = serve_ftp()
    fill(ftp.root / "out", {"a.csv": b"pear;2\nplum;3\n", "b.csv": b"", "notes.txt": b"no"})
    found = run(
        "FtpListing(", "partner.prices", PARTNER_HOST="127.0.0.1", PARTNER_PORT=str(ftp.port), PARTNER_USER="ann",
        PARTNER_PASSWORD="secret-of-ann", PARTNER_TLS="false",
    )  # fmt: skip
    assert (found["state"], found["listed"], found["succeeded"]) == ("success", 2, 2)
    assert records(tmp_path) == {"/out/a.csv": {"prices": ["pear;2", "plum;3"]}, "/out/b.csv": {"prices": []}}
