"""What `syncs up` writes for the `prefect` command."""

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flows.project.prefect_address import api_url
from flows.project.prefect_profile import write_profile, write_project_file

URL, AUTH = "http://127.0.0.1:4200/api", 'syncs:a"b\\c'


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_profile_is_written_and_emptied(tmp_path: Path) -> None:
    """Address and auth string stand in a private file; with the server the auth string goes."""
    assert write_profile(tmp_path, URL, AUTH) is None
    path = tmp_path / "profiles.toml"
    assert _read(path) == {"active": "syncs", "profiles": {"syncs": {"PREFECT_API_URL": URL, "PREFECT_API_AUTH_STRING": AUTH}}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert write_profile(tmp_path, URL, None) is None
    assert _read(path)["profiles"] == {"syncs": {"PREFECT_API_URL": URL}}


def test_what_a_person_set_stays(tmp_path: Path) -> None:
    """Other profiles and further settings of ours are kept; an active profile stays active, and that is said."""
    path = tmp_path / "profiles.toml"
    path.write_text(
        'active = "cloud"\n[profiles.cloud]\nPREFECT_API_URL = "https://x/api"\nPREFECT_API_KEY = "k"\n'
        '[profiles."my own"]\n[profiles.syncs]\nPREFECT_API_URL = "old"\nPREFECT_LOGGING_LEVEL = "DEBUG"\nPREFECT_X = true\n'
    )
    reason = write_profile(tmp_path, URL, AUTH)
    assert reason is not None
    assert "prefect profile use syncs" in reason
    found = _read(path)
    assert found["active"] == "cloud"
    assert found["profiles"]["cloud"] == {"PREFECT_API_URL": "https://x/api", "PREFECT_API_KEY": "k"}
    assert found["profiles"]["my own"] == {}
    own = {"PREFECT_API_URL": URL, "PREFECT_API_AUTH_STRING": AUTH, "PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_X": True}
    assert found["profiles"]["syncs"] == own


def test_unreadable_profiles_are_left(tmp_path: Path) -> None:
    """A file that is no TOML is said and not replaced."""
    (tmp_path / "profiles.toml").write_text("active = ")
    assert write_profile(tmp_path, URL, AUTH) == f"{tmp_path / 'profiles.toml'} cannot be read"
    assert (tmp_path / "profiles.toml").read_text() == "active = "


def test_project_file_names_the_home(tmp_path: Path) -> None:
    """It names home and profiles, holds no secret, and is written only for a home in the project's folder."""
    home = tmp_path / ".prefect"
    assert write_project_file(tmp_path, home) is None
    found = _read(tmp_path / "prefect.toml")
    assert found == {"home": str(home), "profiles_path": str(home / "profiles.toml")}
    other = tmp_path / "other"
    other.mkdir()
    assert write_project_file(other, home) is None
    assert list(other.iterdir()) == []


def test_project_file_of_a_person_is_left(tmp_path: Path) -> None:
    """A `prefect.toml` of a person stays, and is enough where it names the profiles; else the lines to add are said."""
    home, path = tmp_path / ".prefect", tmp_path / "prefect.toml"
    path.write_text('[logging]\nlevel = "DEBUG"\n')
    reason = write_project_file(tmp_path, home)
    assert reason is not None
    assert f'profiles_path = "{home / "profiles.toml"}"' in reason
    assert path.read_text() == '[logging]\nlevel = "DEBUG"\n'
    path.write_text('profiles_path = ".prefect/profiles.toml"\n')
    assert write_project_file(tmp_path, home) is None
    path.write_text("profiles_path = ")
    assert "cannot be used" in (write_project_file(tmp_path, home) or "")


def test_our_profile_names_no_server_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server of `syncs up` does not run, the profile that still names it makes nobody ask there."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    write_profile(tmp_path, URL, AUTH)
    assert api_url() is None
