"""Makes the environment variables that the Prefect server and the worker are started with. Pure functions."""

from collections.abc import Mapping
from pathlib import Path

from flows.project.loopback import without_proxy

#: Seconds between two heartbeats of a flow run; 30 is the least that Prefect 3.9.1 accepts. The zombie automation relies on it.
HEARTBEAT_SECONDS = 30

_SERVER = {
    # One transaction for 50 task-run events instead of one each: 10 ms of server CPU per task run instead of 32 (3.9.1).
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Shows within one second instead of five whether an automation has sent a notice; without that proof it is sent again.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    # A task run takes 20 kB, three quarters of it events; by default flow runs are kept for ever (3.9.1).
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def _common(base: Mapping[str, str], *, home: Path, url: str, auth_string: str) -> dict[str, str]:
    return {
        **base,
        **without_proxy(base),
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": auth_string,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }


def server_environment(base: Mapping[str, str], *, home: Path, port: int, auth_string: str) -> dict[str, str]:
    """Return the environment of the server. Values in `base` replace those for retention and batching, not those for access.

    Args:
        base: the environment of the caller.
        home: PREFECT_HOME, with the server's database.
        port: on 127.0.0.1.
        auth_string: which the server asks for.
    """
    address = f"http://127.0.0.1:{port}"
    return {
        **_SERVER,
        **_common(base, home=home, url=f"{address}/api", auth_string=auth_string),
        # Without these, any page in the user's browser could control the server, and any user of the machine (3.9.1).
        "PREFECT_SERVER_API_AUTH_STRING": auth_string,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": "/api",
        # Prefect's default is "*" (3.9.1).
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{address},http://localhost:{port}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
    }


def worker_environment(base: Mapping[str, str], *, home: Path, url: str, auth_string: str) -> dict[str, str]:
    """Return the environment of the worker. Its flow runs inherit it.

    Args:
        base: the environment of the caller, which holds the settings of the project's clients.
        home: PREFECT_HOME.
        url: of the API.
        auth_string: which the server asks for.
    """
    return {
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        **_common(base, home=home, url=url, auth_string=auth_string),
    }
