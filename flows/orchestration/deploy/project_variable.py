"""Records in a Prefect variable which project a server was set up for, and warns when it was another one."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from sqlalchemy.engine import make_url

from flows.channels.message import LEVELS
from flows.orchestration.server_names import PROJECT_VARIABLE, Applied
from flows.project.settings import Settings, project_settings

_NOTIFY = "notify"
"""The member of the variable that lists the levels of notices for which the project's settings have recipients."""


def apply_project(client: SyncPrefectClient, folder: Path, warn: Callable[[str], None] | None = None) -> Applied:
    """Record this project on the server, and warn if another project was recorded there.

    The names of work pool, queues, deployments and automations do not tell projects apart: those of one project replace those of
    another, and the runs of both would start in its folder.

    Args:
        client: of the server.
        folder: the project's.
        warn: is called with one line.
    """
    settings = project_settings()
    current: dict[str, Any] = {
        "database": fingerprint(settings.database_url, folder),
        "folder": str(folder),
        _NOTIFY: _levels(settings),
    }
    known = client.read_variable_by_name(PROJECT_VARIABLE)
    if known is None:
        client.create_variable(VariableCreate(name=PROJECT_VARIABLE, value=current))
        return Applied("variable", PROJECT_VARIABLE, "created")
    if known.value == current:
        return Applied("variable", PROJECT_VARIABLE, "unchanged")
    before = known.value if isinstance(known.value, dict) else {}
    if warn is not None and before.get("database") not in (None, current["database"]):
        warn(
            f"this Prefect server was last set up for another database, from {before.get('folder')}: deployments, queues and "
            "automations of that project have been replaced; give each project its own server"
        )
    client.update_variable(VariableUpdate(name=PROJECT_VARIABLE, value=current))
    return Applied("variable", PROJECT_VARIABLE, "updated")


def missing_recipients(client: SyncPrefectClient) -> str | None:
    """Return one line if `syncs setup` knew recipients of a level of notices that this process has none for, else None.

    The project's recipients are read where a message is made. Where they are set for `syncs setup` and not for the worker,
    the automations are there, and no message ever starts one.

    Args:
        client: of the server on which `syncs setup` has recorded the levels.
    """
    found = client.read_variable_by_name(PROJECT_VARIABLE)
    recorded = found.value.get(_NOTIFY) if found is not None and isinstance(found.value, dict) else None
    here = _levels(project_settings())
    missing = [level for level in recorded if level not in here] if isinstance(recorded, list) else []
    if not missing:
        return None
    names = ", ".join(f"SYNCS_{f'notify_{level}'.upper()}" for level in missing)
    return f"{names} had recipients when `syncs setup` ran and has none here, so that nobody is told: set it for the worker, too"


def _levels(settings: Settings) -> list[str]:
    return [level for level in LEVELS if getattr(settings, f"notify_{level}")]


def fingerprint(database_url: str, folder: Path) -> str:
    """Return a hash of the database's location, which tells the databases of two projects apart and holds no password."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        where = str((folder / url.database).resolve())
    else:
        where = f"{url.host or ''}:{url.port or ''}/{url.database or ''}?{sorted(url.query.items())}"
    return hashlib.blake2b(where.encode(), digest_size=16).hexdigest()
