"""Measures dlt against an API with a budget: pages, then each entity, eight at once. Runs in the environment of the peers."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

os.environ |= {"EXTRACT__WORKERS": "8", "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}

import dlt
from dlt.sources.helpers import requests
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator

from benchmarks.budget import figures, serving


def sync(mode: str, n: int) -> dict[str, float]:
    """Load every entity of the API into a destination that only counts."""
    done = 0
    with serving(mode, n) as url, tempfile.TemporaryDirectory() as folder:

        @dlt.resource
        def pages() -> Any:
            paginator = PageNumberPaginator(base_page=1, total_path="pages")
            yield from RESTClient(url, data_selector="data").paginate("items", paginator=paginator)

        @dlt.transformer
        def items(rows: list[dict[str, str]]) -> Any:
            @dlt.defer
            def one(row: dict[str, str]) -> Any:
                return requests.get(f"{url}/items/{row['id']}").json()

            for row in rows:
                yield one(row)

        @dlt.destination(batch_size=1000, name="counter")
        def counter(rows: Any, _table: Any) -> None:
            nonlocal done
            done += len(rows)

        dlt.pipeline("budget", pipelines_dir=folder, destination=counter).run(pages | items)
        return figures(url, done=done, n=n)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(sync(arguments["mode"], arguments["n"])))
