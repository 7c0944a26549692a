"""Lists the measurements, and the gates that their figures must reach."""

from dataclasses import dataclass

from benchmarks.cell import Cell


@dataclass(frozen=True)
class Figure:
    """One number of a cell, a row of the table.

    Args:
        cell: the name of the cell.
        key: the name of the figure in the cell's result.
        unit: `/s`, `s`, `ms`, `MB`, `x`, `%`.
        over: the cell by whose figure of the same key this one is divided, in each round.
        least, most: the gate: the lowest and highest value that is accepted.
    """

    cell: str
    key: str
    unit: str = "/s"
    over: str | None = None
    least: float | None = None
    most: float | None = None

    @property
    def name(self) -> str:
        """The name in the table."""
        return f"{self.cell}: {self.key}" + (f" / {self.over}" if self.over else "")


def _on(database: str) -> tuple[list[Cell], list[Figure]]:
    """Return the cells and figures of one database."""
    enough = 50_000 if database == "sqlite" else 40_000
    cells, figures = [], []
    for batch, n in ((25, 20_000), (1, 3_000)):
        for module in ("floor", "store"):
            cells.append(
                Cell(
                    f"{module} {database} {batch}/{batch}",
                    f"benchmarks.{module}:drain",
                    arguments={"n": n, "batch": batch},
                    quick={"n": n // 5},
                    database=database,
                    group=f"{database} {batch}",
                ),
            )
            figures.append(Figure(cells[-1].name, "drain"))
        least = 0.35 if batch == 25 else 0.6 if database == "sqlite" else None
        figures.append(Figure(cells[-1].name, "drain", "x", over=f"floor {database} {batch}/{batch}", least=least))
    for page in (500, 100):
        cells.append(
            Cell(
                f"store {database} pages of {page}",
                "benchmarks.store:pages",
                arguments={"n": 20_000, "page": page},
                quick={"n": 5_000},
                database=database,
            )
        )
        figures.append(Figure(cells[-1].name, "enqueue", least=enough if page == 500 else None))
        figures.append(Figure(cells[-1].name, "unchanged"))
    return cells, figures


def _peers() -> tuple[list[Cell], list[Figure]]:
    """Return the cells and figures of other job queues, each in the group of the store's cell that does the same."""
    cells = [
        Cell(
            "litequeue",
            "with_litequeue.py",
            arguments={"n": 3_000},
            quick={"n": 600},
            database="sqlite",
            group="sqlite 1",
            peer=True,
        ),
        Cell(
            "pgqueuer batch 100",
            "with_pgqueuer.py",
            arguments={"n": 10_000, "batch": 100},
            quick={"n": 2_000},
            database="postgresql",
            group="postgresql 100",
            peer=True,
        ),
        Cell(
            "store postgresql 100/100",
            "benchmarks.store:drain",
            arguments={"n": 10_000, "batch": 100},
            quick={"n": 2_000},
            database="postgresql",
            group="postgresql 100",
        ),
    ]
    figures = [
        Figure("litequeue", "drain"),
        Figure("litequeue", "drain", "x", over="floor sqlite 1/1"),
        Figure("store sqlite 1/1", "drain", "x", over="litequeue", least=1.0),
        Figure("pgqueuer batch 100", "drain"),
        Figure("store postgresql 100/100", "drain"),
        Figure("store postgresql 100/100", "drain", "x", over="pgqueuer batch 100", least=1.0),
    ]
    return cells, figures


def _backlog(database: str) -> tuple[list[Cell], list[Figure]]:
    """Return the cells and figures of one database with very many queued jobs."""
    names = ("100k of 10 clients", "180k in one run", "100k of a paused client", "100k of a reopening client")
    clients, run, paused, reopening = (f"{database} {what}" for what in names)
    cells = [
        Cell(
            clients,
            "benchmarks.backlog:many_clients",
            arguments={"n": 100_000, "clients": 10, "paused": 3, "claims": 400, "batch": 25},
            quick=None,
            database=database,
            once=True,
        ),
        Cell(
            run, "benchmarks.backlog:long_run", arguments={"n": 180_000, "batch": 100}, quick=None, database=database, once=True
        ),
        Cell(
            paused,
            "benchmarks.backlog:paused_neighbour",
            arguments={"n": 100_000, "claims": 300, "batch": 25},
            quick=None,
            database=database,
            once=True,
        ),
        Cell(
            reopening,
            "benchmarks.backlog:paused_neighbour",
            arguments={"n": 100_000, "claims": 300, "batch": 25, "is_over": True},
            quick=None,
            database=database,
            once=True,
        ),
    ]
    figures = [
        Figure(clients, "claim p50", "ms"),
        Figure(clients, "claim p99", "ms", most=10),
        Figure(run, "drain"),
        Figure(run, "claim last/first", "x", most=1.5),
        Figure(run, "growth", "MB", most=30),
        Figure(run, "start", "MB"),
        Figure(run, "middle", "MB"),
        Figure(run, "end", "MB"),
        Figure(paused, "claim beside/alone", "x", most=1.1),
        Figure(reopening, "claim beside/alone", "x", most=1.1),
    ]
    return cells, figures


def _budgets() -> tuple[list[Cell], list[Figure]]:
    """Return the cells and figures of APIs with budgets, each beside dlt."""
    cells, figures = [], []
    # What the headers tell is to be used to the full; without them, the client has to find out.
    for mode, longest, refused in (("window", 1.05, 3), ("bucket", 1.05, 3), ("silent", 1.15, 10), ("mute", 1.15, 10)):
        arguments, group = {"mode": mode, "n": 500}, f"budget {mode}"
        ours, dlt = f"engine, budget {mode}", f"dlt, budget {mode}"
        cells += [
            Cell(ours, "benchmarks.budget:engine", arguments, quick=None, database="sqlite", group=group, once=True),
            Cell(dlt, "with_dlt.py", arguments, quick=None, group=group, once=True, peer=True),
        ]
        figures += [
            Figure(ours, "time/ideal", "x", most=longest),
            Figure(ours, "refused", "%", most=refused),
            Figure(dlt, "time/ideal", "x"),
            Figure(dlt, "refused", "%"),
        ]
    return cells, figures


_SQLITE, _POSTGRESQL = _on("sqlite"), _on("postgresql")
_BUDGETS = _budgets()
_PEERS, _SQLITE_BACKLOG, _POSTGRESQL_BACKLOG = _peers(), _backlog("sqlite"), _backlog("postgresql")

CELLS = [
    *_SQLITE[0],
    *_POSTGRESQL[0],
    *_PEERS[0],
    *_SQLITE_BACKLOG[0],
    *_POSTGRESQL_BACKLOG[0],
    *_BUDGETS[0],
    Cell("bare httpx loop", "benchmarks.end_to_end:bare", group="engine"),
    Cell("engine", "benchmarks.end_to_end:engine", database="sqlite", group="engine"),
    Cell("dlt", "with_dlt.py", quick=None, group="engine", peer=True),
    Cell("engine on Prefect", "benchmarks.end_to_end:engine_on_prefect", quick=None, group="Prefect"),
    Cell("plain Prefect", "benchmarks.end_to_end:plain_prefect", arguments={"n": 300}, quick=None, group="Prefect"),
    Cell(
        "memory", "benchmarks.memory:listing", arguments={"n": 1_000_000, "page": 1_000}, quick={"n": 100_000}, database="sqlite"
    ),
    Cell("start", "benchmarks.start:commands"),
]

FIGURES = [
    *_SQLITE[1],
    *_POSTGRESQL[1],
    *_PEERS[1],
    *_SQLITE_BACKLOG[1],
    *_POSTGRESQL_BACKLOG[1],
    *_BUDGETS[1],
    Figure("bare httpx loop", "entities"),
    Figure("engine", "entities"),
    Figure("engine", "entities", "x", over="bare httpx loop", least=0.9),
    Figure("dlt", "entities"),
    Figure("engine", "entities", "x", over="dlt", least=1.0),
    Figure("engine", "unchanged"),
    Figure("engine on Prefect", "entities"),
    Figure("plain Prefect", "entities"),
    Figure("engine on Prefect", "entities", "x", over="plain Prefect"),
    Figure("plain Prefect", "server_start", "s"),
    Figure("plain Prefect", "start", "s"),
    Figure("memory", "growth", "MB", most=80),
    Figure("memory", "entities"),
    Figure("start", "list", "s", most=1.0),
    Figure("start", "list_imports_prefect", "", most=0),
    Figure("start", "run", "s", most=1.5),
    Figure("start", "first_run", "s"),
]
