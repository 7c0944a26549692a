"""Servers that other people wrote, each a process of its own on loopback, started by the first test that asks for it."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PETS = 1000
_WHERE = re.compile(r"http://127\.0\.0\.1:\d+")


class Process:
    """A server of its own process; it says itself on which free port it listens."""

    def __init__(self, log: Path, *command: str) -> None:
        self._log = log
        with log.open("wb") as file:
            environment = {**os.environ, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=log.parent, env=environment,
            )  # fmt: skip
        self.url = self._wait()

    def _wait(self) -> str:
        until = time.monotonic() + 90
        while time.monotonic() < until:
            found = _WHERE.search(self._log.read_text(errors="replace"))
            if found is not None:
                try:
                    httpx.get(found[0], timeout=30)
                except httpx.TransportError:
                    pass
                else:
                    return found[0]
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"it did not start:\n{self._log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        """End it, by its id."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)


# -- Datasette


@dataclass
class Pets:
    """A Datasette and the SQLite file behind it, which may change while it serves."""

    url: str
    path: Path

    def execute(self, statement: str, *values: object) -> None:
        """Change the data."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)

    def fill(self) -> None:
        """Put the data back to what every test finds."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("DELETE FROM pets")
            rows = [(number, f"pet {number} ü", stamp(number)) for number in range(1, PETS + 1)]
            connection.executemany("INSERT INTO pets VALUES (?, ?, ?)", rows)


def stamp(number: int) -> str:
    """Return when a pet was changed: ten of them in each minute."""
    return f"2026-01-01T{number // 600:02}:{number // 10 % 60:02}:00Z"


@pytest.fixture(scope="module")
def datasette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pets]:
    """Datasette with a table of pets; it gives no more than 100 rows a page."""
    folder = tmp_path_factory.mktemp("datasette")
    path = folder / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, updated_at TEXT)")
    process = Process(
        folder / "log", "datasette", str(path), "-h", "127.0.0.1", "-p", "0", "--setting", "max_returned_rows", "100"
    )  # fmt: skip
    yield Pets(f"{process.url}/shop/", path)
    process.stop()


@pytest.fixture
def pets(datasette: Pets) -> Pets:
    """The Datasette, with its 1,000 pets."""
    datasette.fill()
    return datasette


# -- moto


@dataclass
class Cloud:
    """A moto, which answers as AWS does."""

    url: str

    def boto(self, service: str) -> Any:
        """Return the vendor's own client, for filling."""
        import boto3

        return boto3.client(
            service, endpoint_url=self.url, region_name="eu-central-1", aws_access_key_id="any", aws_secret_access_key="any"
        )

    def check_signatures(self, on: bool) -> None:
        """Let it verify who signs, and what that one may do."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0" if on else b"inf").raise_for_status()


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A moto server."""
    process = Process(tmp_path_factory.mktemp("moto") / "log", "moto.server", "-H", "127.0.0.1", "-p", "0")
    yield process.url
    process.stop()


@pytest.fixture
def cloud(moto: str) -> Iterator[Cloud]:
    """The moto, empty."""
    found = Cloud(moto)
    found.check_signatures(False)
    httpx.post(f"{moto}/moto-api/reset").raise_for_status()
    yield found
    found.check_signatures(False)
