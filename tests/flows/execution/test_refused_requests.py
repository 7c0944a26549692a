"""What a refusal says is kept with the attempt, without secrets, and shown by `syncs job`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from clients.exchange_recorder import Recorder
from flows.project.redaction import BODY_LENGTH, Mask, masked_summary

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project

SAYS = {"error": "age must not be negative", "you_sent": "Bearer t0p-secret", "session_id": 'a"1', "url": "\u001b[31m red"}


@pytest.mark.rows("SC-35")
def test_the_body_of_a_refusal_is_kept_and_shown(petstore: Project, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a refused entity stands in `syncs job`, as text and as JSON; secrets and control characters do not."""
    api.items = [{"id": 1}]
    answer = api.answer

    def refuse(path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        return (422, SAYS | {"long": "x" * 9000}) if path == "/pets/1" else answer(path, query)

    monkeypatch.setattr(api, "answer", refuse)
    petstore.run_here("run", "petstore.pets", "--wait", "0")
    shown = petstore.run_here("job", "1").stdout
    line = next(line for line in shown.splitlines() if line.startswith("claim 1 was answered: "))
    assert '"error": "age must not be negative", "you_sent": "***", "session_id": "***"' in line
    assert len(line) < BODY_LENGTH + 50
    (exchange,) = json.loads(petstore.run_here("job", "1", "--json").stdout)["tries"][0]["exchanges"]
    assert exchange["body"] == line.removeprefix("claim 1 was answered: ")
    petstore.run_here("retry", "1", "--yes")
    assert "age must not be negative" in petstore.run_here("process", "1").stderr + petstore.run_here("job", "1").stdout
    stored = (petstore.folder / "data/syncs.db").read_bytes()
    assert b"t0p-secret" not in stored


def test_a_secret_is_masked_before_the_body_is_cut() -> None:
    """A secret at the place of the cut leaves no part of itself, and bytes that are no text are no error."""
    mask = Mask({"token": _Secret()})
    for place in range(BODY_LENGTH - 20, BODY_LENGTH + 1):
        recorder = Recorder()
        recorder.end(recorder.begin("GET", "https://a.example/"), status=400)
        recorder.set_refusal(b"x" * place + b"t0p-secret\xff\xfe", secrets=())
        (one,) = masked_summary(recorder, mask)
        assert "t0p" not in one["body"]
        assert len(one["body"]) <= BODY_LENGTH


class _Secret:
    def get_secret_value(self) -> str:
        return "t0p-secret"
