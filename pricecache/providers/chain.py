"""Several providers as one source of prices: who is asked first, who next, and what their failures come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pricecache.core.actions import Action, split_factors
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import (
    PlanExcludes,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import Basis, Capability, Found, History, Lane, Quotes
from pricecache.providers.pool import ProviderPool

Spelling = Callable[[Instrument, str], Instrument]
"""What to ask a provider (by its name) for instead of an instrument."""


def as_it_is(instrument: Instrument, provider: str) -> Instrument:
    """The spelling of those who have none."""
    return instrument


class ProviderChain:
    """The providers in order, as a `PriceSource`. Loop-only.

    `pools`: in the order in which they are asked. `orders`: for a capability, the names of those asked for it instead,
    in their order. `spelling`: what each is asked for. Only those are asked that have the capability. A symbol that one
    does not know counts as failed only with the last of them.
    """

    def __init__(
        self,
        pools: Sequence[ProviderPool],
        *,
        spelling: Spelling = as_it_is,
        orders: Mapping[Capability, Sequence[str]] | None = None,
    ) -> None:
        self.pools = tuple(pools)
        self.spelling = spelling
        self._by_name = {pool.name: pool for pool in pools}
        self._orders = orders or {}
        for capability in ("history", "live"):
            for pool in self.able(capability)[:-1]:
                pool.passes_on = True
        self._ranks = {pool.name: rank for rank, pool in enumerate(self.able("history"))}

    @property
    def name(self) -> str:
        return ",".join(self._by_name)

    @property
    def final_lag(self) -> float:
        """Seconds after a close until every provider of history has the final bar."""
        return max((pool.provider.final_lag for pool in self.able("history")), default=0.0)

    @property
    def always_moving(self) -> bool:
        return any(pool.provider.always_moving for pool in self.able("live"))

    @property
    def concurrency(self) -> int:
        """How many histories are worth asking for side by side."""
        return max((pool.pace.concurrency for pool in self.able("history")), default=1)

    def able(self, capability: Capability) -> list[ProviderPool]:
        """Those that are asked for it, in order."""
        names = dict.fromkeys(self._orders.get(capability) or self._by_name)
        return [self._by_name[name] for name in names if self._by_name[name].can(capability)]

    def named(self, name: str) -> ProviderPool | None:
        return self._by_name.get(name)

    def rank(self, source: str) -> int:
        """The position of a provider in the order for history, from 0 on; -1 for a hand and for one unknown."""
        return self._ranks.get(source, -1)

    async def control_works(self, source: str) -> bool:
        """Whether that provider is known to work now; False for one unknown. As `ProviderPool.control_works`."""
        pool = self._by_name.get(source)
        return pool is not None and await pool.control_works()

    async def history(
        self, instrument: Instrument, start: int, end: int, *, lane: Lane = "heal", turn: int = 0
    ) -> History:
        """The first answer with bars; without any the first empty one.

        `turn`: who is asked first moves on by so many. Raises, when there is no answer that stands, a failure that
        speaks against a provider before one that speaks against the symbol: `SymbolNotFound` only when all of them
        were asked and none knows it.
        """
        able, empty, errors = self.able("history"), None, dict[str, ProviderError]()
        for pool in _rotated(able, turn):
            try:
                answer = await self._history_of(pool, instrument, start, end, lane)
            except ProviderError as exc:
                errors[pool.name] = exc
                continue
            if len(answer.bars):
                return answer
            empty = empty or answer
        if empty is not None and all(isinstance(error, SymbolNotFound | PlanExcludes) for error in errors.values()):
            return empty
        raise _combined(errors, "history")

    async def quotes(self, instruments: Sequence[Instrument], *, lane: Lane = "live") -> Quotes:
        """The quotes of the first that has them, instrument by instrument; the failures are those of the last asked.

        Raises only when nothing came and all of it failed by a provider's fault.
        """
        missing, quotes, failures = list(instruments), list[Quote](), dict[Instrument, ProviderError]()
        able = self.able("live")
        if not able:
            raise _combined({}, "live")
        for pool in able:
            answer = await self._quotes_of(pool, missing, lane)
            quotes += answer.quotes
            failures = dict(answer.failures)
            had = {quote.instrument for quote in answer.quotes}
            missing = [instrument for instrument in missing if instrument not in had]
            if not missing:
                break
        return Quotes(quotes, failures).checked()

    async def search(self, text: str, limit: int) -> tuple[list[Found], dict[str, ProviderError]]:
        """What `text` may mean, each instrument once, and why those that failed did. The next one is asked while there
        are fewer than `limit`."""
        found: dict[Instrument, Found] = {}
        errors: dict[str, ProviderError] = {}
        for pool in self.able("search"):
            try:
                for one in await pool.search(text, limit):
                    found.setdefault(one.instrument, one)
            except ProviderError as exc:
                errors[pool.name] = exc
            if len(found) >= limit:
                break
        return list(found.values())[:limit], errors

    async def close(self) -> None:
        """Close all pools; what fails for one keeps no other from being closed."""
        failures = []
        for pool in self.pools:
            try:
                await pool.close()
            except Exception as exc:  # raised again below
                failures.append(exc)
        if failures:
            raise failures[0]

    # ---- one provider

    async def _history_of(
        self, pool: ProviderPool, instrument: Instrument, start: int, end: int, lane: Lane
    ) -> History:
        answer = await pool.history(self.spelling(instrument, pool.name), start, end, lane=lane)
        if pool.can("actions") or not len(answer.bars):
            return answer
        actions = await self._actions(instrument, start, end, lane, answer.basis)
        return replace(answer, actions=actions)

    async def _actions(
        self, instrument: Instrument, start: int, end: int, lane: Lane, basis: Basis
    ) -> tuple[Action, ...]:
        """Of the first that knows actions, in the basis of the bars they are for. A failure is a provider's: bars
        without them are worth nothing, and say nothing against the symbol."""
        able = [pool for pool in self.able("actions") if pool.can("history")]
        if not able:
            return ()
        pool = able[0]
        try:
            answer = await pool.history(self.spelling(instrument, pool.name), start, end, lane=lane)
        except SymbolNotFound as exc:
            raise ProviderUnavailable(
                f"{pool.name}, which is asked for splits and dividends, does not know it."
            ) from exc
        return _in_basis(answer.actions, answer.basis, basis)

    async def _quotes_of(self, pool: ProviderPool, instruments: Sequence[Instrument], lane: Lane) -> Quotes:
        asked: dict[Instrument, list[Instrument]] = {}
        for instrument in instruments:
            asked.setdefault(self.spelling(instrument, pool.name), []).append(instrument)
        try:
            answer = await pool.quotes(list(asked), lane=lane)
        except ProviderError as exc:
            return Quotes([], dict.fromkeys(instruments, exc))
        return Quotes(
            [replace(quote, instrument=one) for quote in answer.quotes for one in asked.get(quote.instrument, ())],
            {one: error for spelled, error in answer.failures.items() for one in asked.get(spelled, ())},
        )


def _rotated(pools: Sequence[ProviderPool], turn: int) -> list[ProviderPool]:
    first = turn % len(pools) if pools else 0
    return [*pools[first:], *pools[:first]]


def _combined(errors: Mapping[str, ProviderError], what: str) -> ProviderError:
    """One failure for those of several providers, by name in the order they were asked."""
    if not errors:
        return ProviderUnavailable(f"There is no provider of {what}.")
    # who does not offer it has not been asked, as it were
    asked = {name: error for name, error in errors.items() if not isinstance(error, PlanExcludes)} or errors
    ordered = list(asked.values())
    if len(ordered) == 1:
        return ordered[0]
    of_provider = [error for error in ordered if isinstance(error, ProviderUnavailable)]
    limited = [error for error in ordered if isinstance(error, RateLimited)]
    if len(limited) == len(ordered):
        return min(limited, key=lambda error: error.retry_after or float("inf"))
    if of_provider:
        return of_provider[0]
    if limited:  # not as it is: who is told of a 429 stops asking, and the others may well answer for other symbols
        told = "; ".join(f"{name}: {error.detail}" for name, error in asked.items())
        return ProviderUnavailable(told)
    bad = [error for error in ordered if isinstance(error, ProviderAnswerBad)]
    return (bad or ordered)[0]


def _in_basis(actions: tuple[Action, ...], given: Basis, wanted: Basis) -> tuple[Action, ...]:
    """`actions` with dividends rescaled: split-adjusted they are divided by the splits after them."""
    if given == wanted or not actions:
        return actions
    splits = [action for action in actions if action.kind == "split"]
    factors = split_factors(np.array([action.ex_date for action in actions], np.int64), splits).tolist()
    power = 1.0 if wanted == "as_traded" else -1.0
    return tuple(
        replace(action, value=action.value * factor**power) if action.kind == "dividend" else action
        for action, factor in zip(actions, factors, strict=True)
    )
