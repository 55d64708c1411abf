"""What listeners were told last is what a summary answers now, whatever happened in between."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.core.actions import Action
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from tests.fakes.calendars import calendar_of
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolio_summary import HOUR
from tests.integration.test_portfolios import KEYS, add, made, priced

MSFT, SAP, EURO = Instrument("MSFT"), Instrument("SAP", "DE"), Instrument("EURUSD=X", "FX")
DOLLAR = Instrument("USDEUR=X", "FX")
LAST = {AAPL: 110.0, MSFT: 50.0, SAP: 120.0, EURO: 1.1, DOLLAR: 0.9}
STEPS = 60
_AS_MOVES = {"asOf", "dayHigh", "dayLow", "dayRangeSince"}
"""Of the moment of each answer."""


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """It is Friday, 16:00 UTC."""
    async with api_daemon(database, keys=KEYS) as started:
        started.clock.advance(6 * HOUR)
        started.services.calendars.add(calendar_of(SAP.place.calendar))
        yield started


class Case:
    """Portfolios that somebody listens to, and what may happen to them."""

    def __init__(self, daemon: ApiDaemon, portfolios: list[str], chance: random.Random) -> None:
        self.daemon, self.portfolios, self.chance = daemon, portfolios, chance
        self.prices = dict(LAST)
        self.rows = 0

    async def price(self) -> None:
        instrument = self.chance.choice(list(LAST))
        before = LAST[instrument]
        price = self.prices[instrument] = round(self.prices[instrument] * self.chance.uniform(0.97, 1.03), 4)
        now = self.daemon.clock.time()
        day = int(now // 86400)
        opened = {"open": round(before * 1.01, 2), "previous_close": before} if self.chance.random() < 0.8 else {}
        currency = "EUR" if instrument in (SAP, DOLLAR) else "USD"
        quote = Quote(instrument, price, currency, now, now, "scripted", session=day, **opened)
        await self.daemon.parts.prices.publisher.publish([quote], way="stream")

    async def transaction(self) -> None:
        self.rows += 1
        one = self.chance.choice([AAPL, MSFT, SAP])
        day = self.chance.choice(["2026-11-05", "2026-11-19", "2026-11-20", "2026-11-20"])
        kind = self.chance.choice(["buy", "buy", "sell", "deposit", "dividend"])
        row = {"date": day, "type": kind, "externalId": f"row-{self.chance.randrange(6)}"}
        if kind in ("buy", "sell"):
            row |= {"symbol": one.symbol, "market": one.market, "quantity": self.chance.randint(1, 5), "price": 90}
            row |= {"fees": 1.25} if self.chance.random() < 0.5 else {}
        else:
            row |= {"amount": 33.33} | ({"symbol": one.symbol, "market": one.market} if kind == "dividend" else {})
        status, answer = await add(self.daemon, self.chance.choice(self.portfolios), row)
        assert status in (201, 422), answer

    async def time(self) -> None:
        self.daemon.clock.advance(self.chance.choice([1, 30, 600, HOUR, 3 * HOUR, 18 * HOUR]))

    async def split(self) -> None:
        today = int(self.daemon.clock.time() // 86400)
        action = Action(today, "split", 2.0)
        await priced(self.daemon, MSFT, {today - 1: self.prices[MSFT]}, action)

    async def settle(self) -> None:
        for _ in range(4):
            await self.daemon.parts.realtime.follower.work()
            self.daemon.clock.advance(2.5)
        await self.daemon.parts.realtime.follower.work()


def near(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, float | int) and isinstance(got, float | int):
        return abs(got - wanted) < 0.0051
    return bool(got == wanted)


def differences(told: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    for key, event in now.items():
        mine = told.get(key, {})
        for name, wanted in event.items():
            got = mine.get(name)
            if name == "dayChangeParts":
                found += [
                    f"{key} {name}: told {got}, is {wanted}" for part in wanted if not near(got[part], wanted[part])
                ]
            elif name not in _AS_MOVES and got != wanted and not near(got, wanted):
                found.append(f"{key} {name}: told {got}, is {wanted}")
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_listeners_know_what_a_summary_says(daemon: ApiDaemon, seed: int) -> None:
    from pricecache.api.portfolio_summary import summary_fields
    from pricecache.realtime.shapes import values_of

    chance = random.Random(seed)
    for instrument, price in LAST.items():
        await priced(daemon, instrument, {TODAY - 18: price * 0.9, TODAY - 2: price * 0.98, TODAY - 1: price})
    for instrument in (SAP, DOLLAR):
        await daemon.services.instruments.set_facts(daemon.services.catalog.require(instrument), currency="EUR")
    plain, tracking = await made(daemon), await made(daemon, cashTracking=True, costBasis="average")
    in_euro = await made(daemon, baseCurrency="EUR")
    buys = [
        {"date": "2026-11-02", "type": "buy", "symbol": one.symbol, "market": one.market, "quantity": 7, "price": 80}
        for one in (AAPL, MSFT, SAP)
    ]
    for portfolio in (plain, tracking, in_euro):
        assert (await add(daemon, portfolio, *buys))[0] == 201
    await add(daemon, tracking, {"date": "2026-11-02", "type": "deposit", "amount": 5000, "currency": "EUR"})
    realtime, case = daemon.parts.realtime, Case(daemon, [plain, tracking, in_euro], chance)
    for portfolio in case.portfolios:
        state = await realtime.hub._register._feeds.snapshot(portfolio)
        assert state.values
    for step in range(STEPS):
        kinds = [case.price] * 12 + [case.transaction] * 2 + [case.time] * 3 + ([case.split] if step == 40 else [])
        await (case.split if step == 40 else chance.choice(kinds))()
        if chance.random() < 0.3:
            await case.settle()
            for portfolio in case.portfolios:
                found = realtime.follower._followed.get(portfolio)
                assert found is not None
                summarised = await daemon.parts.portfolio.summaries.of(
                    await daemon.parts.portfolio.store.find(portfolio)
                )
                now = values_of(summary_fields(summarised, realtime.follower.valuer.noted(summarised)))
                wrong = differences(found.values, now)
                account = found.values["account"]
                if account["dayHigh"] is not None and account["totalValue"] is not None:
                    assert account["dayLow"] <= account["totalValue"] <= account["dayHigh"]
                assert not wrong, (step, daemon.clock.now(), found.row is not None, wrong)
    assert realtime.follower.valuer.counts.valued
