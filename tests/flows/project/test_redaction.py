"""Taking secrets out of texts."""

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_settings import BaseSettings

from flows.project.redaction import Mask


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


_AROUND = st.binary(max_size=12)
SECRET = 'a/b+c "d" é&ü%\\t0ken'


class One(BaseModel):
    """A secret with characters that every form writes in another way."""

    token: SecretStr = SecretStr(SECRET)


def spellings(secret: str) -> dict[str, str]:
    """Return what texts make of a secret."""
    data = secret.encode()
    once = quote(data, safe="")
    return {
        "URL": quote(data),
        "URL, all": once,
        "URL, lower case": re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), once),
        "URL twice": quote(once, safe=""),
        "form": quote_plus(data),
        "JSON": json.dumps(secret)[1:-1],
        "JSON, other letters as they are": json.dumps(secret, ensure_ascii=False)[1:-1],
        "JSON of PHP": json.dumps(secret)[1:-1].replace("/", "\\/"),
        "HTML": html.escape(secret),
        "hex": data.hex(),
        "HEX": data.hex().upper(),
        "repr": repr(secret)[1:-1],
    }


@pytest.mark.parametrize("form", list(spellings("")))
def test_each_spelling(form: str) -> None:
    """Whatever form a log or an error message gives it, all of it is blanked."""
    assert Mask(One())(f"<{spellings(SECRET)[form]}>") == "<***>"


@given(before=_AROUND, after=_AROUND, url_safe=st.booleans(), secret=st.text("aZ09/+-_ é", min_size=8))
def test_base64_at_any_offset(before: bytes, after: bytes, url_safe: bool, secret: str) -> None:
    """Basic with any user, and any text around it: at most a byte at each end can still be read."""
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    shown = Mask(One(token=SecretStr(secret)))(encode(before + secret.encode() + after).decode())
    assert "***" in shown
    left, _, right = shown.partition("***")
    assert 3 * len(left) <= 4 * len(before) + 6
    assert 3 * len(right.rstrip("=")) <= 4 * len(after) + 6


@pytest.mark.parametrize("settings", [None, Plain()])
def test_without_secrets(settings: BaseModel | None) -> None:
    """Without settings or without secrets a text stays as it is."""
    assert Mask(settings)("token abc ''") == "token abc ''"
