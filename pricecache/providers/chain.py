"""Several providers as one source of prices: who is asked first, who next, and what their failures come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pricecache.core.actions import Action, split_factors
from pricecache.core.asking import Capability, Found, Lane
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import (
    NotAsked,
    PlanExcludes,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import Basis, History, Quotes
from pricecache.providers.pool import ProviderPool

Spelling = Callable[[Instrument, str], Instrument]
"""What to ask a provider (by its name) for instead of an instrument."""


def as_it_is(instrument: Instrument, provider: str) -> Instrument:
    """The spelling of those who have none."""
    return instrument


class ProviderChain:
    """The providers in order, as a `PriceSource`. Loop-only.

    `pools`: in the order in which they are asked. `usual`: the names of those asked where no order is set, all of them
    if not given. `orders`: for a capability, the names of those asked for it instead, in their order; an order for
    actions holds for those histories too that have actions of their own. `spelling`: what each is asked for. Only those
    are asked that have the capability. A symbol that one does not know counts as failed only with the last of them.
    """

    def __init__(
        self,
        pools: Sequence[ProviderPool],
        *,
        spelling: Spelling = as_it_is,
        orders: Mapping[Capability, Sequence[str]] | None = None,
        usual: Sequence[str] = (),
    ) -> None:
        self.pools = tuple(pools)
        self._spelling = spelling
        self._by_name = {pool.name: pool for pool in pools}
        self._orders = orders or {}
        self._usual = usual or tuple(self._by_name)
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
        names = dict.fromkeys(self._orders.get(capability) or self._usual)
        return [self._by_name[name] for name in names if self._by_name[name].can(capability)]

    def named(self, name: str) -> ProviderPool | None:
        return self._by_name.get(name)

    def rank(self, source: str) -> int:
        """The position of a provider in the order for history, from 0 on; -1 for a hand and for one unknown."""
        return self._ranks.get(source, -1)

    def spell(self, spelling: Spelling) -> None:
        """Ask each provider for what `spelling` says from now on."""
        self._spelling = spelling

    async def controls_work(self) -> bool:
        """Whether all providers of history that can prove it work now, and one at least can: those that have a control
        symbol, and those on this machine. As `ProviderPool.control_works`."""
        able = [pool for pool in self.able("history") if pool.provider.control is not None or pool.pace.local]
        return bool(able) and all([await pool.control_works() for pool in able])

    async def history(
        self, instrument: Instrument, start: int, end: int, *, lane: Lane = "heal", turn: int = 0
    ) -> History:
        """The first answer with bars; without any the first empty one.

        `turn`: who is asked first moves on by so many. Raises, when there is no answer that stands, a failure that
        speaks against a provider before one that speaks against the symbol: `SymbolNotFound` only when all of them
        were asked and none knows it.
        """
        able, empty, errors = self.able("history"), None, dict[str, ProviderError]()
        for asked, pool in enumerate(_rotated(able, turn), 1):
            try:
                answer = await self._history_of(pool, instrument, start, end, lane, is_last=asked == len(able))
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
            answer = await self._quotes_of(pool, missing, lane, is_last=pool is able[-1])
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
        self, pool: ProviderPool, instrument: Instrument, start: int, end: int, lane: Lane, *, is_last: bool
    ) -> History:
        answer = await pool.history(self._spelling(instrument, pool.name), start, end, lane=lane, is_last=is_last)
        teller = self._teller(pool)
        if teller is None or not len(answer.bars):
            return answer
        return _with_actions(answer, await self._told(teller, instrument, start, end, lane), end)

    def _teller(self, pool: ProviderPool) -> ProviderPool | None:
        """Who is asked for the splits and dividends to bars of `pool`; None when it has told them, or nobody can."""
        if pool.can("actions") and "actions" not in self._orders:
            return None
        first = next((one for one in self.able("actions") if one.can("history")), None)
        return None if first is pool else first

    async def _told(self, teller: ProviderPool, instrument: Instrument, start: int, end: int, lane: Lane) -> History:
        """Splits and dividends of a range. A failure is a provider's: bars without them are worth nothing, and say
        nothing against the symbol."""
        try:
            return await teller.history(self._spelling(instrument, teller.name), start, end, lane=lane)
        except SymbolNotFound as exc:
            raise ProviderUnavailable(
                f"{teller.name}, which is asked for splits and dividends, does not know it."
            ) from exc

    async def _quotes_of(
        self, pool: ProviderPool, instruments: Sequence[Instrument], lane: Lane, *, is_last: bool
    ) -> Quotes:
        asked: dict[Instrument, list[Instrument]] = {}
        for instrument in instruments:
            asked.setdefault(self._spelling(instrument, pool.name), []).append(instrument)
        try:
            answer = await pool.quotes(list(asked), lane=lane, is_last=is_last)
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
        return min(of_provider, key=lambda error: isinstance(error, NotAsked))  # a call that failed says more
    if limited:  # not as it is: who is told of a 429 stops asking, and the others may well answer for other symbols
        told = "; ".join(f"{name}: {error.detail}" for name, error in asked.items())
        return ProviderUnavailable(told)
    bad = [error for error in ordered if isinstance(error, ProviderAnswerBad)]
    return (bad or ordered)[0]


def _with_actions(answer: History, told: History, end: int) -> History:
    """`answer` with the actions of `told`, in the basis of its own bars."""
    later: tuple[Action, ...] = ()
    if answer.basis != told.basis == "as_traded":
        # such an answer has none of them, and they are worked into the bars
        later = tuple(action for action in answer.actions if action.kind == "split" and action.ex_date > end)
    actions = _in_basis((*told.actions, *later), told.basis, answer.basis)
    if answer.basis == "as_traded":
        actions = tuple(action for action in actions if action.ex_date <= end)
    return replace(answer, actions=actions)


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
