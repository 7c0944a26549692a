"""Measures pgqueuer: enqueue in bulk, then its worker in drain mode. Runs in the environment of the peers."""

import asyncio
import json
import sys
import time

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode


async def drain(url: str, n: int, batch: int) -> dict[str, float]:
    """Fill the queue, then let a worker empty it by `batch`; return both speeds per second.

    The time ends with the last finished job in its log: what the worker does afterwards is not counted.
    """
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    began = time.time()
    for start in range(0, n, 500):
        payloads: list[bytes | None] = []
        for number in range(start, min(start + 500, n)):
            data = {"alpha_3": f"k{number:07d}", "name": "Ghotuo", "rev": "3f9677dc57b5"}
            payloads.append(json.dumps({"version": "3f9677dc57b5", "data": data}).encode())
        await queries.enqueue(["bench"] * len(payloads), payloads, [0] * len(payloads))
    filled = time.time()

    worker = PgQueuer(AsyncpgDriver(connection))

    @worker.entrypoint("bench")
    async def work(job: Job) -> None:
        json.loads(job.payload or b"")

    started = time.time()
    await worker.run(batch_size=batch, mode=QueueExecutionMode.drain)

    # The worker has closed the connection.
    connection = await asyncpg.connect(url)
    done, ended = await connection.fetchrow(
        "SELECT count(*), extract(epoch FROM max(created))::float FROM pgqueuer_log WHERE status = 'successful'"
    )
    await connection.close()
    assert done == n, f"{done} of {n} jobs finished"
    return {"enqueue": n / (filled - began), "drain": n / (ended - started)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drain(**json.loads(sys.argv[1])))))
