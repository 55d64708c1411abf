"""`scripts/bench history`: what a portfolio's history costs, each figure beside a named reference of the same run.

50 symbols, 2,000 transactions, 5 years, every calendar day, all fields. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import pickle
import platform
import sys
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, in_turn, load, print_table, row
from pricecache.core.actions import Action
from pricecache.core.grid import Grid, lay_out
from pricecache.core.history import Checkpoint, history, instruments_of
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.replay import replay
from pricecache.core.valuation import value

SYMBOLS, TRANSACTIONS, DAYS = 50, 2_000, 1_826
FIRST = 18_263
LAST = FIRST + DAYS - 1
ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Case:
    """One portfolio and its market, and the same as the plain columns that the references take."""

    ledger: Ledger
    market: MarketData
    grid: Grid
    kinds: NDArray[np.int64]
    symbols: NDArray[np.int64]
    columns: NDArray[np.int64]
    shares: NDArray[np.float64]
    money: NDArray[np.float64]


def case(accounts: int = 1, symbols: int = SYMBOLS, transactions: int = TRANSACTIONS, days: int = DAYS) -> Case:
    """A made-up portfolio: three buys to a sale, dividends, one split a symbol; nothing is sold that is not held."""
    random = np.random.default_rng(7)
    names = [Instrument(f"S{i:03}") for i in range(symbols)]
    calendar = np.arange(FIRST - 30, FIRST + days, dtype=np.int64)
    calendar = calendar[(calendar + 3) % 7 < 5]
    prices, splits = {}, {}
    for name in names:
        closes = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.01, len(calendar)))), 4)
        splits[name] = int(random.choice(calendar[40:]))
        closes[calendar >= splits[name]] /= 2
        prices[name] = PriceColumn(Column(calendar, closes, calendar), "USD", (Action(splits[name], "split", 2.0),))
    market = MarketData(prices)
    rows = _rows(random, names, prices, splits, accounts, transactions, days)
    named = [replace(one, id=f"66f0a1b2c3d4e5f607{number:06x}") for number, one in enumerate(rows)]
    ledger = Ledger.of(named, Rules("USD"))
    plain = np.array([_plain(one, names, splits) for one in ledger.transactions])
    kinds, numbers, at = plain[:, :3].T.astype(np.int64)
    grid = lay_out(instruments_of(ledger), market, "USD", FIRST, FIRST + days - 1)
    return Case(ledger, market, grid, kinds, numbers, at, plain[:, 3].copy(), plain[:, 4].copy())


def _rows(
    random: Any, names: list[Instrument], prices: Any, splits: Any, accounts: int, transactions: int, days: int
) -> list[Transaction]:
    held: dict[tuple[Instrument, str], float] = {}
    rows = []
    for day in np.sort(random.integers(FIRST, FIRST + days - 1, transactions)).tolist():
        name, account = names[random.integers(len(names))], f"a{random.integers(accounts)}"
        of_now = 2.0 if day >= splits[name] else 1.0
        has = held.get((name, account), 0.0) * of_now
        price = Decimal(str(round(prices[name].closes.at(day)[1], 2)))
        chance = random.random()
        if chance < 0.15 and has:
            rows.append(
                Transaction(
                    day, "dividend", name, amount=Decimal(int(has * 20)) / 100 + 1, account=account, currency="USD"
                )
            )
        elif chance < 0.4 and has > 4:
            sold = int(random.integers(1, int(has / 2) + 1))
            held[name, account] -= sold / of_now
            rows.append(Transaction(day, "sell", name, Decimal(sold), price, account=account, currency="USD"))
        else:
            bought = int(random.integers(2, 80))
            held[name, account] = held.get((name, account), 0.0) + bought / of_now
            rows.append(Transaction(day, "buy", name, Decimal(bought), price, account=account, currency="USD"))
    return rows


def _plain(one: Transaction, names: list[Instrument], splits: Any) -> tuple[float, ...]:
    kind = ("buy", "sell", "dividend").index(one.type)
    assert one.instrument is not None
    number = names.index(one.instrument)
    shares = float(one.quantity or 0) * (1.0 if one.day >= splits[one.instrument] else 2.0)
    money = float(one.amount if one.amount is not None else (one.quantity or 0) * (one.price or 0))
    return kind, number, one.day - FIRST, shares, money


def plain_columns(c: Case) -> tuple[NDArray[np.float64], ...]:
    """What `vectorised` needs made of the rows: type, symbol, day, shares, money. No currency, fees or units."""
    number = {name: i for i, name in enumerate(c.grid.instruments)}
    kinds = {"buy": 0, "sell": 1, "dividend": 2}
    rows = c.ledger.transactions
    zero = Decimal(0)
    return (
        np.array([kinds[one.type] for one in rows]),
        np.array([number[one.instrument] for one in rows if one.instrument is not None]),
        np.array([one.day for one in rows]),
        np.array([float(one.quantity or zero) for one in rows]),
        np.array([float((one.quantity or zero) * (one.price or zero) + (one.amount or zero)) for one in rows]),
    )


def vectorised(c: Case, adjusted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least NumPy that gives all fields of one scope, in floats: FIFO is one interpolation over cumulative shares.
    No lots, accounts, shorts, rates, fees, cash or gaps. `adjusted`: prices in the units of the last day."""
    symbols, days = adjusted.shape
    buys, sells, paid = c.kinds == 0, c.kinds == 1, c.kinds == 2
    order = np.argsort(c.symbols[buys], kind="stable")
    x = np.concatenate([[0.0], np.cumsum(c.shares[buys][order])])
    y = np.concatenate([[0.0], np.cumsum(c.money[buys][order])])
    starts = np.searchsorted(c.symbols[buys][order], np.arange(symbols))
    by_symbol = np.argsort(c.symbols[sells], kind="stable")
    of, sold = c.symbols[sells][by_symbol], c.shares[sells][by_symbol]
    so_far = np.cumsum(sold)
    before = np.concatenate([[0.0], so_far])[np.searchsorted(of, of)]
    upto = x[starts][of] + so_far - before
    cost = np.interp(upto, x, y) - np.interp(upto - sold, x, y)
    daily = np.zeros((6, days))
    daily[0] = np.bincount(c.columns[buys], c.money[buys], days)
    daily[1] = np.bincount(c.columns[sells], c.money[sells], days)
    daily[2] = np.bincount(c.columns[sells][by_symbol], cost, days)
    daily[3] = np.bincount(c.columns[paid], c.money[paid], days)
    bought, proceeds, original, dividends = np.cumsum(daily[:4], axis=1)
    signed = np.where(buys, c.shares, np.where(sells, -c.shares, 0.0))
    held = np.bincount(c.symbols * days + c.columns, signed, symbols * days).reshape(symbols, days).cumsum(axis=1)
    worth = np.einsum("sd,sd->d", held, adjusted)
    out = np.empty((12, days))
    out[0], out[1], out[2], out[3] = worth, bought - original, proceeds - original, worth - (bought - original)
    out[4], out[5], out[6], out[7] = dividends, proceeds, original, out[2] + out[3]
    inflow, outflow = daily[0], daily[1] + daily[3]
    out[8] = np.nan
    out[9] = inflow - outflow
    had = inflow.copy()
    had[1:] += worth[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        links = np.where(had == 0, 1.0, (worth + outflow) / had)
    out[10] = np.cumprod(links)
    out[11] = 1.0
    return out


def bare_decimal(rows: tuple[Transaction, ...], splits: dict[int, list[Instrument]]) -> Any:
    """The least exact FIFO there is: lots in queues, three totals, nothing written down."""
    lots: dict[Instrument, deque[list[Decimal]]] = {}
    zero = Decimal(0)
    proceeds = original = dividends = zero
    pending = sorted(splits)
    for one in rows:
        while pending and pending[0] <= one.day:
            for name in splits[pending.pop(0)]:
                for lot in lots.get(name, ()):
                    lot[0] *= 2
        if one.type == "buy":
            lots.setdefault(one.instrument, deque()).append([one.quantity, one.quantity * one.price])  # type: ignore
        elif one.type == "sell":
            left = one.quantity
            proceeds += left * one.price  # type: ignore
            queue = lots[one.instrument]  # type: ignore
            while left:
                lot = queue[0]
                if lot[0] <= left:
                    left -= lot[0]
                    original += lot[1]
                    queue.popleft()
                else:
                    part = lot[1] * left / lot[0]
                    lot[0] -= left
                    lot[1] -= part
                    original += part
                    left = zero
        else:
            dividends += one.amount  # type: ignore
    return proceeds, original, dividends, lots


def day_by_day(c: Case, days: int = DAYS) -> list[dict[str, float]]:
    """The old kind: for every day the ledger so far is replayed, FIFO, in floats, and every price is looked up."""
    prices = [
        dict(zip(column.closes.sessions.tolist(), column.closes.values.tolist(), strict=True))
        for column in c.market.prices.values()
    ]
    last = [0.0] * len(prices)
    splits = [column.actions[0].ex_date for column in c.market.prices.values()]
    columns = (c.kinds, c.symbols, c.columns, c.shares, c.money)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    out = []
    for day in range(days):
        lots: list[deque[list[float]]] = [deque() for _ in prices]
        proceeds = original = dividends = 0.0
        for kind, symbol, column, quantity, money in rows:
            if column > day:
                break
            if kind == 0:
                lots[symbol].append([quantity, money])
            elif kind == 1:
                proceeds += money
                while quantity > 1e-9:
                    lot = lots[symbol][0]
                    taken = min(quantity, lot[0])
                    part = lot[1] * taken / lot[0]
                    original += part
                    quantity -= taken
                    if taken == lot[0]:
                        lots[symbol].popleft()
                    else:
                        lot[0] -= taken
                        lot[1] -= part
            else:
                dividends += money
        total = cost = 0.0
        for symbol, series in enumerate(prices):
            last[symbol] = series.get(FIRST + day, last[symbol])
            price = last[symbol] / (2.0 if FIRST + day < splits[symbol] else 1.0)
            total += sum(lot[0] for lot in lots[symbol]) * price
            cost += sum(lot[1] for lot in lots[symbol])
        out.append({
            "value": total, "cost": cost, "realized": proceeds - original, "unrealized": total - cost,
            "dividends": dividends, "proceeds": proceeds, "original": original,
        })  # fmt: skip
    return out


def run() -> list[Row]:
    c = case()
    adjusted = np.array([
        c.grid.prices[i] / np.where(np.arange(DAYS) + FIRST < c.market.prices[name].actions[0].ex_date, 2.0, 1.0)
        for i, name in enumerate(c.grid.instruments)
    ])  # fmt: skip
    by_day: dict[int, list[Instrument]] = {}
    for name, column in c.market.prices.items():
        by_day.setdefault(column.actions[0].ex_date, []).append(name)
    agree(c, adjusted, by_day)
    rules, rows = c.ledger.rules, c.ledger.transactions
    kernel = partial(vectorised, c, adjusted)
    replayed = replay(c.ledger, c.market, LAST)
    start = rows[0].day

    def both() -> None:
        kernel()
        bare_decimal(rows, by_day)

    def from_scratch() -> None:
        plain_columns(c)
        both()

    valued = partial(value, replayed, c.market, rules, LAST, start=start, grid=c.grid)
    whole = partial(history, c.ledger, c.market, LAST, grid=c.grid)
    unsorted = list(rows)
    bare = partial(bare_decimal, rows, by_day)
    with_prices = partial(history, c.ledger, c.market, LAST)

    def unseen() -> None:
        history(Ledger(rows, rules), c.market, LAST, grid=c.grid)

    table = [
        row("valuation; minimal vectorised NumPy", in_turn(valued, kernel, ROUNDS), "ms", most=1.5),
        row("exact pass; bare Decimal FIFO", in_turn(partial(replay, c.ledger, c.market, LAST), bare, ROUNDS), "ms"),
        row(
            "whole; that kernel with its columns made, and that pass",
            in_turn(whole, from_scratch, ROUNDS),
            "ms",
            most=2,
        ),
        row("whole; that kernel and that pass alone", in_turn(whole, both, ROUNDS), "ms", most=2),
        row("whole of a ledger not seen before; the same", in_turn(unseen, both, ROUNDS), "ms"),
        row("whole and its prices laid out; the same", in_turn(with_prices, both, ROUNDS), "ms"),
        row("rows put in order; the same", in_turn(partial(Ledger.of, unsorted, rules), both, ROUNDS), "ms"),
        row("whole; the old day-by-day loop", in_turn(whole, partial(day_by_day, c), 5), "ms", most=0.01),
    ]
    return table + resuming(c) + keeping(c) + wide()


def resuming(c: Case) -> list[Row]:
    """A transaction of the last day, and one of a year back, from the checkpoint before it; the whole."""
    points = history(c.ledger, c.market, LAST, checkpoints=[LAST - 1, LAST - 365])
    assert points is not None
    whole = partial(history, c.ledger, c.market, LAST, grid=c.grid)
    table = []
    for what, day, most in (("the last day alone", LAST - 1, 0.1), ("the last year alone", LAST - 365, None)):
        tail = partial(history, c.ledger, c.market, LAST, since=points.checkpoints[day], grid=c.grid)
        table.append(row(f"{what}; the whole", in_turn(tail, whole, ROUNDS), "ms", most=most))
    return table


def keeping(c: Case) -> list[Row]:
    """A checkpoint as bytes, beside pickle's; what a day costs that starts from bytes; and a row put to the ledger."""
    found = history(c.ledger, c.market, LAST, checkpoints=[LAST - 1])
    assert found is not None
    point = found.checkpoints[LAST - 1]
    packed, pickled = point.pack(), pickle.dumps(point)
    lots = sum(len(held.lots) for held in point.book.positions)
    sizes = [(len(packed) / lots, len(zlib.compress(pickled)) / lots)]
    whole = partial(history, c.ledger, c.market, LAST, grid=c.grid)

    def tail() -> None:
        history(c.ledger, c.market, LAST, since=Checkpoint.unpack(packed), grid=c.grid)

    def grown() -> None:
        ledger = Ledger.of([*c.ledger.transactions, c.ledger.transactions[-1]], c.ledger.rules)
        history(ledger, c.market, LAST, since=point, grid=c.grid)

    return [
        row(f"packed checkpoint of {lots} lots; pickled and compressed", sizes, "bytes/lot", most=1),
        row("packing it; pickling it", in_turn(point.pack, partial(pickle.dumps, point), ROUNDS), "ms"),
        row("unpacking it; unpickling it", in_turn(partial(Checkpoint.unpack, packed), partial(pickle.loads, pickled),
            ROUNDS), "ms"),
        row("the last day from the packed one; the whole", in_turn(tail, whole, ROUNDS), "ms"),
        row("a row put to the ledger and the last day; the whole", in_turn(grown, whole, ROUNDS), "ms"),
    ]  # fmt: skip


def wide() -> list[Row]:
    """What more accounts cost, and how many small portfolios a second one core does."""
    one, ten, small = case(), case(accounts=10), case(symbols=20, transactions=100, days=730)
    last = FIRST + 729
    pairs = in_turn(
        partial(history, ten.ledger, ten.market, LAST, grid=ten.grid),
        partial(history, one.ledger, one.market, LAST, grid=one.grid),
        ROUNDS,
    )
    reference = partial(history, one.ledger, one.market, LAST, grid=one.grid)

    def rate(grid: Grid | None) -> list[tuple[float, float]]:
        ours = partial(history, small.ledger, small.market, last, grid=grid)
        return [(1e3 / a, 1e3 / b) for a, b in in_turn(ours, reference, ROUNDS)]

    return [
        row("ten accounts; one account", pairs, "ms"),
        row("portfolios of 20 x 2 years, prices laid out; of 50 x 5 years", rate(small.grid), "a second", rate=True),
        row("the same, prices laid out each time; the same", rate(None), "a second", rate=True),
    ]


def agree(c: Case, adjusted: NDArray[np.float64], by_day: dict[int, list[Instrument]]) -> None:
    """All ways give the same numbers, or the figures mean nothing."""
    got = history(c.ledger, c.market, LAST, grid=c.grid)
    assert got is not None
    theirs = vectorised(c, adjusted)[:, got.start - FIRST :]
    assert np.allclose(got.values[:12, 0], theirs, rtol=1e-9, atol=1e-6, equal_nan=True)
    proceeds, original, dividends, _ = bare_decimal(c.ledger.transactions, by_day)
    assert np.allclose(got.values[[5, 6, 4], 0, -1], [float(proceeds), float(original), float(dividends)])
    slow = day_by_day(c)[got.start - FIRST :]
    for field, name in enumerate(("value", "cost", "realized", "unrealized", "dividends", "proceeds", "original")):
        assert np.allclose([one[name] for one in slow], got.values[field, 0], atol=1e-6), name


def parts() -> dict[str, tuple[str, Callable[[], list[Row]]]]:
    from benchmarks import history_http, history_rows
    from benchmarks.databases import on_a_mongod

    size = f"{SYMBOLS} symbols, {TRANSACTIONS:,} transactions, {DAYS:,} days"
    return {
        "engine": (f"engine: {size}", run),
        "rows": (f"kept rows on a mongod: {size}", partial(on_a_mongod, history_rows.run)),
        "http": (f"over HTTP, one connection: {size}", history_http.run),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench history", description=__doc__)
    parser.add_argument("--only", choices=("engine", "rows", "http"), help="run one part")
    chosen = parser.parse_args(arguments).only
    print(f"Python {platform.python_version()}, {load()}")
    for name, (title, measure) in parts().items():
        if chosen in (None, name):
            print_table(title, measure())
    print(f"\nat the end: {load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
