"""Does the reconstructions that are asked for: a few users at a time, again where it failed, on whichever daemon."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pymongo
import structlog
from pymongo.errors import PyMongoError

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.core.walk.footing import WalkFooting
from pricecache.errors import PricecacheError, ProviderError, Unavailable
from pricecache.stores.ledger import Companion
from pricecache.stores.reconstruction_days import ReconstructionDays
from pricecache.stores.reconstructions import (
    Claim,
    ClaimLost,
    Failure,
    Progress,
    ReconstructionRecord,
    ReconstructionStore,
)

log = structlog.get_logger(__name__)

_USERS_OWN = frozenset({"portfolio_gone", "unknown_connection", "own_row_conflicts"})
"""What users did themselves: no failure of a reconstruction, and nothing for an operator to look at."""
MOST_ATTEMPTS = 10
"""With the pauses between them some four hours."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
JITTER = 0.2
POLL_SECONDS = 5.0
"""How soon it is seen what was asked for on other daemons, and the database that answers again."""
BEAT_SECONDS, TELL_SECONDS = 5.0, 1.0
REAP_SECONDS = 20.0
_LAST_WORD_SECONDS = 3.0
_OUR_FAULT = "Our fault: the log has it."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one: `result` as it is kept, JSON values by snake_case name; `findings`: all of them; `counts`: for
    the metrics; `walked`: what of the market it was made by, None where that does not matter."""

    result: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    walked: WalkFooting | None = None


class Attempt:
    """What whoever does one has of it. Loop-only."""

    def __init__(
        self, claim: Claim, store: ReconstructionStore, told: Callable[[ReconstructionRecord], object]
    ) -> None:
        self.claim = claim
        self.portfolio = claim.record.portfolio
        self.progress = claim.record.progress
        self.securities: Mapping[str, int] = {}
        self._store = store
        self._told = told

    def tell(self, progress: Progress) -> None:
        """How far it has come. Kept at most once a second, and told to those who listen at once."""
        if progress != self.progress:
            self.progress = progress
            self._told(replace(self.claim.record, progress=progress, portfolio=self.portfolio))

    def found_prices(self, needed: int, cached: int) -> None:
        """So many distinct securities need prices of a provider, and so many of them were here. Counted once for each
        request, as the first attempt found it that came so far: a later one finds what that has fetched."""
        if not self.claim.record.is_counted:
            self.securities = {"securities_needed": needed, "securities_cached": cached}

    async def go_into(self, portfolio: str) -> None:
        """Its rows go into this portfolio: whoever listens to that hears of it from now on. Raises `ClaimLost`."""
        if portfolio != self.portfolio:
            await self._store.go_into(self.claim, portfolio)
            self.portfolio = portfolio

    @property
    def holding(self) -> Companion:
        """Written with a change of a ledger, which is not made once this attempt is no longer the one that counts."""
        return self._store.holding(self.claim)

    async def require(self) -> None:
        """Raises `ClaimLost` when it is not."""
        await self._store.beat(self.claim)


Work = Callable[[Attempt], Awaitable[Outcome]]


class ReconstructionQueue:
    """Loop-only. `concurrency`: users at once, on all daemons together that share the database.

    What is asked for is durable when `request` returns, and is done by whoever comes to it first. `on_progress` is
    given each state of those done here, `on_done` the last one of each that was done.
    """

    def __init__(
        self,
        store: ReconstructionStore,
        days: ReconstructionDays,
        work: Work,
        clock: Clock,
        owner: str,
        randomness: random.Random,
        *,
        concurrency: int = 2,
    ) -> None:
        self.store = store
        self.days = days
        self._work = work
        self._clock = clock
        self._owner = owner
        self._random = randomness
        self._wakers = [asyncio.Event() for _ in range(concurrency)]
        self._attempts: dict[int, tuple[str, asyncio.Task[None]]] = {}  # by slot
        self._claiming: set[int] = set()
        self._claimed_all = asyncio.Event()
        self._is_stopping = False
        self._failing: dict[str, str] = {}  # code told last, by connection
        self._is_away = False
        self.pending = 0
        self.retried = 0
        self.failed = 0
        self.done = 0
        self.on_progress: Callable[[ReconstructionRecord], object] = lambda record: None
        self.on_done: Callable[[ReconstructionRecord], object] = lambda record: None

    @property
    def running(self) -> int:
        """Those that are being done here."""
        return len(self._attempts)

    def is_doing(self, connection: str) -> bool:
        return any(one == connection for one, _ in self._attempts.values())

    async def request(
        self,
        connection: str,
        user: str,
        portfolio: str | None,
        by: str,
        *,
        digest: str | None = None,
        force: bool = False,
    ) -> ReconstructionRecord:
        """Ask for one, or join what was asked for already, as `ReconstructionStore.request` says."""
        record = await self.store.request(
            connection, user, portfolio, by, self._clock.time(), digest=digest, force=force
        )
        self._tell(record)
        self.wake()
        return record

    def wake(self) -> None:
        """Look at once what is due."""
        for waker in self._wakers:
            waker.set()

    async def run(self) -> None:
        """Do what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_reaping(), name="reconstructions-left")
            for slot in range(len(self._wakers)):
                group.create_task(self._keep_working(slot), name=f"reconstructions-{slot}")

    async def stop(self) -> None:
        """Begin nothing more, and hand back what was begun: another daemon, or the next start, goes on. Idempotent."""
        self._is_stopping = True
        with suppress(TimeoutError):  # else what is being claimed comes back to the worker, and goes back from there
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                while self._claiming:
                    self._claimed_all.clear()
                    await self._claimed_all.wait()
        await cancelled([task for _, task in self._attempts.values()])

    async def _keep_reaping(self) -> None:
        while True:
            with suppress(PyMongoError):  # told by the workers
                if await self.store.reap(self._owner, self._clock.time(), MOST_ATTEMPTS):
                    self.wake()
                self.pending = await self.store.pending()
            await self._clock.sleep(REAP_SECONDS)

    async def _keep_working(self, slot: int) -> None:
        waker = self._wakers[slot]
        while True:
            waker.clear()
            try:
                claim = await self._claim(slot)
                pause = POLL_SECONDS if claim is not None else await self._pause()
            except PyMongoError as exc:
                self._tell_away(exc)
                claim, pause = None, POLL_SECONDS
            else:
                self._is_away = False
            if claim is None:
                await self._idle(waker, pause)
                continue
            task = asyncio.create_task(self._do(claim), name=f"reconstruction {claim.connection}")
            self._attempts[slot] = claim.connection, task
            try:
                await asyncio.wait([task])
            finally:  # else somebody ends this worker
                await cancelled([task])
                del self._attempts[slot]
            self.wake()

    async def _claim(self, slot: int) -> Claim | None:
        """None, too, when this queue is stopped before it has it."""
        if self._is_stopping:
            return None
        self._claiming.add(slot)
        try:
            claim = await self.store.claim(slot, self._owner, self._clock.time())
            if claim is not None and self._is_stopping:
                await self._hand_back(claim)
                return None
            return claim
        finally:
            self._claiming.discard(slot)
            self._claimed_all.set()

    async def _pause(self) -> float:
        due = await self.store.next_due()
        return POLL_SECONDS if due is None else min(POLL_SECONDS, max(0.0, due - self._clock.time()))

    async def _idle(self, waker: asyncio.Event, seconds: float) -> None:
        ways = [
            asyncio.create_task(self._clock.sleep(seconds), name="pause"),
            asyncio.create_task(waker.wait(), name="woken"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled(ways)

    # one of them

    async def _do(self, claim: Claim) -> None:
        attempt = Attempt(claim, self.store, self._tell)
        self._tell(claim.record)
        working = asyncio.create_task(self._worked(attempt), name=f"attempt {claim.connection}")
        beating = asyncio.create_task(self._keep_beating(attempt), name=f"beats {claim.connection}")
        try:
            await asyncio.wait([working, beating], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await self._settle(attempt, working)
            else:
                await self._left(attempt, working, beating)
        except asyncio.CancelledError:
            await cancelled([working])
            await self._hand_back(claim)
            raise
        finally:
            await cancelled([working, beating])
            for task in working, beating:
                if not task.cancelled():
                    task.exception()  # told above, or it comes too late to matter

    async def _worked(self, attempt: Attempt) -> Outcome:
        return await self._work(attempt)

    async def _keep_beating(self, attempt: Attempt) -> None:
        said, told_at = attempt.claim.record.progress, self._clock.monotonic()
        while True:
            await self._clock.sleep(TELL_SECONDS)
            now = self._clock.monotonic()
            if attempt.progress is said and now - told_at < BEAT_SECONDS:
                continue
            try:
                await self.store.beat(attempt.claim, attempt.progress)
                said, told_at = attempt.progress, now
            except ClaimLost:
                return
            except PyMongoError:  # until it has been silent for long
                continue

    async def _left(self, attempt: Attempt, working: asyncio.Task[Outcome], beating: asyncio.Task[None]) -> None:
        await cancelled([working])
        try:
            beating.result()
        except Exception as exc:  # a fault of ours: it is made again, and in the end given up, like any that has one
            await self._failed(attempt, exc)
        else:
            _tell_lost(attempt.claim)

    async def _settle(self, attempt: Attempt, working: asyncio.Task[Outcome]) -> None:
        claim = attempt.claim
        try:
            outcome = working.result()
            now = self._clock.time()
            record = await self.store.finish(claim, outcome.result, outcome.findings, now, outcome.walked)
        except ClaimLost:
            _tell_lost(claim)
        except Exception as exc:  # one user's fault is not the next one's
            await self._failed(attempt, exc)
        else:
            if self._failing.pop(claim.connection, None) is not None:
                log.info("a reconstruction works again", connection=claim.connection)
            self.done += 1
            self.on_done(record)
            self._tell(record)
            await self._count(done=1, seconds=record.seconds, **outcome.counts, **attempt.securities)

    async def _failed(self, attempt: Attempt, exc: Exception) -> None:
        claim = attempt.claim
        now, attempts = self._clock.time(), claim.record.attempts
        failure, passes = _failure_of(exc, now)
        self._tell_failure(claim, failure, exc)
        retries = passes and attempts < MOST_ATTEMPTS
        try:
            at = now + self._backoff(attempts) if retries else None
            record = await self.store.fail(claim, failure, at, is_counted=bool(attempt.securities))
        except ClaimLost:
            _tell_lost(claim)
        except PyMongoError as away:  # it stays claimed, nobody speaks of it, and it is taken again
            self._tell_away(away)
        else:
            self._tell(record)
            if failure.code in _USERS_OWN:
                return
            self.failed += not retries
            self.retried += retries
            await self._count(**{"retried" if retries else "failed": 1}, **attempt.securities)

    async def _count(self, **counts: Any) -> None:
        with suppress(PyMongoError):  # what was done is done, though it does not count
            await self.days.count(self._clock.time(), **counts)

    def _backoff(self, attempts: int) -> float:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempts - 1))
        return pause * self._random.uniform(1 - JITTER, 1 + JITTER)

    async def _hand_back(self, claim: Claim) -> None:
        with suppress(PyMongoError), pymongo.timeout(_LAST_WORD_SECONDS):
            await self.store.hand_back(claim, self._clock.time())

    def _tell(self, record: ReconstructionRecord) -> None:
        try:
            self.on_progress(record)
        except Exception:  # what is done is done, whatever becomes of those who hear of it
            log.exception("a listener to reconstructions failed", connection=record.connection)

    def _tell_failure(self, claim: Claim, failure: Failure, exc: Exception) -> None:
        tell = log.debug if self._failing.get(claim.connection) == failure.code else log.warning
        fault = None if isinstance(exc, PricecacheError | PyMongoError | TimeoutError) else exc
        tell("a reconstruction failed", connection=claim.connection, code=failure.code, detail=failure.detail,
             attempts=claim.record.attempts, exc_info=fault)  # fmt: skip
        self._failing[claim.connection] = failure.code

    def _tell_away(self, exc: PyMongoError) -> None:
        tell = log.debug if self._is_away else log.warning
        tell("reconstructions wait for the database", error=f"{type(exc).__name__}: {exc}"[:300])
        self._is_away = True


def _tell_lost(claim: Claim) -> None:
    log.debug("a reconstruction is another's by now, or no longer wanted", connection=claim.connection)


def _failure_of(exc: Exception, now: float) -> tuple[Failure, bool]:
    """Why it failed, and whether to try again may help."""
    if isinstance(exc, PricecacheError):
        return Failure(exc.code, exc.detail[:500], now), isinstance(exc, Unavailable | ProviderError)
    if isinstance(exc, PyMongoError):
        return Failure("database_unavailable", "The database does not answer.", now), True
    if isinstance(exc, TimeoutError):
        return Failure("deadline_exceeded", "It took too long.", now), True
    return Failure("internal_error", _OUR_FAULT, now), True
