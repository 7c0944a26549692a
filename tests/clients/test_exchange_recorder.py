"""`clients.exchange_recorder`: what was asked and what came back, in few words and without secrets."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from clients import Bearer, ConnectFailedError, GoneError, HttpClient
from clients.exchange_recorder import LENGTH, Exchange, Recorder, current_recorder, recording
from clients.urls import masked_url

Serve = Callable[..., Any]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.example/pets/1", "https://api.example/pets/1"),
        ("https://api.example/pets?page=2&limit=10", "https://api.example/pets?page=2&limit=10"),
        ("https://user:pass@api.example/pets#part", "https://api.example/pets"),
        ("https://x.example/?api_key=abc&key=abc&apikey=abc", "https://x.example/?api_key=***&key=***&apikey=***"),
        ("https://x.example/?access_token=abc&a=1", "https://x.example/?access_token=***&a=1"),
        ("https://x.example/?X-Amz-Signature=abc&sig=abc&code=abc", "https://x.example/?X-Amz-Signature=***&sig=***&code=***"),
        ("https://x.example/?api%5Fkey=abc&password=abc", "https://x.example/?api%5Fkey=***&password=***"),
        ("https://x.example/?keyword=cats&monkey=1&zip_code", "https://x.example/?keyword=cats&monkey=1&zip_code"),
        ("https://x.example/?a=1\r\nb", "https://x.example/?a=1\ufffd\ufffdb"),
        ("https://x.example/?", "https://x.example/?"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    """User, fragment and values whose names sound like secrets stay out."""
    assert masked_url(url) == shown


def test_a_request_is_summed_up(serve: Serve) -> None:
    """Method, URL, status, size and time; no header, no body, no credentials of the client's own."""
    server = serve(lambda _: (200, {}, {"name": "x" * 1200}))
    with HttpClient(f"{server.url}/api?tenant=t0p", auth=Bearer("s3cret-token")) as http, recording() as recorder:
        http.get_json("pets/1", {"page": 2, "access_token": "abc"})
        http.post_json("pets", {"password": "body"})
    first, second = recorder.summary
    assert first["request"] == f"GET {server.url}/api/pets/1?page=2&access_token=***"
    assert first["response"].startswith("200, 1.2 kB, 0.")
    assert second["request"] == f"POST {server.url}/api/pets"
    assert not any(word in str(recorder.summary) for word in ("s3cret", "t0p", "body", "abc"))


def test_errors_are_summed_up(serve: Serve) -> None:
    """A refusal has its status; what never came has the name of its error."""
    server = serve(lambda _: (404, {}, {}))
    with HttpClient(server.url) as http, recording() as recorder:
        with pytest.raises(GoneError):
            http.get_json("pets/1")
        with HttpClient("http://127.0.0.1:9", timeout=1) as nobody, pytest.raises(ConnectFailedError):
            nobody.get_json("pets")
    assert [one["response"].partition(",")[0] for one in recorder.summary] == ["404", "ConnectFailedError"]


def test_redirects_are_exchanges_of_their_own(serve: Serve) -> None:
    """Each request that was sent is one."""
    server = serve(lambda seen: (302, {"Location": "/new"}, "") if seen.path == "/old" else (200, {}, {}))
    with HttpClient(server.url) as http, recording() as recorder:
        http.get_json("old")
    assert [one["request"] for one in recorder.summary] == [f"GET {server.url}/old", f"GET {server.url}/new"]


def test_only_the_last_ones_are_kept(serve: Serve) -> None:
    """Five, each of at most 500 characters, however long a URL is."""
    server = serve()
    with HttpClient(server.url) as http, recording() as recorder:
        for number in range(8):
            http.get_json(f"pets/{number}", {"q": "x" * 1000})
    assert [one["request"].partition("?")[0][-1] for one in recorder.summary] == ["3", "4", "5", "6", "7"]
    assert all(len(one["request"]) <= LENGTH for one in recorder.summary)


def test_what_is_on_its_way_is_seen_from_outside(serve: Serve) -> None:
    """A job that hangs shows the request that it hangs on."""
    asked, go = threading.Event(), threading.Event()

    def respond(_: Any) -> tuple[int, dict[str, str], Any]:
        asked.set()
        go.wait(60)
        return 200, {}, {}

    server, recorder = serve(respond), Recorder()

    def work() -> None:
        with HttpClient(server.url) as http, recorder:
            http.get_json("slow")

    thread = threading.Thread(target=work)
    thread.start()
    assert asked.wait(60)
    assert recorder.exchanges[0].url == f"{server.url}/slow"
    assert recorder.summary[0]["response"].startswith("no answer yet, 0.")
    go.set()
    thread.join()
    assert recorder.summary[0]["response"].startswith("200, 2 B")


def test_threads_record_apart(serve: Serve) -> None:
    """Each thread has a recorder of its own, and none is there outside of `recording`."""
    server = serve()
    found: list[list[str]] = []

    def work(name: str) -> None:
        with recording() as recorder:
            http.get_json(name)
            http.get_json(name)
        found.append([one["request"].rpartition("/")[2] for one in recorder.summary])

    with HttpClient(server.url) as http:
        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert current_recorder() is None
        http.get_json("nobody")
    assert sorted(found) == [["a", "a"], ["b", "b"], ["c", "c"]]


@pytest.mark.parametrize(("size", "shown"), [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (2_500_000, "2.5 MB")])
def test_sizes_as_people_read_them(size: int, shown: str) -> None:
    """Bytes, and decimal multiples of them."""
    assert Exchange("GET", "https://x.example/", 200, size, 0.04).response == f"200, {shown}, 0.04 s"
