"""Work that takes long leaves the event loop; what takes a few milliseconds is done at once, which is sooner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pricecache import garbage

IN_THREAD_FROM = 300
"""Transactions from which on reading, planning and replaying them is work for a thread."""
MANY = 10_000
"""Things from which on to give them back at once takes milliseconds."""
_Value = TypeVar("_Value")


async def aside(rows: int, work: Callable[[], _Value]) -> _Value:
    """What `work` gives, which concerns so many transactions."""
    return await computed(work, rows >= IN_THREAD_FROM)


async def computed(work: Callable[[], _Value], is_long: bool) -> _Value:
    """What `work` gives."""
    return await asyncio.to_thread(work) if is_long else work()


async def let_go(*holders: list[Any]) -> None:
    """Give back what these hold, which nobody looks at any more, in pieces and not on the loop; of few things nothing,
    they go with their holders."""
    if sum(map(len, holders)) >= MANY:
        await asyncio.to_thread(partial(garbage.let_go, *holders))
