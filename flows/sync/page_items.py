"""Turns a listed page into items that the store takes; those that it cannot take become errors of the page."""

from dataclasses import replace

from clients import Page
from jobs.listing.page_plan import LONGEST_KEY, Item, excess_key_length
from jobs.listing.page_transaction import why_unstorable


def items_of(page: Page) -> tuple[Page, list[Item]]:
    """Return a page's entities as the store takes them: keys and versions are text, whatever a listing function made.

    Those without a key, or with one that no table takes, become errors of the page, which is returned so.
    """
    keyed = [one for one in page.items if one.key is not None and one.key != ""]
    items = [Item(str(one.key), None if one.version is None else str(one.version), one.data, one.path) for one in keyed]
    long = {one.key for one in items if excess_key_length(one.key)}
    if not long and len(keyed) == len(page.items):
        return page, items
    errors = [f"an item has no key ({one.key!r})" for one in page.items if one.key is None or one.key == ""]
    errors += [f"the key {key[:40]!r}… is longer than {LONGEST_KEY} bytes" for key in sorted(long)]
    return replace(page, errors=[*page.errors, *errors]), [one for one in items if one.key not in long]


def without_unstorable(page: Page, items: list[Item]) -> tuple[Page, list[Item]]:
    """Return a page and its items without those that the store refuses, which become errors of the page.

    It is only called where a page was refused: looking at each item of each page would take as long as storing them.
    """
    refused = [(item, why) for item in items if (why := why_unstorable(item))]
    errors = [f"{item.key[:40]!r} cannot be stored: {why}" for item, why in refused]
    gone = {item.key for item, _ in refused}
    # Of two items with one key the last counts: where that one cannot be stored, the other is out of date.
    return replace(page, errors=[*page.errors, *errors]), [item for item in items if item.key not in gone]
