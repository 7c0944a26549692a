"""Which project a Prefect server was set up for, so that two that share one hear of it. Knows neither queue nor automation."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from sqlalchemy.engine import make_url

from flows.orchestration.applied import Applied
from flows.settings import project_settings

VARIABLE = "sync_clients_project"


def apply_project(client: SyncPrefectClient, folder: Path, complain: Callable[[str], None] | None = None) -> Applied:
    """Leave on the server whose it is, and say so if it was another project's.

    The work pool, its queues, the deployments and the automations have names that do not tell projects apart: what one sets up
    takes the place of what another one did, and its folder is where the runs of both would begin.

    Args:
        client: of the server.
        folder: the project's.
        complain: is told in one line.
    """
    mine = {"database": fingerprint(project_settings().database_url, folder), "folder": str(folder)}
    known = client.read_variable_by_name(VARIABLE)
    if known is None:
        client.create_variable(VariableCreate(name=VARIABLE, value=mine))
        return Applied("variable", VARIABLE, "created")
    if known.value == mine:
        return Applied("variable", VARIABLE, "unchanged")
    before = known.value if isinstance(known.value, dict) else {}
    if complain is not None and before.get("database") not in (None, mine["database"]):
        complain(
            f"this Prefect server was last set up for another database, from {before.get('folder')}: deployments, queues and "
            "automations have just taken the place of those; give each project a server of its own"
        )
    client.update_variable(VariableUpdate(name=VARIABLE, value=mine))
    return Applied("variable", VARIABLE, "updated")


def fingerprint(database_url: str, folder: Path) -> str:
    """Return what tells a project's database from another one's, and nothing else of it."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        where = str((folder / url.database).resolve())
    else:
        where = f"{url.host or ''}:{url.port or ''}/{url.database or ''}?{sorted(url.query.items())}"
    return hashlib.blake2b(where.encode(), digest_size=16).hexdigest()
