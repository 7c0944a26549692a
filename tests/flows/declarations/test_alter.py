"""`Alter`: one file changes what another declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flows import Alter, DeclarationError
from flows.project.registry import Registry, load

if TYPE_CHECKING:
    from tests.flows.conftest import Project

SHOP = """
from flows import Client, JobType, Sync
shop = Client("shop", url="https://a.example/")
book = JobType("shop.book", shop, process=print)
rows = Sync("shop.rows", shop, listing=lambda connection, since: iter(()))
"""


def read(project: Project, text: str) -> Registry:
    """Read the shop and a file of one's own, which comes first in the order of names."""
    project.write("syncs/shop.py", SHOP)
    project.write("syncs/own.py", f"from flows import Alter\nfrom jobs import Queue, Retry\n{text}\n")
    return load()


@pytest.mark.rows("AQ-65")
def test_a_file_alters_a_job_type_of_another(project: Project) -> None:
    """Its retries, queue and all else are as the last file says; what is not named stays."""
    registry = read(
        project,
        'more = Alter("shop.book", retry=Retry(max_retries=7), queue=Queue("slow", concurrency=2))\n'
        'later = [Alter("shop.book", timeout=9), Alter("shop.rows", priority=4)]',
    )
    assert registry.broken == ()
    book = registry.job_types["shop.book"]
    assert (book.retry.max_retries, book.queue_id, book.timeout, book.process) == (7, "slow", 9, print)
    assert registry.queues["slow"].concurrency == 2
    assert registry.syncs["shop.rows"].priority == 4
    assert registry.origin["shop.book"].endswith("shop.py")


@pytest.mark.parametrize(
    ("text", "reason", "left"),
    [
        ('Alter("shop.nix", timeout=9)', "it alters 'shop.nix', which no file declares", True),
        ('Alter("shop.book", delete_missing=True)', "Alter('shop.book'): a job type has no field 'delete_missing'", False),
        ('Alter("shop.book", timeout=-1)', "job type 'shop.book': timeout must be more than 0 seconds, got -1", False),
    ],
)
def test_what_cannot_be_altered_is_told(project: Project, text: str, reason: str, left: bool) -> None:
    """One line names the file and the reason, and what was to be altered does not run unaltered."""
    registry = read(project, f"more = {text}")
    (broken,) = registry.broken
    assert str(broken).endswith(reason)
    assert broken.file.endswith("own.py")
    assert ("shop.book" in registry.job_types) is left


@pytest.mark.parametrize(("fields", "reason"), [({}, "name the fields"), ({"retrys": 1}, "has a field 'retrys'")])
def test_a_slip_is_found_where_it_stands(fields: dict[str, Any], reason: str) -> None:
    """A field that nothing has, or none at all, is refused at once."""
    with pytest.raises(DeclarationError, match=reason):
        Alter("shop.book", **fields)
