"""The provider pool: lanes, pace, concurrency, time-outs, cool-down, breaker and control symbol, what it counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from structlog.testing import capture_logs

from pricecache.clock import SystemClock
from pricecache.core.asking import LANES, Capability, Found, Lane, Pace
from pricecache.core.bars import Bars
from pricecache.core.instruments import Instrument
from pricecache.core.provider_accounts import FAILURES_TO_OPEN
from pricecache.core.quotes import Quote
from pricecache.errors import (
    BudgetSpent,
    ProviderAnswerBad,
    ProviderError,
    ProviderPaused,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import History, Quotes
from pricecache.providers.pool import ProviderPool

AAPL, MSFT, IBM, SPY = (Instrument(name) for name in ("AAPL", "MSFT", "IBM", "SPY"))


class HandClock(SystemClock):
    """Moves by `advance` only; whoever sleeps wakes when its time has come."""

    def __init__(self) -> None:
        self.now_is = 1_700_000_000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def time(self) -> float:
        return self.now_is

    def monotonic(self) -> float:
        return self.now_is

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now_is + seconds, woken))
        await woken.wait()

    def advance(self, seconds: float) -> None:
        self.now_is += seconds
        for until, woken in self._sleepers:
            if until <= self.now_is:
                woken.set()


class Vendor:
    """Each call runs `answer` in its thread; `started` and `running` say what goes on."""

    name = "vendor"
    capabilities: frozenset[Capability] = frozenset({"history", "live"})
    final_lag = 0.0
    always_moving = False
    control: Instrument | None = None

    def __init__(self, **pace: float) -> None:
        facts = {"per_second": 1000, "burst": 1000, "concurrency": 4, "timeout": 5, **pace}
        self.pace = Pace(**facts)  # type: ignore[arg-type]
        self.answer: Callable[[Instrument], object] = lambda instrument: None
        self.asked: list[tuple[Instrument, ...]] = []
        self.running = self.most_running = 0
        self.closed = False
        self._lock = threading.Lock()

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        self._work((instrument,))
        return History(Bars.of(np.array([start]), np.ones((5, 1))) if instrument == SPY else Bars.empty())

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        self._work(tuple(instruments))
        return Quotes([Quote(instrument, 1.0, "USD", 0, 0, "vendor") for instrument in instruments])

    def search(self, text: str, limit: int) -> Sequence[Found]:
        self._work(())
        return [Found(AAPL)][:limit]

    def close(self) -> None:
        self.closed = True

    def _work(self, instruments: tuple[Instrument, ...]) -> None:
        with self._lock:
            self.asked.append(instruments)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            for instrument in instruments:
                self.answer(instrument)
        finally:
            with self._lock:
                self.running -= 1


class Searchable(Vendor):
    """Its searches run `found`."""

    def __init__(self, **pace: float) -> None:
        super().__init__(**pace)
        self.found: Callable[[Instrument], object] = lambda instrument: None

    def search(self, text: str, limit: int) -> Sequence[Found]:
        self.found(AAPL)
        return super().search(text, limit)


class Gate:
    """Holds vendor threads until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self._arrived = threading.Semaphore(0)

    def __call__(self, _: Instrument) -> None:
        self._arrived.release()
        assert self.open.wait(10)

    async def arrivals(self, count: int) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self._arrived.acquire, timeout=10)


def raising(error: Exception) -> Callable[[Instrument], object]:
    def answer(_: Instrument) -> object:
        raise error

    return answer


Make = Callable[[Vendor], ProviderPool]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def made(clock: HandClock) -> AsyncIterator[Callable[[Vendor], ProviderPool]]:
    pools: list[ProviderPool] = []

    def make(vendor: Vendor) -> ProviderPool:
        pools.append(ProviderPool(vendor, clock))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def until_idle(pool: ProviderPool) -> None:
    while pool.stats().running:
        await asyncio.sleep(0.001)


def ask(pool: ProviderPool, instrument: Instrument = AAPL, lane: Lane = "heal") -> asyncio.Task[History]:
    return asyncio.create_task(pool.history(instrument, 0, 1, lane=lane))


async def broken(made: Make, control: Instrument | None) -> tuple[Vendor, ProviderPool]:
    """A provider that failed five times in a row, and has a minute's pause behind it when its clock is moved on."""
    vendor = Vendor()
    vendor.control = control
    pool = made(vendor)
    vendor.answer = raising(ProviderUnavailable())
    for _ in range(5):
        with pytest.raises(ProviderUnavailable):
            await pool.history(AAPL, 0, 1)
    vendor.asked.clear()
    return vendor, pool


async def test_an_answer_comes_through(made: Make) -> None:
    pool = made(Vendor())
    assert len((await pool.history(AAPL, 0, 1)).bars) == 0
    assert [quote.instrument for quote in (await pool.quotes([AAPL, MSFT])).quotes] == [AAPL, MSFT]
    assert (pool.calls, pool.errors) == (2, 0)


async def test_no_more_calls_run_side_by_side_than_allowed(made: Make) -> None:
    vendor, gate = Vendor(concurrency=2), Gate()
    vendor.answer = gate
    pool = made(vendor)
    tasks = [ask(pool) for _ in range(6)]
    await gate.arrivals(2)
    assert (pool.stats().running, pool.stats().waiting) == (2, 4)
    gate.open.set()
    await asyncio.gather(*tasks)
    assert vendor.most_running == 2
    assert len(vendor.asked) == 6


async def test_after_a_burst_calls_follow_the_rate(made: Make, clock: HandClock) -> None:
    vendor = Vendor(per_second=0.5, burst=3)
    pool = made(vendor)
    await asyncio.gather(*(ask(pool) for _ in range(3)))
    fourth = ask(pool)
    await settle()
    assert len(vendor.asked) == 3
    clock.advance(1.9)
    await settle()
    assert len(vendor.asked) == 3
    clock.advance(0.1)
    await fourth
    clock.advance(1000)  # no more than a burst is ever saved up
    await asyncio.gather(*(ask(pool) for _ in range(3)))
    fifth = ask(pool)
    await settle()
    assert not fifth.done()
    clock.advance(2)
    await fifth


async def test_a_caller_that_leaves_takes_no_token(made: Make, clock: HandClock) -> None:
    vendor = Vendor(per_second=1, burst=1)
    pool = made(vendor)
    await ask(pool)
    gone, stays = ask(pool), ask(pool)
    await settle()
    gone.cancel()
    await settle()
    clock.advance(1)
    await stays
    assert len(vendor.asked) == 2


async def test_a_call_that_outlives_its_time_keeps_its_place_until_its_thread_ends(made: Make) -> None:
    vendor, gate = Vendor(concurrency=2, timeout=0.02), Gate()
    vendor.answer = gate
    pool = made(vendor)
    with pytest.raises(ProviderUnavailable):
        await pool.history(AAPL, 0, 1)
    assert (pool.stats().running, pool.stats().overdue) == (1, 1)
    vendor.answer = lambda _: None
    await pool.history(AAPL, 0, 1)  # the other place still works
    gate.open.set()
    await until_idle(pool)
    assert pool.stats().overdue == 0


async def test_a_call_that_hangs_is_overdue_though_its_caller_left(made: Make) -> None:
    """It counts as failed once, and those behind it are told."""
    vendor, gate = Vendor(concurrency=1, timeout=0.02), Gate()
    vendor.answer = gate
    pool = made(vendor)
    gone, waiting = ask(pool), ask(pool)
    await gate.arrivals(1)
    gone.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(ProviderUnavailable):
            await waiting
    assert (pool.overdue, pool.calls, pool.errors) == (1, 1, 1)
    gate.open.set()
    await until_idle(pool)
    assert (pool.overdue, pool.calls, pool.errors) == (0, 1, 1)


async def test_when_every_place_is_kept_calls_fail_at_once(made: Make) -> None:
    """Those that wait for a place are told as well; when a thread ends the next call is made again."""
    vendor, gate = Vendor(concurrency=1, timeout=0.02), Gate()
    vendor.answer = gate
    pool = made(vendor)
    first, waiting = ask(pool), ask(pool)
    for task in (first, waiting, ask(pool)):
        with pytest.raises(ProviderUnavailable):
            await task
    assert len(vendor.asked) == 1
    gate.open.set()
    await until_idle(pool)
    vendor.answer = lambda _: None
    await pool.history(AAPL, 0, 1)


async def test_a_cancelled_caller_gives_its_place_back_when_the_thread_ends(made: Make) -> None:
    vendor, gate = Vendor(concurrency=1), Gate()
    vendor.answer = gate
    pool = made(vendor)
    first, second, third = ask(pool), ask(pool), ask(pool)
    await gate.arrivals(1)
    first.cancel()
    second.cancel()
    await settle()
    assert vendor.running == 1
    gate.open.set()
    await third
    assert len(vendor.asked) == 2
    assert first.cancelled()
    assert second.cancelled()


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 120), (7.0, 7), (0.0, 1), (86400.0, 900)], ids=["none", "said", "zero", "day"]
)
async def test_after_a_429_calls_are_refused_for_as_long(
    made: Make, clock: HandClock, retry_after: float | None, seconds: float
) -> None:
    vendor = Vendor()
    pool = made(vendor)
    vendor.answer = raising(RateLimited(retry_after=retry_after))
    with pytest.raises(RateLimited):
        await pool.history(AAPL, 0, 1)
    vendor.answer = lambda _: None
    clock.advance(seconds - 0.5)
    with pytest.raises(RateLimited) as caught:
        await pool.history(MSFT, 0, 1)
    assert caught.value.retry_after == pytest.approx(0.5, abs=1e-3)
    assert len(vendor.asked) == 1
    clock.advance(0.5)
    await pool.history(MSFT, 0, 1)
    assert pool.stats().state == "ok"


async def test_the_cool_down_doubles_up_to_a_quarter_of_an_hour_and_a_success_resets_it(
    made: Make, clock: HandClock
) -> None:
    vendor = Vendor()
    pool = made(vendor)
    lengths = []
    for _ in range(5):
        vendor.answer = raising(RateLimited())
        with pytest.raises(RateLimited):
            await pool.history(AAPL, 0, 1)
        lengths.append(round(pool.cooling_down_for))
        clock.advance(900)
    assert lengths == [120, 240, 480, 900, 900]
    vendor.answer = lambda _: None
    await pool.history(AAPL, 0, 1)
    vendor.answer = raising(RateLimited())
    with pytest.raises(RateLimited):
        await pool.history(AAPL, 0, 1)
    assert round(pool.cooling_down_for) == 120


async def test_several_429_at_once_are_one_cool_down_and_stop_those_that_wait(made: Make, clock: HandClock) -> None:
    vendor, gate = Vendor(concurrency=2), Gate()

    def limited(instrument: Instrument) -> None:
        gate(instrument)
        raise RateLimited

    vendor.answer = limited
    pool = made(vendor)
    tasks = [ask(pool) for _ in range(10)]
    await gate.arrivals(2)
    gate.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, RateLimited) for outcome in outcomes)
    assert len(vendor.asked) == 2
    assert round(pool.cooling_down_for) == 120
    assert (pool.stats().errors, pool.stats().refused) == (2, 8)


async def test_quotes_are_asked_for_in_portions_and_put_together(made: Make) -> None:
    vendor = Vendor(quotes_per_call=2)
    pool = made(vendor)

    def answer(instrument: Instrument) -> None:
        if instrument == IBM:
            raise SymbolNotFound

    vendor.answer = answer
    result = await pool.quotes([AAPL, MSFT, IBM])
    assert sorted(vendor.asked) == [(AAPL, MSFT), (IBM,)]
    assert [quote.instrument for quote in result.quotes] == [AAPL, MSFT]
    assert isinstance(result.failures[IBM], SymbolNotFound)


async def test_quotes_raise_only_when_the_provider_failed_for_all(made: Make) -> None:
    vendor = Vendor(quotes_per_call=1)
    pool = made(vendor)
    vendor.answer = raising(SymbolNotFound())
    assert set((await pool.quotes([AAPL, MSFT])).failures) == {AAPL, MSFT}
    vendor.answer = raising(ProviderUnavailable())
    with pytest.raises(ProviderUnavailable):
        await pool.quotes([AAPL, MSFT])
    assert (await pool.quotes([])).quotes == []


async def test_a_429_among_the_failures_of_a_batch_cools_down(made: Make) -> None:
    class Batch(Vendor):
        def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
            return Quotes([Quote(AAPL, 1.0, "USD", 0, 0, "vendor")], {MSFT: RateLimited(retry_after=30)})

    pool = made(Batch())
    assert len((await pool.quotes([AAPL, MSFT])).quotes) == 1
    assert round(pool.cooling_down_for) == 30


async def test_an_error_nobody_foresaw_is_a_bad_answer(made: Make) -> None:
    vendor = Vendor()
    vendor.answer = raising(ZeroDivisionError("in the adapter"))
    pool = made(vendor)
    with pytest.raises(ProviderAnswerBad) as caught:
        await pool.history(AAPL, 0, 1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_failures_are_counted_by_code_for_a_day(made: Make, clock: HandClock) -> None:
    vendor = Vendor()
    pool = made(vendor)
    for error in (SymbolNotFound(), ProviderUnavailable(), ProviderUnavailable()):
        vendor.answer = raising(error)
        with pytest.raises(type(error)):
            await pool.history(AAPL, 0, 1)
    assert pool.stats().state == "failing"
    vendor.answer = lambda _: None
    await pool.history(AAPL, 0, 1)
    stats = pool.stats()
    assert (stats.calls_24h, stats.errors_24h, stats.error_rate_24h) == (4, 3, 0.75)
    assert stats.errors_by_code_24h == {"symbol_not_found": 1, "provider_unavailable": 2}
    assert (pool.account.last_error_code, pool.account.last_success_at) == ("provider_unavailable", clock.time())
    clock.advance(24 * 3600)
    assert (pool.calls, pool.calls_24h, pool.errors_24h) == (4, 0, 0)
    assert pool.stats().error_rate_24h is None


async def test_closing_waits_for_what_runs_and_refuses_the_rest(clock: HandClock) -> None:
    vendor, gate = Vendor(concurrency=1), Gate()
    vendor.answer = gate
    pool = ProviderPool(vendor, clock)
    running, waiting = ask(pool), ask(pool)
    await gate.arrivals(1)
    closing = asyncio.create_task(pool.close())
    await settle()
    assert not vendor.closed
    gate.open.set()
    await closing
    await running
    assert vendor.closed
    for task in (waiting, ask(pool)):
        with pytest.raises(ProviderUnavailable):
            await task


# ---- lanes


async def test_who_waits_is_let_in_by_lane_and_then_in_the_order_they_came(made: Make) -> None:
    vendor, gate = Vendor(concurrency=1), Gate()
    vendor.answer = gate
    pool = made(vendor)
    order: list[str] = []

    async def call(lane: Lane, name: str) -> None:
        await pool.history(Instrument(name), 0, 1, lane=lane)
        order.append(name)

    first = asyncio.create_task(call("deep", "FIRST"))
    await gate.arrivals(1)
    others = [asyncio.create_task(call(lane, f"{lane.upper()}{n}")) for n in (1, 2) for lane in reversed(LANES)]
    await settle()
    gate.open.set()
    await asyncio.gather(first, *others)
    assert order == ["FIRST"] + [f"{lane.upper()}{n}" for lane in LANES for n in (1, 2)]


async def test_a_quote_goes_before_deep_calls_that_wait_for_tokens(made: Make, clock: HandClock) -> None:
    """They hold neither a place nor a token while they wait."""
    vendor = Vendor(per_second=1, burst=1, concurrency=1)
    pool = made(vendor)
    await ask(pool)
    deep = [ask(pool, MSFT, "deep") for _ in range(3)]
    await settle()
    live = ask(pool, IBM, "live")
    await settle()
    clock.advance(1)
    await live
    assert vendor.asked == [(AAPL,), (IBM,)]
    for _ in deep:
        clock.advance(1)
        await settle()
        await until_idle(pool)
        await settle()
    await asyncio.gather(*deep)


async def test_a_call_costs_its_requests(made: Make, clock: HandClock) -> None:
    vendor = Vendor(per_second=1, burst=3, per_day=10)
    vendor.pace = replace(vendor.pace, costs={"history": 3})
    pool = made(vendor)
    await ask(pool, lane="live")
    second = ask(pool, lane="live")
    await settle()
    clock.advance(2.9)
    await settle()
    assert len(vendor.asked) == 1
    clock.advance(0.1)
    await second
    assert pool.account.requests == 6
    with pytest.raises(BudgetSpent):
        await pool.history(AAPL, 0, 1, lane="deep")
    assert (pool.calls_24h, pool.errors_24h, pool.refused) == (2, 0, 1)


class Counting(Vendor):
    """Makes as many requests a call as `makes` says."""

    makes = 1
    _sent: ClassVar = threading.local()

    def requests_of_thread(self) -> int:
        return getattr(self._sent, "requests", 0)

    def _work(self, instruments: tuple[Instrument, ...]) -> None:
        self._sent.requests = self.requests_of_thread() + self.makes
        super()._work(instruments)


@pytest.mark.parametrize("makes", [0, 1, 3, 5])
@pytest.mark.parametrize("error", [None, SymbolNotFound(), ZeroDivisionError()], ids=["answer", "dead", "bug"])
async def test_a_call_is_charged_the_requests_that_it_made(made: Make, makes: int, error: Exception | None) -> None:
    vendor = Counting(per_second=0.001, burst=10, per_day=100, price=0.5)
    vendor.pace = replace(vendor.pace, costs={"history": 3})
    vendor.makes = makes
    if error is not None:
        vendor.answer = raising(error)
    pool = made(vendor)
    for _ in range(2):
        await asyncio.gather(ask(pool, lane="live"), return_exceptions=True)
    account = pool.account
    assert (account.requests, account.dollars, account.remaining(pool.pace, "live", 0)) == (
        2 * makes,
        makes,
        100 - 2 * makes,
    )
    assert account.lacking == pytest.approx(2 * makes)


async def test_a_call_that_ends_late_is_charged_its_requests_all_the_same(made: Make) -> None:
    vendor, gate = Counting(timeout=0.02, per_day=100), Gate()
    vendor.answer, vendor.makes = gate, 4
    pool = made(vendor)
    with pytest.raises(ProviderUnavailable):
        await pool.history(AAPL, 0, 1)
    assert pool.account.requests == 1
    gate.open.set()
    await until_idle(pool)
    assert pool.account.requests == 4


async def test_a_spent_budget_shows_and_ends_with_the_day(made: Make, clock: HandClock) -> None:
    pool = made(Vendor(per_day=1))
    await pool.quotes([AAPL])
    assert pool.state == "budget_spent"
    with pytest.raises(BudgetSpent) as told:
        await pool.quotes([AAPL])
    clock.advance(told.value.retry_after)
    await pool.quotes([AAPL])


# ---- the breaker


async def test_after_five_failures_in_a_row_calls_are_refused_for_a_minute(made: Make, clock: HandClock) -> None:
    vendor, pool = await broken(made, None)
    with pytest.raises(ProviderPaused) as told:
        await pool.history(AAPL, 0, 1)
    assert (told.value.retry_after, vendor.asked, pool.state) == (60.0, [], "paused")
    assert (pool.calls_24h, pool.errors_24h, pool.refused) == (5, 5, 1)


async def test_dead_symbols_and_bad_answers_pause_nobody(made: Make) -> None:
    vendor = Vendor()
    pool = made(vendor)
    for error in [SymbolNotFound(), ProviderAnswerBad(), ZeroDivisionError()] * 5:
        vendor.answer = raising(error)
        with pytest.raises((SymbolNotFound, ProviderAnswerBad)):
            await pool.history(AAPL, 0, 1)
    assert pool.state == "ok"


async def test_after_the_pause_one_asks_the_control_symbol_and_the_others_are_refused_meanwhile(
    made: Make, clock: HandClock
) -> None:
    vendor, pool = await broken(made, SPY)
    gate = Gate()
    vendor.answer = gate
    clock.advance(60)
    first = ask(pool)
    await gate.arrivals(1)
    for lane in LANES:
        with pytest.raises(ProviderPaused):
            await pool.history(MSFT, 0, 1, lane=lane)
    gate.open.set()
    await first
    assert vendor.asked == [(SPY,), (AAPL,)]
    assert pool.state == "ok"


async def test_without_a_control_symbol_the_call_itself_is_the_trial(made: Make, clock: HandClock) -> None:
    vendor, pool = await broken(made, None)
    vendor.answer = lambda _: None
    clock.advance(60)
    await pool.history(AAPL, 0, 1)
    assert (vendor.asked, pool.state) == ([(AAPL,)], "ok")


@pytest.mark.parametrize("error", [ProviderUnavailable(), SymbolNotFound(), ProviderAnswerBad()], ids=lambda e: e.code)
async def test_a_control_symbol_that_is_not_answered_for_doubles_the_pause(
    made: Make, clock: HandClock, error: ProviderError
) -> None:
    vendor, pool = await broken(made, SPY)
    vendor.answer = raising(error)
    clock.advance(60)
    with pytest.raises(ProviderPaused) as told:
        await pool.history(AAPL, 0, 1)
    assert (vendor.asked, told.value.retry_after) == ([(SPY,)], 120.0)


async def test_a_control_symbol_without_bars_is_no_sign_of_life(made: Make, clock: HandClock) -> None:
    vendor, pool = await broken(made, IBM)
    vendor.answer = lambda _: None
    clock.advance(60)
    with pytest.raises(ProviderPaused):
        await pool.history(AAPL, 0, 1)


async def test_a_trial_whose_caller_leaves_is_decided_all_the_same(made: Make, clock: HandClock) -> None:
    vendor, pool = await broken(made, SPY)
    gate = Gate()
    vendor.answer = gate
    clock.advance(60)
    first = ask(pool)
    await gate.arrivals(1)
    first.cancel()
    await settle()
    gate.open.set()
    await until_idle(pool)
    assert pool.state == "ok"


async def test_a_reset_lets_calls_in_at_once(made: Make) -> None:
    vendor, pool = await broken(made, SPY)
    vendor.answer = lambda _: None
    await pool.reset()
    await pool.history(AAPL, 0, 1)
    assert vendor.asked == [(AAPL,)]


# ---- whether it works


async def test_bars_of_the_last_hour_prove_that_a_provider_works_without_a_call(made: Make, clock: HandClock) -> None:
    vendor = Vendor()
    vendor.control = SPY
    pool = made(vendor)
    await pool.history(SPY, 0, 1)
    assert await pool.control_works()
    assert len(vendor.asked) == 1
    clock.advance(3601)
    assert all(await asyncio.gather(*(pool.control_works() for _ in range(5))))
    assert len(vendor.asked) == 2


async def test_a_control_symbol_that_fails_is_not_asked_for_at_every_question(made: Make, clock: HandClock) -> None:
    vendor = Vendor()
    vendor.control = SPY
    vendor.answer = raising(SymbolNotFound())
    pool = made(vendor)
    assert not any([await pool.control_works() for _ in range(5)])
    assert len(vendor.asked) == 1
    clock.advance(60)
    vendor.answer = lambda _: None
    assert await pool.control_works()


async def test_without_a_control_symbol_there_is_no_proof_but_bars(made: Make) -> None:
    vendor = Vendor()
    pool = made(vendor)
    assert not await pool.control_works()
    await pool.history(SPY, 0, 1)
    assert await pool.control_works()


async def test_what_is_on_this_machine_works_unless_it_failed(made: Make) -> None:
    vendor = Vendor(local=True)
    pool = made(vendor)
    assert await pool.control_works()
    vendor.answer = raising(ProviderUnavailable())
    with pytest.raises(ProviderUnavailable):
        await pool.history(AAPL, 0, 1)
    assert not await pool.control_works()
    vendor.answer = lambda _: None
    await pool.history(SPY, 0, 1)
    assert await pool.control_works()
    vendor.answer = raising(ProviderUnavailable())
    with pytest.raises(ProviderUnavailable):
        await pool.history(SPY, 0, 1)
    assert not await pool.control_works()


# ---- searches


async def test_searches_say_nothing_of_whether_prices_can_be_had(made: Make) -> None:
    vendor = Searchable()
    pool = made(vendor)
    vendor.found = raising(ProviderUnavailable())
    for _ in range(2 * FAILURES_TO_OPEN):
        with pytest.raises(ProviderUnavailable):
            await pool.search("x", 1)
    assert (pool.state, pool.account.failures) == ("ok", 0)
    assert pool.stats().errors_by_code_24h == {"provider_unavailable": 2 * FAILURES_TO_OPEN}
    vendor.answer = raising(ProviderUnavailable())
    vendor.found = lambda _: None
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(ProviderUnavailable):
            await pool.history(AAPL, 0, 1)
        if pool.state != "paused":
            await pool.search("x", 1)
    assert pool.state == "paused"


async def test_a_search_that_is_asked_for_fewer_calls_cools_the_provider_down(made: Make) -> None:
    vendor = Searchable()
    vendor.found = raising(RateLimited(retry_after=30))
    pool = made(vendor)
    with pytest.raises(RateLimited):
        await pool.search("x", 1)
    assert pool.state == "cooling_down"


async def test_searches_that_hang_leave_a_place_for_prices(made: Make) -> None:
    vendor, gate = Searchable(concurrency=3), Gate()
    vendor.found = gate
    pool = made(vendor)
    hanging = [asyncio.create_task(pool.search("x", 1)) for _ in range(2)]
    await gate.arrivals(2)
    with pytest.raises(ProviderUnavailable):
        await pool.search("x", 1)
    await pool.history(AAPL, 0, 1)
    gate.open.set()
    await asyncio.gather(*hanging)


async def test_a_provider_that_goes_on_asking_for_fewer_calls_is_told_of_once(made: Make, clock: HandClock) -> None:
    vendor = Vendor()
    vendor.answer = raising(RateLimited())
    pool = made(vendor)
    with capture_logs() as logs:
        for _ in range(4):
            with pytest.raises(RateLimited):
                await pool.history(AAPL, 0, 1)
            clock.advance(pool.cooling_down_for)
        vendor.answer = lambda _: None
        await pool.history(AAPL, 0, 1)
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "provider asked for fewer calls"),
        *[("debug", "provider asked for fewer calls")] * 3,
        ("info", "provider answers again"),
    ]
