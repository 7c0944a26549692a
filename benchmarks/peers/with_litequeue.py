"""Measures litequeue: put, then pop and done, as in its README. Runs in the environment of the peers."""

import json
import sys
import time

from litequeue import LiteQueue


def drain(path: str, n: int) -> dict[str, float]:
    """Fill a queue, then pop and finish its messages one by one; return both speeds per second."""
    queue = LiteQueue(path)
    began = time.perf_counter()
    with queue.transaction():
        for number in range(n):
            data = {"alpha_3": f"k{number:07d}", "name": "Ghotuo", "rev": "3f9677dc57b5"}
            queue.put(json.dumps({"version": "3f9677dc57b5", "data": data}))
    filled = time.perf_counter()
    done = 0
    while (message := queue.pop()) is not None:
        json.loads(message.data)
        queue.done(message.message_id)
        done += 1
    ended = time.perf_counter()
    assert done == n, f"{done} of {n} messages finished"
    return {"enqueue": n / (filled - began), "drain": n / (ended - filled)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(drain(arguments["url"].removeprefix("sqlite:///"), arguments["n"])))
