"""Real exchanges, recorded once and replayed offline, without the secrets in them. Knows vcrpy, and what `Mask` calls a secret.

    with recorded("tests/cassettes/pets.yaml", settings=settings), petstore.connect(settings) as http:
        assert [entity.key for page in pets.listing(http) for entity in page.items] == ["1", "2"]

The first run asks the remote system and writes the file; every later one reads it and opens no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from syncs_testing.hiding import Hiding


class UnrecordedError(AssertionError):
    """A request was made that is not on the cassette, or more often than it was recorded."""


@contextmanager
def recorded(
    path: str | Path, *, settings: Any = None, secrets: Iterable[str | Any] = (), record: bool | None = None
) -> Iterator[None]:
    """Record what is sent over HTTP in this block, or replay it if the file is there already. It is for one block at a time.

    The file is for the repository: in place of credentials it has `***`. Taken out are all request headers but a few harmless
    ones, cookies, parameters and fields whose names sound like secrets, what a client adds to a URL to sign in, the answers to
    a sign-in, the secrets of `settings`, and wherever else these values turn up. Look through it once before you commit it.

    Args:
        path: of the cassette; written only when the block ends without an error.
        settings: the client's settings; every `SecretStr` in them is hidden, in paths and bodies too. A replay takes any
            others, with secrets of 4 characters at least.
        secrets: further ones, which stand elsewhere.
        record: True records anew, False never asks the remote system; None records if there is no file.

    Raises:
        UnrecordedError: something else was asked for than was recorded.
        ModuleNotFoundError: vcrpy is not installed.
    """
    try:
        import vcr
        from vcr.record_mode import RecordMode
    except ImportError as error:
        raise ModuleNotFoundError("recorded() needs vcrpy: pip install 'sync-clients[testing]'", name="vcr") from error
    from clients import exchange
    from flows.mask import Mask

    path = Path(path)
    given = [one if isinstance(one, str) else one.get_secret_value() for one in secrets]
    hide = Hiding(Mask(settings), given)
    mode = {True: RecordMode.ALL, False: RecordMode.NONE, None: RecordMode.ONCE}[record]
    machine = vcr.VCR(
        record_mode=mode,
        match_on=("method", "scheme", "host", "port", "path", "query", "body"),
        before_record_request=hide.request,
        before_record_response=_readable,
        before_save_interaction=hide.interaction,
        decode_compressed_response=True,
        record_on_exception=False,
        drop_unused_requests=True,
    )
    unknown: list[UnrecordedError] = []
    # It writes whole URLs into its log.
    chatter = logging.getLogger("vcr")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        # Somebody has to note what a client adds to its URLs.
        with exchange.recording() if exchange.current() is None else nullcontext(), machine.use_cassette(str(path)) as cassette:
            _refuse(cassette, hide, path, unknown)
            yield
    finally:
        chatter.setLevel(level)
    if unknown:
        # It may have become the outcome of some job.
        raise unknown[0]


def _refuse(cassette: Any, hide: Hiding, path: Path, unknown: list[UnrecordedError]) -> None:
    """Let the cassette say in our words what it does not have; its own repeat the URL with all that is in it."""
    can_play: Callable[[Any], bool] = cassette.can_play_response_for

    def can_play_or_refuse(request: Any) -> bool:
        if can_play(request):
            return True
        if not cassette.write_protected:
            return False
        shown = hide.request(_copied(request))
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
            raise UnrecordedError("an answer's encoding cannot be undone, so nobody can look for secrets in it")
    return response
