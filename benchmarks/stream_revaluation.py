"""What a batch of prices costs until every portfolio that holds them has its new value: all of them in one pass."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, in_turn, row
from pricecache.core.daychange import Session
from pricecache.core.extremes import Extremes
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.live_columns import PRICE, column_facts
from pricecache.core.live_rows import COST, HELD, QUANTITY, LiveRow, live_row
from pricecache.core.livebook import LiveBook
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.summary import summary
from pricecache.realtime.messages import encoded
from pricecache.realtime.shapes import ACCOUNT, Event, Positions, PriceNow, brought_up

PORTFOLIOS, POSITIONS, SYMBOLS = 10_000, 50, 500
DAY = 20_000
WARM_TICKS = 390
"""Batches before anything is measured, so that highs and lows are as rare as in the middle of a day."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A book of `PORTFOLIOS` rows over `SYMBOLS` columns; `columns`: their numbers; `ledger`: of the first row."""

    book: LiveBook
    ranges: Extremes
    columns: NDArray[np.int64]
    market: MarketData
    sessions: dict[Instrument, Session]
    ledger: Ledger
    walk: np.random.Generator

    def quotes(self, count: int = SYMBOLS) -> NDArray[np.float64]:
        """The next quotes of the first `count` columns: a step of each, at random."""
        price = self.book.columns.facts[PRICE, self.columns[:count]]
        return np.round(price * (1 + 2e-4 * self.walk.standard_normal(count)), 4)


def case() -> Case:
    walk = np.random.default_rng(7)
    names = [Instrument(f"S{number:03}") for number in range(SYMBOLS)]
    days = np.array([DAY - 1, DAY])
    closes = np.round(walk.uniform(20, 400, SYMBOLS), 2)
    prices = {
        name: PriceColumn(Column(days, np.array([close, close]), days), "USD")
        for name, close in zip(names, closes.tolist(), strict=True)
    }
    market = MarketData(prices)
    sessions = {name: Session(DAY, DAY - 1, close) for name, close in zip(names, closes.tolist(), strict=True)}
    ledger = _ledger(names, walk)
    made = live_row(ledger, market, sessions, DAY)
    assert made is not None
    facts = column_facts(names, market, sessions, "USD", DAY)
    book = LiveBook()
    book.put(0, made)
    for slot in range(1, PORTFOLIOS):
        book.put(slot, _like(made, names, facts, walk))
    book.merge()
    columns = np.array([book.column(name, "USD") for name in names])
    return Case(book, Extremes(book), columns, market, sessions, ledger, walk)


def _like(made: LiveRow, names: list[Instrument], facts: NDArray[np.float64], walk: np.random.Generator) -> LiveRow:
    """The row of a ledger with other instruments and quantities. To build each of them takes half a minute."""
    chosen = np.sort(walk.choice(len(names), POSITIONS, replace=False))
    quantities = walk.integers(1, 20_000, POSITIONS) / 100
    cells = made.cells.copy()
    cells[[QUANTITY, HELD]], cells[COST] = quantities, quantities * 100
    held = tuple(names[at] for at in chosen.tolist())
    return replace(made, names=held, facts=facts[:, chosen], cells=cells, quantities=quantities)


def _ledger(names: list[Instrument], walk: np.random.Generator) -> Ledger:
    chosen = walk.choice(len(names), POSITIONS, replace=False)
    quantities = walk.integers(1, 20_000, POSITIONS)
    rows = [
        Transaction(DAY - 9, "buy", names[at], Decimal(int(quantity)) / 100, Decimal(100))
        for at, quantity in zip(chosen.tolist(), quantities.tolist(), strict=True)
    ]
    return Ledger.of(rows, Rules())


def rows() -> list[Row]:
    c = case()
    return [*whole(c), *few(c), *told(c), *updates(c)]


def one_pass(c: Case, count: int, quotes: NDArray[np.float64]) -> None:
    """All that follows a batch of prices but highs and lows: who holds them, what everybody is worth, what changed."""
    columns = c.columns[:count]
    c.book.set_prices(columns, quotes)
    c.book.holders(columns)
    c.book.revalue()


def whole(c: Case) -> list[Row]:
    """A batch of all prices beside the bare product, and beside a loop over dictionaries."""
    for _ in range(WARM_TICKS):
        one_pass(c, SYMBOLS, c.quotes())
        c.ranges.track()
    matrix = c.book._overlaid.main.by_row
    prices = c.book.columns.facts[PRICE, : matrix.shape[1]].copy()
    passes, ranged, beyond = [], [], []
    for _ in range(300):
        quotes = c.quotes()
        begin = time.perf_counter()
        one_pass(c, SYMBOLS, quotes)
        valued = time.perf_counter()
        beyond.append(float(len(c.ranges.track())))
        tracked = time.perf_counter()
        matrix @ prices
        bare = (time.perf_counter() - tracked) * 1e3
        passes.append(((valued - begin) * 1e3, bare))
        ranged.append(((tracked - begin) * 1e3, bare))
    held = [dict(zip(*_held(c, slot), strict=True)) for slot in range(PORTFOLIOS)]
    by_name = dict(enumerate(prices.tolist()))

    loops = []
    for ours, _ in passes[:15]:
        begin = time.perf_counter()
        for one in held:
            sum(quantity * by_name[name] for name, quantity in one.items())
        loops.append((ours, (time.perf_counter() - begin) * 1e3))
    return [
        row("500 prices, 10,000 x 50: pass; CSR @ prices", passes, "ms", most=1.5),
        row(f"  with highs and lows, {statistics.median(beyond):.0f} new ones; the same", ranged, "ms"),
        row("  pass; a loop over dictionaries", loops, "ms", most=1 / 80),
    ]


def _held(c: Case, slot: int) -> tuple[list[int], list[float]]:
    found = c.book.row(slot)
    assert found is not None
    numbers = [c.book.column(name, found.base) for name in found.names]
    return numbers, found.quantities.tolist()


def few(c: Case) -> list[Row]:
    """Few prices beside adding what they moved to the bare vector, column by column."""
    found = []
    main = c.book._overlaid.main
    for count in (1, 10, 50):
        steps = np.full(count, 0.01)
        values = c.book.value.copy()

        def bare(count: int = count, steps: NDArray[np.float64] = steps, values: NDArray[np.float64] = values) -> None:
            for column, step in zip(c.columns[:count].tolist(), steps.tolist(), strict=True):
                low, high = main.starts[column], main.starts[column + 1]
                values[main.rows[low:high]] += main.quantities[low:high] * step

        pairs = []
        for _ in range(100):
            quotes = c.quotes(count)
            begin = time.perf_counter()
            one_pass(c, count, quotes)
            mid = time.perf_counter()
            bare()
            pairs.append(((mid - begin) * 1e3, (time.perf_counter() - mid) * 1e3))
        found.append(row(f"{count} prices: pass; their columns added", pairs, "ms"))
    return found


def told(c: Case) -> list[Row]:
    """What is told of one portfolio and of ten, beside the summary of one."""

    def ours(count: int) -> object:
        return c.book.figures(np.arange(count))

    def of_summary() -> object:
        return summary(c.ledger, c.market, c.sessions, DAY)

    found = []
    for count, goal in ((1, 1.0), (10, 2.0), (1000, None)):
        pairs = in_turn(lambda count=count: ours(count), of_summary, 40)
        one = row(f"figures of {count}; summary of one", pairs, "ms")
        words = "" if goal is None else f"at most {goal:g} ms"
        found.append(Row(one.what, one.ours, one.reference, "ms", one.ratio, words, goal and one.ours <= goal))
    return found


def updates(c: Case) -> list[Row]:
    """A whole update of portfolios that somebody listens to, after some prices moved: pass, figures, events, JSON."""

    def update(moved: int, slots: NDArray[np.int64], listened: list[Listened], prices: list[PriceNow]) -> None:
        one_pass(c, moved, c.quotes(moved))
        figures = c.book.figures(slots)
        for at, one in enumerate(listened):
            now = [prices[number] for number in one.numbers]
            news = brought_up(one.values, figures, at, one.positions, now, None, 0.0)
            one.values.update(news)
            for event in news.values():
                encoded(event)

    found = []
    for count, moved, aim in ((1, 5, 1.0), (10, 5, 2.0), (1, SYMBOLS, None), (10, SYMBOLS, None)):
        slots = np.arange(count, dtype=np.int64)
        listened = [_listened(c, slot) for slot in slots.tolist()]
        prices = [PriceNow(1.0, DAY, 0.0, "made", False, DAY, DAY - 1) for _ in range(len(c.book.columns))]
        times = []
        for _ in range(60):
            for number in c.columns[:moved].tolist():
                prices[number] = replace(prices[number])
            begin = time.perf_counter()
            update(moved, slots, listened, prices)
            times.append((time.perf_counter() - begin) * 1e3)
        took = statistics.median(times)
        what, words = f"update of {count} after {moved} prices", "" if aim is None else f"at most {aim:g} ms"
        found.append(Row(what, took, aim or took, "ms", took / (aim or took), words, aim and took <= aim))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Listened:
    """A portfolio as its listeners know it; `numbers`: the columns of its positions."""

    positions: Positions
    values: dict[str, Event]
    numbers: list[int]


def _listened(c: Case, slot: int) -> Listened:
    found = c.book.row(slot)
    assert found is not None
    names = [name for name in found.names if isinstance(name, Instrument)]
    keys = tuple(f"position:{name.key}" for name in names)
    values: dict[str, Event] = {
        key: {"type": "position:updated", "symbol": name.symbol, "market": name.market, "quantity": 1.0, "cost": 1.0}
        for key, name in zip(keys, names, strict=True)
    }
    values[ACCOUNT] = {"type": "account:updated", "cashBalances": [], "reasons": {}}
    positions = Positions(keys, (True,) * len(keys), (), [None] * len(keys))
    return Listened(positions, values, [c.book.column(name, found.base) for name in names])
