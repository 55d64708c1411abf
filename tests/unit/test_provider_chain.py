"""The chain of providers: who is asked first and who next, what their failures come to, and whose actions are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pricecache.clock import SystemClock
from pricecache.core.actions import Action
from pricecache.core.asking import Capability, Found
from pricecache.core.bars import Bars
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import (
    PlanExcludes,
    ProviderAnswerBad,
    ProviderError,
    ProviderPaused,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import Basis, Quotes
from pricecache.providers.chain import ProviderChain
from pricecache.providers.pool import ProviderPool
from tests.fakes.provider import ScriptedProvider, Truth

AAPL, MSFT, IBM = (Instrument(name) for name in ("AAPL", "MSFT", "IBM"))
SESSIONS = np.arange(20_000, 20_010)
DOWN, DEAD, BAD = ProviderUnavailable("down"), SymbolNotFound("dead"), ProviderAnswerBad("bad")
EXCLUDED = PlanExcludes()


def truth(close: float = 1.0, *actions: Action) -> Truth:
    return Truth(Bars(SESSIONS, np.full((5, len(SESSIONS)), close)), actions)


def provider(name: str, *can: Capability, basis: Basis = "as_traded", close: float = 1.0) -> ScriptedProvider:
    """One that knows AAPL, with quotes of AAPL and MSFT."""
    made = ScriptedProvider(name, basis)
    made.capabilities = frozenset(can or ("history", "live", "actions"))
    made.truth[AAPL] = truth(close)
    made.prices = {one: Quote(one, close, "USD", 0, 0, name) for one in (AAPL, MSFT)}
    return made


class Searching(ScriptedProvider):
    """Finds what it was given."""

    def __init__(self, name: str, *found: str | ProviderError) -> None:
        super().__init__(name)
        self.capabilities = frozenset(("search",))
        self.found = found
        self.searched = 0

    def search(self, text: str, limit: int) -> list[Found]:
        self.searched += 1
        for one in self.found:
            if isinstance(one, ProviderError):
                raise one
        return [Found(Instrument(str(one))) for one in self.found][:limit]


@pytest.fixture
async def chain() -> AsyncIterator[Callable[..., ProviderChain]]:
    chains: list[ProviderChain] = []

    def make(*providers: ScriptedProvider, **options: Any) -> ProviderChain:
        pools = [ProviderPool(one, SystemClock()) for one in providers]
        chains.append(ProviderChain(pools, **options))
        return chains[-1]

    yield make
    for one in chains:
        await one.close()


Make = Callable[..., ProviderChain]


async def source(chain: ProviderChain, instrument: Instrument = AAPL, **options: Any) -> str:
    return (await chain.history(instrument, 20_000, 20_009, **options)).source


# ---- history


async def test_the_first_in_order_answers_and_no_other_is_asked(chain: Make) -> None:
    first, second = provider("first"), provider("second")
    assert await source(chain(first, second)) == "first"
    assert second.calls == []


async def test_with_another_turn_another_is_asked_first(chain: Make) -> None:
    made = chain(provider("first"), provider("second"))
    assert [await source(made, turn=turn) for turn in range(4)] == ["first", "second", "first", "second"]


@pytest.mark.parametrize("error", [DOWN, DEAD, BAD, RateLimited()], ids=lambda error: error.code)
async def test_where_one_fails_the_next_is_asked(chain: Make, error: ProviderError) -> None:
    first, second = provider("first"), provider("second")
    first.script(AAPL, error)
    assert await source(chain(first, second)) == "second"


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([DEAD, DEAD], "symbol_not_found"),
        ([DEAD, DOWN], "provider_unavailable"),
        ([DOWN, DEAD], "provider_unavailable"),
        ([DEAD, RateLimited()], "provider_unavailable"),
        ([RateLimited(), RateLimited()], "rate_limited"),
        ([BAD, DEAD], "provider_answer_bad"),
        ([DEAD, BAD], "provider_answer_bad"),
        ([BAD, DOWN], "provider_unavailable"),
        ([ProviderPaused(), DOWN], "provider_unavailable"),
        ([ProviderPaused(), DEAD], "provider_paused"),
        ([DEAD, EXCLUDED], "symbol_not_found"),
        ([EXCLUDED, EXCLUDED], "provider_plan_excludes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(error.code for error in value),
)
async def test_only_when_all_were_asked_and_none_knows_it_is_a_symbol_not_found(
    chain: Make, errors: list[ProviderError], told: str
) -> None:
    """And a 429 of one among several is no reason to stop asking the others for other symbols."""
    providers = [provider(f"p{n}") for n in range(len(errors))]
    for one, error in zip(providers, errors, strict=True):
        one.script(AAPL, error)
    with pytest.raises(ProviderError) as caught:
        await source(chain(*providers))
    assert caught.value.code == told


async def test_the_least_wait_is_told_when_all_ask_for_fewer_calls(chain: Make) -> None:
    providers = [provider("a"), provider("b")]
    for one, seconds in zip(providers, (300.0, 20.0), strict=True):
        one.script(AAPL, RateLimited(retry_after=seconds))
    with pytest.raises(RateLimited) as caught:
        await source(chain(*providers))
    assert caught.value.retry_after == 20.0


async def test_after_an_empty_answer_the_next_is_asked_and_the_first_one_stands_if_all_are_empty(chain: Make) -> None:
    first, second = provider("first"), provider("second")
    first.truth[AAPL] = Truth(Bars.empty())
    made = chain(first, second)
    assert await source(made) == "second"
    second.truth[AAPL] = Truth(Bars.empty())
    assert await source(made) == "first"
    second.script(AAPL, DEAD)
    assert await source(made) == "first"
    second.script(AAPL, DOWN)
    with pytest.raises(ProviderUnavailable):
        await source(made)


async def test_each_is_asked_in_its_own_spelling_and_the_answer_is_for_the_instrument_meant(chain: Make) -> None:
    first, second = provider("first"), provider("second")
    second.truth[MSFT] = truth()
    second.prices = {MSFT: Quote(MSFT, 2.0, "USD", 0, 0, "second")}
    made = chain(first, second, spelling=lambda one, name: MSFT if (one, name) == (IBM, "second") else one)
    assert await source(made, IBM) == "second"
    answer = await made.quotes([IBM])
    assert [(quote.instrument, quote.price) for quote in answer.quotes] == [(IBM, 2.0)]


async def test_one_alone_fails_as_without_a_chain(chain: Make) -> None:
    only = provider("only")
    only.script(AAPL, RateLimited(retry_after=7))
    with pytest.raises(RateLimited) as caught:
        await source(chain(only))
    assert caught.value.retry_after == 7


async def test_a_symbol_that_the_next_provider_knows_is_no_failed_call(chain: Make) -> None:
    first, second = provider("first"), provider("second")
    del first.truth[AAPL]
    made = chain(first, second)
    await source(made)
    assert [(pool.calls_24h, pool.errors_24h) for pool in made.pools] == [(1, 0), (1, 0)]
    with pytest.raises(SymbolNotFound):
        await source(made, IBM)
    assert [pool.errors_24h for pool in made.pools] == [0, 1]


async def test_who_is_last_is_decided_by_each_order_and_each_turn(chain: Make) -> None:
    """With the orders of two capabilities the other way round, and with the first asked last."""
    first, second = provider("a"), provider("b")
    made = chain(first, second, orders={"history": ["a", "b"], "live": ["b", "a"]})
    a, b = made.pools
    with pytest.raises(SymbolNotFound):
        await source(made, IBM)
    assert (a.errors_24h, b.errors_24h) == (0, 1)
    assert IBM in (await made.quotes([IBM])).failures
    assert (a.errors_24h, b.errors_24h) == (1, 1)
    with pytest.raises(SymbolNotFound):
        await source(made, IBM, turn=1)
    assert (a.errors_24h, b.errors_24h) == (2, 1)


# ---- actions


async def test_actions_come_from_the_first_that_knows_them_where_the_history_has_none(chain: Make) -> None:
    bars, facts = provider("bars", "history"), provider("facts", close=9.0)
    split = Action(20_005, "split", 4.0)
    bars.truth[AAPL], facts.truth[AAPL] = truth(1.0), truth(9.0, split)
    answer = await chain(bars, facts).history(AAPL, 20_000, 20_009)
    assert (answer.source, answer.actions, answer.bars.values[3, 0]) == ("bars", (split,), 1.0)


@pytest.mark.parametrize("error", [DOWN, DEAD, BAD], ids=lambda error: error.code)
async def test_bars_without_a_word_on_splits_are_no_answer(chain: Make, error: ProviderError) -> None:
    bars, facts = provider("bars", "history"), provider("facts", "actions", "history")
    facts.script(AAPL, error, error)
    with pytest.raises(ProviderError) as caught:
        await source(chain(bars, facts))
    assert not isinstance(caught.value, SymbolNotFound)


async def test_dividends_are_put_into_the_basis_of_the_bars(chain: Make) -> None:
    bars, facts = provider("bars", "history"), provider("facts", basis="split_adjusted")
    dividend, split = Action(20_002, "dividend", 0.8, "USD"), Action(20_005, "split", 4.0)
    facts.truth[AAPL] = truth(9.0, dividend, split)
    answer = await chain(bars, facts).history(AAPL, 20_000, 20_009)
    assert answer.basis == "as_traded"
    assert [action.value for action in answer.actions] == [pytest.approx(0.8), 4.0]


async def test_an_order_for_actions_holds_for_those_too_that_have_actions_of_their_own(chain: Make) -> None:
    """And costs one more call; the one that leads that order is asked for nothing twice."""
    bars, facts = provider("bars"), provider("facts")
    mine, split = Action(20_005, "split", 3.0), Action(20_005, "split", 4.0)
    bars.truth[AAPL], facts.truth[AAPL] = truth(1.0, mine), truth(9.0, split)
    as_usual = await chain(bars, facts).history(AAPL, 20_000, 20_009)
    assert (as_usual.actions, facts.calls) == ((mine,), [])
    made = chain(bars, facts, orders={"actions": ["facts", "bars"]})
    answer = await made.history(AAPL, 20_001, 20_008)
    assert (answer.source, answer.actions, answer.bars.values[3, 0]) == ("bars", (split,), 1.0)
    assert [(call.start, call.end) for call in facts.calls] == [(20_001, 20_008)]
    assert (await made.history(AAPL, 20_000, 20_009, turn=1)).actions == (split,)
    assert (len(bars.calls), len(facts.calls)) == (2, 2)
    facts.script(AAPL, DEAD, DEAD)
    with pytest.raises(ProviderUnavailable):
        await source(made)


async def test_an_order_for_actions_may_name_one_that_is_asked_for_no_bars(chain: Make) -> None:
    bars, facts = provider("bars"), provider("facts")
    made = chain(bars, facts, usual=["bars"], orders={"actions": ["facts"]})
    assert await source(made) == "bars"
    assert len(facts.calls) == 1
    bars.script(AAPL, DOWN)
    with pytest.raises(ProviderUnavailable):
        await source(made)


async def test_splits_after_the_range_are_known_from_those_whose_bars_have_them_worked_in(chain: Make) -> None:
    dividend, early, late = Action(20_002, "dividend", 0.8, "USD"), *(Action(n, "split", 4.0) for n in (20_004, 20_008))
    given = truth(1.0, dividend, early, late)
    bars, facts = provider("bars", basis="split_adjusted"), provider("facts")
    bars.truth[AAPL] = facts.truth[AAPL] = given
    answer = await chain(bars, facts, orders={"actions": ["facts"]}).history(AAPL, 20_000, 20_006)
    assert answer.basis == "split_adjusted"
    assert answer.actions == (replace(dividend, value=pytest.approx(0.05)), early, late)
    other = await chain(facts, bars, orders={"actions": ["bars"]}).history(AAPL, 20_000, 20_006)
    assert (other.basis, other.actions) == ("as_traded", (replace(dividend, value=pytest.approx(0.8)), early))


# ---- quotes


async def test_quotes_that_one_lacks_are_asked_of_the_next(chain: Make) -> None:
    first, second = provider("first", close=1.0), provider("second", close=2.0)
    del first.prices[MSFT]
    answer = await chain(first, second).quotes([AAPL, MSFT, IBM])
    assert {quote.instrument: quote.source for quote in answer.quotes} == {AAPL: "first", MSFT: "second"}
    assert second.calls[0].instruments == (MSFT, IBM)
    assert {one: error.code for one, error in answer.failures.items()} == {IBM: "symbol_not_found"}


async def test_quotes_of_a_provider_that_is_down_come_from_the_next(chain: Make) -> None:
    first, second = provider("first"), provider("second")
    first.script_quotes(DOWN, DOWN)
    made = chain(first, second)
    assert {quote.source for quote in (await made.quotes([AAPL, MSFT])).quotes} == {"second"}
    second.script_quotes(RateLimited())
    with pytest.raises(RateLimited):
        await made.quotes([AAPL])


async def test_quotes_left_out_without_a_word_are_asked_of_the_next(chain: Make) -> None:
    class Silent(ScriptedProvider):
        def quotes(self, instruments: Any) -> Quotes:
            return Quotes([])

    assert len((await chain(Silent("silent"), provider("second")).quotes([AAPL])).quotes) == 1
    assert (await chain(Silent("silent")).quotes([AAPL])).failures == {}


# ---- search


async def test_a_search_goes_on_until_there_is_enough_and_says_who_failed(chain: Make) -> None:
    providers = [Searching("a", "AAPL", "MSFT"), Searching("b", DOWN), Searching("c", "AAPL", "IBM"), Searching("d")]
    found, errors = await chain(*providers).search("x", 3)
    assert [(one.instrument.symbol, one.source) for one in found] == [("AAPL", "a"), ("MSFT", "a"), ("IBM", "c")]
    assert list(errors) == ["b"]
    assert [one.searched for one in providers] == [1, 1, 1, 0]


# ---- who is asked for what


async def test_each_capability_has_an_order_of_its_own(chain: Make) -> None:
    made = chain(provider("a"), provider("b"), provider("c", "live"), orders={"history": ["b", "a"], "live": ["c"]})
    assert await source(made) == "b"
    assert (await made.quotes([AAPL])).quotes[0].source == "c"
    assert [made.rank(name) for name in ("b", "a", "c", "manual", "")] == [0, 1, -1, -1, -1]
    assert made.name == "a,b,c"


async def test_those_that_cannot_are_not_asked(chain: Make) -> None:
    made = chain(provider("quotes", "live"), provider("bars", "history", "actions"))
    assert await source(made) == "bars"
    assert (await made.quotes([AAPL])).quotes[0].source == "quotes"
    with pytest.raises(ProviderUnavailable):
        await chain(provider("quotes", "live")).history(AAPL, 0, 1)


async def test_the_whole_is_as_slow_as_its_slowest_history(chain: Make) -> None:
    slow, fast, quotes = provider("slow"), provider("fast"), provider("quotes", "live")
    slow.final_lag, fast.final_lag, quotes.final_lag, quotes.always_moving = 1800, 60, 9000, True
    made = chain(fast, slow, quotes)
    assert (made.final_lag, made.always_moving, made.concurrency) == (1800, True, 4)


def with_control(name: str) -> ScriptedProvider:
    made = provider(name)
    made.control = AAPL
    today = int(SystemClock().time() // 86400)
    made.truth[AAPL] = Truth(Bars(np.arange(today - 5, today), np.ones((5, 5))))
    return made


def local(name: str) -> ScriptedProvider:
    made = provider(name)
    made.pace = replace(made.pace, local=True)
    return made


async def test_all_that_can_prove_it_must_work(chain: Make) -> None:
    one, other = with_control("one"), with_control("other")
    assert await chain(one, other, provider("silent")).controls_work()
    other.script(AAPL, DEAD)
    assert not await chain(one, other).controls_work()


async def test_where_nobody_can_prove_it_nothing_is_known_to_work(chain: Make) -> None:
    assert not await chain(provider("one")).controls_work()
    assert not await chain(provider("one"), with_control("quotes"), orders={"history": ["one"]}).controls_work()


async def test_files_alone_work_until_they_cannot_be_read(chain: Make) -> None:
    files = local("files")
    made = chain(files)
    assert await made.controls_work()
    files.script(AAPL, DOWN)
    with pytest.raises(ProviderUnavailable):
        await source(made)
    assert not await made.controls_work()
