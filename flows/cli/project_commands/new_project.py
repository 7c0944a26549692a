"""The files of a new project, as `syncs init` writes them. What is there already is left as it is."""

import re
from dataclasses import dataclass
from pathlib import Path

from clients.package_version import VERSION
from flows.errors import UsageError

EXAMPLE = "syncs/example.py"

_EXAMPLE = '''"""An example that runs as it is: the chemical elements, from an API that it starts on this machine.

Run it twice: the second time nothing has changed, and nothing is fetched. For your own API, copy the file, say where the rows
are, and delete this one.
"""

from clients import Listing, PageNumber
from clients.demo_api import elements_api
from flows import Client, Sync

# The remote system. One of your own, with a token from the environment, a Secret block or the file .env:
#   from clients import Bearer, env
#   shop = Client("shop", url="https://api.shop.example/v1/", auth=Bearer(env("SHOP_TOKEN")))
example = Client("example", connect=lambda _: elements_api())

elements = Sync(
    "example.elements",
    example,
    # GET elements?page=1&per_page=50, then page=2 and so on. The rows are in "data"; each has a key, and a version that changes
    # with it.
    listing=Listing(
        "elements",
        PageNumber("page", size_param="per_page", size=50),
        items="data",
        key="symbol",
        version="updated_at",
        total="total",
    ),
    # GET elements/Fe, for what is new or has another version. Without it, the listed row is the record.
    fetch="elements/{key}",
    # What a complete listing no longer has is marked as deleted.
    delete_missing=True,
    # When `syncs up` runs it: cron text in UTC. Also Cron("0 3 * * *", zone="Europe/Berlin") or Every(300) seconds.
    schedule="*/5 * * * *",
)
'''

_PREFECT = """\
# Deployments of your own, for `syncs up` and `syncs setup`. Each sync in syncs/ has one already, with its `schedule=`, and so
# have `work`, `maintain` and those for pauses: for these, write nothing here. Put no secrets here; Prefect shows this file.
name: {name}

definitions:
  pool: &pool
    name: syncs
    work_queue_name: default
    # An automation takes a run without a heartbeat for 90 s as crashed.
    job_variables: {{env: {{PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "30"}}}}
  # One run at a time. A second start ends as Cancelled and says why.
  alone: &alone {{limit: 1, collision_strategy: CANCEL_NEW}}

deployments: []
#  - name: everything-on-sundays
#    entrypoint: flows.orchestration.runs.sync
#    parameters: {{name: example.elements, full: true}}
#    work_pool: {{<<: *pool, work_queue_name: example}}
#    concurrency_limit: *alone
#    schedules:
#      - {{cron: "0 3 * * 0", timezone: Europe/Berlin, slug: weekly}}
"""

_ENVIRONMENT = """\
# Copy this to .env. `syncs` and its flow runs read that file; what the environment has wins. It is not for version control.

# Where jobs and records are. PostgreSQL needs the extra: pip install 'sync-clients[postgres]'
#SYNCS_DATABASE_URL=postgresql://me@localhost/syncs

# Who is told when something needs a person: mailto:…, https://… (a webhook), or any Apprise URL
#SYNCS_NOTIFY_ERROR=mailto:ops@example.org
#SYNCS_SMTP_URL=smtp://user:password@mail.example.org:587

# What the clients in syncs/ read
#SHOP_TOKEN=
"""

_IGNORED = """\
.env
.prefect/
.venv/
__pycache__/
data/
prefect.toml
"""

_PYPROJECT = """\
[project]
# The database belongs to the project of this name.
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["sync-clients>={version}"]

# There is no package here: `pip install .` installs what the project needs.
[tool.setuptools]
py-modules = []

[tool.ruff]
line-length = 130

[tool.mypy]
strict = true
files = ["syncs"]
"""


@dataclass(frozen=True, slots=True)
class Written:
    """One file of a new project."""

    #: Below the folder of the project.
    file: str
    #: created, or kept: it was there.
    change: str


def write_project(folder: Path) -> list[Written]:
    """Write the files of a new project, and make the folder if there is none.

    Args:
        folder: of the project. Files that are there stay as they are; with a sync in `syncs/`, no example is added.

    Raises:
        UsageError: the folder cannot be written.
    """
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-") or "my-syncs"
    files = {
        EXAMPLE: _EXAMPLE,
        "prefect.yaml": _PREFECT.format(name=name),
        ".env.example": _ENVIRONMENT,
        ".gitignore": _IGNORED,
        "pyproject.toml": _PYPROJECT.format(name=name, version=VERSION),
    }
    if any((folder / "syncs").glob("*.py")) and not (folder / EXAMPLE).exists():
        del files[EXAMPLE]
    try:
        return [Written(file, "created" if _write(folder / file, text) else "kept") for file, text in files.items()]
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from error


def _write(path: Path, text: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
