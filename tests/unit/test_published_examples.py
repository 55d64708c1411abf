"""Worked examples that others have published, each with its source, come out of the engine as they did there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.bars import day_number
from pricecache.core.book import Held
from pricecache.core.history import History, book_at, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import CostBasis, Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.returns import performance, xirr
from pricecache.core.valuation import REALIZED

A = Instrument("AAA")
START = day_number(date(2008, 1, 1))


def on(year: int, month: int, day: int) -> int:
    return day_number(date(year, month, day))


def market(closes: dict[int, float], currency: str = "USD", actions: tuple[Action, ...] = ()) -> MarketData:
    days = np.array(sorted(closes), np.int64)
    column = Column(days, np.array([closes[int(day)] for day in days]), days)
    return MarketData({A: PriceColumn(column, currency, actions)})


def row(day: int, kind: Any, quantity: Any, price: Any, **more: Any) -> Transaction:
    return Transaction(day, kind, A, D(str(quantity)), D(str(price)), **more)


def held(rows: Sequence[Transaction], data: MarketData | None = None, **rules: Any) -> Held:
    """The one position once all rows have taken effect."""
    made = Rules(**rules)
    day = rows[-1].day + 30
    (one,) = book_at(Ledger.of(rows, made), data or market({rows[0].day: 1.0}), day).positions
    return one


def gained(one: Held) -> float:
    return float(one.proceeds - one.original)


def fund(values: list[tuple[int, float]], flows: dict[int, float]) -> History:
    """One fund of units: `values` are of the day before its flow, which counts from the start of that day; flows buy
    and sell units at the value of the evening before."""
    (first, units), price = values[0], 1.0
    rows, closes = [row(first, "buy", units, 1)], {first: 1.0}
    for day, worth in values[1:]:
        price = worth / units
        closes[day - 1] = closes[day] = price
        flow = flows.get(day, 0.0)
        if flow:
            rows.append(row(day, "buy" if flow > 0 else "sell", round(abs(flow) / price, 9), repr(price)))
            units += flow / price
    found = history(Ledger.of(rows), market(closes), values[-1][0])
    assert found is not None
    return found


# Time-weighted returns


def test_a_contribution_and_a_withdrawal_in_a_year() -> None:
    """MathCelebrity, Time Weighted Rate of Interest (mathcelebrity.com/intweighttimeinst.htm): 100,000 on 1 January;
    112,000 on 1 March, when 30,000 come in; 125,000 on 1 August, when 42,000 go out; 100,000 a year after the start:
    18.78 %."""
    march, august, end = on(2009, 3, 1), on(2009, 8, 1), on(2010, 1, 1)
    got = fund(
        [(on(2009, 1, 1), 100_000.0), (march, 112_000.0), (august, 125_000.0), (end, 100_000.0)],
        {march: 30_000.0, august: -42_000.0},
    )
    assert performance(got).twr == pytest.approx(0.1878, abs=5e-5)


@pytest.mark.parametrize(
    ("values", "flows"),
    [((100.0, 150.0, 350.0, 270.0), (100.0, 100.0)), ((300.0, 450.0, 630.0, 378.0), (0.0, 0.0))],
)
def test_three_years_with_and_without_contributions_and_the_same_return_a_year(
    values: tuple[float, ...], flows: tuple[float, float]
) -> None:
    """The Free Dictionary, Financial Dictionary, time-weighted return
    (financial-dictionary.thefreedictionary.com/time-weighted+return), exhibit 4: Barry has 100, 150, 350 and 270 and
    puts 100 in after each of the first two years, Samantha has 300, 450, 630 and 378 and puts in nothing: 26 % in three
    years, 8.0 % a year, for both."""
    years = [on(year, 1, 1) for year in (2001, 2002, 2003, 2004)]
    got = performance(fund(list(zip(years, values, strict=True)), dict(zip(years[1:3], flows, strict=True))))
    assert got.twr == pytest.approx(0.26)
    assert got.twr_annualized == pytest.approx(0.080, abs=5e-4)


def test_shares_bought_year_by_year_with_dividends_that_are_not_reinvested() -> None:
    """AnalystNotes, CFA Level I, basic question 2 on time-weighted returns
    (analystnotes.com/basic_question.php?id=19&subid=3): a share for 65.40, another at 68.12 after a dividend of 0.75,
    another at 75.95 after 0.77 on each, all sold at 82.76 after three years: 8.92 % a year."""
    one, two, three, four = (on(year, 1, 1) for year in (2001, 2002, 2003, 2004))
    rows = [
        row(one, "buy", 1, "65.40"),
        Transaction(two - 1, "dividend", A, amount=D("0.75")),
        row(two, "buy", 1, "68.12"),
        Transaction(three - 1, "dividend", A, amount=D("1.54")),
        row(three, "buy", 1, "75.95"),
        row(four, "sell", 3, "82.76"),
    ]
    closes = {one: 65.40, two - 1: 68.12, three - 1: 75.95, four: 82.76}
    got = history(Ledger.of(rows), market(closes), four)
    assert got is not None
    assert performance(got).twr_annualized == pytest.approx(0.0892, abs=5e-5)


# Money-weighted returns

XIRR_AMOUNTS = (-10_000.0, 2_750.0, 4_250.0, 3_250.0, 2_750.0)


@pytest.mark.parametrize(
    ("year", "expected", "near"),
    [(2008, 0.373362535, 1e-8), (1992, 0.373363, 1e-6), (2014, 0.3749, 5e-5)],
)
def test_the_examples_of_xirr(year: int, expected: float, near: float) -> None:
    """Microsoft: Support, XIRR function (support.microsoft.com/excel/functions/xirr-function), 2008: 37.3362535 %;
    Knowledge Base Q116041, 1992: 37.3363 %; DAX reference (learn.microsoft.com/dax/xirr-function-dax), 2014: 37.49 %.
    10,000 are paid on 1 January; 2,750 come back on 1 March and 4,250 on 30 October, and in the next year 3,250 on 15
    February and 2,750 on 1 April."""
    days = (date(year, 1, 1), date(year, 3, 1), date(year, 10, 30), date(year + 1, 2, 15), date(year + 1, 4, 1))
    assert xirr(list(zip(days, XIRR_AMOUNTS, strict=True)))[0] == pytest.approx(expected, abs=near)


# Drawdown


@pytest.mark.parametrize(
    ("values", "expected"),
    [((1000.0, 800.0, 1100.0, 700.0), -0.364), ((500_000.0, 300_000.0), -0.40)],
)
def test_the_deepest_of_several_falls(values: tuple[float, ...], expected: float) -> None:
    """How I Grow My Wealth, glossary (howigrowmywealth.com/glossary/drawdown): 1,000 in June fall to 800, rise to 1,100
    in September and fall to 700: 36.4 %. Calculator Academy (calculator.academy/maximum-drawdown-calculator): from
    500,000 to 300,000, -40 %."""
    got = fund([(START + 30 * month, value) for month, value in enumerate(values)], {})
    assert performance(got).max_drawdown == pytest.approx(expected, abs=5e-4)


# Which shares are sold

BITCOINS = [row(START + n, "buy", 1, price) for n, price in enumerate((10_000, 12_000, 9_000, 15_000, 18_000))]


@pytest.mark.parametrize(("method", "profit"), [("fifo", 29_000), ("lifo", 18_000), ("hifo", 15_000)])
def test_three_of_five_coins_sold_by_each_method(method: CostBasis, profit: int) -> None:
    """Accointing, crypto cost basis, as quoted at beta.ninjastic.space/post/62942487: coins bought for 10,000, 12,000,
    9,000, 15,000 and 18,000, three of them sold at 20,000 each: a profit of 29,000 by FIFO, 18,000 by LIFO, 15,000 by
    HIFO."""
    one = held([*BITCOINS, row(START + 200, "sell", 3, 20_000)], cost_basis=method)
    assert gained(one) == profit


@pytest.mark.parametrize(("method", "gain"), [("fifo", 2_500), ("lifo", 500), ("hifo", 500)])
def test_a_hundred_of_three_hundred_shares_sold(method: CostBasis, gain: int) -> None:
    """CertFuel, Series 7, cost valuation methods
    (app.certfuel.com/series7/learn/equity-securities/equity-tax-treatment/cost-valuation-methods): 100 shares each at
    30, 40 and 50, and 100 sold at 55: a gain of 2,500 by FIFO, 500 by LIFO."""
    rows = [row(START, "buy", 100, 30), row(START + 90, "buy", 100, 40), row(START + 180, "buy", 100, 50)]
    assert gained(held([*rows, row(START + 300, "sell", 100, 55)], cost_basis=method)) == gain


def irs_fund() -> list[Transaction]:
    """Table 3 of Publication 564: 4,000 at 25, 4,800 at 20, 300 of dividend reinvested at 30, 210 shares sold at 32."""
    return [
        row(on(2008, 2, 6), "buy", 160, 25),
        row(on(2008, 8, 7), "buy", 240, 20),
        Transaction(on(2008, 12, 18), "dividend", A, amount=D(300), link="1"),
        row(on(2008, 12, 18), "buy", 10, 30, link="1"),
        row(on(2009, 10, 1), "sell", 210, 32),
    ]


@pytest.mark.parametrize(("method", "basis"), [("fifo", 5_000.0), ("average", 9_100 / 410 * 210)])
def test_a_fund_with_a_reinvested_dividend(method: CostBasis, basis: float) -> None:
    """Internal Revenue Service, Publication 564 (2009), table 3, as held at
    formsbank.com/template/298139/publication-564-mutual-fund-distributions-internal-revenue-service-2009.html: of 410
    shares that cost 9,100, 210 are sold; their basis is 5,000 by FIFO, and at the average of all 410 shares else."""
    one = held(irs_fund(), cost_basis=method)
    assert one.quantity == 200
    assert float(one.original) == pytest.approx(basis)
    assert float(one.proceeds) == 6_720


def test_the_reinvested_dividend_of_that_fund_is_no_flow() -> None:
    """The same table: what is reinvested neither comes in nor goes out, and is part of what the shares cost."""
    found = history(Ledger.of(irs_fund()), market({on(2008, 2, 6): 25.0, on(2008, 12, 18): 30.0}), on(2009, 1, 1))
    assert found is not None
    assert performance(found, start=on(2008, 12, 17)).net_flow == pytest.approx(0)
    assert performance(found, start=on(2008, 12, 17)).gain == pytest.approx(410 * 30 - 400 * 25)


def test_the_average_cost_of_a_fund() -> None:
    """Fund Manager, average cost definition (fundmanagersoftware.com/help/def_avg.html): 100 shares at 50, 100 at 55, 1
    reinvested at 56; 50 sold at 60: an average of 52.52 and a gain of 374."""
    rows = [
        row(START, "buy", 100, 50),
        row(START + 30, "buy", 100, 55),
        row(START + 60, "buy", 1, 56),
        row(START + 90, "sell", 50, 60),
    ]
    one = held(rows, cost_basis="average")
    assert float(one.original) / 50 == pytest.approx(52.52, abs=0.005)
    assert gained(one) == pytest.approx(374, abs=0.5)


def test_the_pool_of_a_section_104_holding() -> None:
    """HM Revenue & Customs, helpsheet HS284, example 3 (gov.uk, shares and Capital Gains Tax), its figures also at
    forums.moneysavingexpert.com/discussion/6432423: after a gain of 329 there are 800 shares of Lobster plc that cost
    3,349; 400 sold at 5.20 with 105 of costs bring 1,975 less 1,675: a gain of 300."""
    rows = [
        row(START, "buy", 1000, 4, fees=D(150), currency="GBP"),
        row(START + 10, "buy", 500, "4.10", fees=D(80), currency="GBP"),
        row(START + 20, "sell", 700, "4.80", fees=D(100), currency="GBP"),
    ]
    data, rules = market({START: 400.0}, "GBp"), {"currency": "GBP", "cost_basis": "average"}
    first = held(rows, data, **rules)
    assert round(gained(first)) == 329
    assert (first.quantity, round(float(first.basis[0]))) == (800, 3_349)
    both = held([*rows, row(START + 30, "sell", 400, "5.20", fees=D(105), currency="GBP")], data, **rules)
    assert round(gained(both) - gained(first)) == 300
    assert [round(float(basis), 2) for basis in both.basis] == [1674.67, 167466.67]  # and in pence, as it is quoted


# Short sales and splits


@pytest.mark.parametrize(
    ("quantity", "sold", "bought", "profit"), [(500, "40", "32", 4_000), (100, "56.5", "46.5", 1_000)]
)
def test_a_short_sale_gains_by_what_the_price_fell(quantity: int, sold: str, bought: str, profit: int) -> None:
    """Lawtrades, startup law dictionary, short sale (lawtrades.com/business-startup-law-dictionary/short-sale): 500
    shares sold at 40 and bought back at 32, a profit of 4,000. The Motley Fool, as quoted at
    si.frajer.net/readmsg.aspx?msgid=866656: 100 shares sold at 56 1/2 and bought back at 46 1/2, 1,000."""
    rows = [row(START, "sell", quantity, sold), row(START + 60, "buy", quantity, bought)]
    found = history(Ledger.of(rows, Rules(allow_short=True)), market({START: float(sold)}), START + 60)
    assert found is not None
    assert found.of(REALIZED)[-1] == pytest.approx(profit)


def test_a_split_divides_the_basis_of_each_lot() -> None:
    """Internal Revenue Service, frequently asked questions (irs.gov/help-resources/tools-faqs), on stocks, options,
    splits, traders: 100 shares at 10 and 100 at 12, and a split of two for one: 200 shares with a basis of 1,000, 5
    each, and 200 with 1,200, 6 each."""
    split = Action(START + 90, "split", 2.0)
    data = market({START: 10.0, START + 90: 6.0}, actions=(split,))
    one = held([row(START, "buy", 100, 10), row(START + 80, "buy", 100, 12)], data)
    assert [(lot.quantity, lot.cost, lot.unit_cost) for lot in one.lots] == [(200, 1_000, 5), (200, 1_200, 6)]
