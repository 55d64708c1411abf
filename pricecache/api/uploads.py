"""Files that are sent in: as the body of a request, or as the part `file` of a form."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiohttp import BodyPartReader

from pricecache.api.wire import Malformed, TooLarge, UnsupportedBody
from pricecache.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import web

Kind = Literal["csv", "json"]
FORM = "multipart/form-data"
PART = "file"
KINDS: dict[str, Kind] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
}
"""What a body is, by its media type."""
_PIECE = 1 << 16
MOST_IN_FLIGHT, MOST_OF_ONE = 288 << 20, 96 << 20
"""Bytes of files that are read or worked on at a time in a daemon, and of one user's among them."""


class UploadGate:
    """How much of files is in memory at a time. Loop-only.

    `parsing`: held by who turns a long one into objects, which take ten times its bytes.
    """

    def __init__(self, most: int = MOST_IN_FLIGHT, most_of_one: int = MOST_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._held: Counter[str] = Counter()
        self.parsing = asyncio.Semaphore(1)

    def take(self, who: str, size: int) -> None:
        """`size` more bytes of a file that `who` sends are in memory. Raises `Unavailable` with code `uploads_busy`."""
        if self._held.total() + size > self._most or self._held[who] + size > self._most_of_one:
            raise Unavailable("Too much is being uploaded just now.", code="uploads_busy", retry_after=10.0)
        self._held[who] += size

    def give_back(self, who: str, size: int) -> None:
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came, and what it is."""

    content: bytes
    kind: Kind


async def read_upload(request: web.BaseRequest, most: int, gate: UploadGate, who: str) -> Upload:
    """The file that `request` of `who` brings, of at most `most` bytes, which `gate` then knows of: give them back.

    Raises `UnsupportedBody` for another media type, `TooLarge`, `Malformed` (code `missing_body` for no or an empty
    file), `Invalid` with code `unknown_field` for another part of a form, and as `UploadGate.take`.
    """
    taken = 0

    def take(size: int) -> None:
        nonlocal taken
        gate.take(who, size)
        taken += size

    try:
        return await _read(request, most, take)
    except BaseException:  # who hangs up too
        gate.give_back(who, taken)
        raise


async def _read(request: web.BaseRequest, most: int, take: Callable[[int], None]) -> Upload:
    if request.content_type == FORM:
        try:
            upload = await _from_form(request, most, take)
        except (ValueError, AssertionError) as exc:  # what aiohttp raises for a form that is none
            raise Malformed("The form cannot be read.") from exc
    else:
        kind = KINDS.get(request.content_type)
        if kind is None:
            raise UnsupportedBody(_WANTED)
        upload = Upload(await _joined(request.content.iter_any(), most, take), kind)
    if not upload.content:
        raise Malformed(f"No file was sent, or an empty one. {_WANTED}", code="missing_body")
    return upload


_WANTED = "Send the file with Content-Type: text/csv or application/json, or as the part file of a form."


async def _from_form(request: web.BaseRequest, most: int, take: Callable[[int], None]) -> Upload:
    found: Upload | None = None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name != PART or found is not None:
            name = str(part.name)[:64] if isinstance(part, BodyPartReader) else "parts"
            raise Invalid(f"A form has one part here, {PART}, and not {name}.", code="unknown_field")
        found = Upload(await _joined(_pieces(part), most, take), _kind_of(part))
    return found or Upload(b"", "csv")


def _kind_of(part: BodyPartReader) -> Kind:
    """By its media type where that says it, else by its name: browsers take a csv for many things."""
    media = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return KINDS.get(media) or ("json" if (part.filename or "").lower().endswith(".json") else "csv")


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(_PIECE):
        yield piece


async def _joined(pieces: AsyncIterator[bytes], most: int, take: Callable[[int], None]) -> bytes:
    found, size = [], 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise TooLarge(f"A file may have {most} bytes here.")
        take(len(piece))
        found.append(piece)
    return b"".join(found)
