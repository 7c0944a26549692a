"""Taking secrets out of texts."""

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_settings import BaseSettings

from flows.mask import Mask


class Inner(BaseModel):
    """Credentials of one of several accounts."""

    password: SecretStr = SecretStr("inner&p/ss 1")


class Plain(BaseModel):
    """Settings without a secret."""

    base_url: str = "x"


class Settings(BaseSettings, env_prefix="TEST_MASK_"):
    """A client's settings."""

    base_url: str = "https://api.example"
    token: SecretStr = SecretStr("t0p-secret")
    longer: SecretStr = SecretStr("t0p-secret-and-more")
    pin: SecretStr = SecretStr("123")
    key: SecretBytes = SecretBytes(b"byte-secret")
    inner: Inner = Inner()
    many: list[SecretStr] = [SecretStr("first-one")]
    by_name: dict[str, SecretStr] = {"a": SecretStr("mapped-one")}
    lines: SecretStr = SecretStr("-----BEGIN\nKEY-----")
    empty: SecretStr = SecretStr("")
    missing: SecretStr | None = None


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a t0p-secret b t0p-secret", "a *** b ***"),
        ("t0p-secret-and-more", "***"),
        ("pin 123", "pin 123"),
        ("https://api.example", "https://api.example"),
        ("byte-secret", "***"),
        ("inner&p/ss 1", "***"),
        ("?password=inner%26p%2Fss%201&x=1", "?password=***&x=1"),
        ("?password=inner%26p%2Fss+1&x=1", "?password=***&x=1"),
        ("first-one, mapped-one", "***, ***"),
        (repr("-----BEGIN\nKEY-----"), "'***'"),
        ("", ""),
    ],
)
def test_masks(text: str, masked: str) -> None:
    """Every secret of the settings is blanked, at any depth and in the forms that texts give it."""
    assert Mask(Settings())(text) == masked


@pytest.mark.parametrize("settings", [None, Plain()])
def test_without_secrets(settings: BaseModel | None) -> None:
    """Without settings or without secrets a text stays as it is."""
    assert Mask(settings)("token abc ''") == "token abc ''"
