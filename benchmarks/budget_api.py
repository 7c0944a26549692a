"""Serves an API with a budget, in a process of its own: `python -m benchmarks.budget_api MODE N`.

`window` lets 100 requests in for each five seconds and says so in headers; `silent` says only in `Retry-After` when it refuses;
`mute` says nothing at all; `bucket` lets 25 in for each second, 25 at once. `/stats` says how many were let in and refused, how
long that took, and how long it takes a client that asks at the right moments.
"""

import asyncio
import json
import sys
import time
from math import ceil

LATENCY = 0.05
LIMIT, WINDOW = 100, 5.0
RATE = 25.0
PAGE = 100

Headers = dict[str, str]


class Budget:
    """Decides which requests are let in."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.began, self.used = 0.0, 0
        self.tokens, self.at = RATE, time.monotonic()

    def admit(self) -> tuple[bool, Headers]:
        """Say whether a request is let in, with the headers of its answer."""
        return self._bucket() if self.mode == "bucket" else self._window()

    def ideal(self, requests: int, first: float) -> float:
        """Return the seconds after the first request, at `first`, at which the last of so many may be let in."""
        if self.mode == "bucket":
            return max(0.0, (requests - RATE) / RATE)
        return max(0.0, WINDOW * (ceil(requests / LIMIT) - 1) - first % WINDOW)

    def _window(self) -> tuple[bool, Headers]:
        now = time.time()
        if now - self.began >= WINDOW:
            self.began, self.used = now - now % WINDOW, 0
        good = self.used < LIMIT
        self.used += good
        end = self.began + WINDOW
        headers = {}
        if self.mode == "window":
            left = {"X-RateLimit-Limit": str(LIMIT), "X-RateLimit-Remaining": str(LIMIT - self.used)}
            headers = left | {"X-RateLimit-Reset": str(int(end))}
        if not good and self.mode != "mute":
            headers["Retry-After"] = str(max(1, ceil(end - now)))
        return good, headers

    def _bucket(self) -> tuple[bool, Headers]:
        now = time.monotonic()
        self.tokens, self.at = min(RATE, self.tokens + RATE * (now - self.at)), now
        good = self.tokens >= 1
        self.tokens -= good
        headers = {"RateLimit-Limit": str(int(RATE)), "RateLimit-Remaining": str(int(self.tokens)), "RateLimit-Reset": "1"}
        return good, headers if good else headers | {"Retry-After": "1"}


class Api:
    """Pages of items, and each item."""

    def __init__(self, mode: str, n: int) -> None:
        self.budget, self.n = Budget(mode), n
        self.good = self.refused = 0
        self.first = self.last = 0.0

    async def answer(self, path: str) -> tuple[int, Headers, object]:
        """Return status, headers and body."""
        if path == "/stats":
            ideal = self.budget.ideal(self.good, self.first) + LATENCY
            return 200, {}, {"good": self.good, "refused": self.refused, "took": self.last - self.first, "ideal": ideal}
        good, headers = self.budget.admit()
        self.first, self.last = self.first or time.time(), time.time()
        if not good:
            self.refused += 1
            return 429, headers, {"error": "slow down"}
        self.good += 1
        await asyncio.sleep(LATENCY)
        _, _, page = path.partition("page=")
        if not page:
            return 200, headers, {"id": path.rpartition("/")[2], "name": "x" * 200}
        number = int(page.partition("&")[0])
        rows = [{"id": f"e{row:06d}"} for row in range((number - 1) * PAGE, min(number * PAGE, self.n))]
        return 200, headers, {"data": rows, "pages": ceil(self.n / PAGE), "total": self.n}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                status, headers, body = await self.answer(head.split(b" ", 2)[1].decode())
                content = json.dumps(body).encode()
                headers = headers | {"Content-Type": "application/json", "Content-Length": str(len(content))}
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main(mode: str, n: int) -> None:
    """Serve until the process is ended; print the base URL first."""
    server = await asyncio.start_server(Api(mode, n).serve, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
