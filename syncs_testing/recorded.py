"""Records real exchanges once, without their secrets, and replays them offline.

    with recorded("tests/cassettes/pets.yaml", settings=settings), petstore.connect(settings) as http:
        assert [entity.key for page in pets.listing(http) for entity in page.items] == ["1", "2"]

The first run sends the requests and writes the file; every later one reads it and opens no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from syncs_testing.redaction import Redactor


class UnrecordedError(AssertionError):
    """A request was made that is not on the cassette, or more often than it was recorded."""


@contextmanager
def recorded(
    path: str | Path, *, settings: Any = None, secrets: Iterable[str | Any] = (), record: bool | None = None
) -> Iterator[None]:
    """Record the HTTP exchanges of this block, or replay them if the file exists. Use it for one block at a time.

    The file is made for the repository: it has `***` in place of credentials. Removed are all request headers but a few harmless
    ones, cookies, parameters and fields whose names sound like secrets, what a client adds to a URL to sign in, the answers to
    a sign-in, the secrets of `settings`, and all other places where these values occur. Read it once before you commit it.

    Args:
        path: of the cassette; written only when the block ends without an error.
        settings: the client's settings; every `SecretStr` in them is masked, in paths and bodies too. A replay accepts any
            other settings, with secrets of at least 4 characters.
        secrets: further secrets.
        record: True records again, False never sends a request; None records if there is no file.

    Raises:
        UnrecordedError: a request was sent that was not recorded.
        ModuleNotFoundError: vcrpy is not installed.
    """
    try:
        import vcr
        from vcr.record_mode import RecordMode
    except ImportError as error:
        raise ModuleNotFoundError("recorded() needs vcrpy: pip install 'sync-clients[testing]'", name="vcr") from error
    from clients.exchange_recorder import current_recorder, recording
    from flows.project.redaction import Mask

    path = Path(path)
    given = [one if isinstance(one, str) else one.get_secret_value() for one in secrets]
    redactor = Redactor(Mask(settings), given)
    mode = {True: RecordMode.ALL, False: RecordMode.NONE, None: RecordMode.ONCE}[record]
    machine = vcr.VCR(
        record_mode=mode,
        match_on=("method", "scheme", "host", "port", "path", "query", "body"),
        before_record_request=redactor.request,
        before_record_response=_readable,
        before_save_interaction=redactor.interaction,
        decode_compressed_response=True,
        record_on_exception=False,
        drop_unused_requests=True,
    )
    unknown: list[UnrecordedError] = []
    # vcrpy logs whole URLs.
    chatter = logging.getLogger("vcr")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        # The recorder shows which parameters a client added to its URLs.
        with recording() if current_recorder() is None else nullcontext(), machine.use_cassette(str(path)) as cassette:
            _refuse(cassette, redactor, path, unknown)
            yield
    finally:
        chatter.setLevel(level)
    if unknown:
        # The exception itself may have become the outcome of a job.
        raise unknown[0]


def _refuse(cassette: Any, redactor: Redactor, path: Path, unknown: list[UnrecordedError]) -> None:
    """Raise our own error for unrecorded requests; vcrpy's repeats the URL with its secrets."""
    can_play: Callable[[Any], bool] = cassette.can_play_response_for

    def can_play_or_refuse(request: Any) -> bool:
        if can_play(request):
            return True
        if not cassette.write_protected:
            return False
        shown = redactor.request(_copied(request))
        again = any(stored.method == shown.method and stored.uri == shown.uri for stored in cassette.requests)
        what = "was not recorded so often, or not with this body" if again else "was not recorded"
        error = UnrecordedError(
            f"{shown.method} {shown.uri} {what}: {path} has {len(cassette)} exchanges; delete it to record anew"
        )
        unknown.append(error)
        raise error

    cassette.can_play_response_for = can_play_or_refuse


def _copied(request: Any) -> Any:
    return type(request)(request.method, request.uri, request.body, request.headers)


def _readable(response: Any) -> Any:
    for name in response["headers"]:
        if name.lower() == "content-encoding":
            raise UnrecordedError("an answer cannot be unpacked, so its secrets cannot be found")
    return response
