"""What is wanted soon is begun in seconds: once, all that is due together, and whatever became of the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pricecache.background import cancelled
from pricecache.errors import Unavailable
from pricecache.portfolio.fetching_soon import SOON_SECONDS, SoonFetches
from tests.clock import ManualClock


class Begun:
    """The runs that were begun, in turn."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.fails = False

    async def __call__(self, job: str, parameters: Mapping[str, Any], by: str) -> None:
        self.runs.append(parameters["connections"])
        if self.fails:
            raise Unavailable("The daemon is stopping.", code="stopping")


@asynccontextmanager
async def going(soon: SoonFetches) -> AsyncIterator[None]:
    task = asyncio.create_task(soon.run(), name="soon")
    yield
    await cancelled([task])


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_asked_for_several_times_is_begun_once_and_not_later() -> None:
    clock, begun = ManualClock(), Begun()
    soon = SoonFetches("fetch", begun, clock)
    async with going(soon):
        soon.add("a")
        clock.advance(SOON_SECONDS / 2)
        await settled()
        soon.add("a")
        soon.add("b")
        clock.advance(SOON_SECONDS / 2)
        await settled()
        assert begun.runs == [["a"]]
        assert set(soon.waiting) == {"b"}
        clock.advance(SOON_SECONDS / 2)
        await settled()
        assert begun.runs == [["a"], ["b"]]
        soon.add("a")
        clock.advance(SOON_SECONDS)
        await settled()
    assert begun.runs == [["a"], ["b"], ["a"]]


async def test_what_could_not_be_begun_is_left_to_the_schedule() -> None:
    clock, begun = ManualClock(), Begun()
    soon = SoonFetches("fetch", begun, clock)
    async with going(soon):
        for begun.fails in (True, False):
            soon.add("a")
            soon.add("b")
            clock.advance(SOON_SECONDS)
            await settled()
    assert begun.runs == [["a", "b"], ["a", "b"]]
