"""No run floods the server with task runs (law 1)."""

from flows.orchestration.tracking.task_run_quota import FULL, OWN_PAGES, TaskRunQuota


def test_first_pages_have_names_of_their_own() -> None:
    """Up to 200 pages each; then one for each hundred, which says so."""
    budget = TaskRunQuota()
    names = [budget.page(number) for number in range(1, 1001)]
    shown = [name for name in names if name is not None]
    assert shown[:2] == ["page 1", "page 2"]
    assert shown[OWN_PAGES - 1 :] == ["page 200"] + [f"page {number} and following" for number in range(201, 1000, 100)]


def test_batches_become_sparse_and_entities_end() -> None:
    """A million entities in batches of 100 make a few thousand task runs, not ten thousand."""
    budget = TaskRunQuota()
    shown = [budget.batch("100 entities") for _ in range(10_000)]
    names = [name for name in shown if name is not None]
    assert len(names) == budget.spent < 4000
    assert names[FULL - 1] == "100 entities"
    assert names[FULL] == "100 entities (one of 10 batches shown)"
    assert budget.entity("late") is None


def test_entities_are_named_by_key() -> None:
    """As long as there is room."""
    assert TaskRunQuota().entity("deu") == "deu"
