"""Calls a provider from the event loop: in threads of its own, let in by its account, its failures told apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.errors import (
    PricecacheError,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.account import DAY, Account, Admission
from pricecache.providers.base import Capability, Found, History, Lane, Pace, Provider, Quotes
from pricecache.providers.keeper import Change, Keeper, LocalKeeper
from pricecache.providers.line import Line

log = structlog.get_logger(__name__)

CONTROL_DAYS = 14
"""Days of the control symbol's history that are asked for: some of them were sessions."""
WORKS_SECONDS = 3600.0
"""How long an answer with bars proves that the provider works."""
BROKEN_SECONDS = 60.0
"""How long a control symbol that did not answer is not asked for again."""


@dataclass(frozen=True, slots=True)
class _Call:
    trial: bool
    is_control: bool


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

    `observe` is told of every call when it ends: `answered`, `passed_on`, or the code of its failure. `passes_on`:
    another provider is asked for what this one does not know, which then is no failure.

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
        self.passes_on = False
        self._clock = clock
        self._observe = observe or (lambda outcome: None)
        self._line = Line(provider.name, self.pace.concurrency, self.keeper, clock)
        self._running: set[asyncio.Future[Any]] = set()
        self._overdue: set[asyncio.Future[Any]] = set()
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

    def can(self, capability: Capability) -> bool:
        return capability in self.provider.capabilities

    async def history(
        self, instrument: Instrument, start: int, end: int, *, lane: Lane = "heal", turn: int = 0
    ) -> History:
        """As `Provider.history`."""
        answer = await self._call("history", lane, partial(self.provider.history, instrument, start, end))
        if len(answer.bars):
            self._worked_at = self._clock.monotonic()
        return replace(answer, source=self.name)

    async def quotes(self, instruments: Sequence[Instrument], *, lane: Lane = "live") -> Quotes:
        """As `Provider.quotes`, asked for in portions of `Pace.quotes_per_call`; raises only when all portions failed
        by the provider's fault."""
        size = self.pace.quotes_per_call or max(1, len(instruments))
        portions = [instruments[i : i + size] for i in range(0, len(instruments), size)]
        answers = await asyncio.gather(*(self._portion(portion, lane) for portion in portions))
        return Quotes(
            [quote for answer in answers for quote in answer.quotes],
            {instrument: error for answer in answers for instrument, error in answer.failures.items()},
        ).checked()

    async def search(self, text: str, limit: int, *, lane: Lane = "user") -> list[Found]:
        """As `Provider.search`."""
        found = await self._call("search", lane, lambda: list(self.provider.search(text, limit)))
        return [replace(one, source=self.name) for one in found]

    async def control_works(self) -> bool:
        """Whether the provider is known to work: it answered with bars in the last hour, or does so now for its control
        symbol. Without such a symbol there is no proof, except that what is on this machine is there."""
        async with self._control_turn:  # those who ask together want one answer
            now = self._clock.monotonic()
            if now - self._worked_at < WORKS_SECONDS:
                return True
            if self.provider.control is None:
                return self.pace.local and not self.account.failing
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

    def stats(self) -> dict[str, Any]:
        """What `/cache/status` says of this provider; instants are seconds since 1970-01-01T00:00Z or None."""
        pace, account = self.pace, self.account
        calls, errors = account.of_last_day(self._clock.time())
        failed = sum(errors.values())
        return {
            "name": self.name,
            "state": self.state,
            "coolDownSeconds": round(self.cooling_down_for, 1),
            "calls": self.calls,
            "errors": self.errors,
            "calls24h": calls,
            "errors24h": failed,
            "errorsByCode24h": errors,
            "errorRate24h": failed / calls if calls else None,
            "refused": self.refused,
            "running": len(self._running),
            "overdue": len(self._overdue),
            "waiting": len(self._line),
            "perSecond": pace.per_second,
            "burst": pace.burst,
            "concurrency": pace.concurrency,
            "perDay": pace.per_day,
            "remainingToday": account.remaining(pace, "live", self._clock.time()),
            "spentDollars": account.dollars,
            "lastSuccessAt": account.last_success_at,
            "lastErrorAt": account.last_error_at,
            "lastErrorCode": account.last_error_code,
        }

    @property
    def state(self) -> str:
        """`ok`, `failing`, `coolingDown`, `paused` (the breaker is not closed), or `budgetSpent`."""
        now, account = self._clock.time(), self.account
        if account.breaker(now) != "closed":
            return "paused"
        if account.cooling_down_for(now):
            return "coolingDown"
        if account.remaining(self.pace, "live", now) == 0:
            return "budgetSpent"
        return "failing" if account.failing else "ok"

    # ---- one call

    async def _portion(self, instruments: Sequence[Instrument], lane: Lane) -> Quotes:
        try:
            return await self._call("live", lane, partial(self.provider.quotes, instruments))
        except ProviderError as exc:
            return Quotes([], dict.fromkeys(instruments, exc))

    async def _call(self, capability: Capability, lane: Lane, work: Callable[[], Answer]) -> Answer:
        cost = self.pace.cost(capability)
        admission = await self._enter(lane, cost)
        while admission.trial and self.provider.control is not None:
            try:
                await self._ask_control(admission)
            except ProviderError as exc:
                raise self._known_refusal(lane, cost) or exc from exc
            admission = await self._enter(lane, cost)
        return await self._run(work, admission)

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
        if self._closed or len(self._overdue) >= self.pace.concurrency:
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
        today = int(self._clock.time() // DAY)
        if not self.can("history"):
            answer = self.provider.quotes([control])
            found = bool(answer.quotes)
        else:
            found = bool(len(self.provider.history(control, today - CONTROL_DAYS, today - 1).bars))
        if not found:
            raise ProviderUnavailable(f"It has nothing of {control}, which it always has when it works.")
        return Quotes([])

    async def _run(self, work: Callable[[], Answer], admission: Admission, *, is_control: bool = False) -> Answer:
        try:
            self._refuse()
            future = asyncio.wrap_future(self._executor.submit(work))
        except BaseException:
            self.keeper.give_back(admission)
            self._line.leave()
            raise
        call = _Call(admission.trial, is_control)
        self._running.add(future)
        future.add_done_callback(partial(self._ended, call))
        return await self._outcome(future, call)

    async def _outcome(self, future: asyncio.Future[Answer], call: _Call) -> Answer:
        seconds = self.pace.timeout
        # not wait_for: cancelling the future would free the place while its thread still runs
        done, _ = await asyncio.wait({future}, timeout=seconds)
        if not done:
            late = ProviderUnavailable(f"No answer within {seconds:g} seconds.")
            self._leave_behind(future)
            self._failed(late, call)
            raise late
        error = future.exception()
        if error is not None and not isinstance(error, PricecacheError):
            raise _unforeseen(error) from error
        return future.result()

    def _ended(self, call: _Call, future: asyncio.Future[Any]) -> None:
        # counted here and not by the caller, who may have left, and who would learn of a 429 only after the next one
        # in line has been let in
        self._running.discard(future)
        if not future.cancelled() and future not in self._overdue:  # late ones were counted when their time was up
            self._note(future, call)
        self._overdue.discard(future)
        self._line.leave()

    def _note(self, future: asyncio.Future[Any], call: _Call) -> None:
        error = future.exception()
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

    def _leave_behind(self, future: asyncio.Future[Any]) -> None:
        self._overdue.add(future)
        if len(self._overdue) >= self.pace.concurrency:
            self._line.refuse(ProviderUnavailable("Every call under way is overdue."))

    def _answered(self, call: _Call) -> None:
        self._count("answered")
        before, after = self.keeper.note(partial(Account.answered, now=self._clock.time(), trial=call.trial))
        if before.failing and not after.failing:
            log.info("provider answers again", provider=self.name)

    def _failed(self, error: ProviderError, call: _Call) -> None:
        now = self._clock.time()
        if self.passes_on and isinstance(error, SymbolNotFound) and not call.is_control:
            self._count("passed_on")
            self.keeper.note(partial(Account.passed_on, now=now, trial=call.trial))
            return
        self.errors += 1
        self._count(error.code)
        before, after = self.keeper.note(_change_of(error, call, now))
        if after.cool_until != before.cool_until:
            seconds = round(after.cool_until - now, 1)
            log.warning("provider asked for fewer calls", provider=self.name, cool_down_seconds=seconds)
        if after.opened_at is not None and before.opened_at is None:
            log.warning("provider paused", provider=self.name, failures=after.failures, detail=error.detail)
        elif after.failing and not before.failing and isinstance(error, ProviderUnavailable):
            log.warning("provider unavailable", provider=self.name, detail=error.detail)

    def _count(self, outcome: str) -> None:
        self.calls += 1
        self._observe(outcome)


def _change_of(error: ProviderError, call: _Call, now: float) -> Change:
    if isinstance(error, RateLimited):
        return partial(Account.limited, now=now, code=error.code, retry_after=error.retry_after, trial=call.trial)
    if call.is_control or isinstance(error, ProviderUnavailable):
        return partial(Account.failed, now=now, code=error.code, trial=call.trial)
    return partial(Account.refused, now=now, code=error.code, trial=call.trial)


def _failure_in(answer: object) -> ProviderError | None:
    """What an answer that did not raise failed with: a 429 in any part of it, or else with all of its parts."""
    if not isinstance(answer, Quotes) or not answer.failures:
        return None
    failures = list(answer.failures.values())
    limited = next((failure for failure in failures if isinstance(failure, RateLimited)), None)
    return limited or (None if answer.quotes else failures[0])


def _unforeseen(error: BaseException) -> ProviderAnswerBad:
    return ProviderAnswerBad(f"The answer could not be read ({type(error).__name__}).")
