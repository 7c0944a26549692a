"""Trouble of our own machine is told from that of remote systems, without repeating what may be secret."""

import errno
from pathlib import Path

import pytest

from clients import ConnectFailedError, HttpClient, LocalError
from clients.local_trouble import is_local

PROXIES = ["socks://user:s3cret@127.0.0.1:7891/", "nonsense://x", "http://user:s3cret@127.0.0.1:1/", "http://["]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """The environment names it, so nothing was sent and the remote system is not to blame."""
    monkeypatch.setenv("http_proxy", proxy)
    with HttpClient("http://shop.example/", timeout=2) as http, pytest.raises(LocalError, match="proxy") as caught:
        http.get_json("things")
    assert is_local(caught.value)
    assert "s3cret" not in str(caught.value)


def test_certificates_that_are_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By variable or by argument; the message says which."""
    with HttpClient("https://127.0.0.1:1/", verify=str(tmp_path / "ca.pem")) as http, pytest.raises(LocalError, match=r"ca\.pem"):
        http.get_json("things")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with HttpClient("https://127.0.0.1:1/") as http, pytest.raises(LocalError, match="SSL_CERT_FILE"):
        http.get_json("things")


def test_a_remote_system_that_is_away_is_not_ours() -> None:
    """Without a proxy a refused connection is the remote side's."""
    with HttpClient("http://127.0.0.1:1/") as http, pytest.raises(ConnectFailedError) as caught:
        http.get_json("things")
    assert not is_local(caught.value)
    assert not is_local(OSError(errno.ECONNREFUSED, "refused"))
    assert not is_local(FileNotFoundError(errno.ENOENT, "a file of the job's own"))


def test_a_loop_of_causes_ends() -> None:
    """Whatever somebody did with `__cause__`."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_local(first)
    second.__cause__ = ImportError()
    assert is_local(first)
