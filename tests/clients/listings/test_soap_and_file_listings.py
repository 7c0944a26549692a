"""Listings over SOAP, FTP and SFTP: which pages they give, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from clients import (
    Cursor,
    FtpClient,
    FtpListing,
    LoopError,
    NextLink,
    Offset,
    Page,
    PageError,
    PageNumber,
    RejectedError,
    RemoteFile,
    SftpClient,
    ShortError,
    SoapClient,
    SoapListing,
)
from clients.files.transfer import Scan
from clients.listings.soap_listing import nested
from tests.support.adapter_servers import OLD, Ftp, Sftp, Shop, fill

Serve = Callable[..., Shop]

PAGES = {
    "page and more": SoapListing(
        "page", PageNumber(size_param="size", size=10), items="things.Thing", more="more", version="changed"
    ),
    "page until empty": SoapListing("page", PageNumber(), items="things.Thing", arguments={"size": 10}),
    "total": SoapListing("page", PageNumber(), items="things.Thing", arguments={"size": 10}, total="total"),
    "cursor": SoapListing("after", Cursor("next"), items="things.Thing"),
    "nested": SoapListing(
        "search", PageNumber("query.page"), items="things.Thing", arguments={"query": {"size": 10}}, more="more"
    ),
    "nested size": SoapListing(
        "search", PageNumber("query.page", size_param="query.size", size=7), items="things.Thing", more="more"
    ),
    "single": SoapListing("all"),
    "single by name": SoapListing("all", items="allResult"),
}


def keys(pages: Any) -> list[str]:
    """Return the keys of all pages."""
    return [entity.key for page in pages for entity in page.items]


@pytest.mark.parametrize("version", [11, 12])
@pytest.mark.parametrize("name", PAGES)
def test_every_way_of_paging_lists_all(serve_shop: Serve, version: int, name: str) -> None:
    """The paginators of HTTP set arguments here; each entity is listed once, with plain values."""
    shop = serve_shop(version)
    with SoapClient(f"{shop.url}?wsdl") as client:
        found = list(PAGES[name](client))

    assert keys(found) == [str(number) for number in range(25)]
    assert found[0].items[0].data["name"] == "thing 0 ü"
    assert found[-1].cursor is None


def test_flag_saves_the_call_that_would_find_nothing(shop: Shop) -> None:
    """Where the service says that there is no more, nobody asks for more."""
    with SoapClient(f"{shop.url}?wsdl") as client:
        list(SoapListing("page", PageNumber(), items="things.Thing", arguments={"size": 10}, more="more", recheck=0)(client))

    assert shop.calls == ["page 1", "page 2", "page 3"]


def test_listing_goes_on_behind_a_stored_page(shop: Shop) -> None:
    """The cursor of a page is enough for another client."""
    for name in ("page and more", "cursor", "nested"):
        with SoapClient(f"{shop.url}?wsdl") as client:
            first = next(PAGES[name](client))
        with SoapClient(f"{shop.url}?wsdl") as client:
            rest = keys(PAGES[name].pages(client, cursor=first.cursor))

        assert [entity.key for entity in first.items] + rest == [str(number) for number in range(25)]


class Answers:
    """A connection that answers calls by a function of their arguments, and keeps them."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.answer, self.calls = answer, list[dict[str, Any]]()

    def call(self, operation: str, /, **arguments: Any) -> dict[str, Any]:
        """Answer."""
        self.calls.append(arguments)
        return self.answer(arguments)


def rows(*numbers: int, **others: Any) -> dict[str, Any]:
    """Return an answer with rows."""
    return {"rows": [{"id": number} for number in numbers], **others}


@pytest.mark.parametrize("flag", [True, "true", "Y", 1])
def test_empty_page_with_more_behind_it_is_not_the_end(flag: Any) -> None:
    """Also several of them, which by themselves would be the end of numbered pages."""
    conn = Answers(
        lambda asked: rows(*([asked["page"]] if asked["page"] in (1, 6) else []), more=flag if asked["page"] < 6 else not flag)
    )
    if isinstance(flag, str):
        conn = Answers(
            lambda asked: rows(*([asked["page"]] if asked["page"] in (1, 6) else []), more=flag if asked["page"] < 6 else "no")
        )

    assert keys(SoapListing("x", PageNumber(), items="rows", more="more", recheck=0)(conn)) == ["1", "6"]


def test_flag_that_is_missing_leaves_it_to_the_paginator() -> None:
    """Null says neither yes nor no."""
    conn = Answers(lambda asked: rows(*([asked["page"]] if asked["page"] < 4 else []), more=None))

    assert keys(SoapListing("x", PageNumber(), items="rows", more="more", recheck=0)(conn)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("listing", "answer", "kind"),
    [
        (SoapListing("x", items="rows", more="more"), rows(1, more=True), PageError),
        (SoapListing("x", Cursor("next"), items="rows", more="more"), rows(1, more=True), PageError),
        (SoapListing("x", Cursor("next"), items="rows", more="more"), rows(1, more="perhaps", next="a"), PageError),
        (SoapListing("x", NextLink(), items="rows"), rows(1, next="http://x.example/2"), PageError),
        (SoapListing("x", Cursor("next"), items="rows"), rows(1, next="a"), LoopError),
        (SoapListing("x", PageNumber(), items="rows"), rows(1), LoopError),
        (SoapListing("x", PageNumber(), items="rows", more="more"), rows(more=True), LoopError),
        (SoapListing("x", Offset(), items="rows", more="more"), rows(more=True), LoopError),
        (SoapListing("x", items="rows", total="total"), rows(1, total=2), ShortError),
        (SoapListing("x", items="rows"), {"rows": 1}, PageError),
    ],
)  # fmt: skip
def test_listing_that_cannot_be_complete_says_so(listing: SoapListing, answer: dict[str, Any], kind: type[Exception]) -> None:
    """More without a way there, circles, links, a total that is not reached: an error, never an end, never for ever."""
    conn = Answers(lambda asked: answer)

    with pytest.raises(kind):
        list(listing(conn))
    assert len(conn.calls) < 1100


def test_since_and_nested_arguments_reach_the_call() -> None:
    """Dots lead into objects, over what was declared, and leave the declaration as it was."""
    declared = {"query": {"size": 10, "page": 0}, "lang": "en"}
    conn = Answers(lambda asked: rows(1))
    list(SoapListing("x", items="rows", arguments=declared)(conn, {"query.since": "2024"}))

    assert conn.calls == [{"query": {"size": 10, "page": 0, "since": "2024"}, "lang": "en"}]
    assert declared == {"query": {"size": 10, "page": 0}, "lang": "en"}
    assert nested({"a.b.c": 1, "a.b.d": 2, "a": {"e": 3}}) == {"a": {"e": 3, "b": {"c": 1, "d": 2}}}


def test_broken_declarations_are_found_when_they_are_read() -> None:
    """Paths that are none, numbers out of range."""
    for make in (
        lambda: SoapListing("x", items="a["), lambda: SoapListing("x", more="a["), lambda: SoapListing("x", max_pages=0),
        lambda: FtpListing("x", depth=-1), lambda: FtpListing("x", settle=-1), lambda: FtpListing("x", page=0),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            make()


# -- files


def test_files_are_listed_with_their_versions(serve_ftp: Callable[..., Ftp], serve_sftp: Callable[..., Sftp]) -> None:
    """The same over FTP and SFTP: the key is the path, the version size and time."""
    ftp, sftp = serve_ftp(), serve_sftp()
    for server in (ftp, sftp):
        fill(server.root / "out", {"b.csv": b"bb", "a.csv": b"a", "c.txt": b"c"})
    listing = FtpListing("/out", pattern="*.csv")
    with FtpClient("127.0.0.1", **ftp.arguments) as one, SftpClient("127.0.0.1", **sftp.arguments) as other:
        pages = [list(listing(one)), list(listing(other))]

    assert pages[0] == pages[1]
    (page,) = pages[0]
    when = datetime.fromtimestamp(OLD, UTC).isoformat()
    assert [(entity.key, entity.version) for entity in page.items] == [("/out/a.csv", f"1@{when}"), ("/out/b.csv", f"2@{when}")]
    assert page.items[0].data == {"path": "/out/a.csv", "name": "a.csv", "size": 1, "modified_at": when}


class Looks:
    """A connection that shows other files at each look."""

    def __init__(self, *looks: dict[str, tuple[int, datetime | None]], errors: tuple[str, ...] = ()) -> None:
        self.looks, self.errors, self.count = list(looks), errors, 0

    def scan(self, path: str, pattern: str = "*", *, depth: int = 0) -> Scan:
        """Look."""
        look = self.looks[min(self.count, len(self.looks) - 1)]
        self.count += 1
        return Scan([RemoteFile(name, *about) for name, about in sorted(look.items())], self.errors)


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_file_that_grows_is_left_for_later() -> None:
    """Between the two looks one grew, one came, one went: none is listed, and those that are there count as there."""
    now = datetime.now(UTC)
    conn = Looks(
        {"grows": (1, now), "goes": (1, now), "rests": (1, now), "old": (1, LONG_AGO)},
        {"grows": (2, now), "comes": (1, now), "rests": (1, now), "old": (1, LONG_AGO)},
    )
    (page,) = list(FtpListing("x", settle=0.01)(conn))

    assert [entity.key for entity in page.items] == ["old", "rests"]
    assert page.later == ["comes", "grows"]


def test_old_files_need_no_second_look() -> None:
    """And neither do any where `settle` is 0; a file without a time might be new."""
    young = datetime.now(UTC) - timedelta(hours=1)
    for files, settle, looks in (
        ({"a": (1, LONG_AGO)}, 0.01, 1), ({"a": (1, young)}, 0.01, 2),
        ({"a": (1, None)}, 0.01, 2), ({"a": (1, young)}, 0.0, 1), ({}, 0.01, 1),
    ):  # fmt: skip
        conn = Looks(files)
        list(FtpListing("x", settle=settle)(conn))

        assert conn.count == looks


def test_large_folder_is_stored_in_pages_and_goes_on_behind_one() -> None:
    """A page is what is stored at once; errors and what is left for later stand on the last one."""
    conn = Looks({f"{number:03}": (1, LONG_AGO) for number in range(25)}, errors=("odd",))
    pages = list(FtpListing("x", page=10)(conn))

    assert [len(page.items) for page in pages] == [10, 10, 5]
    assert [page.cursor is None for page in pages] == [False, False, True]
    assert [list(page.errors) for page in pages] == [[], [], ["odd"]]
    rest = list(FtpListing("x", page=10).pages(conn, cursor=pages[0].cursor))
    assert keys(rest) == [f"{number:03}" for number in range(10, 25)]
    assert list(FtpListing("x").pages(Looks({}))) == [Page([], None)]
    for cursor in ({"url": "x"}, "x", {"after": 1}):
        with pytest.raises(ValueError):
            list(FtpListing("x").pages(conn, cursor=cursor))


def test_growing_file_on_a_real_server(serve_ftp: Callable[..., Ftp], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes a file while the folder is listed: between the two looks it has become longer."""
    ftp = serve_ftp()
    fill(ftp.root, {"done.csv": b"x"})
    (ftp.root / "growing.csv").write_bytes(b"line\n")
    grows = [True]

    def between(seconds: float) -> None:
        assert seconds == 0.3
        if grows:
            with (ftp.root / "growing.csv").open("ab") as file:
                file.write(b"line\n")

    monkeypatch.setattr("clients.listings.file_listing.time", SimpleNamespace(sleep=between))
    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        (page,) = list(FtpListing("/", settle=0.3)(client))
        assert ([entity.key for entity in page.items], page.later) == (["/done.csv"], ["/growing.csv"])
        grows.clear()
        (page,) = list(FtpListing("/", settle=0.3)(client))
        assert [entity.key for entity in page.items] == ["/done.csv", "/growing.csv"]


def test_folder_that_is_gone_is_an_error(serve_ftp: Callable[..., Ftp]) -> None:
    """Not an empty listing, by which everything would be deleted."""
    ftp = serve_ftp()
    with FtpClient("127.0.0.1", **ftp.arguments) as client, pytest.raises(RejectedError):
        list(FtpListing("/gone")(client))
