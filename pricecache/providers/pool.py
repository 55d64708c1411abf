"""Calls a provider from the event loop: in threads of its own, let in by its account, its failures told apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import structlog

from pricecache.clock import Clock
from pricecache.core.asking import Capability, Found, Lane, Pace
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.instruments import Instrument
from pricecache.core.provider_accounts import Account, Admission, Change
from pricecache.errors import (
    PricecacheError,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import CountsRequests, History, Provider, Quotes
from pricecache.providers.keeper import Keeper, LocalKeeper
from pricecache.providers.line import Line

log = structlog.get_logger(__name__)

CONTROL_DAYS = 14
"""Days of the control symbol's history that are asked for: some of them were sessions."""
WORKS_SECONDS = 3600.0
"""How long an answer with bars proves that the provider works."""
BROKEN_SECONDS = 60.0
"""How long a control symbol that did not answer is not asked for again."""


State = Literal["ok", "failing", "cooling_down", "paused", "budget_spent"]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """How a provider does at one moment.

    `cooling_down_for`: seconds. `calls`, `errors`, `refused`: since the daemon started, of it alone; those of 24 hours
    are of all daemons. `running`, of which `overdue`, and `waiting`: calls. `remaining_today`: requests, None without a
    bound.
    """

    state: State
    cooling_down_for: float
    calls: int
    errors: int
    refused: int
    calls_24h: int
    errors_by_code_24h: Mapping[str, int]
    running: int
    overdue: int
    waiting: int
    remaining_today: int | None

    @property
    def errors_24h(self) -> int:
        return sum(self.errors_by_code_24h.values())

    @property
    def error_rate_24h(self) -> float | None:
        return self.errors_24h / self.calls_24h if self.calls_24h else None


@dataclass(slots=True, eq=False)
class _Call:
    """One call under way. `is_search`: it says nothing of whether prices can be had. `requests`: those its adapter
    counted, None before it ends and where none are counted. `late`: the failure it counts as since its time is up."""

    admission: Admission
    is_control: bool
    is_last: bool
    is_search: bool
    ended: asyncio.Future[None]
    requests: int | None = None
    late: ProviderUnavailable | None = None


Answer = TypeVar("Answer", History, Quotes, list[Found])


class ProviderPool:
    """One provider, as the event loop sees it. Loop-only.

    A call waits until a thread is free and its account lets it in, the most urgent lane first, and only then runs.
    `pace`: the provider's own unless another is given. `keeper`: of the account, which daemons may share; without one
    it is this daemon's own. Raises what the provider raises, and further

    - `ProviderUnavailable` when a call takes longer than `Pace.timeout` (of real time, not counting the wait for its
      turn). A thread cannot be stopped: it keeps its place until the vendor's call returns. When every place is kept
      so, further calls fail at once.
    - `RateLimited` at once, without a call, while the provider cools down: after each 429 for as long as it asked
      (15 minutes at most), else for 2 minutes, twice as long each time until a call succeeds.
    - `ProviderPaused` at once, without a call, while the breaker is open: after 5 failures of the provider in a row
      for a minute, twice as long each time (15 minutes at most) until a trial succeeds. The trial is a call for the
      control symbol, or without one the first call that comes.
    - `BudgetSpent` at once, without a call, when the day's requests are spent, or kept for more urgent lanes.
    - `ProviderAnswerBad` for an error the provider's adapter did not foresee; its traceback is logged.

    `observe` is told of every call when it ends: `answered`, `passed_on`, or the code of its failure. A call that is
    not the last, `is_last`, is one after which another provider is asked for what this one does not know: that is no
    failure then. What becomes of a search counts for the breaker neither way, except a 429.

    A call is charged what `Pace.costs` says; of a provider that counts its requests the account is put right when the
    call has ended.

    A cancelled caller takes no token and leaves no thread busy longer than the call it began.
    """

    def __init__(
        self,
        provider: Provider,
        clock: Clock,
        observe: Callable[[str], object] | None = None,
        *,
        pace: Pace | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.provider = provider
        self.pace = pace or provider.pace
        self.keeper: Keeper = keeper or LocalKeeper(self.pace, clock)
        self.calls = self.errors = self.refused = 0
        self._clock = clock
        self._observe = observe or (lambda outcome: None)
        self._line = Line(provider.name, self.pace.concurrency, self.keeper, clock)
        self._running: dict[asyncio.Future[Any], _Call] = {}
        self._closed = False
        self._worked_at = self._broke_at = float("-inf")
        self._control_turn = asyncio.Lock()
        self._executor = ThreadPoolExecutor(self.pace.concurrency, thread_name_prefix=f"pricecache-{provider.name}")

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def account(self) -> Account:
        return self.keeper.account

    @property
    def calls_24h(self) -> int:
        """Calls of the last 24 hours to the hour, those before a restart and of other daemons included."""
        return self.account.of_last_day(self._clock.time())[0]

    @property
    def errors_24h(self) -> int:
        """Those of them that failed: raised, or gave not one of the quotes asked for."""
        return sum(self.account.of_last_day(self._clock.time())[1].values())

    @property
    def cooling_down_for(self) -> float:
        """Seconds until the provider is called again after a 429; 0 when it is not cooling down."""
        return self.account.cooling_down_for(self._clock.time())

    @property
    def overdue(self) -> int:
        """Calls whose time was up and whose threads have not ended."""
        return sum(call.late is not None for call in self._running.values())

    def can(self, capability: Capability) -> bool:
        return capability in self.provider.capabilities

    async def history(
        self, instrument: Instrument, start: int, end: int, *, lane: Lane = "heal", is_last: bool = True
    ) -> History:
        """As `Provider.history`."""
        work = partial(self.provider.history, instrument, start, end)
        answer = await self._call("history", lane, work, is_last)
        if len(answer.bars):
            self._worked_at = self._clock.monotonic()
        return replace(answer, source=self.name)

    async def quotes(self, instruments: Sequence[Instrument], *, lane: Lane = "live", is_last: bool = True) -> Quotes:
        """As `Provider.quotes`, asked for in portions of `Pace.quotes_per_call`; raises only when all portions failed
        by the provider's fault."""
        size = self.pace.quotes_per_call or max(1, len(instruments))
        portions = [instruments[i : i + size] for i in range(0, len(instruments), size)]
        answers = await asyncio.gather(*(self._portion(portion, lane, is_last) for portion in portions))
        return Quotes(
            [quote for answer in answers for quote in answer.quotes],
            {instrument: error for answer in answers for instrument, error in answer.failures.items()},
        ).checked()

    async def search(self, text: str, limit: int, *, lane: Lane = "search") -> list[Found]:
        """As `Provider.search`. Searches leave one place for other calls, if there are several."""
        if sum(call.is_search for call in self._running.values()) >= max(1, self.pace.concurrency - 1):
            raise ProviderUnavailable("Enough searches are under way.")
        found = await self._call("search", lane, lambda: list(self.provider.search(text, limit)))
        return [replace(one, source=self.name) for one in found]

    async def control_works(self) -> bool:
        """Whether the provider is known to work: it answered with bars in the last hour, or does so now for its control
        symbol. Without such a symbol there is no proof, except that what is on this machine works unless its last word
        was a failure."""
        async with self._control_turn:  # those who ask together want one answer
            now = self._clock.monotonic()
            if self.provider.control is None and self.pace.local:
                return not self.account.failing
            if now - self._worked_at < WORKS_SECONDS:
                return True
            if self.provider.control is None:
                return False
            if now - self._broke_at < BROKEN_SECONDS:
                return False
            try:
                await self._ask_control(await self._enter("heal", self._control_cost))
            except ProviderError:
                self._broke_at = self._clock.monotonic()
                return False
            return True

    async def reset(self, *, budget: bool = False) -> None:
        """Close the breaker and end the cool-down, for all daemons; with `budget` count the day's requests anew."""
        await self.keeper.apply(lambda account: account.reset(budget=budget))

    async def close(self) -> None:
        """Refuse new calls, wait for those under way (as long as one may take), then close the provider. Once."""
        if self._closed:
            return
        self._closed = True
        self._line.refuse(self._refusal())
        await self._line.close()
        if self._running:
            await asyncio.wait(self._running, timeout=self.pace.timeout)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.provider.close()

    def stats(self) -> PoolStats:
        """How it does now."""
        account, now = self.account, self._clock.time()
        calls, errors = account.of_last_day(now)
        return PoolStats(
            state=self.state,
            cooling_down_for=self.cooling_down_for,
            calls=self.calls,
            errors=self.errors,
            refused=self.refused,
            calls_24h=calls,
            errors_by_code_24h=errors,
            running=len(self._running),
            overdue=self.overdue,
            waiting=len(self._line),
            remaining_today=account.remaining(self.pace, "live", now),
        )

    @property
    def state(self) -> State:
        """`paused`: the breaker is not closed."""
        now, account = self._clock.time(), self.account
        if account.breaker(now) != "closed":
            return "paused"
        if account.cooling_down_for(now):
            return "cooling_down"
        if account.remaining(self.pace, "live", now) == 0:
            return "budget_spent"
        return "failing" if account.failing else "ok"

    # ---- one call

    async def _portion(self, instruments: Sequence[Instrument], lane: Lane, is_last: bool) -> Quotes:
        try:
            return await self._call("live", lane, partial(self.provider.quotes, instruments), is_last)
        except ProviderError as exc:
            return Quotes([], dict.fromkeys(instruments, exc))

    async def _call(
        self, capability: Capability, lane: Lane, work: Callable[[], Answer], is_last: bool = True
    ) -> Answer:
        cost = self.pace.cost(capability)
        admission = await self._enter(lane, cost)
        while admission.trial and self.provider.control is not None:
            try:
                await self._ask_control(admission)
            except ProviderError as exc:
                raise self._known_refusal(lane, cost) or exc from exc
            admission = await self._enter(lane, cost)
        return await self._run(work, admission, is_last=is_last, is_search=capability == "search")

    async def _enter(self, lane: Lane, cost: int) -> Admission:
        try:
            self._refuse()
            if self._known_refusal(lane, cost) is not None:
                await self.keeper.freshen()  # another daemon may have good news
                if (refusal := self._known_refusal(lane, cost)) is not None:
                    raise refusal
            admission = await self._line.enter(lane, cost, self._control_cost or cost)
        except ProviderError:
            self.refused += 1
            raise
        return admission

    def _known_refusal(self, lane: Lane, cost: int) -> ProviderError | None:
        return self.account.refusal(self.pace, lane, cost, self._clock.time())

    def _refuse(self) -> None:
        """Raise when no call can be made at all."""
        if self._closed or self.overdue >= self.pace.concurrency:
            raise self._refusal()

    def _refusal(self) -> ProviderUnavailable:
        return ProviderUnavailable("The daemon is stopping." if self._closed else "Every call under way is overdue.")

    @property
    def _control_cost(self) -> int:
        if self.provider.control is None:
            return 0
        return self.pace.cost("history" if self.can("history") else "live")

    async def _ask_control(self, admission: Admission) -> None:
        """Raises `ProviderError` when there is no answer as there should be."""
        await self._run(self._control_work, admission, is_control=True)
        self._worked_at = self._clock.monotonic()

    def _control_work(self) -> Quotes:
        control = self.provider.control
        assert control is not None
        today = int(self._clock.time() // DAY_SECONDS)
        if not self.can("history"):
            answer = self.provider.quotes([control])
            found = bool(answer.quotes)
        else:
            found = bool(len(self.provider.history(control, today - CONTROL_DAYS, today - 1).bars))
        if not found:
            raise ProviderUnavailable(f"It has nothing of {control}, which it always has when it works.")
        return Quotes([])

    async def _run(
        self,
        work: Callable[[], Answer],
        admission: Admission,
        *,
        is_control: bool = False,
        is_last: bool = True,
        is_search: bool = False,
    ) -> Answer:
        loop = asyncio.get_running_loop()
        call = _Call(admission, is_control, is_last, is_search, loop.create_future())
        try:
            self._refuse()
            future = asyncio.wrap_future(self._executor.submit(self._work, work, call))
        except BaseException:
            self.keeper.give_back(admission)
            self._line.leave()
            raise
        self._running[future] = call
        # armed here and not by the caller, who may leave while the call hangs
        alarm = loop.call_later(self.pace.timeout, self._ring, call)
        future.add_done_callback(partial(self._end, call, alarm))
        await call.ended
        if call.late is not None:
            raise call.late
        error = future.exception()
        if error is not None and not isinstance(error, PricecacheError):
            raise _unforeseen(error) from error
        return future.result()

    def _work(self, work: Callable[[], Answer], call: _Call) -> Answer:
        """In a thread."""
        if not isinstance(self.provider, CountsRequests):
            return work()
        before = self.provider.requests_of_thread()
        try:
            return work()
        finally:
            call.requests = self.provider.requests_of_thread() - before

    def _ring(self, call: _Call) -> None:
        """Its time is up. It keeps its place."""
        call.late = ProviderUnavailable(f"No answer within {self.pace.timeout:g} seconds.")
        self._failed(call.late, call)
        if self.overdue >= self.pace.concurrency:
            self._line.refuse(self._refusal())
        _tell(call)

    def _end(self, call: _Call, alarm: asyncio.TimerHandle, future: asyncio.Future[Any]) -> None:
        # counted here and not by the caller, who may have left, and who would learn of a 429 only after the next one
        # in line has been let in
        alarm.cancel()
        del self._running[future]
        if not future.cancelled():
            self._settle(call)
            self._note(future, call)
        self._line.leave()
        _tell(call)

    def _settle(self, call: _Call) -> None:
        if call.requests not in (None, call.admission.cost):
            self.keeper.note(partial(Account.settled, pace=self.pace, admission=call.admission, requests=call.requests))

    def _note(self, future: asyncio.Future[Any], call: _Call) -> None:
        error = future.exception()
        if call.late is not None:
            return  # counted when its time was up
        if error is None:
            if (failure := _failure_in(future.result())) is None:
                self._answered(call)
            else:
                self._failed(failure, call)
        elif isinstance(error, ProviderError):
            self._failed(error, call)
        elif not isinstance(error, PricecacheError):
            log.error("provider adapter failed", provider=self.name, exc_info=error)
            self._failed(_unforeseen(error), call)

    def _answered(self, call: _Call) -> None:
        self._count("answered")
        if call.is_search:
            self.keeper.note(partial(Account.passed_on, now=self._clock.time(), trial=call.admission.trial))
            return
        before, after = self.keeper.note(partial(Account.answered, now=self._clock.time(), trial=call.admission.trial))
        if before.failing and not after.failing:
            log.info("provider answers again", provider=self.name)

    def _failed(self, error: ProviderError, call: _Call) -> None:
        now = self._clock.time()
        if isinstance(error, SymbolNotFound) and not call.is_last:
            self._count("passed_on")
            self.keeper.note(partial(Account.passed_on, now=now, trial=call.admission.trial))
            return
        self.errors += 1
        self._count(error.code)
        before, after = self.keeper.note(_change_of(error, call, now))
        if after.cool_until != before.cool_until:
            seconds = round(after.cool_until - now, 1)
            say = log.debug if before.failing else log.warning
            say("provider asked for fewer calls", provider=self.name, cool_down_seconds=seconds)
        if after.opened_at is not None and before.opened_at is None:
            log.warning("provider paused", provider=self.name, failures=after.failures, detail=error.detail)
        elif after.failing and not before.failing and isinstance(error, ProviderUnavailable):
            log.warning("provider unavailable", provider=self.name, detail=error.detail)

    def _count(self, outcome: str) -> None:
        self.calls += 1
        self._observe(outcome)


def _tell(call: _Call) -> None:
    if not call.ended.done():  # its caller has not left
        call.ended.set_result(None)


def _change_of(error: ProviderError, call: _Call, now: float) -> Change:
    if isinstance(error, RateLimited):
        return partial(
            Account.limited, now=now, code=error.code, retry_after=error.retry_after, trial=call.admission.trial
        )
    if call.is_control or (isinstance(error, ProviderUnavailable) and not call.is_search):
        return partial(Account.failed, now=now, code=error.code, detail=error.detail, trial=call.admission.trial)
    return partial(Account.refused, now=now, code=error.code, trial=call.admission.trial)


def _failure_in(answer: object) -> ProviderError | None:
    """What an answer that did not raise failed with: a 429 in any part of it, or else with all of its parts."""
    if not isinstance(answer, Quotes) or not answer.failures:
        return None
    failures = list(answer.failures.values())
    limited = next((failure for failure in failures if isinstance(failure, RateLimited)), None)
    return limited or (None if answer.quotes else failures[0])


def _unforeseen(error: BaseException) -> ProviderAnswerBad:
    return ProviderAnswerBad(f"The answer could not be read ({type(error).__name__}).")
