"""Measures dlt on the APIs of the engine: pages, then each entity, eight at once. Runs in the environment of the peers.

The destination only counts, so dlt stores nothing.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

os.environ |= {"EXTRACT__WORKERS": "8", "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}

import dlt
from dlt.sources.helpers import requests
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator

from benchmarks import budget, end_to_end


def load(url: str, path: str, key: str) -> int:
    """Load every entity of an API; return how many there were."""
    done = 0

    @dlt.resource
    def pages() -> Any:
        paginator = PageNumberPaginator(base_page=1, total_path="pages")
        yield from RESTClient(url, data_selector="data").paginate(path, paginator=paginator)

    @dlt.transformer
    def items(rows: list[dict[str, str]]) -> Any:
        @dlt.defer
        def one(row: dict[str, str]) -> Any:
            return requests.get(f"{url}/{path}/{row[key]}").json()

        for row in rows:
            yield one(row)

    @dlt.destination(batch_size=1000, name="counter")
    def counter(rows: Any, _table: Any) -> None:
        nonlocal done
        done += len(rows)

    with tempfile.TemporaryDirectory() as folder:
        dlt.pipeline("peer", pipelines_dir=folder, destination=counter).run(pages | items)
    return done


def with_budget(mode: str, n: int) -> dict[str, float]:
    """Load from the API with a budget."""
    with budget.serving(mode, n) as url:
        return budget.figures(url, done=load(url, "items", "id"), n=n)


def from_memory() -> dict[str, float]:
    """Load from the API of the demo; return entities per second."""
    with end_to_end.serving() as url:
        began = time.perf_counter()
        done = load(url, "languages", "alpha_3")
        return {"entities": done / (time.perf_counter() - began)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(with_budget(**arguments) if arguments else from_memory()))
