"""Files that are sent in: as the body of a request, or as the part `file` of a form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiohttp import BodyPartReader

from pricecache.api.wire import Malformed, TooLarge, UnsupportedBody
from pricecache.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came, and what it is."""

    content: bytes
    kind: Kind


async def read_upload(request: web.BaseRequest, most: int) -> Upload:
    """The file that `request` brings, of at most `most` bytes.

    Raises `UnsupportedBody` for another media type, `TooLarge`, `Malformed` (code `missing_body` for no or an empty
    file) and `Invalid` with code `unknown_field` for another part of a form.
    """
    if request.content_type == FORM:
        try:
            upload = await _from_form(request, most)
        except (ValueError, AssertionError) as exc:  # what aiohttp raises for a form that is none
            raise Malformed("The form cannot be read.") from exc
    else:
        kind = KINDS.get(request.content_type)
        if kind is None:
            raise UnsupportedBody(_WANTED)
        upload = Upload(await _joined(request.content.iter_any(), most), kind)
    if not upload.content:
        raise Malformed(f"No file was sent, or an empty one. {_WANTED}", code="missing_body")
    return upload


_WANTED = "Send the file with Content-Type: text/csv or application/json, or as the part file of a form."


async def _from_form(request: web.BaseRequest, most: int) -> Upload:
    found: Upload | None = None
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name != PART or found is not None:
            name = str(part.name)[:64] if isinstance(part, BodyPartReader) else "parts"
            raise Invalid(f"A form has one part here, {PART}, and not {name}.", code="unknown_field")
        found = Upload(await _joined(_pieces(part), most), _kind_of(part))
    return found or Upload(b"", "csv")


def _kind_of(part: BodyPartReader) -> Kind:
    """By its media type where that says it, else by its name: browsers take a csv for many things."""
    media = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return KINDS.get(media) or ("json" if (part.filename or "").lower().endswith(".json") else "csv")


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(_PIECE):
        yield piece


async def _joined(pieces: AsyncIterator[bytes], most: int) -> bytes:
    found, size = [], 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise TooLarge(f"A file may have {most} bytes here.")
        found.append(piece)
    return b"".join(found)
