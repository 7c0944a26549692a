"""Records in a Prefect variable which project a server was set up for, and warns when it was another one."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from sqlalchemy.engine import make_url

from flows.orchestration.server_names import PROJECT_VARIABLE, Applied
from flows.project.settings import project_settings


def apply_project(client: SyncPrefectClient, folder: Path, warn: Callable[[str], None] | None = None) -> Applied:
    """Record this project on the server, and warn if another project was recorded there.

    The names of work pool, queues, deployments and automations do not tell projects apart: those of one project replace those of
    another, and the runs of both would start in its folder.

    Args:
        client: of the server.
        folder: the project's.
        warn: is called with one line.
    """
    current = {"database": fingerprint(project_settings().database_url, folder), "folder": str(folder)}
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


def fingerprint(database_url: str, folder: Path) -> str:
    """Return a hash of the database's location, which tells the databases of two projects apart and holds no password."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        where = str((folder / url.database).resolve())
    else:
        where = f"{url.host or ''}:{url.port or ''}/{url.database or ''}?{sorted(url.query.items())}"
    return hashlib.blake2b(where.encode(), digest_size=16).hexdigest()
