"""Calls a provider from the event loop: in threads of its own, at the pace it allows, with one cool-down for all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import structlog

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.errors import PricecacheError, ProviderAnswerBad, ProviderError, ProviderUnavailable, RateLimited
from pricecache.providers.base import History, Provider, Quotes

log = structlog.get_logger(__name__)

FIRST_COOL_DOWN = 120.0
LONGEST_COOL_DOWN = 900.0

Answer = TypeVar("Answer", History, Quotes)


class ProviderPool:
    """One provider, as the event loop sees it. Loop-only.

    A call waits for a free thread, then for its turn in the token bucket (`Pace.per_second`, `Pace.burst`), and only
    then runs. Raises what the provider raises, and further

    - `ProviderUnavailable` when a call takes longer than `Pace.timeout` (of real time, not counting the wait for its
      turn). A thread cannot be stopped: it keeps its place until the vendor's call returns. When every place is kept
      so, further calls fail at once.
    - `RateLimited` at once, without a call, while the provider cools down: after each 429 for as long as it asked
      (15 minutes at most), else for 2 minutes, twice as long each time until a call succeeds.
    - `ProviderAnswerBad` for an error the provider's adapter did not foresee; its traceback is logged.

    `observe` is told of every call when it ends: `answered`, or the code of its failure.

    A cancelled caller takes no token and leaves no thread busy longer than the call it began.
    """

    def __init__(self, provider: Provider, clock: Clock, observe: Callable[[str], object] | None = None) -> None:
        self.provider = provider
        self._clock = clock
        self._slots = _Slots(provider.pace.concurrency)
        self._bucket = _TokenBucket(provider.pace.per_second, provider.pace.burst, clock)
        self._cool_down = _CoolDown(clock)
        self._tally = _Tally(clock, observe or (lambda outcome: None))
        self._running: set[asyncio.Future[Any]] = set()
        self._overdue: set[asyncio.Future[Any]] = set()
        self._closed = False
        self._executor = ThreadPoolExecutor(provider.pace.concurrency, thread_name_prefix=f"pricecache-{provider.name}")

    @property
    def calls(self) -> int:
        """Calls made since the start."""
        return self._tally.calls

    @property
    def errors(self) -> int:
        """Calls since the start that failed: raised, or gave not one of the quotes asked for."""
        return self._tally.errors

    @property
    def calls_24h(self) -> int:
        return self._tally.of_last_day()[0]

    @property
    def errors_24h(self) -> int:
        return sum(self._tally.of_last_day()[1].values())

    @property
    def cooling_down_for(self) -> float:
        """Seconds until the provider is called again after a 429; 0 when it is not cooling down."""
        return self._cool_down.remaining()

    async def history(self, instrument: Instrument, start: int, end: int) -> History:
        """As `Provider.history`."""
        return await self._call(partial(self.provider.history, instrument, start, end))

    async def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        """As `Provider.quotes`, asked for in portions of `Pace.quotes_per_call`; raises only when all portions failed
        by the provider's fault."""
        size = self.provider.pace.quotes_per_call or max(1, len(instruments))
        portions = [instruments[i : i + size] for i in range(0, len(instruments), size)]
        answers = await asyncio.gather(*(self._portion(portion) for portion in portions))
        return Quotes(
            [quote for answer in answers for quote in answer.quotes],
            {instrument: error for answer in answers for instrument, error in answer.failures.items()},
        ).checked()

    async def close(self) -> None:
        """Refuse new calls, wait for those under way (as long as one may take), then close the provider."""
        self._closed = True
        self._slots.refuse(self._refusal())
        if self._running:
            await asyncio.wait(self._running, timeout=self.provider.pace.timeout)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.provider.close()

    def stats(self) -> dict[str, Any]:
        """What `/cache/status` says of this provider; instants are seconds since 1970-01-01T00:00Z or None."""
        pace, tally = self.provider.pace, self._tally
        calls, errors = tally.of_last_day()
        failed = sum(errors.values())
        return {
            "name": self.provider.name,
            "state": "coolingDown" if self.cooling_down_for else "failing" if tally.failing else "ok",
            "coolDownSeconds": round(self.cooling_down_for, 1),
            "calls": tally.calls,
            "errors": tally.errors,
            "calls24h": calls,
            "errors24h": failed,
            "errorsByCode24h": errors,
            "errorRate24h": failed / calls if calls else None,
            "refused": tally.refused,
            "running": len(self._running),
            "overdue": len(self._overdue),
            "waiting": len(self._slots.waiting),
            "perSecond": pace.per_second,
            "burst": pace.burst,
            "concurrency": pace.concurrency,
            "lastSuccessAt": tally.last_success_at,
            "lastErrorAt": tally.last_error_at,
            "lastErrorCode": tally.last_error_code,
        }

    async def _portion(self, instruments: Sequence[Instrument]) -> Quotes:
        try:
            return await self._call(partial(self.provider.quotes, instruments))
        except ProviderError as exc:
            return Quotes([], dict.fromkeys(instruments, exc))

    async def _call(self, work: Callable[[], Answer]) -> Answer:
        self._refuse()
        await self._slots.take()
        try:
            self._refuse()
            await self._bucket.take()
            self._refuse()
            future = asyncio.wrap_future(self._executor.submit(work))
        except BaseException:
            self._slots.give()
            raise
        self._running.add(future)
        future.add_done_callback(self._ended)
        return await self._outcome(future)

    async def _outcome(self, future: asyncio.Future[Answer]) -> Answer:
        seconds = self.provider.pace.timeout
        # not wait_for: cancelling the future would free the place while its thread still runs
        done, _ = await asyncio.wait({future}, timeout=seconds)
        if not done:
            late = ProviderUnavailable(f"No answer within {seconds:g} seconds.")
            self._leave_behind(future)
            self._failed(late)
            raise late
        error = future.exception()
        if error is not None and not isinstance(error, PricecacheError):
            raise _unforeseen(error) from error
        return future.result()

    def _ended(self, future: asyncio.Future[Any]) -> None:
        # counted here and not by the caller, who may have left, and who would learn of a 429 only after the next one
        # in line has been let in
        self._running.discard(future)
        if not future.cancelled():
            self._note(future, late=future in self._overdue)
        self._overdue.discard(future)
        self._slots.give()

    def _note(self, future: asyncio.Future[Any], late: bool) -> None:
        error = future.exception()
        if late:
            return  # counted when its time was up
        if error is None:
            self._succeeded(future.result())
        elif isinstance(error, ProviderError):
            self._failed(error)
        elif not isinstance(error, PricecacheError):
            log.error("provider adapter failed", provider=self.provider.name, exc_info=error)
            self._failed(_unforeseen(error))

    def _leave_behind(self, future: asyncio.Future[Any]) -> None:
        self._overdue.add(future)
        if len(self._overdue) >= self.provider.pace.concurrency:
            self._slots.refuse(ProviderUnavailable("Every call under way is overdue."))

    def _refuse(self) -> None:
        """Raise when a call makes no sense now."""
        if self._closed or len(self._overdue) >= self.provider.pace.concurrency:
            self._tally.refused += 1
            raise self._refusal()
        if seconds := self._cool_down.remaining():
            self._tally.refused += 1
            raise RateLimited(f"{self.provider.name} asked for fewer calls; waiting.", retry_after=seconds)

    def _refusal(self) -> ProviderUnavailable:
        return ProviderUnavailable("The daemon is stopping." if self._closed else "Every call under way is overdue.")

    def _succeeded(self, answer: History | Quotes) -> None:
        failures = list(answer.failures.values()) if isinstance(answer, Quotes) else []
        limited = next((failure for failure in failures if isinstance(failure, RateLimited)), None)
        if limited is not None or (failures and not getattr(answer, "quotes", ())):
            self._failed(limited or failures[0])
            return
        self._cool_down.reset()
        if self._tally.success():
            log.info("provider answers again", provider=self.provider.name)

    def _failed(self, error: ProviderError) -> None:
        if isinstance(error, RateLimited) and (seconds := self._cool_down.begin(error.retry_after)):
            log.warning("provider asked for fewer calls", provider=self.provider.name, cool_down_seconds=seconds)
        of_provider = isinstance(error, RateLimited | ProviderUnavailable)
        if self._tally.failure(error.code, of_provider) and isinstance(error, ProviderUnavailable):
            log.warning("provider unavailable", provider=self.provider.name, detail=error.detail)


def _unforeseen(error: BaseException) -> ProviderAnswerBad:
    return ProviderAnswerBad(f"The answer could not be read ({type(error).__name__}).")


class _Slots:
    def __init__(self, count: int) -> None:
        self._free = count
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self.waiting:
                self.waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                self.give()  # handed over in the same turn of the loop as the cancellation
            raise

    def give(self) -> None:
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def refuse(self, error: ProviderError) -> None:
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_exception(error)


class _TokenBucket:
    def __init__(self, per_second: float, burst: int, clock: Clock) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._tokens, self._filled_at = float(burst), clock.monotonic()
        self._turn = asyncio.Lock()  # first come, first served; whoever is cancelled while waiting takes nothing

    async def take(self) -> None:
        async with self._turn:
            # a hair less than one will do: what a clock adds up never comes out even
            while (missing := 1.0 - self._fill()) > 1e-6:
                await self._clock.sleep(missing / self._per_second)
            self._tokens -= 1.0

    def _fill(self) -> float:
        now = self._clock.monotonic()
        gained = (now - self._filled_at) * self._per_second
        self._tokens, self._filled_at = min(float(self._burst), self._tokens + gained), now
        return self._tokens


class _CoolDown:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._next = FIRST_COOL_DOWN

    def remaining(self) -> float:
        return max(0.0, self._until - self._clock.monotonic())

    def begin(self, retry_after: float | None) -> float:
        """How long it now lasts; 0 when it had begun already: several calls under way often fail together."""
        if self.remaining():
            return 0.0
        seconds = self._next if retry_after is None else min(LONGEST_COOL_DOWN, max(1.0, retry_after))
        if retry_after is None:
            self._next = min(LONGEST_COOL_DOWN, 2 * self._next)
        self._until = self._clock.monotonic() + seconds
        return seconds

    def reset(self) -> None:
        if not self.remaining():
            self._next = FIRST_COOL_DOWN


class _Tally:
    """Calls and failures: since the start, and by the hour for a day."""

    def __init__(self, clock: Clock, observe: Callable[[str], object]) -> None:
        self._clock = clock
        self._observe = observe
        self._hours: deque[tuple[int, int, dict[str, int]]] = deque(maxlen=24)
        self.calls = self.errors = self.refused = 0
        self.failing = False
        self.last_success_at: float | None = None
        self.last_error_at: float | None = None
        self.last_error_code: str | None = None

    def success(self) -> bool:
        """Count it; whether it is the first after a failure of the provider."""
        self._count(None)
        self.last_success_at = self._clock.time()
        was, self.failing = self.failing, False
        return was

    def failure(self, code: str, of_provider: bool) -> bool:
        """Count it; whether the provider has begun to fail with it. A symbol it does not know is not its failure."""
        self._count(code)
        self.last_error_at, self.last_error_code = self._clock.time(), code
        began = of_provider and not self.failing
        self.failing = self.failing or of_provider
        return began

    def of_last_day(self) -> tuple[int, dict[str, int]]:
        """Calls, and failures by code, of the last 24 hours to the hour."""
        oldest = int(self._clock.time() // 3600) - 23
        calls, errors = 0, dict[str, int]()
        for hour, made, failed in self._hours:
            if hour >= oldest:
                calls += made
                for code, count in failed.items():
                    errors[code] = errors.get(code, 0) + count
        return calls, errors

    def _count(self, code: str | None) -> None:
        hour = int(self._clock.time() // 3600)
        if not self._hours or self._hours[-1][0] != hour:
            self._hours.append((hour, 0, {}))
        _, made, failed = self._hours[-1]
        self.calls += 1
        if code is not None:
            self.errors += 1
            failed[code] = failed.get(code, 0) + 1
        self._hours[-1] = (hour, made + 1, failed)
        self._observe(code or "answered")
