"""Bodies: limit, unpacking and JSON."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from clients.http.response import CompressionError, OversizeError, decode_json, read_body

PLAIN = b'{"a": 1}' * 100
RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW.compress(PLAIN) + RAW.flush()


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (PLAIN, ""),
        (PLAIN, "identity"),
        (gzip.compress(PLAIN, mtime=0), "gzip"),
        (gzip.compress(PLAIN[:50], mtime=0) + gzip.compress(PLAIN[50:], mtime=0), "GZIP"),
        (zlib.compress(PLAIN), "deflate"),
        (RAW_DEFLATE, "deflate"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_unpacking(packed: bytes, encoding: str, step: int) -> None:
    """Whatever was asked for is unpacked, however it is cut."""
    chunks = [packed[i : i + step] for i in range(0, len(packed), step)]

    assert read_body(chunks, encoding=encoding, limit=len(PLAIN)) == PLAIN
    assert read_body([], encoding=encoding, limit=1) == b""

    with pytest.raises(OversizeError):
        read_body(chunks, encoding=encoding, limit=len(PLAIN) - 1)


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(gzip.compress(PLAIN, mtime=0), mtime=0), "gzip, gzip"),
        (PLAIN, "br"),
        (PLAIN, "gzip"),
        (gzip.compress(PLAIN, mtime=0)[:-9], "gzip"),
        (gzip.compress(PLAIN, mtime=0)[:3], "gzip"),
    ],
)
def test_unpackable(packed: bytes, encoding: str) -> None:
    """Codings on top of each other, unknown, broken or cut off ones are refused."""
    with pytest.raises(CompressionError):
        read_body([packed], encoding=encoding, limit=1 << 20)


def test_a_bomb_is_not_expanded() -> None:
    """A body that expands a thousand times stops at the limit, and not after it."""
    bomb = gzip.compress(b"0" * 50_000_000)

    with pytest.raises(OversizeError):
        read_body([bomb], encoding="gzip", limit=1 << 20)


@pytest.mark.parametrize(
    ("content", "content_type", "expected"),
    [
        (b'{"a": "\xc3\xa9"}', "application/json", ({"a": "é"}, None)),
        (b'\xef\xbb\xbf{"a": 1}', "application/json", ({"a": 1}, None)),
        (b'{"a": "\xe9"}', "application/json; charset=ISO-8859-1", ({"a": "é"}, None)),
        ('{"a": "é"}'.encode("utf-16"), 'application/json;charset="utf-16"', ({"a": "é"}, None)),
        (b'{"a": "\xe9"}', "application/json", (None, 0)),
        (b'{"a": "\xe9"}', "application/json; charset=nonsense", (None, 0)),
        (b"<html>", "text/html", (None, 0)),
        (b"", "application/json", (None, 0)),
        (b"[1, NaN]", "application/json", (None, 4)),
    ],
)
def test_json(content: bytes, content_type: str, expected: tuple[Any, int | None]) -> None:
    """JSON is UTF-8 unless the answer declares otherwise; what is not JSON says where it stops."""
    assert expected == decode_json(content, content_type=content_type)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"wei": 1180591620717411303424}', {"wei": 2**70}),
        (b'["x\\ud83d", "\\ud83d\\ude00", "\\ude00y"]', ["x\ufffd", "\U0001f600", "\ufffdy"]),
    ],
    ids=["beyond 64 bits", "half a pair"],
)
def test_numbers_and_text_that_orjson_alone_would_spoil(body: bytes, value: object) -> None:
    """Large whole numbers stay whole, and a cut emoji costs itself and not the page (RFC 8259, section 8.2)."""
    assert decode_json(body, content_type="application/json") == (value, None)
