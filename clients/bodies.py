"""The bytes of an answer: read within a limit, unpacked, decoded as JSON.

Knows no connection and never repeats a body.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
_BIG = re.compile(rb"\d{19}")
_LONE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_ODD = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})
"""Codecs of Python that are no charsets; some take time by the square of the length."""
_STEP = 1 << 20
_BOM = b"\xef\xbb\xbf"

ENCODINGS = "gzip, deflate"


class OversizeError(Exception):
    """Strictly private: the body passed the limit."""


class PackingError(Exception):
    """Strictly private: the body is not packed as its `Content-Encoding` says."""


def read_body(chunks: Iterable[bytes], *, encoding: str, limit: int) -> bytes:
    """Join `chunks`, unpacked, and stop as soon as there are more than `limit` bytes.

    Args:
        encoding: the value of `Content-Encoding`; only what `ENCODINGS` asks for, and only once. Codings on top of
            each other are refused: each multiplies a bomb by a thousand.

    Raises:
        OversizeError: there are more than `limit` bytes, packed or unpacked.
        PackingError: unknown coding, broken or cut off.
    """
    coding = encoding.strip().lower()
    if coding not in ("", "identity"):
        # Also before: what unpacks to nothing could go on for ever.
        chunks = _unpack(_limited(chunks, limit), coding)
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise OversizeError
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _limited(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise OversizeError
        yield chunk


def _unpack(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """Yield at most a mebibyte at a time, however much a chunk expands to."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise PackingError("an encoding that was not asked for")
    unpacker: Any = None
    began = False
    for chunk in chunks:
        data = chunk
        while data:
            if unpacker is None:
                unpacker = zlib.decompressobj(_window(data, coding))
            try:
                piece = unpacker.decompress(data, _STEP)
            except zlib.error:
                raise PackingError(f"not {coding}") from None
            began = True
            if piece:
                yield piece
            if unpacker.eof:
                # gzip may have several members one after the other (RFC 1952, section 2.2).
                data, unpacker = unpacker.unused_data.lstrip(b"\0"), None
            else:
                data = unpacker.unconsumed_tail
    if began and unpacker is not None:
        raise PackingError("cut off")


def _window(data: bytes, coding: str) -> int:
    if coding != "deflate":
        return 16 + zlib.MAX_WBITS
    # "deflate" means zlib (RFC 9110, section 8.4.1.2), but some servers send it raw.
    return zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS


def is_heavy(content: bytes, *, limit: int) -> bool:
    """Tell whether JSON holds more objects and lists than `limit` bytes of it may: one in sixteen bytes.

    64 MiB of `[],[],…`, which gzip sends as 64 kB, became 2 GB of Python objects, and kept all threads waiting for half a minute.
    Brackets in texts count, too; no text has that many.
    """
    most = max(limit // 16, 1 << 20)
    # None takes less than two bytes.
    return len(content) > 2 * most and content.count(b"[") + content.count(b"{") > most


def decode_json(content: bytes, *, content_type: str) -> tuple[Any, int | None]:
    """Decode `content`: the value and None, or None and the position (bytes or characters) where it stops being JSON.

    JSON is UTF-8 (RFC 8259, section 8.1); another charset counts only if the answer declares it.
    """
    value, position = _loads(content)
    if position is None:
        return value, None
    if content.startswith(_BOM):
        return _loads(content[len(_BOM) :])
    declared = _CHARSET.search(content_type)
    if declared is None or declared.group(1).lower() in ("utf-8", "utf8"):
        return None, position
    try:
        if codecs.lookup(declared.group(1)).name.replace("-", "_") in _ODD:
            return None, position
        text = content.decode(declared.group(1))
    except (LookupError, UnicodeError):
        return None, position
    return _loads(text.removeprefix("\ufeff"))


def _loads(text: bytes | str) -> tuple[Any, int | None]:
    # A returned position instead of an exception: orjson's carries the whole document, and a chained one would keep it.
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        if _BIG.search(raw):
            # orjson reads a whole number beyond 64 bits as a float, without a word.
            orjson.loads(raw)
            return json.loads(raw), None
        return orjson.loads(raw), None
    except orjson.JSONDecodeError as exc:
        position = exc.pos
    except RecursionError:
        # Only the module `json` raises it, a little before orjson's own bound of 1,024 levels.
        return None, 0
    # A cut emoji leaves half a surrogate pair; RFC 8259, section 8.2, lets a sender write that, and orjson reads no page with it.
    mended = _LONE.sub(rb"\\ufffd", raw)
    if mended != raw:
        try:
            return orjson.loads(mended), None
        except orjson.JSONDecodeError:
            pass
    return None, position
