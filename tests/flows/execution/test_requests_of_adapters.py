"""What `syncs job ID` shows of requests over SOAP, FTP and SFTP: command, address, what came back, how much, how long."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import text

from clients import (
    AuthRefusedError,
    Bearer,
    ClientError,
    ConnectFailedError,
    FtpClient,
    FtpListing,
    SftpClient,
    SoapClient,
    TimedOutError,
    TooLargeError,
)
from clients.exchange_recorder import recording
from flows import Client, JobType, Sync
from flows.cli.job_commands.jobs import shown
from flows.enqueue import enqueue, using
from flows.execution.job_executor import JobExecutor
from flows.project.redaction import Mask
from flows.sync import run as engine
from jobs import JobStore, Retry
from jobs.job import Lane
from tests.support.adapter_servers import Ftp, Sftp, Shop, fill, usual
from tests.support.job_bench import FixedConnections

ONCE = Retry(max_retries=0)


class Settings(BaseModel):
    """A client's settings with a secret in them."""

    password: SecretStr = SecretStr("secret-of-ann")


def failed(store: JobStore, client: Client, process: Callable[[Any, Any], Any], connect: Callable[[], Any]) -> str:
    """Work one job and return what `syncs job` shows of it."""
    kind = JobType(f"{client.id}.fetch", client, process=process, retry=ONCE)
    connection = connect()
    with closing(connection), using(store):
        work = JobExecutor(kind, FixedConnections(lambda: connection), Mask(Settings()), store)
        number = enqueue(kind, None).id
        (job,) = store.claim([Lane(kind.queue_id, client.id, kind.id, "")], 1, worker="elsewhere:1:1:1", lease=60)
        done = work.execute(job)
        store.finish([done])
    return shown(store.views.job(number)).text


def told(text: str) -> list[str]:
    """Return the requests and answers of a job's page, without times: `GET http://… → 200, 12 B`."""
    lines = text.split("CLAIM  REQUEST")[1].partition("\n\n")[0].splitlines()[1:]
    return [re.sub(r" {2,}", " → ", re.sub(r", \d+\.\d\d s$", "", re.sub(r"^\d+ +", "", line.strip()))) for line in lines]


def test_a_call_and_its_fault(shop: Shop, store: JobStore) -> None:
    """The operation, the status and the codes of the fault; neither its text nor our token, which this service repeats."""
    shop.faults = {7: "Client.secret-of-ann.Missing"}
    page = failed(
        store,
        Client("shop", connect=lambda _: None),
        lambda job, soap: soap.call("get", id=7),
        lambda: SoapClient(f"{shop.url}?wsdl", auth=Bearer("token-of-shop")),
    )
    wsdl, call = told(page)
    assert re.fullmatch(rf"GET {shop.url}\?wsdl → 200, \d+\.\d kB", wsdl)
    assert re.fullmatch(rf"POST {shop.url} \(get\) → 500, fault Client\.\*\*\*\.Missing, \d+ B", call)
    assert "secret-of-ann" not in page
    assert "token-of-shop" not in page


def test_our_credentials_in_a_fault_code_are_masked(shop: Shop) -> None:
    """Also where no settings object knows them."""
    shop.faults = {7: "Client.token-of-shop"}
    with SoapClient(f"{shop.url}?wsdl", auth=Bearer("token-of-shop")) as soap, recording() as recorder:
        with pytest.raises(ClientError):
            soap.call("get", id=7)
        soap.call("add", a=1, b=2)
    assert "token-of-shop" not in str(recorder.summary)
    assert [one.operation for one in recorder.exchanges] == ["", "get", "add"]
    assert [one.fault for one in recorder.exchanges] == ["", "Client.**********", ""]


def test_a_call_that_hangs_is_named_and_only_writes_are_unsafe(shop: Shop) -> None:
    """What is on its way is seen from outside, with its operation; reading may be tried again, writing may not."""
    asked, go = threading.Event(), threading.Event()
    with SoapClient(f"{shop.url}?wsdl", writes={"add"}) as soap:
        soap.call("nothing")

        def instead(method: str, path: str) -> None:
            asked.set()
            go.wait(20)

        for operation, unsafe in (("add", True), ("nothing", False)):
            asked.clear()
            go.clear()
            shop.instead = instead
            recorder = recording()

            def work(operation: str = operation, recorder: Any = recorder) -> None:
                with recorder:
                    soap.call(operation, **({"a": 1, "b": 2} if operation == "add" else {}))

            thread = threading.Thread(target=work)
            thread.start()
            assert asked.wait(20)
            (one,) = recorder.exchanges
            assert (one.request, one.is_unsafe) == (f"POST {shop.url} ({operation})", unsafe)
            assert one.response.startswith("no answer yet, ")
            go.set()
            thread.join(20)
            assert recorder.summary[0]["response"].startswith("200, ")


def test_a_file_that_cannot_be_had_over_ftp(serve_ftp: Callable[..., Ftp], store: JobStore) -> None:
    """The last five commands with their reply codes and sizes; neither user nor password."""
    from pyftpdlib.handlers import FTPHandler

    def ftp_RETR(self: Any, path: str) -> Any:  # noqa: N802
        if path.endswith("b.csv"):
            self.respond("451 Local error.")
            return None
        return FTPHandler.ftp_RETR(self, path)

    ftp = serve_ftp(ftp_RETR=ftp_RETR)
    fill(ftp.root, {"a.csv": b"x" * 1500, "b.csv": b"y"})
    page = failed(
        store,
        Client("files", connect=lambda _: None),
        lambda job, conn: [conn.read("/a.csv"), conn.read("/b.csv")],
        lambda: FtpClient("127.0.0.1", **ftp.arguments),
    )
    root = f"ftp://127.0.0.1:{ftp.port}"
    assert told(page) == [
        f"MLST {root}/a.csv → 250, 0 B",
        f"RETR {root}/a.csv → 226, 1.5 kB",
        f"MLST {root}/a.csv → 250, 0 B",
        f"MLST {root}/b.csv → 250, 0 B",
        f"RETR {root}/b.csv → 451, 0 B",
    ]
    assert "secret-of-ann" not in page


def test_a_file_that_cannot_be_had_over_sftp(serve_sftp: Callable[..., Sftp], store: JobStore) -> None:
    """A file is one exchange, however many blocks it has; an error has the words of its code."""
    sftp = serve_sftp()
    fill(sftp.root, {"a.csv": b"x" * 1_200_000})
    page = failed(
        store,
        Client("files", connect=lambda _: None),
        lambda job, conn: [conn.read("/a.csv"), conn.write("/c.csv", b"z" * 2000), conn.read("/nothing")],
        lambda: SftpClient("127.0.0.1", **sftp.arguments),
    )
    root = f"sftp://127.0.0.1:{sftp.port}"
    lines = [re.sub(r"\.[0-9a-f]{12}\.part", ".part", one) for one in told(page)]
    assert lines == [
        f"STAT {root}/a.csv → ok, 0 B",
        f"WRITE {root}/.c.csv.part → ok, 2.0 kB",
        f"STAT {root}/.c.csv.part → ok, 0 B",
        f"RENAME {root}/.c.csv.part → ok, 0 B",
        f"STAT {root}/nothing → no such file, 0 B",
    ]
    with SftpClient("127.0.0.1", **sftp.arguments) as client, recording() as recorder:
        client.read("/a.csv")
    assert [(one.method, one.status, one.size) for one in recorder.exchanges] == [
        ("CONNECT", "ok", 0), ("STAT", "ok", 0), ("READ", "ok", 1_200_000), ("STAT", "ok", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["ftp", "sftp"])
def test_an_entity_that_fails_shows_what_was_asked(
    kind: str, serve_ftp: Callable[..., Ftp], serve_sftp: Callable[..., Sftp], store: JobStore
) -> None:
    """Through the engine: the attempt of the one file that fails has its commands, those of the others are not kept."""
    found: Ftp | Sftp
    if kind == "ftp":
        from pyftpdlib.handlers import FTPHandler

        def ftp_RETR(self: Any, path: str) -> Any:  # noqa: N802
            return self.respond("452 No space.") if path.endswith("bad.csv") else FTPHandler.ftp_RETR(self, path)

        found = serve_ftp(ftp_RETR=ftp_RETR)
        adapter: Any = FtpClient
    else:
        import asyncssh

        class Bad:
            def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
                if path.endswith(b"bad.csv"):
                    raise asyncssh.SFTPFailure("no")
                return asyncssh.SFTPServer.open(self, path, pflags, attrs)

        found = serve_sftp(open=Bad.open)
        adapter = SftpClient
    fill(found.root / "out", {"good.csv": b"1", "bad.csv": b"2"})
    client = Client("files", connect=lambda _: adapter("127.0.0.1", timeout=5, **found.arguments))
    sync = Sync("files.csv", client, listing=FtpListing("/out"), retry=ONCE, fetch=lambda conn, one: conn.read(one.key).decode())
    assert engine.run(sync, store).failed == 1
    with store.db.read() as connection:
        rows = connection.execute(text("SELECT job.key, job.id, exchanges FROM attempt JOIN job ON job.id = job_id")).all()
    (bad,) = [row.id for row in rows if row.key == "/out/bad.csv"]
    assert [row.exchanges for row in rows if row.key == "/out/good.csv"] == [None]
    answer = (
        "RETR ftp://127.0.0.1:{}/out/bad.csv → 452, 0 B"
        if kind == "ftp"
        else "READ sftp://127.0.0.1:{}/out/bad.csv → failure, 0 B"
    )
    assert answer.format(found.port) in told(shown(store.views.job(bad)).text)


def test_a_sign_in_that_is_refused_has_its_code(serve_ftp: Callable[..., Ftp], serve_sftp: Callable[..., Sftp]) -> None:
    """530 over FTP, permission denied over SSH; the password that was tried stands nowhere."""
    for server, adapter, status in ((serve_ftp(), FtpClient, 530), (serve_sftp(), SftpClient, "permission denied")):
        arguments = {**server.arguments, "password": "wrong-password"}
        with recording() as recorder, adapter("127.0.0.1", **arguments) as client, pytest.raises(AuthRefusedError):
            client.list("/")
        (one,) = recorder.exchanges
        assert (one.method, one.status, one.error) == ("CONNECT", status, "AuthRefusedError")
        assert "wrong-password" not in str(recorder.summary)


def test_nobody_there_and_no_answer(serve_raw_ftp: Callable[..., Any]) -> None:
    """Without a reply there is the class of the error in its place."""
    with recording() as recorder, FtpClient("127.0.0.1", port=9) as nobody, pytest.raises(ConnectFailedError):
        nobody.list("/")
    assert [(one.status, one.error) for one in recorder.exchanges] == [(None, "ConnectFailedError")]

    hang = threading.Event()

    def reply(line: str, server: Any) -> str:
        if line.startswith("SIZE"):
            hang.wait(20)
        return str(usual(line, server))

    server = serve_raw_ftp(reply)
    with recording() as recorder, FtpClient("127.0.0.1", port=server.port, timeout=1.5) as client:
        with pytest.raises(TimedOutError):
            client.read("/a.csv")
        hang.set()
    assert [(one.method, one.status, one.error) for one in recorder.exchanges] == [
        ("CONNECT", 230, None), ("SIZE", None, "TimedOutError"),
    ]  # fmt: skip


def test_a_file_that_is_left_in_the_middle(serve_ftp: Callable[..., Ftp], serve_sftp: Callable[..., Sftp]) -> None:
    """Neither complete nor an error of the server's."""
    for server, adapter in ((serve_ftp(), FtpClient), (serve_sftp(), SftpClient)):
        fill(server.root, {"a.csv": b"x" * 900_000})
        with adapter("127.0.0.1", **server.arguments) as client, recording() as recorder:
            chunks = client._file_system.read("/a.csv", 0)
            next(chunks)
            pending = recorder.exchanges[-1]
            assert (pending.status, pending.error) == (None, None)
            chunks.close()
        assert recorder.exchanges[-1].status == "not read to the end"


def test_a_file_that_is_read_while_it_is_sent_elsewhere(serve_ftp: Callable[..., Ftp], serve_sftp: Callable[..., Sftp]) -> None:
    """Two exchanges at once do not mix: each ends with its own size."""
    ftp, sftp = serve_ftp(), serve_sftp()
    fill(ftp.root, {"a.csv": b"x" * 200_000})
    with (
        FtpClient("127.0.0.1", **ftp.arguments) as there,
        SftpClient("127.0.0.1", **sftp.arguments) as here,
        recording() as recorder,
    ):
        chunks = there._file_system.read("/a.csv", 0)
        first = next(chunks)

        def source() -> Any:
            yield first
            yield from chunks
            assert [(one.method, one.status) for one in recorder.exchanges[-2:]] == [("RETR", 226), ("WRITE", None)]

        here._file_system.write("/b.csv", source())
    assert [(one.method, one.status, one.size) for one in recorder.exchanges] == [
        ("CONNECT", 230, 0), ("CONNECT", "ok", 0), ("RETR", 226, 200_000), ("WRITE", "ok", 200_000),
    ]  # fmt: skip
    assert (sftp.root / "b.csv").stat().st_size == 200_000


def test_one_that_is_too_large(serve_ftp: Callable[..., Ftp]) -> None:
    """It is refused by what the server says of it: nothing of it was read."""
    ftp = serve_ftp()
    fill(ftp.root, {"a.csv": b"x" * 5000})
    with (
        FtpClient("127.0.0.1", max_bytes=1000, **ftp.arguments) as client,
        recording() as recorder,
        pytest.raises(TooLargeError),
    ):
        client.read("/a.csv")
    assert [one.method for one in recorder.exchanges] == ["CONNECT", "MLST"]
