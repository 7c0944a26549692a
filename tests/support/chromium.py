"""A real Chromium without a window, driven over its DevTools protocol."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.prefect_project import HANG, until


def chromium() -> str:
    """Return the program; skip the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs chromium")
    return found


class Tab:
    """A tab.

    Args:
        connection: to its DevTools.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv(timeout=HANG))).get("id") != number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def open(self, url: str) -> None:
        """Open a page and wait until it has loaded, or Chromium has shown why not."""
        self._do("Page.navigate", url=url)
        until(lambda: self.run("document.readyState == 'complete' && location.href != 'about:blank'"))

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page, wait for its promise, and return its value; what was thrown is text."""
        try:
            found = self._do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        except AssertionError as error:  # the page has gone meanwhile
            return f"thrown: {error}"
        if "exceptionDetails" in found:
            return f"thrown: {found['exceptionDetails'].get('exception', {}).get('description', found['exceptionDetails'])}"
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        until(lambda: self.run(script) is True)

    def type(self, text: str) -> None:
        """Type a text into the field that has the focus, and Enter."""
        self._do("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self._do("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self._do("Input.dispatchKeyEvent", type="keyUp", **key)


@contextmanager
def browsing(folder: Path, *flags: str) -> Iterator[Tab]:
    """Start Chromium with one tab, and end it.

    Args:
        folder: for its profile.
        flags: of the command line, in addition.
    """
    command = [
        chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--no-proxy-server", f"--user-data-dir={folder}", "--remote-debugging-port=0", *flags, "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = folder / "DevToolsActivePort"
        until(lambda: port.exists() and len(port.read_text().split()) == 2)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"

        def tabs() -> list[str]:
            found = httpx.get(address, trust_env=False, verify=False).json()
            return [each["webSocketDebuggerUrl"] for each in found if each["type"] == "page"]

        with connect(until(tabs)[0], max_size=None, proxy=None) as connection:
            yield Tab(connection)
    finally:
        process.terminate()
        process.wait(HANG)
