"""Reads the project's settings and those of a client from environment variables and Prefect Secret blocks.

No message of this module contains a value, since any value may be secret. Pydantic's own messages do.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_core.core_schema import ErrorType
from pydantic_settings import BaseSettings, NoDecode
from pydantic_settings.exceptions import SettingsError as UnreadableSetting

from flows.declarations.client import Client
from flows.errors import SettingsError
from flows.project.discovery import project_name_in
from flows.project.env_values import block_of, env_values
from flows.project.secrets import read_secret

if TYPE_CHECKING:
    from jobs.store import JobStore

# A recipient may contain a comma (`mailto:a@x.org,b@x.org`); the next one begins with a scheme.
_BETWEEN_RECIPIENTS = re.compile(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*:)")

_OWN_REASONS = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}


class Settings(BaseSettings, env_prefix="SYNCS_"):
    """The project's own settings. Fields that may contain a password or a token are not in its repr."""

    database_url: str = Field("sqlite:///data/syncs.db", repr=False)
    #: Read by flows.project.registry, which does not need the other settings; listed here so that settings can be shown.
    path: str = ""
    #: The name of the project, to which its database belongs; by default that of its `pyproject.toml`.
    project: str = ""
    notify_notice: Annotated[list[str], NoDecode] = Field(default_factory=list, repr=False)
    notify_warning: Annotated[list[str], NoDecode] = Field(default_factory=list, repr=False)
    notify_error: Annotated[list[str], NoDecode] = Field(default_factory=list, repr=False)
    #: Seconds in which people are notified once of the same cause; further events are counted.
    notify_window: float = Field(3600, gt=0)
    smtp_url: SecretStr | None = None

    @field_validator("notify_notice", "notify_warning", "notify_error", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part for part in _BETWEEN_RECIPIENTS.split(value.strip()) if part] if isinstance(value, str) else value

    @property
    def project_name(self) -> str | None:
        """The name of the project: the setting, else what the `pyproject.toml` in this folder says; None where nothing does.

        Raises:
            SettingsError: the `pyproject.toml` cannot be read.
        """
        return self.project.strip() or project_name_in(Path("pyproject.toml"))


def project_settings() -> Settings:
    """Return the project's own settings.

    Raises:
        SettingsError: one of them is wrong.
    """
    found, problems = _build(Settings, {})
    if problems:
        raise SettingsError("; ".join(_wrong(Settings, problem) for problem in problems))
    assert isinstance(found, Settings)
    return found


def open_store() -> "JobStore":
    """Open the project's database, and create the tables if it has none.

    Raises:
        SettingsError: a setting is wrong.
        DatabaseUrlError: the URL is not usable.
        DatabaseUnavailable: the database does not answer.
        SchemaError: the tables do not fit this version, or belong to another project.
    """
    from jobs.db.database import Database
    from jobs.schema.project_owner import check, claim
    from jobs.schema.upgrade import create_if_empty
    from jobs.store import JobStore

    found = project_settings()
    db, name = Database(found.database_url), found.project_name
    owner = check(db, name)
    create_if_empty(db)
    if owner is None:
        claim(db, name)
    return JobStore(db)


def client_settings(client: Client) -> Any:
    """Return the settings of a client, from the environment; missing secrets come from Prefect Secret blocks.

    Those of a client with `url` are the values of its variables, by name.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    if client.url is not None:
        return env_values(client)
    if client.settings is None:
        return None
    found, problems = _build(client.settings, {})
    secrets = {}
    for problem in problems:
        name = _top(problem)
        if problem["type"] == "missing" and name is not None and _is_secret(client.settings, name):
            value = read_secret(block_name(client.settings, name))
            if value is not None:
                secrets[name] = value
    if secrets:
        found, problems = _build(client.settings, secrets)
    if problems:
        raise SettingsError(f"client {client.id}: " + "; ".join(_problem(client.settings, problem) for problem in problems))
    return found


def variable_name(settings: type[Any], name: str) -> str:
    """Return the environment variable of a field (or of its alias) in capital letters."""
    prefix = "" if _by_alias(settings, name) else settings.model_config.get("env_prefix", "")
    return f"{prefix}{name}".upper()


def block_name(settings: type[Any], name: str) -> str:
    """Return the name of the Secret block that replaces a variable: `petstore-token` for `PETSTORE_TOKEN`."""
    return block_of(variable_name(settings, name))


def _build(settings: type[Any], values: Mapping[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Return the settings and a list of what is wrong. Pydantic's exceptions do not leave this function: they contain values."""
    try:
        return settings(**values), []
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return None, [{"type": p["type"], "loc": p["loc"], "msg": _without_values(settings, p)} for p in problems]
    except UnreadableSetting as error:
        # `error parsing value for field "headers" from source "EnvSettingsSource"`: the text contains the name and no value.
        name = re.search(r'field "(\w+)"', str(error))
        return None, [{"type": "json_invalid", "loc": (name[1],) if name else (), "msg": "it is not valid JSON"}]


def _without_values(settings: type[Any], problem: Mapping[str, Any]) -> str:
    """Return the reason. Pydantic's own reasons contain no value; a validator of the user may quote one, which is removed."""
    if problem["type"] in _OWN_REASONS:
        return str(problem["msg"])
    if (name := _top(problem)) is not None and _is_secret(settings, name):
        # The validator may quote a part of the secret, which replacing the whole would miss.
        return "the settings class refuses it"
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    for text in sorted(set(_texts(problem.get("input"))), key=len, reverse=True):
        reason = reason.replace(text, "…")
    return next(iter(reason.splitlines()), "")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Mapping | BaseModel):
        value = [inner for _, inner in (value.items() if isinstance(value, Mapping) else value)]
    if isinstance(value, list | tuple | set):
        for inner in value:
            yield from _texts(inner)
    elif value is not None and (text := str(value)):
        yield text


def _top(problem: Mapping[str, Any]) -> str | None:
    loc = problem["loc"]
    return loc[0] if len(loc) == 1 and isinstance(loc[0], str) else None


def _problem(settings: type[Any], problem: Mapping[str, Any]) -> str:
    name = _top(problem)
    if problem["type"] != "missing":
        return _wrong(settings, problem)
    variable = _variable(settings, problem["loc"])
    if name is None or not _is_secret(settings, name):
        return f"{variable} is not set (environment, or file .env)"
    return f'{variable} is not set (environment, file .env, or Prefect Secret block "{block_name(settings, name)}")'


def _wrong(settings: type[Any], problem: Mapping[str, Any]) -> str:
    where = _variable(settings, problem["loc"])
    return f"{where} is wrong: {problem['msg']}" if where else f"the settings do not fit together: {problem['msg']}"


def _variable(settings: type[Any], loc: Iterable[Any]) -> str:
    top, *inner = list(loc) or [None]
    if top is None:
        return ""
    delimiter = settings.model_config.get("env_nested_delimiter")
    name = variable_name(settings, str(top))
    if delimiter and inner and all(isinstance(part, str) for part in inner):
        return name + "".join(f"{delimiter}{part}" for part in inner).upper()
    return name


def _by_alias(settings: type[Any], name: str) -> bool:
    return name not in settings.model_fields


def _is_secret(settings: type[Any], name: str) -> bool:
    fields = settings.model_fields
    found = fields.get(name) or next((field for field in fields.values() if name in (field.alias, field.validation_alias)), None)
    return found is not None and SecretStr in (found.annotation, *get_args(found.annotation))
