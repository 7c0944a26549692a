"""Syncs over SOAP, FTP and SFTP through the engine: records arrive, trouble is retried, refused sign-ins pause."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from clients import Bearer, FtpClient, FtpListing, PageNumber, SftpClient, SoapClient, SoapListing
from flows import Client, Sync
from flows.sync import run as engine
from jobs import JobStore, Retry
from tests.support.adapter_servers import OLD, Ftp, Sftp, Shop, fill

AT_ONCE = Retry(max_retries=3, delay=0.01, jitter=False)


def records(store: JobStore) -> dict[str, Any]:
    """Return the mirrored data by key, of what is not deleted."""
    with store.db.read() as connection:
        rows = connection.execute(text("SELECT key, data FROM record WHERE deleted_at IS NULL")).all()
    return {row.key: json.loads(row.data) if isinstance(row.data, str) else row.data for row in rows}


def shop_sync(shop: Shop, **fields: Any) -> Sync:
    """Declare a sync of the shop: pages are listed, each thing is fetched."""
    client = Client("shop", connect=lambda _: SoapClient(f"{shop.url}?wsdl", auth=Bearer("token-of-shop")))
    listing = SoapListing("page", PageNumber(size_param="size", size=10), items="things.Thing", version="changed", more="more")
    return Sync(
        "shop.things", client, listing=listing, fetch=lambda soap, entity: soap.call("get", id=int(entity.key)),
        delete_missing=True, **fields,
    )  # fmt: skip


def file_sync(server: Ftp | Sftp, **fields: Any) -> Sync:
    """Declare a sync of a folder: each file is read."""
    adapter = SftpClient if isinstance(server, Sftp) else FtpClient
    client = Client("files", connect=lambda _: adapter("127.0.0.1", timeout=5, **server.arguments))
    options = {"settle": 0.05, **fields.pop("listing", {})}
    return Sync(
        "files.csv", client, listing=FtpListing("/out", pattern="*.csv", **options),
        fetch=lambda conn, entity: {"text": conn.read(entity.key).decode()},
        delete_missing=True, max_delete_share=1.0, concurrency=4,
        **fields,
    )  # fmt: skip


@pytest.mark.rows("SC-30")
@pytest.mark.parametrize("version", [11, 12])
def test_things_arrive_over_soap(serve_shop: Callable[..., Shop], store: JobStore, version: int) -> None:
    """25 things on three pages, each fetched by a call of its own; the next run finds them unchanged."""
    shop = serve_shop(version)
    result = engine.run(shop_sync(shop), store)

    assert (result.state, result.listed, result.succeeded, result.pages) == ("success", 25, 25, 3)
    assert result.requests == 1 + 3 + 2 + 25  # the WSDL, the pages, two of them once more (`more` shows the end), the things
    assert records(store)["7"]["price"] == "1.10"
    shop.things = 24
    result = engine.run(shop_sync(shop), store)
    assert (result.state, result.unchanged, result.deleted, result.succeeded) == ("success", 24, 1, 0)


def test_server_fault_is_retried_and_client_fault_is_not(shop: Shop, store: JobStore) -> None:
    """A server fault that passes costs one attempt; a client fault is a failure of that one job; the rest goes on."""
    shop.faults = {3: "Server", 5: "Client.Invalid"}
    shop.times = {3: 1}
    result = engine.run(shop_sync(shop, retry=AT_ONCE), store)
    again = engine.run(shop_sync(shop, retry=AT_ONCE), store)

    assert result.failed == 1
    assert "SOAP fault Client.Invalid: the shop says no" in dict(result.failures)["5"]
    assert shop.calls.count("get 5") == 2  # once a run
    # The second run may meet the retry in hand, and then looks once more (law 11).
    assert shop.calls.count("get 3") in (2, 3)
    assert set(records(store)) == {str(number) for number in range(25)} - {"5"}
    assert again.failed == 1


def test_broken_xml_of_one_entity_harms_no_other(shop: Shop, store: JobStore) -> None:
    """An XML bomb instead of one answer is a failure of that job."""
    seen = [0]

    def instead(method: str, path: str) -> Any:
        if path == "get" and not seen[0]:
            seen[0] = 1
            return 200, {"Content-Type": "text/xml"}, b'<!DOCTYPE x [<!ENTITY a "b">]><s:Envelope xmlns:s="x">&a;</s:Envelope>'
        return None

    shop.instead = instead
    result = engine.run(shop_sync(shop, retry=AT_ONCE), store)

    assert (result.failed, result.succeeded) == (1, 24)
    assert "DTD" in result.failures[0][1]


@pytest.mark.rows("SC-30")
@pytest.mark.parametrize("how", ["status", "fault"])
def test_refused_sign_in_pauses_the_soap_client(shop: Shop, store: JobStore, how: str) -> None:
    """401, or a fault that says the same: an enforced pause, no attempt used, and after it all goes on."""
    refusal = (401, {}, b"") if how == "status" else (
        500, {"Content-Type": "text/xml"},
        b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>wsse:FailedAuthentication'
        b"</faultcode><faultstring>no token-of-shop</faultstring></s:Fault></s:Body></s:Envelope>",
    )  # fmt: skip
    shop.instead = lambda method, path: refusal if method == "POST" and len(shop.calls) > 12 else None
    result = engine.run(shop_sync(shop), store)

    assert result.state == "paused"
    assert "token-of-shop" not in result.message
    with store.db.read() as connection:
        causes = set(connection.execute(text("SELECT cause FROM pause")).scalars())
        attempts = connection.execute(text("SELECT max(attempts) FROM job WHERE state = 'queued'")).scalar_one()
    assert causes == {"enforced"}
    assert attempts == 0
    shop.instead = lambda method, path: None
    store.pauses.resume("shop", by="test")
    assert engine.run(shop_sync(shop), store).state == "success"
    assert len(records(store)) == 25


def test_fault_with_retry_after_pauses_the_soap_client_so_long(shop: Shop, store: JobStore) -> None:
    """Asked for by the service, to the second; no attempt is used, no level rises."""
    busy = (
        b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Server.Busy'
        b"</faultcode><faultstring>later</faultstring></s:Fault></s:Body></s:Envelope>"
    )
    shop.instead = lambda method, path: (
        (500, {"Content-Type": "text/xml", "Retry-After": "120"}, busy) if path == "get" and len(shop.calls) > 12 else None
    )
    result = engine.run(shop_sync(shop), store)

    assert (result.state, result.failed) == ("paused", 0)
    with store.db.read() as connection:
        (cause,) = set(connection.execute(text("SELECT cause FROM pause")).scalars())
        attempts = connection.execute(text("SELECT max(attempts) FROM job WHERE state = 'queued'")).scalar_one()
    assert (cause, attempts) == ("asked", 0)
    assert result.paused_until is not None
    assert 100 < (result.paused_until - datetime.now(UTC)).total_seconds() <= 120


def test_service_that_is_away_deletes_nothing(shop: Shop, store: JobStore) -> None:
    """404 for the endpoint is trouble of the service: no entity is gone."""
    engine.run(shop_sync(shop), store)
    shop.instead = lambda method, path: (404, {}, b"") if method == "POST" else None
    result = engine.run(shop_sync(shop), store)

    assert (result.state, result.deleted, result.gone) == ("failed", 0, 0)
    assert len(records(store)) == 25


@pytest.fixture(params=["ftp", "ftp without mlsd", "sftp"])
def server(request: pytest.FixtureRequest) -> Ftp | Sftp:
    """A server of files of each kind."""
    if request.param == "sftp":
        found: Ftp | Sftp = request.getfixturevalue("serve_sftp")()
    else:
        found = request.getfixturevalue("serve_ftp")(without=("MLSD", "MLST") if "without" in request.param else ())
    fill(found.root / "out", {f"{number:02}.csv": f"content {number}".encode() for number in range(20)})
    return found


@pytest.mark.rows("SC-30")
def test_files_arrive_change_and_go(server: Ftp | Sftp, store: JobStore) -> None:
    """Each file is a record; only what changed is read again; what is gone is deleted."""
    result = engine.run(file_sync(server), store)
    assert (result.state, result.listed, result.succeeded) == ("success", 20, 20)
    assert records(store)["/out/07.csv"] == {"text": "content 7"}
    assert result.requests > 20

    fill(server.root / "out", {"07.csv": b"another"}, at=OLD + 60)
    (server.root / "out" / "08.csv").unlink()
    result = engine.run(file_sync(server), store)
    assert (result.state, result.succeeded, result.unchanged, result.deleted) == ("success", 1, 18, 1)
    assert records(store)["/out/07.csv"] == {"text": "another"}
    assert "/out/08.csv" not in records(store)


def test_file_that_is_being_written_is_neither_read_nor_deleted(serve_ftp: Callable[..., Ftp], store: JobStore) -> None:
    """A known file that grows is left as it is, and nothing at all is deleted in that run; the next one catches up."""
    from pyftpdlib.handlers import FTPHandler

    is_growing = False

    def ftp_MLSD(self: Any, path: str) -> Any:  # noqa: N802
        if is_growing:
            with (ftp.root / "out" / "b.csv").open("ab") as file:
                file.write(b"more")
        return FTPHandler.ftp_MLSD(self, path)

    ftp = serve_ftp(ftp_MLSD=ftp_MLSD)
    fill(ftp.root / "out", {"a.csv": b"a", "b.csv": b"b", "c.csv": b"c"})
    engine.run(file_sync(ftp), store)

    (ftp.root / "out" / "c.csv").unlink()
    is_growing = True
    result = engine.run(file_sync(ftp, listing={"settle": 0.05}), store)
    is_growing = False
    assert (result.state, result.deleted) == ("success", 0)
    assert records(store) == {"/out/a.csv": {"text": "a"}, "/out/b.csv": {"text": "b"}, "/out/c.csv": {"text": "c"}}

    result = engine.run(file_sync(ftp), store)
    assert (result.state, result.deleted) == ("success", 1)
    assert records(store)["/out/b.csv"]["text"].startswith("bmore")


@pytest.mark.rows("SC-30")
def test_refused_sign_in_pauses_the_file_client(server: Ftp | Sftp, store: JobStore) -> None:
    """530 and its equal of SSH are enforced causes; the password stands nowhere."""
    adapter = SftpClient if isinstance(server, Sftp) else FtpClient
    wrong = {**server.arguments, "password": "wrong-password"}
    client = Client("files", connect=lambda _: adapter("127.0.0.1", timeout=5, **wrong))
    result = engine.run(Sync("files.csv", client, listing=FtpListing("/out")), store)

    assert (result.state, result.listed) == ("paused", 0)
    with store.db.read() as connection:
        (pause,) = connection.execute(text("SELECT * FROM pause")).mappings().all()
    assert pause["cause"] == "enforced"
    assert "wrong-password" not in str(dict(pause)) + result.message


def test_transfer_that_breaks_is_retried(serve_ftp: Callable[..., Ftp], store: JobStore) -> None:
    """426 in the middle of a file is one attempt more; the client is not paused by it."""
    from pyftpdlib.handlers import FTPHandler

    left = [2]

    def ftp_RETR(self: Any, path: str) -> Any:  # noqa: N802
        if left[0] > 0:
            left[0] -= 1
            self.respond("426 Connection closed; transfer aborted.")
            return None
        return FTPHandler.ftp_RETR(self, path)

    ftp = serve_ftp(ftp_RETR=ftp_RETR)
    fill(ftp.root / "out", {f"{number}.csv": b"x" for number in range(10)})
    result = engine.run(file_sync(ftp, retry=AT_ONCE), store)
    rest = engine.run(file_sync(ftp, retry=AT_ONCE), store)

    assert result.failed == rest.failed == 0
    assert len(records(store)) == 10


def test_file_that_goes_between_listing_and_reading_is_gone(serve_ftp: Callable[..., Ftp], store: JobStore) -> None:
    """550 for what the folder does not list any more."""
    from pyftpdlib.handlers import FTPHandler

    def ftp_RETR(self: Any, path: str) -> Any:  # noqa: N802
        if path.endswith("3.csv"):
            Path(path).unlink()
        return FTPHandler.ftp_RETR(self, path)

    ftp = serve_ftp(ftp_RETR=ftp_RETR)
    fill(ftp.root / "out", {f"{number}.csv": b"x" for number in range(10)})
    result = engine.run(file_sync(ftp), store)

    assert (result.gone, result.succeeded, result.failed) == (1, 9, 0)


def test_unreadable_lines_delete_nothing(serve_raw_ftp: Callable[..., Any], store: JobStore) -> None:
    """A listing with a line that nobody can read is not complete; what can be read is synced."""
    from tests.support.adapter_servers import usual

    lines = ["-rw-r--r-- 1 u g 1 Jan 1 2020 a.csv", "-rw-r--r-- 1 u g 1 Jan 1 2020 b.csv"]

    def reply(line: str, server: Any) -> str:
        if line == "LIST":
            server.send("\r\n".join(lines).encode() + b"\r\n")
            return "150 here\r\n226 done"
        return str(usual(line, server))

    server = serve_raw_ftp(reply)
    client = Client("files", connect=lambda _: FtpClient("127.0.0.1", port=server.port, timeout=5))
    sync = Sync("files.csv", client, listing=FtpListing("/out"), delete_missing=True, max_delete_share=1.0)
    assert engine.run(sync, store).state == "success"
    lines[1] = "-rw-r--r-- 1 u g 1 янв 1 2020 b.csv"
    result = engine.run(sync, store)

    assert (result.deleted, result.failed) == (0, 1)
    assert set(records(store)) == {"/out/a.csv", "/out/b.csv"}
    lines[:] = ["янв"]
    result = engine.run(sync, store)
    assert (result.state, result.deleted, result.stopped) == ("failed", 0, "error")
    assert len(records(store)) == 2
