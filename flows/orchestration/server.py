"""Starts and stops a Prefect server and a process worker for this project, in the background and on loopback."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flows.errors import UsageError
from flows.orchestration.host_check import ALLOWED_HOSTS, allowed_hosts
from flows.orchestration.server_environment import server_environment, worker_environment
from flows.orchestration.server_names import Applied
from flows.project.prefect_address import OPEN_SERVER, UpState, is_open, is_reachable, prefect_home, read_state, write_state
from flows.project.prefect_auth import AUTH_FILE, make_auth_string, read_auth_string
from flows.project.prefect_profile import write_profile, write_project_file
from flows.project.private_files import make_private, make_private_folder, private_opener
from flows.project.processes import Process, children_of, spawn

#: -P: a user's `jobs/` in this folder is not to hide ours.
_PYTHON = (sys.executable, "-P", "-m")
_HEALTH_SECONDS = 180.0
#: How long `down` lets running flow runs requeue their jobs.
_RUN_GRACE = 15.0
_WORKER_GRACE = 10.0
_SERVER_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Status:
    """What runs of the server and worker that `syncs up` started."""

    server: bool = False
    worker: bool = False
    url: str | None = None
    port: int | None = None
    server_pid: int | None = None
    worker_pid: int | None = None
    #: When the server was started, ISO 8601 in UTC.
    since: str | None = None
    #: Whether this call of `up` started the server.
    started: bool = False
    #: The file with the auth string of the server, which is also the sign-in for the browser.
    auth_file: str | None = None
    #: What `up` applied to the server.
    applied: tuple[Applied, ...] = ()
    #: What `up` has to say besides, one line each.
    notes: tuple[str, ...] = ()

    @property
    def ui(self) -> str | None:
        """The page to open in a browser."""
        return None if self.url is None else self.url.removesuffix("/api")


def status() -> Status:
    """Return what runs now."""
    state = read_state(prefect_home())
    if state is None:
        return Status()
    return _status(state)


def _status(state: UpState) -> Status:
    server = state.server.is_alive()
    worker = state.worker is not None and state.worker.is_alive()
    return Status(
        server=server,
        worker=worker,
        url=state.url if server else None,
        port=state.port if server else None,
        server_pid=state.server.pid if server else None,
        worker_pid=state.worker.pid if worker and state.worker else None,
        since=state.since if server else None,
        auth_file=str(prefect_home() / AUTH_FILE) if server else None,
    )


def up(port: int = 4200, *, worker: bool = True) -> Status:
    """Start server and worker unless they run already, and set up work pool, queues, deployments and automations.

    Args:
        port: of the server, on 127.0.0.1. A server that runs already keeps its port.
        worker: whether to start a worker too.

    Raises:
        UsageError: the port is taken, or the server does not start.
    """
    home = prefect_home()
    directory = Path.cwd()
    # Before Prefect is imported; it would otherwise keep its state in the user's home.
    os.environ.setdefault("PREFECT_HOME", str(home))
    with _locked(home):
        state = read_state(home)
        started = state is None or not state.server.is_alive()
        if state is None or started:
            _end_worker(state)
            state = _start_server(home, port, directory)
        else:
            _wait_until_healthy(state, home)
        notes = _show_to_prefect_command(home, state.url, directory)

        applied = []
        from flows.orchestration.deploy.deployments import apply_pool
        from flows.orchestration.prefect_client import open_client
        from flows.orchestration.prefect_setup import apply_rest, crash_leftover_runs

        with open_client(state.url) as client:
            applied.append(apply_pool(client))
            if started:
                # After a crash or a reboot. They would count against the concurrency limit of their deployment, 1, and each later
                # run would be cancelled.
                crash_leftover_runs(client)
            if worker and (state.worker is None or not state.worker.is_alive()):
                state = replace(state, worker=_start_worker(home, state.url, directory))
                write_state(home, state)
            # While the worker starts, which takes some seconds.
            applied += apply_rest(client, state.url, directory)
        return replace(_status(state), started=started, applied=tuple(applied), notes=tuple(notes))


def down() -> Status:
    """Stop what `up` started: flow runs, then the worker, then the server. Return what ran before.

    Flow runs get SIGTERM and some seconds to requeue their jobs. Runs that Prefect still counts as running then are marked as
    crashed: it leaves them `Running` for ever (PrefectHQ/prefect#16746 and #22528, seen with 3.9.1).
    """
    home = prefect_home()
    if not home.is_dir():
        # Nothing was ever started here; where nothing can be written, that is no error.
        return Status()
    with _locked(home):
        state = read_state(home)
        if state is None:
            return Status()
        before = _status(state)
        _end_worker(state)
        if state.server.is_alive():
            if is_reachable(state.url):
                _crash_leftover_runs(state.url)
            state.server.end(grace=_SERVER_GRACE)
        # Another program may listen on the port from now on; the `prefect` command is not to sign in to it.
        write_profile(home, state.url, None)
        write_state(home, None)
        return before


def _crash_leftover_runs(url: str) -> None:
    os.environ.setdefault("PREFECT_HOME", str(prefect_home()))
    from flows.orchestration.prefect_client import open_client
    from flows.orchestration.prefect_setup import crash_leftover_runs

    with open_client(url) as client:
        crash_leftover_runs(client)


def _show_to_prefect_command(home: Path, url: str, directory: Path) -> list[str]:
    """Let the `prefect` command find the server; return what keeps it from that."""
    reasons = write_profile(home, url, read_auth_string(home)), write_project_file(directory, home)
    notes = [f"the prefect command does not find this server by itself: {reason}" for reason in reasons if reason]
    if is_open(url):
        notes.append(f"{OPEN_SERVER}; it was started by an earlier version: syncs down, then syncs up")
    return notes


def _start_server(home: Path, port: int, directory: Path) -> UpState:
    if not 0 < port < 65536:
        raise UsageError(f"--port must be from 1 to 65535, got {port}")
    allowed_hosts(os.environ.get(ALLOWED_HOSTS, ""))
    url = f"http://127.0.0.1:{port}/api"
    if _is_taken(port):
        what = "another program"
        if is_reachable(url):
            what = f"a Prefect server that was not started from here (to use it, set PREFECT_API_URL={url})"
        raise UsageError(f"port {port} on 127.0.0.1 is taken by {what}; choose another: syncs up --port {_free_port_above(port)}")
    _make_database_private(home)
    log = home / "logs" / "server.log"
    process = spawn(
        [*_PYTHON, f"{__package__}.loopback_server"],
        environment=server_environment(os.environ, home=home, port=port, auth_string=make_auth_string(home)),
        log=log,
        directory=directory,
    )
    state = UpState(port=port, url=url, since=datetime.now(UTC).isoformat(timespec="seconds"), server=process)
    # At once, so that `down` finds the server whatever fails next.
    write_state(home, state)
    # This takes a second or two, in which the server starts.
    import flows.orchestration.prefect_setup  # noqa: F401

    _wait_until_healthy(state, home)
    return state


def _make_database_private(home: Path) -> None:
    """Make the server's database a file of mode 0600: it holds sealed blocks, and the key that opens them."""
    with open(home / "prefect.db", "ab", opener=private_opener):
        pass
    # SQLite gives the files beside it the mode of the database.
    for path in home.glob("prefect.db*"):
        make_private(path)


def _start_worker(home: Path, url: str, directory: Path) -> Process:
    from flows.orchestration.server_names import POOL

    name = f"syncs-{socket.gethostname()}"
    return spawn(
        [*_PYTHON, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name],
        environment=worker_environment(os.environ, home=home, url=url, auth_string=make_auth_string(home)),
        log=home / "logs" / "worker.log",
        directory=directory,
    )


def _wait_until_healthy(state: UpState, home: Path) -> None:
    log = home / "logs" / "server.log"
    deadline = time.monotonic() + _HEALTH_SECONDS
    while not is_reachable(state.url):
        if not state.server.is_alive():
            write_state(home, None)
            raise UsageError(f"the Prefect server ended while starting: {_last_line(log)} (all of it: {log})")
        if time.monotonic() > deadline:
            seconds = f"{_HEALTH_SECONDS:.0f} s"
            raise UsageError(
                f"the Prefect server did not answer at {state.url} within {seconds}; see {log}, or stop it: syncs down"
            )
        time.sleep(0.1)


def _end_worker(state: UpState | None) -> None:
    """End a worker and its flow runs, the runs first: a worker that gets SIGTERM kills them and sets no state (3.9.1)."""
    if state is None or state.worker is None or not state.worker.is_alive():
        return
    # While it is stopped it starts no further run, and does not see that its runs end.
    state.worker.signal(signal.SIGSTOP)
    runs = children_of(state.worker.pid)
    for run in runs:
        run.signal(signal.SIGTERM)
    deadline = time.monotonic() + _RUN_GRACE
    for run in runs:
        if not run.wait(max(0.0, deadline - time.monotonic())):
            run.signal(signal.SIGKILL, group=True)
    state.worker.signal(signal.SIGCONT)
    state.worker.end(grace=_WORKER_GRACE)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let one `up` or `down` run at a time; a second one waits for the first."""
    if sys.platform == "win32":
        raise UsageError("`syncs up` needs Linux or macOS; start `prefect server start` by hand and set PREFECT_API_URL")
    import fcntl

    try:
        make_private_folder(home)
        lock = open(home / "syncs-up.lock", "a", opener=private_opener)  # noqa: SIM115 - with an opener; closed below
    except OSError as error:
        raise UsageError(f"PREFECT_HOME={home} cannot be used: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _free_port_above(port: int) -> int:
    return next((other for other in range(port + 1, min(port + 100, 65536)) if not _is_taken(other)), 4210)


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it printed nothing"
