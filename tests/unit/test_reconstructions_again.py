"""What is decided or seen while the same is still being asked for is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from pricecache.core.bars import Bars
from pricecache.portfolio.remapping import Remapping
from pricecache.portfolio.rewalking import Rewalking
from tests.clock import ManualClock


class Requests:
    """A queue, and its store, of one record a connection; `hold` keeps a request of that connection under way."""

    def __init__(self, *connections: str) -> None:
        self.store = self
        self.asked: list[str] = []
        self.held: set[str] = set()
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.errors: list[Exception] = []
        self._records = [
            SimpleNamespace(connection=one, user=f"user-{one}", portfolio="p", state="done", digest=None, walked=None)
            for one in connections
        ]

    async def request(self, connection: str, *_: Any, **__: Any) -> None:
        self.begun.put_nowait(connection)
        if connection in self.held:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop()
        self.asked.append(connection)

    async def all_of(self, user: str) -> list[Any]:
        return [one for one in self._records if one.user == user]

    async def find(self, connection: str) -> Any:
        return next(one for one in self._records if one.connection == connection)

    async def awaited(self) -> list[int]:
        return []

    async def _each(self) -> AsyncIterator[Any]:
        for one in self._records:
            yield one

    async def walked(self) -> AsyncIterator[Any]:
        return
        yield

    def walked_by(self, series: int, since: int | None) -> AsyncIterator[Any]:
        return self._each()


class Footings:
    """Nothing holds; `now` are the ratios of every series."""

    def __init__(self) -> None:
        self.catalog: list[Any] = []
        self.now: tuple[tuple[int, float], ...] = ()

    def ratios(self, _: Any) -> Any:
        return self.now

    def hold(self, _: Any) -> bool:
        return False


@asynccontextmanager
async def going(run: Callable[[], Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def begun(requests: Requests, *connections: str) -> None:
    async with asyncio.timeout(5):
        assert [await requests.begun.get() for _ in connections] == list(connections)


async def fails_or_goes_on(requests: Requests, clock: ManualClock, error: Exception | None) -> None:
    if error is not None:
        requests.errors.append(error)
    requests.gate.set()
    if error is not None:
        await clock.until_sleeping()
        clock.advance(5)


async def users_of(_: str) -> list[str]:
    return ["user-one", "user-two"]


@pytest.mark.parametrize("error", [None, AutoReconnect("away")])
async def test_a_decision_made_while_the_one_before_is_asked_for_is_asked_for_too(error: Exception | None) -> None:
    requests = Requests("one", "two")
    requests.held = {"two"}
    clock = ManualClock()
    remapping = Remapping(users_of, requests, clock)  # type: ignore[arg-type]
    async with going(remapping.run):
        remapping.decided(None, "m")
        await begun(requests, "one", "two")
        remapping.decided(None, "m")  # the operator corrects it: the first user may be done by now
        await fails_or_goes_on(requests, clock, error)
        await begun(requests, "one", "two")


def moved(series: int) -> Any:
    entry = SimpleNamespace(id=series, head=SimpleNamespace(count=1), tail=Bars.empty())
    return SimpleNamespace(entry=entry, actions_changed=True)


@pytest.mark.parametrize("error", [None, AutoReconnect("away")])
async def test_a_split_seen_while_the_one_before_is_asked_for_is_asked_for_too(error: Exception | None) -> None:
    requests, footings = Requests("one", "two"), Footings()
    requests.held = {"two"}
    clock = ManualClock()
    rewalking = Rewalking(requests, footings, clock)  # type: ignore[arg-type]
    async with going(rewalking.run):
        footings.now = ((100, 0.5),)
        rewalking.on_bars(moved(7))
        await begun(requests, "one", "two")
        footings.now = ((100, 0.25),)  # of the same day: the first may be done by now
        rewalking.on_bars(moved(7))
        await fails_or_goes_on(requests, clock, error)
        await begun(requests, "one", "two")


@pytest.mark.parametrize("error", [None, AutoReconnect("away")])
async def test_one_that_ends_again_while_it_is_asked_for_is_looked_at_again(error: Exception | None) -> None:
    requests = Requests("one")
    requests.held = {"one"}
    clock = ManualClock()
    rewalking = Rewalking(requests, Footings(), clock)  # type: ignore[arg-type]
    async with going(rewalking.run):
        record = await requests.find("one")
        rewalking.on_done(record)
        await begun(requests, "one")
        rewalking.on_done(record)
        await fails_or_goes_on(requests, clock, error)
        await begun(requests, "one")
