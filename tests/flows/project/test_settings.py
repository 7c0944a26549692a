"""Settings: from variables, from Prefect Secret blocks, and what is said when they are missing or wrong."""

from __future__ import annotations

import base64
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.declarations.client import Client
from flows.errors import SettingsError
from flows.project.secrets import read_secret
from flows.project.settings import Settings, block_name, client_settings, open_store, project_settings
from jobs import DatabaseUrlError

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project

SECRET = "hunter2-hunter2"


class PetSettings(BaseSettings, env_prefix="PETSTORE_"):
    """Settings as in the contract."""

    base_url: str = "https://petstore.example/api/"
    token: SecretStr
    port: int = 1


class Nested(BaseSettings):
    """Settings with a nested name, an alias and JSON."""

    model_config = SettingsConfigDict(env_prefix="PETSTORE_", env_nested_delimiter="__")

    inner: dict[str, int] = {}
    named: SecretStr | None = Field(None, validation_alias="PETSTORE_BY_ALIAS")
    key: SecretStr = Field(alias="petstore_key")


class Picky(BaseSettings, env_prefix="PETSTORE_"):
    """Settings whose own validators quote what they refuse."""

    token: SecretStr = SecretStr("")
    user: str = ""

    @field_validator("token", mode="before")
    @classmethod
    def _token(cls, value: str) -> str:
        raise ValueError(f"{value[:7]} does not look like a token")

    @field_validator("user")
    @classmethod
    def _user(cls, value: str) -> str:
        raise ValueError(f"nobody is called {value}")


class Whole(BaseSettings, env_prefix="PETSTORE_"):
    """Settings that do not fit together."""

    token: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _whole(self) -> Whole:
        raise ValueError(f"no user for {self.token.get_secret_value()}")


def client(settings: type[Any] | None) -> Client:
    """Return a client with these settings."""
    return Client("petstore", settings=settings, connect=lambda _: None)  # type: ignore[arg-type,return-value]


def error_of(settings: type[Any]) -> str:
    """Return the one line that these settings lead to, after a look at everything that a traceback would show."""
    with pytest.raises(SettingsError) as caught:
        client_settings(client(settings))
    whole = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        whole += repr(error)
        error = error.__cause__ or error.__context__
    assert SECRET not in whole
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.rows("SC-27")
def test_settings_come_from_variables(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's settings are read from the environment when they are asked for."""
    monkeypatch.setenv("PETSTORE_TOKEN", SECRET)
    assert client_settings(client(PetSettings)).token.get_secret_value() == SECRET
    assert client_settings(client(None)) is None


def test_a_missing_secret_names_variable_and_block(project: Project) -> None:
    """A missing secret is one line that names the variable and the Prefect Secret block."""
    expected = 'client petstore: PETSTORE_TOKEN is not set (environment, file .env, or Prefect Secret block "petstore-token")'
    assert error_of(PetSettings) == expected


@pytest.mark.rows("SC-27")
def test_a_wrong_value_names_variable_and_reason_but_no_value(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a value is said without the value."""
    monkeypatch.setenv("PETSTORE_PORT", SECRET)
    monkeypatch.setenv("PETSTORE_TOKEN", SECRET)
    text = error_of(PetSettings)
    assert text == (
        "client petstore: PETSTORE_PORT is wrong: Input should be a valid integer, unable to parse string as an integer"
    )


def test_everything_wrong_is_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several problems are told at once."""
    monkeypatch.setenv("PETSTORE_PORT", SECRET)
    text = error_of(PetSettings)
    assert "PETSTORE_PORT is wrong" in text
    assert "PETSTORE_TOKEN is not set" in text


def test_what_validators_quote_is_taken_out(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validator's message may quote the value, even a part of a secret: neither is shown."""
    monkeypatch.setenv("PETSTORE_TOKEN", SECRET)
    monkeypatch.setenv("PETSTORE_USER", SECRET)
    text = error_of(Picky)
    assert "hunter2" not in text
    assert "PETSTORE_USER is wrong: nobody is called …" in text
    assert "PETSTORE_TOKEN is wrong: the settings class refuses it" in text
    assert error_of(Whole) == "client petstore: the settings do not fit together: no user for …"


def test_aliases_nesting_and_json(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that is named is the one that is read, also for aliases, nested fields and JSON."""
    monkeypatch.setenv("PETSTORE_INNER__PORT", SECRET)
    text = error_of(Nested)
    assert "PETSTORE_INNER__PORT is wrong" in text
    assert 'PETSTORE_KEY is not set (environment, file .env, or Prefect Secret block "petstore-key")' in text
    monkeypatch.delenv("PETSTORE_INNER__PORT")
    monkeypatch.setenv("PETSTORE_INNER", SECRET)
    assert error_of(Nested) == "client petstore: PETSTORE_INNER is wrong: it is not valid JSON"


def test_block_names() -> None:
    """The block of a variable is its name in lower case with dashes."""
    assert block_name(PetSettings, "token") == "petstore-token"
    assert block_name(Nested, "petstore_key") == "petstore-key"


BLOCK = "/api/block_types/slug/secret/block_documents/name/petstore-token"


def test_a_missing_secret_comes_from_a_prefect_block(project: Project, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret without a variable is read from the Prefect Secret block of its name; a variable goes first."""
    api.documents[BLOCK] = {"name": "petstore-token", "data": {"value": SECRET}}
    monkeypatch.setenv("PREFECT_API_URL", f"{api.url}api")
    assert client_settings(client(PetSettings)).token.get_secret_value() == SECRET
    assert api.paths == [f"{BLOCK}?include_secrets=true"]
    assert "authorization" not in api.headers[0]
    monkeypatch.setenv("PETSTORE_TOKEN", "from-variable")
    assert client_settings(client(PetSettings)).token.get_secret_value() == "from-variable"


def test_prefects_sign_in_is_honoured(project: Project, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """PREFECT_API_AUTH_STRING signs in to the server, PREFECT_API_KEY to Prefect Cloud."""
    api.documents[BLOCK] = {"data": {"value": {"a": 1}}}
    monkeypatch.setenv("PREFECT_API_URL", f"{api.url}api")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_x")
    assert read_secret("petstore-token") == '{"a": 1}'
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pass")
    read_secret("petstore-token")
    assert [headers["authorization"] for headers in api.headers] == [
        "Bearer pnu_x", f"Basic {base64.b64encode(b'admin:pass').decode()}",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [401, 500, 302])
def test_a_server_that_refuses(
    project: Project, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A server that does not hand out the block is named in the log, without its credentials; the setting is missing then."""
    api.refused[BLOCK] = status
    monkeypatch.setenv("PREFECT_API_URL", f"{api.url}api".replace("//", "//user:pass@").replace("user:pass@", ""))
    with caplog.at_level(logging.WARNING, "flows.project.secrets"):
        assert "PETSTORE_TOKEN is not set" in error_of(PetSettings)
    assert f"status {status}" in caplog.text


def test_a_server_without_the_block_or_without_answer(
    project: Project, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No such block is nothing to talk about; a server that does not answer is."""
    monkeypatch.setenv("PREFECT_API_URL", f"{api.url}api")
    assert read_secret("no-such-block") is None
    assert caplog.text == ""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert read_secret("no-such-block") is None
    assert "http://127.0.0.1:9/api does not answer" in caplog.text


def test_project_settings(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's own settings come from SYNCS_ variables; recipients are separated by commas or spaces."""
    assert project_settings().database_url == "sqlite:///data/syncs.db"
    assert project_settings().notify_error == []
    monkeypatch.setenv("SYNCS_NOTIFY_ERROR", "mailto:a@x.org,b@x.org, https://hook.example/1 block:slack")
    monkeypatch.setenv("SYNCS_SMTP_URL", f"smtp://me:{SECRET}@mail")
    monkeypatch.setenv("SYNCS_DATABASE_URL", f"postgresql://me:{SECRET}@db/x")
    found = project_settings()
    assert found.notify_error == ["mailto:a@x.org,b@x.org", "https://hook.example/1", "block:slack"]
    assert SECRET not in repr(found)
    assert isinstance(found, Settings)


def test_opening_the_store_makes_the_tables(project: Project) -> None:
    """The default database is made on first use, with its folder and tables."""
    store = open_store()
    assert store.views.queues() == []
    store.close()
    assert (project.folder / "data/syncs.db").is_file()


def test_a_database_url_that_cannot_work(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database URL that cannot work is an error, and leaves nothing behind."""
    monkeypatch.setenv("SYNCS_DATABASE_URL", "mysql://x/y")
    with pytest.raises(DatabaseUrlError):
        open_store()
    assert not (project.folder / "data").exists()
