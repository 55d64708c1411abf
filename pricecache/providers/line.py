"""The line of calls that wait for a provider: the most urgent is let in first, with a place and its tokens at once."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from pricecache.clock import Clock
from pricecache.core.asking import LANES, Lane
from pricecache.core.provider_accounts import Admission
from pricecache.errors import ProviderError
from pricecache.providers.keeper import Keeper


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    lane: Lane
    cost: int
    trial_cost: int
    outcome: asyncio.Future[Admission]


class Line:
    """Lets calls in, by lane and within a lane in the order they came, `places` of them side by side. Loop-only.

    Who is next is decided when a place is free and the tokens are there, so that no call that can wait holds what a
    more urgent one needs.
    """

    def __init__(self, name: str, places: int, keeper: Keeper, clock: Clock) -> None:
        self._name = name
        self._free = places
        self._keeper = keeper
        self._clock = clock
        self._waiting: dict[Lane, deque[_Turn]] = {lane: deque() for lane in LANES}
        self._usher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def enter(self, lane: Lane, cost: int, trial_cost: int) -> Admission:
        """Wait to be let in; who was, calls `leave` when the call has ended. Raises what the account refuses with.

        Who is cancelled while waiting holds nothing.
        """
        turn = _Turn(lane, cost, trial_cost, asyncio.get_running_loop().create_future())
        self._waiting[lane].append(turn)
        self._call_usher()
        try:
            return await turn.outcome
        except asyncio.CancelledError:
            self._forget(turn)
            raise

    def leave(self) -> None:
        """A place is free again."""
        self._free += 1
        self._call_usher()

    def refuse(self, error: ProviderError) -> None:
        """Send everybody away who waits."""
        for turns in self._waiting.values():
            while turns:
                turn = turns.popleft()
                if not turn.outcome.done():
                    turn.outcome.set_exception(error)

    async def close(self) -> None:
        """Let nobody in any more."""
        if self._usher is not None:
            self._usher.cancel()
            await asyncio.wait([self._usher])

    def _call_usher(self) -> None:
        if self._free and len(self) and (self._usher is None or self._usher.done()):
            self._usher = asyncio.create_task(self._let_in(), name=f"{self._name}-line")

    async def _let_in(self) -> None:
        while self._free and (turn := self._next()) is not None:
            try:
                admission = await self._keeper.admit(turn.lane, turn.cost, turn.trial_cost)
            except Exception as exc:  # whatever it is, it is the caller's to know of, and the next one's turn
                self._drop(turn)
                if not turn.outcome.done():
                    turn.outcome.set_exception(exc)
                continue
            if admission.wait:
                await self._clock.sleep(admission.wait)
                continue
            self._drop(turn)
            if turn.outcome.done():  # left, or was sent away, while the account was asked
                self._keeper.give_back(admission)
            else:
                self._free -= 1
                turn.outcome.set_result(admission)

    def _next(self) -> _Turn | None:
        return next((turns[0] for turns in self._waiting.values() if turns), None)

    def _drop(self, turn: _Turn) -> None:
        if turn in self._waiting[turn.lane]:
            self._waiting[turn.lane].remove(turn)

    def _forget(self, turn: _Turn) -> None:
        self._drop(turn)
        outcome = turn.outcome
        if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
            self._keeper.give_back(outcome.result())  # let in and cancelled in one turn of the loop
            self.leave()
