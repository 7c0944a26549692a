"""The settings that server and worker are started with, and why. Pure: makes dictionaries, sets nothing."""

from collections.abc import Mapping
from pathlib import Path

#: Seconds between two heartbeats of a flow run; 30 is the least Prefect accepts. The zombie automation counts on it.
HEARTBEAT_SECONDS = 30

_SERVER = {
    # One transaction for 50 task-run events in place of one each: 10 ms of server per task run in place of 32.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Whether an automation has sent a notice is known within a second, in place of five; whoever hears nothing sends it again.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    # A task run leaves 20 kB, three quarters of it events; flow runs would be kept for ever.
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def _common(base: Mapping[str, str], *, home: Path, url: str) -> dict[str, str]:
    return {
        **base,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }


def server_environment(base: Mapping[str, str], *, home: Path, port: int) -> dict[str, str]:
    """Return the environment of the server: what `base` has of its own wins over retention and batching, never over loopback.

    Args:
        base: the environment of the caller.
        home: PREFECT_HOME; the database lies in it.
        port: on 127.0.0.1.
    """
    here = f"http://127.0.0.1:{port}"
    return {
        **_SERVER,
        **_common(base, home=home, url=f"{here}/api"),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": f"{here}/api",
        # Without sign-in and with CORS "*", any page in the user's browser could drive the server.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{here},http://localhost:{port}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
    }


def worker_environment(base: Mapping[str, str], *, home: Path, url: str) -> dict[str, str]:
    """Return the environment of the worker, which its flow runs inherit.

    Args:
        base: the environment of the caller, with the settings of the project's clients.
        home: PREFECT_HOME.
        url: of the API.
    """
    return {
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        **_common(base, home=home, url=url),
    }
