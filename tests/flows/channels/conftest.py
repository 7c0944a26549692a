"""What the tests of channels share."""

import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fake_channels import Hook, Mailbox, hooked, mailed, make_certificate

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without settings, and without a Prefect server."""
    for name in ("SYNCS_SMTP_URL", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


@pytest.fixture
def port() -> Iterator[int]:
    """Keep a port of loopback that nobody listens on, unless with `SO_REUSEPORT`."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Run a webhook receiver."""
    with hooked() as found:
        yield found


@pytest.fixture
def mailbox(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """Run an SMTP server without TLS and sign-in, and set SYNCS_SMTP_URL to it."""
    monkeypatch.setenv("SYNCS_SMTP_URL", f"smtp://127.0.0.1:{port}")
    with mailed(port) as found:
        yield found


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Install a distribution that brings a channel: scheme, name of the function, and the text of its module."""

    def install(scheme: str, function: str, text: str) -> None:
        folder = tmp_path / f"{scheme}_channel-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {scheme}-channel\nVersion: 1.0\n")
        # The folder of a test that passed is gone, and the next one may have its name.
        module = f"{scheme}_channel_{next(_numbers)}"
        (folder / "entry_points.txt").write_text(f"[sync_clients.channels]\n{scheme} = {module}:{function}\n")
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

    return install
