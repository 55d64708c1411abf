"""Answers that are made anew each time: encoded off the event loop when they are long, with a tag of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pricecache.api.encoding import weak_etag_of
from pricecache.api.kept import Kept
from pricecache.api.wire import encode

IN_THREAD_FROM = 200
"""Rows of an answer from which on it is put together in a thread."""


class KeptOnce(Kept):
    """An answer with a tag, which is made anew each time."""

    __slots__ = ()
    may_last = False

    def current(self, now: float) -> bool:
        return False


async def once(rows: int, make: Callable[[], Any]) -> KeptOnce:
    """What `make` gives, as JSON with camelCase keys; it has about so many rows."""

    def made() -> tuple[bytes, str]:
        body = encode(make())
        return body, weak_etag_of(body)

    return KeptOnce(*(made() if rows < IN_THREAD_FROM else await asyncio.to_thread(made)))
