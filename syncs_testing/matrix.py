"""Runs every attack against every paginator of `clients`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from syncs_testing.api import SECRET, Attack
from syncs_testing.attacks import ATTACKS
from syncs_testing.styles import style_of
from syncs_testing.trial import Outcome, attack_one

PATIENCE = 25.0


def listings() -> dict[str, Any]:
    """Return a listing for each paginator, with and without an announced total."""
    import clients as c

    plain: dict[str, Any] = {"items": "data", "version": "version"}
    query: dict[str, Any] = {"method": "POST", "json": {"query": "query($after: String) { pets { nodes { id } } }"}}
    return {
        "SinglePage": c.Listing("pets", c.SinglePage(), **plain),
        "PageNumber": c.Listing("pets", c.PageNumber(), **plain),
        "PageNumber+total": c.Listing("pets", c.PageNumber(), total="total", **plain),
        "Offset": c.Listing("pets", c.Offset(limit=100), **plain),
        "Offset+total": c.Listing("pets", c.Offset(limit=100), total="total", **plain),
        "TotalPages": c.Listing("pets", c.TotalPages(header="X-WP-TotalPages"), items=None),
        "TotalPages+total": c.Listing("pets", c.TotalPages(path="pages"), total="total", **plain),
        "Cursor": c.Listing("pets", c.Cursor("next"), **plain),
        "Cursor+total": c.Listing("pets", c.Cursor("meta.next"), total="meta.total", **plain),
        "NextLink": c.Listing("pets", c.NextLink("links.next"), **plain),
        "LinkHeader": c.Listing("pets", c.LinkHeader(), items=None),
        "Continue": c.Listing("pets", c.Continue(), **plain),
        "RelayCursor": c.Listing("pets", c.RelayCursor("data.pets"), items="data.pets.nodes", **query),
        "ODataLink": c.Listing("pets", c.ODataLink(), items="value"),
        "Keyset": c.Listing("pets", c.Keyset("since_id", "id"), **plain),
        "Keyset by time": c.Listing("pets", c.Keyset("since", "at"), **plain),
    }


def listed_by(listing: Any, *, timeout: float = 60.0, total_timeout: float = 60.0) -> Callable[[str], Iterator[Any]]:
    """Return a function for `attack_one` that lists with a signed-in `HttpClient`, under limits in seconds."""
    from clients import Bearer, HttpClient

    def listed(url: str) -> Iterator[Any]:
        headers = {"X-Tenant": SECRET}
        with HttpClient(url, auth=Bearer(SECRET), headers=headers, timeout=timeout, total_timeout=total_timeout) as http:
            yield from listing(http)

    return listed


def rows(wanted: str = "", *, names: Iterable[str] = (), threads: int = 8) -> Iterator[tuple[Attack, dict[str, Outcome | None]]]:
    """Run every attack against every paginator, and yield the results of each attack, in order; None where it does not apply.

    Args:
        wanted: part of the attacks' names.
        names: which listings; all without any.
        threads: concurrent trials; they mostly wait.
    """
    chosen = {name: listing for name, listing in listings().items() if name in names or not names}
    with ThreadPoolExecutor(threads) as pool:
        trials = [
            (attack, {name: _begin(pool, attack, listing) for name, listing in chosen.items()})
            for attack in ATTACKS
            if wanted in attack.name
        ]
        for attack, cells in trials:
            yield attack, {name: None if cell is None else cell.result() for name, cell in cells.items()}


def matrix(wanted: str = "", *, names: Iterable[str] = (), threads: int = 8) -> dict[tuple[str, str], Outcome | None]:
    """Return the result of every attack against every paginator, by their names; see `rows`."""
    return {
        (attack.name, name): cell for attack, cells in rows(wanted, names=names, threads=threads) for name, cell in cells.items()
    }


def _begin(pool: ThreadPoolExecutor, attack: Attack, listing: Any) -> Future[Outcome] | None:
    style = style_of(listing)
    if not attack.fits(style):
        return None
    # Elsewhere a busy machine must not look like a slow server.
    listed = listed_by(listing, timeout=1.0, total_timeout=3.0) if attack.slow else listed_by(listing)
    return pool.submit(attack_one, attack, style, listed, patience=PATIENCE)
