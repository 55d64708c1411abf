"""What a message is on the wire: one WebSocket text frame, or one event of a server-sent stream, as bytes."""

from __future__ import annotations

from typing import Final

_FIN_TEXT, _FIN_CLOSE, _FIN_PING, _FIN_PONG = 0x81, 0x88, 0x89, 0x8A
_LONGEST_REASON = 123

PING: Final = bytes((_FIN_PING, 0))
COMMENT: Final = b"3\r\n:\n\n\r\n"
"""A comment of a server-sent stream, which no client sees: it keeps proxies from closing a quiet connection."""
LAST_CHUNK: Final = b"0\r\n\r\n"


def text_frame(payload: bytes) -> bytes:
    """The frame of a text message as a server sends it: whole, and not masked (RFC 6455, 5.2)."""
    return _head(_FIN_TEXT, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """The frame that ends a connection. `reason` is cut at 123 bytes."""
    said = reason.encode()[:_LONGEST_REASON].decode(errors="ignore").encode()
    return bytes((_FIN_CLOSE, 2 + len(said))) + code.to_bytes(2, "big") + said


def pong_frame(payload: bytes) -> bytes:
    """The answer to a client's ping, which has 125 bytes at most."""
    return bytes((_FIN_PONG, len(payload))) + payload


def event_chunk(payload: bytes, last_id: str | None = None) -> bytes:
    """An event of a server-sent stream as one chunk of an HTTP/1.1 body. `payload` is JSON on one line."""
    place = b"" if last_id is None else f"id: {last_id}\n".encode()
    return _chunk(place + b"data: " + payload + b"\n\n")


def id_chunk(last_id: str) -> bytes:
    """The first line of an event as a chunk of its own, for one whose other lines are the same for many."""
    return _chunk(f"id: {last_id}\n".encode())


def _chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


def _head(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
