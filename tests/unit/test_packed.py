"""A packed checkpoint comes back to the last digit and bit, is refused when damaged, and is small."""

from __future__ import annotations

from decimal import Decimal as D
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core import history as engine
from pricecache.core import packed, planes
from pricecache.core.book import Book, CashBalance, Factor, Held
from pricecache.core.history import Checkpoint, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.lots import Lot
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.splits import LedgerSplit
from pricecache.core.valuation import Mark
from pricecache.errors import Corrupt

A = Instrument("AAA")
ZERO = D(0)

decimals = st.decimals(allow_nan=True, allow_infinity=False).filter(lambda d: not d.is_snan())
floats = st.floats(allow_nan=True)
days = st.integers(-1_000_000, 4_000_000)
names = st.text(max_size=8)
object_ids = st.binary(min_size=12, max_size=12).map(bytes.hex)
instruments = st.builds(Instrument, names, names)


@st.composite
def lots(draw: Any) -> list[Lot]:
    ids = draw(st.sampled_from([object_ids, names, st.just("")]))
    own = draw(st.booleans())
    found = draw(st.lists(st.tuples(decimals, decimals, decimals, days, ids), max_size=6))
    return [Lot(held, cost, cost if own else local, day, one) for held, cost, local, day, one in found]


@st.composite
def positions(draw: Any) -> Held:
    instrument = draw(st.one_of(st.none(), instruments))
    held, cost, local, *totals = draw(st.tuples(*[decimals] * 8))
    return Held(draw(names), instrument, held, tuple(draw(lots())), cost, local, draw(floats), *totals)


@st.composite
def checkpoints(draw: Any) -> Checkpoint:
    ratios = st.fractions(min_value=Fraction(1, 1000), max_value=1000)
    book = Book(
        draw(days),
        tuple(draw(st.lists(positions(), max_size=4))),
        tuple(draw(st.lists(st.tuples(instruments, st.booleans(), decimals, decimals), max_size=2))),
        tuple(draw(st.lists(st.builds(CashBalance, names, names, decimals), max_size=2))),
        tuple(
            draw(
                st.lists(
                    st.builds(Factor, instruments, st.none(), st.frozensets(names, max_size=1), ratios), max_size=2
                )
            )
        ),
        tuple(draw(st.lists(st.builds(LedgerSplit, days, instruments, names, ratios), max_size=2))),
        tuple(draw(st.lists(st.integers(0, 10)))),
    )
    six = st.tuples(*[floats] * 6)
    counts = st.tuples(*[st.integers(0, 9)] * 6)
    scopes = st.tuples(st.one_of(st.none(), names), st.one_of(st.none(), instruments))
    marks = draw(st.dictionaries(scopes, st.builds(Mark, six, counts, floats, floats), max_size=3))
    return Checkpoint(book.day, book, marks)


@given(checkpoints())
@settings(max_examples=100, deadline=None)
def test_a_checkpoint_comes_back_to_the_digit_and_the_bit(checkpoint: Checkpoint) -> None:
    again = Checkpoint.unpack(checkpoint.pack())
    assert repr(again) == repr(checkpoint)
    assert again.pack() == checkpoint.pack()


def test_a_lot_without_another_local_cost_has_one_object_for_both() -> None:
    two = [Lot(D(1), D("2.50"), D("2.50"), 3), Lot(D(1), D("2.5"), D("2.50"), 3)]
    held = Held("", A, D(2), tuple(two), ZERO, ZERO, 1.0, *[ZERO] * 5)
    first, second = Checkpoint.unpack(Checkpoint(3, Book(3, (held,))).pack()).book.positions[0].lots
    assert first.local is first.cost
    assert str(second.local) == "2.50" != str(second.cost)


@given(checkpoints(), st.data())
@settings(max_examples=50, deadline=None)
def test_a_flipped_byte_is_corrupt(checkpoint: Checkpoint, data: st.DataObject) -> None:
    """Many faults in each of a few checkpoints: to make one up takes a hundred times as long as to read it."""
    packed = checkpoint.pack()
    faults = st.dictionaries(st.integers(0, len(packed) - 1), st.integers(1, 255), min_size=1, max_size=3)
    for flipped in data.draw(st.lists(faults, min_size=6, max_size=12)):
        kept = bytearray(packed)
        for at, bits in flipped.items():
            kept[at] ^= bits
        with pytest.raises(Corrupt):
            Checkpoint.unpack(bytes(kept))


@given(checkpoints(), st.data())
@settings(max_examples=50, deadline=None)
def test_a_part_and_more_than_all_are_corrupt(checkpoint: Checkpoint, data: st.DataObject) -> None:
    kept = checkpoint.pack()
    for damaged in (kept[: data.draw(st.integers(0, len(kept) - 1))], kept + b"\0", b"", b"anything at all"):
        with pytest.raises(Corrupt):
            Checkpoint.unpack(damaged)


@given(st.binary(max_size=60))
def test_bytes_that_are_whole_and_mean_nothing_are_corrupt(body: bytes) -> None:
    version = engine.ENGINE_VERSION
    for meaningless in (body, packed._compressed(body), packed._compressed(b"[1,2,3]\0")):
        frame = packed._FRAME.pack(packed._MAGIC, version, packed.zlib.crc32(meaningless, version))
        with pytest.raises(Corrupt):
            Checkpoint.unpack(frame + meaningless)


def test_another_engine_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoint(3, Book(3)).pack()
    monkeypatch.setattr(engine, "ENGINE_VERSION", engine.ENGINE_VERSION + 1)
    with pytest.raises(Corrupt, match="another engine"):
        Checkpoint.unpack(kept)


@given(st.lists(object_ids, max_size=20))
def test_ids_come_back_from_their_planes(ids: list[str]) -> None:
    found = planes.ids_out(ids)
    assert found is not None
    assert planes.ids_back(found) == ids


@pytest.mark.parametrize("odd", ["", "66F0A1B2C3D4E5F607182A10", "6 f0a1b2c3d4e5f607182a1 ", "x" * 24, "12"])
def test_other_ids_have_no_planes(odd: str) -> None:
    assert planes.ids_out(["66f0a1b2c3d4e5f607182a10", odd]) is None


def test_a_lot_takes_ten_bytes() -> None:
    """50 instruments, fifteen lots each, ids one after the other: with all totals, names and floats."""
    random = np.random.default_rng(1)
    held = [Instrument(f"S{i:03}") for i in range(50)]
    calendar = np.arange(0, 1900, dtype=np.int64)
    market = MarketData({one: PriceColumn(Column(calendar, np.full(1900, 50.0)), "USD") for one in held})
    bought = [
        Transaction(
            day, "buy", held[random.integers(50)], D(int(random.integers(2, 80))),
            D(int(random.integers(5_000, 15_000))) / 100, id=f"66f0a1b2c3d4e5f607{i:06x}",
        )
        for i, day in enumerate(sorted(random.integers(0, 1800, 750).tolist()))
    ]  # fmt: skip
    found = history(Ledger.of(bought), market, 1800, checkpoints=[1800])
    assert found is not None
    assert len(found.checkpoints[1800].pack()) < 10 * 750
