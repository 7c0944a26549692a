"""Real servers on loopback for the adapters that are not HTTP: a SOAP service, FTP servers of several manners, an SFTP server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import decimal
import logging
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import spec_from_loader
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import asyncssh
import pytest

from clients.soap import wsdl

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pyftpdlib warns of asyncore's end, spyne of its own old ways
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import ThreadedFTPServer
    from spyne import (
        Application,
        Array,
        Boolean,
        ByteArray,
        ComplexModel,
        Date,
        DateTime,
        Decimal,
        Double,
        Duration,
        Fault,
        Integer,
        Iterable,
        ServiceBase,
        Unicode,
        rpc,
    )  # fmt: skip
    from spyne import const as spyne_constants
    from spyne.protocol.soap import Soap11, Soap12
    from spyne.server.wsgi import WsgiApplication

# spyne brings a six of 2014, whose importer makes every later import of the process warn.
for _importer in sys.meta_path:
    if type(_importer).__name__ == "_SixMetaPathImporter" and not hasattr(_importer, "find_spec"):
        type(_importer).find_spec = lambda self, name, path=None, target=None: (  # type: ignore[attr-defined]
            spec_from_loader(name, self) if name in self.known_modules else None
        )


@pytest.fixture(autouse=True)
def _no_kept_wsdl() -> None:
    wsdl.forget()


# -- SOAP


@dataclass
class Shop:
    """A SOAP service with things, which can be told to misbehave, and records what it was asked."""

    url: str = ""
    things: int = 25
    size: int = 10
    #: Fault codes by id of a thing; they are raised when it is asked for.
    faults: dict[int, str] = field(default_factory=dict)
    #: How often each fault is raised before the thing is given after all; without an entry for ever.
    times: dict[int, int] = field(default_factory=dict)
    #: In place of the service: (method, path, or SOAP action) -> status, headers, body; None lets the service answer.
    instead: Callable[[str, str], tuple[int, dict[str, str], bytes] | None] = lambda method, path: None
    calls: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


class Thing(ComplexModel):
    """Something of every type."""

    __namespace__ = "shop"
    id = Integer
    name = Unicode
    price = Decimal
    changed = DateTime
    day = Date
    took = Duration
    raw = ByteArray
    weight = Double
    good = Boolean


class ThingPage(ComplexModel):
    """A page of a listing."""

    __namespace__ = "shop"
    things = Array(Thing)
    more = Boolean
    next = Unicode
    total = Integer


class Query(ComplexModel):
    """An argument with members."""

    __namespace__ = "shop"
    page = Integer
    size = Integer


def thing(number: int) -> Thing:
    """Return a thing."""
    return Thing(
        id=number, name=f"thing {number} ü", price=decimal.Decimal("1.10"), changed=dt.datetime(2024, 1, 2, 3, 4, 5),  # noqa: DTZ001 - XML's times may have no zone
        day=dt.date(2024, 1, 2), took=dt.timedelta(seconds=90), raw=[b"\x00\xff"], weight=1.5, good=True,
    )  # fmt: skip


def shop_service(shop: Shop) -> type[ServiceBase]:  # noqa: C901 - one function for each operation
    """Return the service's operations."""

    class ShopService(ServiceBase):
        @rpc(Integer, Integer, _returns=Integer)
        def add(ctx, a, b):  # noqa: N805
            shop.calls.append("add")
            return a + b

        @rpc(Integer, _returns=Thing)
        def get(ctx, id):  # noqa: N805
            shop.calls.append(f"get {id}")
            if id in shop.faults and shop.times.get(id, 1) > 0:
                if id in shop.times:
                    shop.times[id] -= 1
                raise Fault(shop.faults[id], "the shop says no")
            return thing(id)

        @rpc(Integer, Integer, _returns=ThingPage)
        def page(ctx, page, size):  # noqa: N805
            shop.calls.append(f"page {page}")
            first = (page - 1) * shop.size
            things = [thing(number) for number in range(first, min(first + shop.size, shop.things))]
            return ThingPage(things=things, more=first + shop.size < shop.things, total=shop.things)

        @rpc(Query, _returns=ThingPage)
        def search(ctx, query):  # noqa: N805
            shop.calls.append(f"search {query.page} {query.size}")
            first = (query.page - 1) * query.size
            things = [thing(number) for number in range(first, min(first + query.size, shop.things))]
            return ThingPage(things=things, more=first + query.size < shop.things)

        @rpc(Unicode, _returns=ThingPage)
        def after(ctx, cursor):  # noqa: N805
            shop.calls.append(f"after {cursor}")
            first = int(cursor or 0)
            last = min(first + shop.size, shop.things)
            return ThingPage(
                things=[thing(number) for number in range(first, last)], next=str(last) if last < shop.things else None
            )

        @rpc(_returns=Iterable(Thing))
        def all(ctx):  # noqa: N805
            return [thing(number) for number in range(shop.things)]

        @rpc()
        def nothing(ctx):  # noqa: N805
            return None

        @rpc(Unicode, _returns=Unicode)
        def echo(ctx, text):  # noqa: N805
            return text

    return ShopService


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve_shop() -> Iterator[Callable[..., Shop]]:
    """Start SOAP services, of version 11 or 12; each is an origin of its own."""
    running: list[WSGIServer] = []
    # Spyne collects all garbage of the process each second, which takes most of a second where many tests have run before.
    spyne_constants.MIN_GC_INTERVAL = math.inf
    logging.getLogger("spyne").setLevel(logging.CRITICAL)

    def start(version: int = 11, **fields: Any) -> Shop:
        shop = Shop(**fields)
        protocol = Soap11 if version == 11 else Soap12
        application = Application([shop_service(shop)], tns="shop", in_protocol=protocol(), out_protocol=protocol())
        service = WsgiApplication(application)

        def respond(environ: dict[str, Any], start_response: Any) -> Any:
            shop.headers.append({name[5:].lower(): value for name, value in environ.items() if name.startswith("HTTP_")})
            path = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else "")
            action = environ.get("HTTP_SOAPACTION", "").strip('"')
            answer = shop.instead(environ["REQUEST_METHOD"], action or path)
            if answer is None:
                environ["QUERY_STRING"] = environ["QUERY_STRING"].partition("&")[0]
                return service(environ, start_response)
            status, headers, body = answer
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status} Whatever", [*headers.items(), ("Content-Length", str(len(body)))])
            return [body]

        server = make_server("127.0.0.1", 0, respond, server_class=_Threads, handler_class=_Silent)
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        shop.url = f"http://127.0.0.1:{server.server_port}/"
        return shop

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def shop(serve_shop: Callable[..., Shop]) -> Shop:
    """A SOAP 1.1 service."""
    return serve_shop()


# -- FTP

OLD = 1_600_000_000
"""A time long ago, in September 2020: files of then are not being written."""


def fill(folder: Path, contents: dict[str, bytes], at: float = OLD) -> None:
    """Write files, all of the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (at, at))


@dataclass
class Ftp:
    """A running FTP server: where it is, its folder, the commands it got."""

    port: int
    root: Path
    commands: list[str] = field(default_factory=list)
    server: Any = None
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def loop(self) -> None:
        """Serve until `stop`; closed by the thread that serves, as the sockets are its own."""
        while not self.stop.is_set():
            self.server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)
        self.server.close_all()

    @property
    def arguments(self) -> dict[str, Any]:
        """What `FtpClient` takes, but for the host."""
        return {"port": self.port, "user": "ann", "password": "secret-of-ann"}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for `localhost` and no other name, with its key in one file."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem", "localhost")


def make_certificate(path: Path, name: str) -> Path:
    """Write a self-signed certificate and its key."""
    key = path.with_suffix(".key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
         f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.fixture
def serve_ftp(tmp_path: Path) -> Iterator[Callable[..., Ftp]]:
    """Start FTP servers; `without` names commands that a server does not know, `patch` replaces methods of its handler."""
    running: list[Ftp] = []
    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)

    def start(*, tls: Path | None = None, without: tuple[str, ...] = (), root: Path | None = None, **patch: Any) -> Ftp:
        folder = root or tmp_path / f"ftp{len(running)}"
        folder.mkdir(exist_ok=True)
        authorizer = DummyAuthorizer()
        authorizer.add_user("ann", "secret-of-ann", str(folder), perm="elradfmwMT")
        base = FTPHandler if tls is None else TLS_FTPHandler
        found = Ftp(0, folder)

        def pre_process_command(self: Any, line: str, cmd: str, arg: str) -> None:
            found.commands.append(line)
            if cmd in without:
                self.respond("502 Command not implemented.")
                return
            base.pre_process_command(self, line, cmd, arg)

        def ftp_FEAT(self: Any, line: str) -> None:  # noqa: N802
            words = [
                word
                for word in ("UTF8", "MLST type*;size*;modify*;", "MLSD", "SIZE", "MDTM", "REST STREAM")
                if word.split()[0] not in without
            ]
            self.push("211-Features supported:\r\n" + "".join(f" {word}\r\n" for word in words))
            self.respond("211 End FEAT.")

        members = {
            "authorizer": authorizer,
            "banner": "hello",
            "auth_failed_timeout": 0.05,
            "pre_process_command": pre_process_command,
            "ftp_FEAT": ftp_FEAT,
        }
        if tls is not None:
            members |= {"certfile": str(tls), "tls_control_required": True, "tls_data_required": True}
        handler = type("Handler", (base,), {**members, **patch})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A loop of its own: pyftpdlib shares one among all servers of a process, and each of ours has a thread.
            server = ThreadedFTPServer(("127.0.0.1", 0), handler, ioloop=IOLoop())
        found.server, found.port = server, server.address[1]
        found.thread = threading.Thread(target=found.loop, daemon=True)
        found.thread.start()
        running.append(found)
        return found

    yield start
    for one in running:
        one.stop.set()
        assert one.thread is not None
        one.thread.join(10)


class RawFtp:
    """A server of whatever replies a function gives, for what no proper server says: command line -> reply lines."""

    def __init__(self, reply: Callable[[str, RawFtp], str | None]) -> None:
        self.commands: list[str] = []
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.data = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def passive(self) -> str:
        """Return the reply to PASV that names the true data port."""
        port = self.data.getsockname()[1]
        return f"227 Entering Passive Mode (127,0,0,1,{port // 256},{port % 256})."

    def send(self, content: bytes) -> None:
        """Send `content` on the next data connection."""
        with self.accept() as conn:
            conn.sendall(content)

    def accept(self) -> socket.socket:
        """Return the next data connection that is still open: one that was made for a refused command is not."""
        self.data.settimeout(60)
        while True:
            conn, _ = self.data.accept()
            conn.setblocking(False)
            try:
                conn.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                conn.setblocking(True)
                return conn
            conn.close()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        try:
            file = conn.makefile("rb")
            conn.sendall((self._reply("WELCOME", self) or "220 hello").encode("latin-1") + b"\r\n")
            for raw in file:
                line = raw.decode("latin-1").strip()
                self.commands.append(line)
                reply = self._reply(line, self)
                if reply is None:
                    conn.shutdown(socket.SHUT_RDWR)
                    conn.close()
                    return
                conn.sendall(reply.encode("latin-1") + b"\r\n")
        except OSError:
            return

    def close(self) -> None:
        """Close everything, and end the threads: a `close` alone wakes none of them."""
        for one in (self._listener, self.data, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def usual(line: str, server: RawFtp) -> str:
    """Reply as a plain server without features would."""
    word = line.split(maxsplit=1)[0] if line.split() else ""
    return {
        "WELCOME": "220 hello", "USER": "331 password?", "PASS": "230 in", "TYPE": "200 ok", "PWD": '257 "/"', "CWD": "250 ok",
        "NOOP": "200 ok", "QUIT": "221 bye", "EPSV": "502 no", "PASV": server.passive(),
    }.get(word, "502 no such command")  # fmt: skip


@pytest.fixture
def serve_raw_ftp() -> Iterator[Callable[..., RawFtp]]:
    """Start servers that reply what a function says."""
    running: list[RawFtp] = []

    def start(reply: Callable[[str, RawFtp], str | None]) -> RawFtp:
        running.append(RawFtp(reply))
        return running[-1]

    yield start
    for one in running:
        one.close()


# -- SFTP


@dataclass
class Sftp:
    """A running SFTP server: where it is, its folder, its host key as a line of known hosts, a client's key that it accepts."""

    port: int
    root: Path
    known: bytes
    key: str
    loop: Any = None
    connections: int = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """What `SftpClient` takes, but for the host."""
        return {"port": self.port, "user": "ann", "password": "secret-of-ann", "known_hosts": self.known}


@pytest.fixture
def serve_sftp(tmp_path: Path) -> Iterator[Callable[..., Sftp]]:  # noqa: C901 - asyncssh asks by methods
    """Start SFTP servers; `patch` replaces methods of asyncssh's server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: list[Any] = []
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")

    def start(**patch: Any) -> Sftp:
        root = tmp_path / f"sftp{len(servers)}"
        root.mkdir()
        found = Sftp(0, root, b"", client_key.export_private_key().decode())

        class Door(asyncssh.SSHServer):
            def connection_made(self, conn: Any) -> None:
                found.connections += 1

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("ann", "secret-of-ann")

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: Any) -> bool:
                return username == "ann" and key == client_key.convert_to_public()

        base = type("Files", (asyncssh.SFTPServer,), patch)

        async def listen() -> Any:
            return await asyncssh.create_server(
                Door, "127.0.0.1", 0, server_host_keys=[host_key],
                sftp_factory=lambda channel: base(channel, chroot=str(root)),
            )  # fmt: skip

        server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
        servers.append(server)
        found.port = server.sockets[0].getsockname()[1]
        found.known = b"[127.0.0.1]:%d " % found.port + host_key.export_public_key()
        found.loop = loop
        return found

    yield start

    async def close() -> None:
        for server in servers:
            server.close()
            await server.wait_closed()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    """A context that trusts the test's own certificate, for its one name."""
    return ssl.create_default_context(cafile=str(certificate))
