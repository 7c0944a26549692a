"""Reads the variables that a client is declared with as `env(…)`: from the environment, else from Prefect Secret blocks."""

import time
from typing import Any

from clients.environment import Env, EnvValues, read_also, variables
from clients.urls import split_userinfo
from flows.declarations.client import Client
from flows.declarations.http_connect import HttpConnect
from flows.errors import SettingsError
from flows.project.prefect_address import api_url
from flows.project.secrets import read_secret

KEPT = 30.0
"""Seconds in which a block is not read again: a listing may need its value for each page."""

_read: dict[tuple[str | None, str], tuple[float, str | None]] = {}


def env_values(client: Client, *declared: Any) -> EnvValues:
    """Return the values of the variables of a client.

    Args:
        client: with `url`; one with `connect` has settings in their place.
        declared: what else has variables, such as the listing of a sync.

    Raises:
        SettingsError: one is not set, or cannot be sent.
    """
    values: dict[str, str] = {}
    secrets: set[str] = set()
    missing: dict[str, Env] = {}
    for variable, is_secret in variables((client.connect, *declared)):
        value = values.get(variable.name) or variable.read()
        if value is None:
            missing[variable.name] = variable
            continue
        values[variable.name] = value
        if is_secret and value != variable.default:
            secrets.add(value)
        elif not is_secret and (user := split_userinfo(value)[1]) is not None:
            secrets.add(user[1])
    if missing:
        lines = (f'{name} is not set (environment, file .env, or Prefect Secret block "{block_of(name)}")' for name in missing)
        raise SettingsError(f"client {client.id}: {'; '.join(lines)}")
    found = EnvValues(values, secrets=secrets)
    if isinstance(client.connect, HttpConnect):
        try:
            client.connect.check_values(found)
        except ValueError as error:
            raise SettingsError(f"client {client.id}: {error}") from None
    return found


def block_of(variable: str) -> str:
    """Return the name of the Secret block that replaces a variable: `petstore-token` for `PETSTORE_TOKEN`."""
    return variable.lower().replace("_", "-")


def _block(variable: str) -> str | None:
    place, now = (api_url(), variable), time.monotonic()
    kept = _read.get(place)
    if kept is None or now - kept[0] > KEPT:
        kept = _read[place] = now, read_secret(block_of(variable))
    return kept[1]


read_also(_block)
