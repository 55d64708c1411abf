"""Blocks of portfolios: what is packed comes back, and what only holds is worth quantities times prices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.numbering import Numbering
from pricecache.core.packed_arrays import pack_arrays, unpack_arrays
from pricecache.core.snapshot_blocks import (
    NEVER,
    Block,
    Member,
    cash_code,
    currency_number,
    currency_of,
    of_code,
    price_code,
)
from pricecache.core.snapshot_values import CASH, TOTAL_COST, TOTAL_VALUE, Gathered, Prices
from pricecache.errors import Corrupt

CURRENCIES = ("USD", "EUR", "JPY", "USDT", "BTC")
ZONES = ("America/New_York", "UTC", "Pacific/Honolulu")
ACCOUNTS = ("", "6b0aec82a646d1f7637831d9", "6b0aec82a646d1f7637831de")
held = st.lists(st.tuples(st.integers(1, 40), st.integers(-500_00, 500_00)), max_size=6, unique_by=lambda one: one[0])
money = st.lists(
    st.tuples(st.sampled_from(CURRENCIES), st.integers(-9000, 9000)), max_size=2, unique_by=lambda one: one[0]
)


@st.composite
def members(draw: Any) -> Member:
    base = draw(st.sampled_from(CURRENCIES))
    tracks = draw(st.booleans())
    accounts = tuple(draw(st.lists(st.sampled_from(ACCOUNTS), unique=True, max_size=3)))
    columns: list[int] = []
    quantities: list[float] = []
    counts = []
    for _ in accounts:
        positions, cash = draw(held), draw(money) if tracks else []
        counts += [len(positions), len(cash)]
        columns += [*(price_code(one, base) for one, _ in positions), *(cash_code(one, base) for one, _ in cash)]
        quantities += [*(amount / 4 for _, amount in positions), *(amount / 100 for _, amount in cash)]
    named = sorted({code >> 24 for code in columns if code >= 0} | draw(st.sets(st.integers(41, 60), max_size=3)))
    return Member(
        f"{draw(st.integers(0, 1 << 60)):024x}",
        draw(st.integers(0, 1 << 40)),
        draw(st.sampled_from([-719162, 20_000, NEVER])),
        base,
        draw(st.sampled_from(ZONES)),
        tracks,
        accounts,
        np.array([draw(st.integers(0, 999)) / 100 for _ in range(len(accounts) + 1)]),
        np.array(counts, np.int64),
        np.array(columns, np.int64),
        np.array(quantities, np.float64),
        np.array(named, np.int64),
    )


def plain(one: Member) -> tuple[Any, ...]:
    return (
        one.portfolio, one.generation, one.since, one.currency, one.time_zone, one.tracks_cash, one.accounts,
        one.costs.tolist(), one.counts.tolist(), one.columns.tolist(), one.quantities.tolist(),
        sorted(one.series.tolist()),
    )  # fmt: skip


@given(st.lists(members(), max_size=6))
def test_a_block_gives_back_its_members_before_and_after_it_is_packed(given: list[Member]) -> None:
    block = Block.of(given)
    again = Block.unpack(block.pack(), block.ids.tobytes(), block.zones)
    for one in (block, again):
        assert [plain(one.member(at)) for at in range(len(one))] == [plain(member) for member in given]
        assert one.scopes == sum(len(member.accounts) + 1 for member in given)


@given(st.lists(st.lists(members(), max_size=4), min_size=1, max_size=3))
def test_everything_is_worth_quantities_times_prices_by_account_and_day(blocks: list[list[Member]]) -> None:
    every = [member for block in blocks for member in block]
    gathered = Gathered([Block.of(block) for block in blocks])
    codes = np.unique(np.concatenate([np.empty(0, np.int64), *(member.columns for member in every)]))
    table = np.round(np.random.default_rng(len(codes)).uniform(1, 200, (len(codes), 2)), 4)
    price, no_flags = dict(zip(codes.tolist(), table.tolist(), strict=True)), np.zeros(table.shape, np.bool_)
    found = gathered.valued(Prices(codes, table, no_flags, no_flags))
    scope = 0
    for member in every:
        digits = {"JPY": 0, "BTC": 8}.get(member.currency, 2)
        for day in range(2):
            worth, entry = [], 0
            for number in range(len(member.accounts)):
                parts = []
                for count in member.counts[2 * number : 2 * number + 2].tolist():
                    some = range(entry, entry + count)
                    parts.append(sum(member.quantities[at] * price[int(member.columns[at])][day] for at in some))
                    entry += count
                worth.append(tuple(round(amount, digits) for amount in (sum(parts), parts[1])))
            values = found[day][:, scope : scope + len(member.accounts) + 1]
            near = {"rel": 1e-9, "abs": 2 * 10.0**-digits}
            assert values[TOTAL_VALUE, 0] == pytest.approx(sum(value for value, _ in worth), **near)
            assert values[TOTAL_VALUE, 1:] == pytest.approx(np.array([value for value, _ in worth]), **near)
            assert values[TOTAL_VALUE, 0] == pytest.approx(
                round(float(values[TOTAL_VALUE, 1:].sum()), digits), rel=1e-12
            )
            assert values[TOTAL_COST].tolist() == member.costs.tolist()
            if member.tracks_cash:
                assert values[CASH, 1:] == pytest.approx(np.array([cash for _, cash in worth]), **near)
            elif member.accounts:
                assert np.isnan(values[CASH]).all()
        scope += len(member.accounts) + 1


@given(st.lists(st.lists(members(), max_size=4), min_size=1, max_size=3), st.data())
def test_what_series_say_is_taken_together_by_portfolio(blocks: list[list[Member]], data: Any) -> None:
    every = [member for block in blocks for member in block]
    gathered = Gathered([Block.of(block) for block in blocks])
    ids = gathered.series_beside(Numbering(np.empty(0, np.int64)))
    assert ids.tolist() == sorted({one for member in every for one in member.series.tolist()})
    known = Numbering(ids[::2].copy())
    assert gathered.series_beside(known).tolist() == ids[1::2].tolist()
    known = Numbering(ids)
    assert gathered.named(known).all()
    days = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(ids), max_size=len(ids))), np.int64)
    day_of = dict(zip(ids.tolist(), days.tolist(), strict=True))
    least = gathered.by_portfolio(days, known, np.minimum, 99)
    assert least.tolist() == [min((day_of[one] for one in m.series.tolist()), default=99) for m in every]
    flags = np.stack([days > 1, days > 2], axis=1)
    some = gathered.by_portfolio(flags, known, np.logical_or, False)
    assert some.tolist() == [[any(day_of[one] > n for one in m.series.tolist()) for n in (1, 2)] for m in every]


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 255)), max_size=3), st.data())
def test_damaged_arrays_are_told_from_whole_ones(arrays: dict[str, list[int]], data: Any) -> None:
    packed = pack_arrays({name: np.array(some, np.uint8) for name, some in arrays.items()})
    assert {name: found.tolist() for name, found in unpack_arrays(packed).items()} == arrays
    at = data.draw(st.integers(0, len(packed) - 1))
    damaged = bytearray(packed)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Corrupt):
        unpack_arrays(bytes(damaged))
    with pytest.raises(Corrupt):
        unpack_arrays(packed[:at])


@pytest.mark.parametrize("currency", [*CURRENCIES, "ZZZZZ", "A"])
def test_a_column_is_told_from_its_number(currency: str) -> None:
    assert currency_of(currency_number(currency)) == currency
    assert of_code(price_code(12_345, currency)) == (12_345, currency)
    assert of_code(cash_code("GBP", currency)) == ("GBP", currency)
