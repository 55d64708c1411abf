"""Work that takes long leaves the event loop; what takes a few milliseconds is done at once, which is sooner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

IN_THREAD_FROM = 300
"""Transactions from which on reading, planning and replaying them is work for a thread."""
_Value = TypeVar("_Value")


async def aside(rows: int, work: Callable[[], _Value]) -> _Value:
    """What `work` gives, which concerns so many transactions."""
    return await computed(work, rows >= IN_THREAD_FROM)


async def computed(work: Callable[[], _Value], is_long: bool) -> _Value:
    """What `work` gives."""
    return await asyncio.to_thread(work) if is_long else work()
