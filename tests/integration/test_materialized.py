"""Stored rows equal computed ones equal the slow reference, whatever changes, whenever, and whoever reads."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_number, day_of
from pricecache.core.chunks import between, with_flows
from pricecache.core.history import History
from pricecache.core.instruments import Instrument
from pricecache.core.portfolios import Portfolio
from pricecache.core.valuation import COVERAGE, FIELDS, INDEX
from pricecache.stores import packed_history
from pricecache.stores.bars import Change
from pricecache.stores.ledger import LedgerMoved
from pricecache.stores.runs import Run, RunHandle
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.reference_history import reference

MSFT, PAIR = Instrument("MSFT"), Instrument("USDEUR=X", "FX")
GONE, MERE = Instrument("GONE"), Instrument("MERE")
"""One that is sold out, and one that was never held and only paid."""
USER = {"X-API-Key": "ops-key", "X-User-Id": "ann"}
FIRST = TODAY - 345
"""2025-12-10: a year that is over, months, and the month that goes on."""


def iso(day: int) -> str:
    return day_of(day).isoformat()


@dataclass
class World:
    daemon: ApiDaemon
    portfolio: Portfolio
    accounts: list[str]
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"/api/portfolios/{self.portfolio.id}"

    async def send(self, method: str, path: str, body: Any = None) -> Any:
        options = {} if body is None else {"json": body}
        status, answer = await self.daemon.call(method, self.base + path, headers=USER, **options)
        assert status < 300, answer
        return answer

    async def add(self, name: str, **row: Any) -> None:
        answer = await self.send("POST", "/transactions", {"externalId": name, **row})
        self.ids[name] = answer["ids"][0]

    async def put(self, name: str, **row: Any) -> None:
        await self.send("PUT", f"/transactions/{self.ids[name]}", {"externalId": name, **row})

    async def remove(self, name: str) -> None:
        await self.send("DELETE", f"/transactions/{self.ids[name]}")

    async def price(self, instrument: Instrument, closes: dict[int, float], *actions: Action) -> None:
        services = self.daemon.services
        entry = services.catalog.find(instrument)
        if entry is None:
            (entry,) = await services.instruments.add(
                [instrument], wanted_from=min(closes), tracked=True, by="test", now=self.daemon.clock.time()
            )
        days = np.array(list(closes), np.int64)
        bars = Bars(days, np.tile(np.array(list(closes.values())), (5, 1)))
        await services.bars.commit([Change(entry, bars, "scripted", self.daemon.clock.time(), actions=actions)])

    # the three ways to the same rows

    async def fresh(self) -> None:
        self.portfolio = await self.daemon.services.portfolios.get("ann", self.portfolio.id)

    async def read(self, **options: Any) -> History | None:
        await self.fresh()
        return (await self.daemon.parts.portfolio.wholes.of(self.portfolio, **options)).history

    async def store(self) -> None:
        await self.fresh()
        await self.daemon.parts.portfolio.materialiser.materialise(self.portfolio)

    def forget(self) -> None:
        self.daemon.parts.portfolio.wholes.forget(self.portfolio.id)

    async def agree(self) -> None:
        """Kept in memory, loaded from what was stored before the change, stored after it: all are what is computed,
        bit for bit, and what the reference says, to the cent."""
        computed = await self.read(use_materialized=False)
        same(computed, await self.read())
        self.forget()
        same(computed, await self.read())
        await self.store()
        self.forget()
        same(computed, await self.read())
        assert await self.daemon.parts.portfolio.sampler.sample(self.portfolio) is None
        await self.equals_reference(computed)

    async def equals_reference(self, computed: History | None) -> None:
        view = await self.daemon.services.ledgers.read(self.portfolio)
        if computed is None:
            assert not view.rows
            return
        market = (await self.daemon.parts.portfolio.wholes.of(self.portfolio, use_materialized=False)).market.market
        wanted = reference(view.ledger, market, TODAY)
        for day, scopes in wanted.items():
            for scope, row in scopes.items():
                if (scope, None) not in computed.scopes:
                    continue
                place, column = computed.scopes.index((scope, None)), day - computed.start
                for number, name in enumerate(FIELDS):
                    mine, theirs = computed.values[number, place, column], row[name]
                    where = (iso(day), scope, name, mine, theirs)
                    assert np.isnan(mine) == (theirs is None), where
                    near = 1e-6 if number in (INDEX, COVERAGE) else 0.005
                    assert theirs is None or abs(mine - float(theirs)) < near, where


def same(a: History | None, b: History | None) -> None:
    if a is None or b is None:
        assert a is b
        return
    assert (a.start, a.scopes, a.days) == (b.start, b.scopes, b.days)
    assert np.array_equal(with_flows(a), with_flows(b), equal_nan=True)
    assert np.array_equal(a.estimated, b.estimated)


@pytest.fixture
async def world(database: Any) -> AsyncIterator[World]:
    async with api_daemon(database, keys=("operator:ops:ops-key",)) as daemon:
        body = {"name": "Own", "baseCurrency": "EUR", "cashTracking": True}
        _, one = await daemon.call("POST", "/api/portfolios", json=body, headers=USER)
        portfolio = await daemon.services.portfolios.get("ann", one["id"])
        world = World(daemon, portfolio, [])
        for name in ("IRA", "401k"):
            world.accounts.append((await world.send("POST", "/accounts", {"name": name}))["id"])
        book = daemon.services.calendars.get("XNYS")
        sessions = book.between(FIRST - 20, TODAY - 1)
        walk = np.random.default_rng(3)
        for instrument in (AAPL, MSFT, GONE, MERE):
            closes = np.round(100 * np.exp(np.cumsum(walk.normal(0, 0.01, len(sessions)))), 2)
            await world.price(instrument, dict(zip(sessions.tolist(), closes.tolist(), strict=True)))
        days = daemon.services.calendars.get(PAIR.place.calendar).between(FIRST - 20, TODAY - 1)
        rates = np.round(0.9 + 0.001 * np.cumsum(walk.normal(0, 1, len(days))), 4)
        await world.price(PAIR, dict(zip(days.tolist(), rates.tolist(), strict=True)))
        yield world


async def filled(world: World) -> None:
    """A ledger with something of everything before, on and after the day that the changes are on."""
    one, two = world.accounts
    await world.add("start", date=iso(FIRST), type="deposit", amount=9000, accountId=one)
    await world.add("long ago", date=iso(FIRST + 5), type="buy", symbol="AAPL", quantity=20, price=101, accountId=one)
    await world.add("other", date=iso(FIRST + 9), type="buy", symbol="MSFT", quantity=8, price=99, accountId=two)
    await world.add("later", date=iso(TODAY - 30), type="buy", symbol="AAPL", quantity=3, price=98, accountId=two)
    await world.add("in", date=iso(FIRST + 12), type="buy", symbol="GONE", quantity=7, price=100, accountId=two)
    await world.add("out", date=iso(FIRST + 70), type="sell", symbol="GONE", quantity=7, price=90, accountId=two)
    await world.add("only", date=iso(FIRST + 15), type="dividend", symbol="MERE", amount=2, accountId=one)
    await world.store()
    head = await world.daemon.services.stored_histories.head(world.portfolio.id)
    assert head is not None
    assert [chunk.span.first for chunk in head.chunks][:2] == [FIRST, FIRST + 22]


KINDS: dict[str, Callable[[World], dict[str, Any]]] = {
    "buy": lambda w: {
        "type": "buy", "symbol": "AAPL", "quantity": 2, "price": 95, "fees": 1, "accountId": w.accounts[0],
    },
    "sell": lambda w: {"type": "sell", "symbol": "AAPL", "quantity": 4, "price": 97, "accountId": w.accounts[0]},
    "dividend": lambda w: {"type": "dividend", "symbol": "AAPL", "amount": "3.33", "accountId": w.accounts[0]},
    "split": lambda w: {"type": "split", "symbol": "AAPL", "ratio": 2},
    "deposit": lambda w: {"type": "deposit", "amount": 500, "accountId": w.accounts[1]},
    "transfer": lambda w: {
        "type": "transfer_in", "symbol": "MSFT", "quantity": 5, "price": 80, "accountId": w.accounts[0],
    },
    "account move": lambda w: {
        "type": "transfer_out", "symbol": "AAPL", "quantity": 6, "accountId": w.accounts[0],
        "toAccountId": w.accounts[1],
    },
    "foreign money": lambda w: {
        "type": "buy", "symbol": "MSFT", "quantity": 1, "price": 90, "currency": "USD", "fxRate": "0.95",
        "accountId": w.accounts[0],
    },
}  # fmt: skip
WHEN = TODAY - 60


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_becomes_of_a_transaction_stored_rows_follow(world: World, kind: str) -> None:
    """Created, changed, moved to an earlier and to a later date, and deleted again."""
    await filled(world)
    row = KINDS[kind](world)
    await world.add("it", date=iso(WHEN), **row)
    await world.agree()
    more = {name: 3 for name in ("quantity", "amount", "ratio") if name in row}
    await world.put("it", date=iso(WHEN), **{**row, **more})
    await world.agree()
    await world.put("it", date=iso(WHEN - 200), **row)
    await world.agree()
    await world.put("it", date=iso(WHEN + 55), **row)
    await world.agree()
    await world.remove("it")
    await world.agree()


async def test_rows_put_in_together_count_from_the_first_of_them(world: World) -> None:
    await filled(world)
    rows = [
        {"externalId": f"b{n}", "date": iso(day), "type": "buy", "symbol": "MSFT", "quantity": 1 + n, "price": 100}
        for n, day in enumerate((TODAY, WHEN, WHEN - 120, WHEN + 3))
    ]
    await world.send("POST", "/transactions", {"transactions": rows})
    await world.agree()
    for row, moved in zip(rows, (-4, 9, 100, -30), strict=True):  # some go to earlier days, some to later ones
        row |= {"quantity": row["quantity"] * 2, "date": iso(day_number(date.fromisoformat(row["date"])) + moved)}
    await world.send("POST", "/transactions", {"transactions": rows})
    await world.agree()


PRICES: dict[str, Callable[[World], Any]] = {
    "a price is corrected": lambda w: w.price(AAPL, {session(w, WHEN): 123.45}),
    "a price long ago is corrected": lambda w: w.price(MSFT, {session(w, FIRST + 30): 77.7}),
    "a rate is corrected": lambda w: w.price(PAIR, {session(w, WHEN - 3): 0.8}),
    "a split of the market becomes known": lambda w: w.price(AAPL, {}, Action(session(w, WHEN), "split", 4.0)),
    "a dividend of the market becomes known": lambda w: w.price(AAPL, {}, Action(session(w, WHEN), "dividend", 1.0)),
    "earlier prices come": lambda w: w.price(AAPL, {session(w, FIRST - 60): 50.0}),
}


def session(world: World, day: int) -> int:
    return int(world.daemon.services.calendars.get("XNYS").between(day - 5, day)[-1])


@pytest.mark.parametrize("what", PRICES)
async def test_whatever_becomes_known_of_the_market_stored_rows_follow(world: World, what: str) -> None:
    await filled(world)
    await PRICES[what](world)
    await world.agree()


async def test_nothing_clean_is_computed_again(world: World) -> None:
    """A transaction of today costs today, one of a day the days from its month on, a dividend of the market none."""
    await filled(world)
    wholes = world.daemon.parts.portfolio.wholes

    async def computed() -> int:
        before = wholes.computed_days
        await world.read()
        return wholes.computed_days - before

    await computed()
    assert await computed() == 0
    await world.add("now", date=iso(TODAY), type="buy", symbol="AAPL", quantity=1, price=100)
    assert await computed() <= 3
    await world.add("back", date=iso(TODAY - 40), type="buy", symbol="AAPL", quantity=1, price=100)
    assert 41 <= await computed() <= 41 + 31
    await world.store()
    await world.price(AAPL, {}, Action(session(world, WHEN), "dividend", 1.0))
    assert await computed() <= 3
    await world.price(MSFT, {session(world, TODAY - 40): 55.0})
    assert 41 <= await computed() <= 41 + 31


async def test_a_whole_year_is_sealed_when_it_is_over(world: World) -> None:
    await filled(world)
    store = world.daemon.services.stored_histories
    before = await store.head(world.portfolio.id)
    assert before is not None
    assert len(before.chunks) == 1 + 11
    world.daemon.clock.advance(60 * 86400)
    book = world.daemon.services.calendars.get("XNYS")
    days = {int(day): 100.0 for day in book.between(TODAY, TODAY + 59)}
    for instrument in (AAPL, MSFT, GONE, MERE):
        await world.price(instrument, days)
    await world.price(PAIR, dict.fromkeys(range(TODAY, TODAY + 60), 0.9))
    await world.store()
    after = await store.head(world.portfolio.id)
    assert after is not None
    firsts = [iso(chunk.span.first) for chunk in after.chunks]
    assert firsts == ["2025-12-10", "2026-01-01", "2027-01-01"]
    assert [chunk.version for chunk in after.chunks] == [1, 2, 2]
    world.forget()
    same(await world.read(use_materialized=False), await world.read())


async def test_two_daemons_on_one_database_never_serve_what_the_other_made_stale(world: World, database: Any) -> None:
    await filled(world)
    async with api_daemon(database, keys=("operator:ops:ops-key",)) as other:
        await other.parts.load()
        other.parts.prices.catalog.trusted = other.parts.prices.heads.trusted = (
            False  # as while the change stream is down
        )
        target = f"/api/portfolio/history?portfolioId={world.portfolio.id}"
        for number in itertools.count():
            _, mine = await world.daemon.get(target, headers=USER)
            _, theirs = await other.get(target, headers=USER)
            assert mine["history"] == theirs["history"]
            if number == 0:
                await world.add("x", date=iso(WHEN), type="buy", symbol="AAPL", quantity=1, price=100)
            elif number == 1:
                await world.price(AAPL, {session(world, WHEN): 130.0})
            elif number == 2:
                await other.parts.portfolio.materialiser.materialise(world.portfolio)
            else:
                break


async def test_a_split_that_was_announced_before_rows_were_stored_takes_effect_after_a_start(
    world: World, database: Any
) -> None:
    """What goes on from stored rows reads no ledger before them, and what is held is in the checkpoint alone."""
    await filled(world)
    await world.price(AAPL, {}, Action(TODAY, "split", 4.0))
    await world.store()
    computed = await world.read(use_materialized=False)
    async with api_daemon(database, keys=("operator:ops:ops-key",)) as other:
        await other.parts.load()
        portfolio = await other.services.portfolios.get("ann", world.portfolio.id)
        whole = await other.parts.portfolio.wholes.of(portfolio)
        assert not whole.is_complete
        same(computed, whole.history)


async def test_rows_in_memory_do_not_outlive_what_another_daemon_stored(world: World, database: Any) -> None:
    """It has taken the day back from which the ledger was doubtful: for who has older rows that says nothing."""
    await filled(world)
    async with api_daemon(database, keys=("operator:ops:ops-key",)) as other:
        await other.parts.load()
        target = f"/api/portfolio/history?portfolioId={world.portfolio.id}"
        for _ in range(2):
            await other.get(target, headers=USER)
        await world.add("x", date=iso(WHEN), type="buy", symbol="AAPL", quantity=1, price=100)
        await world.store()
        other.parts.prices.heads.forget(world.portfolio.id)  # as the change stream tells it to
        _, theirs = await other.get(target, headers=USER)
        _, mine = await world.daemon.get(target + "&useMaterialized=false", headers=USER)
        assert theirs["history"] == mine["history"]
        assert await other.parts.portfolio.sampler.sample(world.portfolio) is None


async def test_rows_in_memory_do_not_outlive_a_ledger_that_was_forgotten(world: World) -> None:
    await filled(world)
    await world.read()
    await world.add("x", date=iso(WHEN), type="buy", symbol="AAPL", quantity=1, price=100)
    await world.store()
    world.daemon.parts.portfolio.ledgers._kept.clear()
    same(await world.read(use_materialized=False), await world.read())


async def test_rows_by_former_rules_are_nobodys_truth(world: World) -> None:
    """Who had read the portfolio before its rules changed computes and stores by the old ones: it says so."""
    await filled(world)
    await world.add("x", date=iso(WHEN), type="sell", symbol="AAPL", quantity=4, price=97, accountId=world.accounts[0])
    old = world.portfolio
    await world.send("PATCH", "", {"costBasis": "lifo", "feesInCost": False})
    await world.daemon.parts.portfolio.wholes.of(old)
    await world.daemon.parts.portfolio.materialiser.materialise(old)
    await world.agree()
    run = Run("r", "materialize_history", "running", "test", {}, 0.0)
    await world.daemon.parts.portfolio.materialiser.run_job(RunHandle(run))
    assert run.counts == {"upToDate": 1}


async def test_one_portfolio_s_fault_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(world)
    _, second = await world.daemon.call("POST", "/api/portfolios", json={"name": "Second"}, headers=USER)
    row = {"date": iso(WHEN), "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 100}
    await world.daemon.call("POST", f"/api/portfolios/{second['id']}/transactions", json=row, headers=USER)
    await world.add("y", date=iso(WHEN), type="buy", symbol="MSFT", quantity=1, price=100)
    parts, broken = world.daemon.parts, world.portfolio.id
    settled = type(parts.portfolio.wholes).settled

    async def breaks(self: Any, portfolio: Portfolio, *given: Any, **more: Any) -> Any:
        if portfolio.id == broken:
            raise ZeroDivisionError
        return await settled(self, portfolio, *given, **more)

    monkeypatch.setattr(type(parts.portfolio.wholes), "settled", breaks)
    run = Run("r", "materialize_history", "running", "test", {}, 0.0)
    await parts.portfolio.materialiser.run_job(RunHandle(run))
    assert (run.counts["stored"], run.failures_total, run.failures[0]["code"]) == (1, 1, "internal_error")
    assert await parts.portfolio.stored_histories.head(second["id"]) is not None


async def test_several_portfolios_add_up_where_their_days_differ(world: World) -> None:
    """In Kiribati it is tomorrow already."""
    await filled(world)
    world.daemon.clock.advance(6 * 3600)
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        facts = {"name": zone, "timeZone": zone, "baseCurrency": "EUR"}
        _, one = await world.daemon.call("POST", "/api/portfolios", json=facts, headers=USER)
        row = {"date": iso(WHEN), "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 100}
        await world.daemon.call("POST", f"/api/portfolios/{one['id']}/transactions", json=row, headers=USER)
    _, listed = await world.daemon.get("/api/portfolios", headers=USER)
    ids = [one["id"] for one in listed["portfolios"]]
    for order in (ids, ids[::-1], [ids[1], ids[2], ids[0]]):
        query = "&".join(f"portfolioId={one}" for one in order)
        status, answer = await world.daemon.get(f"/api/portfolio/history?{query}", headers=USER)
        assert status == 200, answer
        last = answer["total"]["history"][-1]
        assert last["totalValue"] == pytest.approx(
            sum(one["history"][-1]["totalValue"] for one in answer["portfolios"])
        )


async def test_what_was_computed_ahead_counts_only_for_the_ledger_that_came_of_it(world: World) -> None:
    await filled(world)
    await world.fresh()
    parts = world.daemon.parts.portfolio
    materialiser, wholes = parts.materialiser, parts.wholes
    await parts.stored_histories.drop(world.portfolio.id)
    world.forget()
    ahead = await materialiser.ahead(world.portfolio, await world.daemon.services.ledgers.read(world.portfolio))
    assert ahead is not None
    assert wholes.came_true(ahead, world.portfolio)
    await world.add("later", type="buy", symbol="AAPL", date=iso(TODAY - 40), quantity=3, price=100)
    await world.fresh()
    assert not wholes.came_true(ahead, world.portfolio)
    assert await materialiser.materialise(world.portfolio, ahead)
    await world.agree()
    assert await materialiser.ahead(world.portfolio, await world.daemon.services.ledgers.read(world.portfolio)) is None


async def test_a_write_that_came_too_late_leaves_what_is_newer(world: World) -> None:
    """The ledger moves on between computing and storing: nothing older is stored as if it were of now."""
    await filled(world)
    parts = world.daemon.parts
    await world.add("a", date=iso(WHEN), type="buy", symbol="AAPL", quantity=1, price=100)
    old = await parts.portfolio.wholes.of(await parts.portfolio.store.get("ann", world.portfolio.id))
    head = await parts.portfolio.stored_histories.head(world.portfolio.id)
    await world.add("b", date=iso(WHEN - 10), type="buy", symbol="AAPL", quantity=1, price=100)
    assert old.kept is not None
    with pytest.raises(LedgerMoved):
        await parts.portfolio.stored_histories.write(world.portfolio.id, head, old.kept, 0.0)
    await world.agree()


async def test_damaged_rows_are_computed_again(world: World, database: Any) -> None:
    await filled(world)
    chunk = await database["history"].find_one({"_id.p": world.portfolio.id})
    await database["history"].update_one({"_id": chunk["_id"]}, {"$set": {"rows": chunk["rows"][:-9] + b"xxxxxxxxx"}})
    world.forget()
    same(await world.read(use_materialized=False), await world.read())
    await world.store()
    world.forget()
    same(await world.read(use_materialized=False), await world.read())


async def test_drift_is_found_told_and_mended(world: World, database: Any) -> None:
    await filled(world)
    stored = await world.daemon.services.stored_histories.load(world.portfolio.id, True)
    assert stored is not None
    chunk = await database["history"].find_one({"_id.p": world.portfolio.id, "_id.c": FIRST})
    part = between(stored.kept.history, FIRST, chunk["last"])
    values = with_flows(part)
    values[0, 0, 3] += 0.01
    rows = packed_history.pack_rows(values, part.estimated)
    check = zlib.crc32(chunk["point"], zlib.crc32(rows))
    await database["history"].update_one({"_id": chunk["_id"]}, {"$set": {"rows": rows, "check": check}})
    drift = await world.daemon.parts.portfolio.sampler.sample(world.portfolio)
    assert drift is not None
    assert (drift.day, drift.field, drift.account) == (FIRST + 3, "total_value", None)
    status, stats = await world.daemon.get("/api/admin/history/stats", headers={"X-API-Key": "ops-key"})
    assert (status, stats["drift"], stats["lastDrift"]["field"]) == (200, 1, "totalValue")
    await world.store()
    assert await world.daemon.parts.portfolio.sampler.sample(world.portfolio) is None
    assert world.daemon.parts.portfolio.sampler.drifted == 1


async def test_deleting_a_portfolio_takes_its_rows_along(world: World, database: Any) -> None:
    await filled(world)
    assert await database["history"].count_documents({}) > 0
    await world.daemon.call("DELETE", world.base, headers=USER)
    assert await database["history"].count_documents({}) == 0
    assert await database["history_heads"].count_documents({}) == 0


async def test_operators_store_count_and_invalidate(world: World) -> None:
    await filled(world)
    ops = {"X-API-Key": "ops-key"}
    base, call = "/api/admin/history", world.daemon.call
    _, stats = await world.daemon.get(f"{base}/stats", headers=ops)
    assert (stats["portfolios"], stats["start"], stats["end"]) == (1, iso(FIRST), iso(TODAY - 1))
    assert (stats["totalRecords"], stats["coverage"], stats["drift"]) == (3 * 345, 1.0, 0)
    status, run = await call("POST", f"{base}/materialize?wait=5", headers=ops)
    assert (status, run["state"], run["counts"]) == (200, "succeeded", {"upToDate": 1})
    body = {"portfolioId": world.portfolio.id, "force": True}
    status, run = await call("POST", f"{base}/materialize?wait=5", json=body, headers=ops)
    assert (status, run["counts"]) == (200, {"stored": 1})
    body = {"portfolioId": world.portfolio.id, "fromDate": iso(WHEN), "recalculate": True}
    status, answer = await call("POST", f"{base}/invalidate", json=body, headers=ops)
    assert (status, answer["recalculated"]) == (200, True)
    status, problem = await call("POST", f"{base}/invalidate", json={**body, "portfolioId": "no"}, headers=ops)
    assert (status, problem["code"]) == (404, "unknown_portfolio")
    await world.agree()


async def test_archived_and_rounded_rows_come_alike_from_both_ways(world: World) -> None:
    await filled(world)
    await world.send("PATCH", "", {"isArchived": True, "name": "Old"})
    await world.agree()
    targets = [
        f"/api/portfolio/history?portfolioId={world.portfolio.id}{more}&format={form}"
        for form in ("json", "columns", "csv")
        for more in ("", f"&start={iso(WHEN)}", f"&end={iso(WHEN)}", f"&accountId={world.accounts[1]}",
                     f"&start={iso(TODAY)}", f"&start={iso(FIRST)}&end={iso(FIRST)}")
    ]  # fmt: skip
    for target in targets:
        one, two = [await world.daemon.get(target + way, headers=USER) for way in ("", "&useMaterialized=false")]
        assert one[0] == two[0] == 200, one
        if isinstance(one[1], dict):
            assert one[1].pop("source") in ("materialized", "mixed", "computed")
            assert two[1].pop("source") == "computed"
        assert one == two, target


async def test_rows_say_where_they_are_from(world: World) -> None:
    await filled(world)
    target = f"/api/portfolio/history?portfolioId={world.portfolio.id}"
    for more, source in (
        ("", "mixed"),
        (f"&end={iso(TODAY - 1)}", "materialized"),
        (f"&start={iso(TODAY)}", "computed"),
    ):
        assert (await world.daemon.get(target + more, headers=USER))[1]["source"] == source, more


async def test_an_answer_has_a_tag_of_what_it_says(world: World) -> None:
    await filled(world)
    target = world.daemon.base + f"/api/portfolio/history?portfolioId={world.portfolio.id}"

    async def ask(tag: str | None = None) -> tuple[int, str]:
        headers = USER if tag is None else {**USER, "If-None-Match": tag}
        async with world.daemon.session.get(target, headers=headers) as response:
            return response.status, response.headers["ETag"]

    _, tag = await ask()
    assert await ask(tag) == (304, tag)
    await world.add("x", date=iso(WHEN), type="buy", symbol="AAPL", quantity=1, price=100)
    status, other = await ask(tag)
    assert (status, other == tag) == (200, False)
    await world.price(AAPL, {session(world, WHEN): 130.0})
    assert (await ask(other))[0] == 200


async def test_a_kept_answer_is_nobody_elses_and_knows_of_another_portfolio(world: World) -> None:
    await filled(world)
    target = "/api/portfolio/history"
    for _ in range(3):
        assert (await world.daemon.get(target, headers=USER))[1]["portfolioId"] == world.portfolio.id
    other = {**USER, "X-User-Id": "bob"}
    for target in ("/api/portfolio/history", f"/api/portfolio/history?portfolioId={world.portfolio.id}"):
        status, problem = await world.daemon.get(target, headers=other)
        assert (status, problem["code"]) == (404, "unknown_portfolio")
    await world.daemon.call("POST", "/api/portfolios", json={"name": "Second"}, headers=USER)
    assert "total" in (await world.daemon.get("/api/portfolio/history", headers=USER))[1]


async def test_a_total_comes_alike_from_both_ways(world: World) -> None:
    await filled(world)
    _, one = await world.daemon.call("POST", "/api/portfolios", json={"name": "Second"}, headers=USER)
    row = {"date": iso(WHEN), "type": "buy", "symbol": "AAPL", "quantity": 3, "price": 100}
    await world.daemon.call("POST", f"/api/portfolios/{one['id']}/transactions", json=row, headers=USER)
    await world.price(Instrument("EURUSD=X", "FX"), dict.fromkeys(range(FIRST - 20, TODAY), 1.25))
    for form in ("json", "columns", "csv"):
        for more in ("", "&currency=EUR", f"&start={iso(WHEN)}&end={iso(TODAY - 3)}"):
            target = f"/api/portfolio/history?format={form}{more}"
            found = [await world.daemon.get(target + way, headers=USER) for way in ("", "&useMaterialized=false")]
            assert found[0][0] == 200
            if form == "csv":
                assert found[0] == found[1]
                continue
            for _, answer in found:
                for part in (*answer["portfolios"], answer["total"]):
                    part.pop("source")
            assert found[0] == found[1], target


async def test_a_range_keeps_its_tag_while_what_it_says_stays(world: World) -> None:
    await filled(world)
    target = f"{world.daemon.base}/api/portfolio/history?portfolioId={world.portfolio.id}&end={iso(WHEN)}"

    async def tag(more: str = "") -> str:
        async with world.daemon.session.get(target + more, headers=USER) as response:
            return str(response.headers["ETag"])

    for form in ("", "&format=columns", "&format=csv"):
        before = await tag(form)
        assert await tag(form + "&useMaterialized=false") == before
        await world.add(f"a{form}", date=iso(WHEN + 1), type="buy", symbol="AAPL", quantity=1, price=100)
        assert await tag(form) == before
        await world.add(f"b{form}", date=iso(WHEN), type="buy", symbol="AAPL", quantity=1, price=100)
        assert await tag(form) != before


async def test_columns_say_what_is_unknown_on_the_days_asked_for_only(world: World) -> None:
    await filled(world)
    await world.add("early", date=iso(FIRST + 3), type="buy", symbol="NEW", quantity=1, price=100)
    await world.price(Instrument("NEW"), {session(world, FIRST + 40): 50.0})
    target = f"/api/portfolio/history?portfolioId={world.portfolio.id}&format=columns"
    _, early = await world.daemon.get(f"{target}&end={iso(FIRST + 30)}", headers=USER)
    assert early["reasons"] == {"totalValue": "some_values_unknown"}
    _, two = await world.daemon.get(f"{target}&accountId={world.accounts[1]}&end={iso(FIRST + 30)}", headers=USER)
    assert two["reasons"]["cash"] == "overdrawn"
    _, late = await world.daemon.get(f"{target}&start={iso(TODAY - 9)}", headers=USER)
    assert "totalValue" not in late["reasons"]
    await world.agree()


async def test_switched_off_nothing_is_kept(database: Any) -> None:
    async with api_daemon(database, keys=("operator:ops:ops-key",), use_materialized=False) as daemon:
        _, one = await daemon.call("POST", "/api/portfolios", json={"name": "Own"}, headers=USER)
        await daemon.stored()
        row = {"date": iso(TODAY - 20), "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 100}
        await daemon.call("POST", f"/api/portfolios/{one['id']}/transactions", json=row, headers=USER)
        for _ in range(2):
            _, answer = await daemon.get("/api/portfolio/history", headers=USER)
            assert answer["source"] == "computed"
        assert await database["history_heads"].count_documents({}) == 0
        for path in ("materialize", "invalidate"):
            body = {"portfolioId": one["id"], "fromDate": iso(TODAY)} if path == "invalidate" else {}
            status, problem = await daemon.call("POST", f"/api/admin/history/{path}", json=body, headers=USER)
            assert (status, problem["code"]) == (409, "materialization_off")
