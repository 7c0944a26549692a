"""PgBouncer in front of a test's PostgreSQL; from the Debian package, so tests that need it are skipped where it is missing."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.support.prefect_project import free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pgbouncer(database_url: str, mode: str, *, connections: int = 5) -> Iterator[str]:
    """Serve a database through PgBouncer.

    Args:
        database_url: of the database itself.
        mode: "session" or "transaction".
        connections: the most that it opens to the server.

    Yields:
        The URL of the same database through it.
    """
    if PROGRAM is None:
        pytest.skip("needs PgBouncer: apt-get install pgbouncer")
    url = make_url(database_url)
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    host = url.query.get("host") or url.host
    port = free_port()
    (folder / "users.txt").write_text(f'"{url.username}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{url.database} = host={host} port={url.port or 5432} user={url.username} dbname={url.database}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {folder}/users.txt\npool_mode = {mode}\ndefault_pool_size = {connections}\nmax_client_conn = 500\n"
        f"logfile = {folder}/log\nquery_wait_timeout = 60\n"
    )
    command = [PROGRAM, str(folder / "pgbouncer.ini")]
    if os.getuid() == 0:  # as which it refuses to run
        user = pwd.getpwuid(Path(str(host)).stat().st_uid).pw_name  # who may open the server's socket
        command[1:1] = ["-u", user]
        shutil.chown(folder, user)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    through = f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}"
    try:
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(through).close()
                break
            except psycopg.Error:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.05)
        yield through
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
