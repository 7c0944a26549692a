"""One HTTP response: its body is read within a size limit, unpacked, and decoded as JSON. No error repeats a part of a body."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from clients.json_codec import decode, decode_not_finite

if TYPE_CHECKING:
    import httpx

NOT_FINITE = "a number is NaN or infinite, which JSON does not have"

RawHeaders = list[tuple[bytes, bytes]]

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_NOT_CHARSETS = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})
"""Codecs of Python that are no charsets; some need time proportional to the square of the length."""
_STEP = 1 << 20
_BOM = b"\xef\xbb\xbf"

ENCODINGS = "gzip, deflate"


class OversizeError(Exception):
    """The body is larger than the limit. `transport` translates it."""


class CompressionError(Exception):
    """The body is not compressed as its `Content-Encoding` says. `transport` translates it."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response, complete and unpacked.

    Args:
        learned: seconds to wait after a refusal, by what the throttle has learned; None for nothing.
        asks: its `Retry-After` means something; False where good answers bear one, too.
    """

    status: int
    raw_headers: RawHeaders
    content: bytes
    learned: float | None = None
    asks: bool = True

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers as `joined_headers` does."""
        return joined_headers(self.raw_headers)

    def header(self, name: bytes) -> str:
        """Return the first header called `name` (in lower case), or an empty string."""
        return next((value.decode("latin-1") for key, value in self.raw_headers if key.lower() == name), "")

    def json(self, *, max_bytes: int) -> tuple[Any, str]:
        """Return the decoded body and an empty text, or None and what is wrong with the body.

        What has NaN or Infinity in the place of numbers, as Python and others write them, is returned with `NOT_FINITE`.

        Args:
            max_bytes: the size limit of the body; JSON may have one list or object in each 16 bytes of it.

        Raises:
            OversizeError: the body has more lists and objects than that.
        """
        if is_heavy(self.content, limit=max_bytes):
            raise OversizeError
        content_type = self.header(b"content-type")
        value, position = decode_json(self.content, content_type=content_type)
        if position is None:
            return value, ""
        if (value := decode_not_finite(self.content)) is not None:
            return value, NOT_FINITE
        kind = content_type.partition(";")[0].strip()[:80] or "no content type"
        what = f"not JSON at position {position}" if self.content else "no body"
        return None, f"{what} ({kind}, {len(self.content)} bytes, status {self.status})"


def joined_headers(raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers with names in lower case, repeated ones joined by comma and space (RFC 9110, section 5.3)."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def read_response(response: httpx.Response, *, max_bytes: int) -> HttpResponse:
    """Read the body of a streamed response, and return both in one piece.

    Raises:
        OversizeError, CompressionError: as `read_body` says; also where the announced length is too large.
    """
    encoding = ""
    raw_headers = response.headers.raw
    for name, value in raw_headers:
        lower = name.lower()
        if lower == b"content-encoding":
            encoding = f"{encoding},{value.decode('latin-1')}" if encoding else value.decode("latin-1")
        elif lower == b"content-length" and len(value) > 7 and value.isdigit() and int(value) > max_bytes:
            raise OversizeError
    content = read_body(response.stream, encoding=encoding, limit=max_bytes)  # type: ignore[arg-type]
    return HttpResponse(response.status_code, raw_headers, content)


def read_body(chunks: Iterable[bytes], *, encoding: str, limit: int) -> bytes:
    """Return `chunks` unpacked and joined; stop as soon as there are more than `limit` bytes.

    Args:
        encoding: the value of `Content-Encoding`. Only one coding is accepted, and only one that `ENCODINGS` has: each
            further layer could multiply the size of the body by a thousand.

    Raises:
        OversizeError: there are more than `limit` bytes, packed or unpacked.
        CompressionError: the coding is unknown, or the body is broken or cut off.
    """
    coding = encoding.strip().lower()
    if coding not in ("", "identity"):
        # The packed size is limited too: a stream that unpacks to nothing could go on for ever.
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
    """Yield pieces of at most one MiB, however large a chunk becomes."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise CompressionError("an encoding that was not asked for")
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
                raise CompressionError(f"not {coding}") from None
            began = True
            if piece:
                yield piece
            if unpacker.eof:
                # gzip may have several members one after the other (RFC 1952, section 2.2).
                data, unpacker = unpacker.unused_data.lstrip(b"\0"), None
            else:
                data = unpacker.unconsumed_tail
    if began and unpacker is not None:
        raise CompressionError("cut off")


def _window(data: bytes, coding: str) -> int:
    if coding != "deflate":
        return 16 + zlib.MAX_WBITS
    # "deflate" means zlib (RFC 9110, section 8.4.1.2), but some servers send it raw.
    return zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS


def is_heavy(content: bytes, *, limit: int) -> bool:
    """Say whether JSON has more than one object or list in each 16 bytes of `limit`.

    64 MiB of `[],[],…`, which gzip sends as 64 kB, became 2 GB of Python objects and blocked all threads for half a minute.
    Brackets inside texts are counted as well; no real text has that many.
    """
    allowed = max(limit // 16, 1 << 20)
    # Each list or object takes at least two bytes.
    return len(content) > 2 * allowed and content.count(b"[") + content.count(b"{") > allowed


def decode_json(content: bytes, *, content_type: str) -> tuple[Any, int | None]:
    """Return the value and None, or None and the position (in bytes or characters) where `content` stops being JSON.

    JSON is UTF-8 (RFC 8259, section 8.1); another charset is used only if the response declares it.
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
        if codecs.lookup(declared.group(1)).name.replace("-", "_") in _NOT_CHARSETS:
            return None, position
        text = content.decode(declared.group(1))
    except (LookupError, UnicodeError):
        return None, position
    return _loads(text.removeprefix("\ufeff"))


def _loads(text: bytes | str) -> tuple[Any, int | None]:
    # Returns the position instead of raising: orjson's exception holds the whole document, and a chained one would keep it.
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        return decode(raw), None
    except JSONDecodeError as exc:
        position = exc.pos
    except RecursionError:
        # Only the module `json` raises it, a little before orjson's own limit of 1,024 levels.
        return None, 0
    # A cut emoji leaves half a surrogate pair. RFC 8259, section 8.2, allows a sender to write that, but orjson refuses it.
    repaired = _LONE_SURROGATE.sub(rb"\\ufffd", raw)
    if repaired != raw:
        try:
            return decode(repaired), None
        except JSONDecodeError:
            pass
    return None, position
