"""`docs/file-from-a-url.md`: what it shows is what `syncs new` says and writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from clients import Bearer
from flows.cli.program import program
from flows.drafting.investigation import investigate
from flows.drafting.sign_in import sign_in
from flows.drafting.source import source_of
from tests.docs.conftest import Page
from tests.flows.drafting.test_new import APIS, TOKEN
from tests.support.draft_server import served

SHOWN = "https://api.shop.example/v1/"


def test_it_shows_what_the_command_does(pages: dict[str, Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table and the file are those of an API on loopback, but for its address."""
    page = pages["docs/file-from-a-url.md"]
    told = next(block.text for block in page.blocks if block.language == "console")
    (file,) = [block.text for block in page.blocks if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    with served(APIS) as (base, _):
        url = f"{base}/shop/v1/products"
        done = CliRunner().invoke(program, ["new", "shop", url, "--auth", "bearer:SHOP_TOKEN"])
        draft = investigate("shop", url, auth=Bearer(TOKEN))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == told.splitlines()[2:]
    how = sign_in("bearer:SHOP_TOKEN")
    draft.url, draft.source, draft.auth, draft.names = SHOWN, f"{SHOWN}products", how.source, how.names
    assert source_of(draft, width=130).strip() == file.strip()
