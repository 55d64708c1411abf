"""Journal rows are written as BSON by hand: they have to be what the driver would have written."""

from __future__ import annotations

import bson
import numpy as np
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import MANUAL, RETRACTED, Bars, day_of
from pricecache.stores.journal import Revision, journal_rows, replay_rows


@given(st.integers(1, 2**31 - 1), st.sets(st.integers(-20_000, 60_000), max_size=5), st.floats(allow_nan=False))
def test_a_row_decodes_to_what_it_says(series_id: int, sessions: set[int], price: float) -> None:
    days = np.array(sorted(sessions), np.int64)
    bars = Bars(days, np.tile(np.array([[price], [1.0], [2.0], [3.0], [4.0]]), (1, len(days))))
    batch = ObjectId()
    rows = [bson.decode(row.raw) for row in journal_rows(series_id, batch, bars)]
    assert [row["ts"].date() for row in rows] == [day_of(day) for day in days]
    for row in rows:
        assert row["meta"] == {"s": series_id, "y": row["ts"].year}
        assert (row["b"], row["o"], row["h"], row["l"], row["c"], row["v"]) == (batch, price, 1.0, 2.0, 3.0, 4.0)
        assert (
            bson.encode(row)
            == journal_rows(series_id, batch, bars.between(*[(row["ts"].toordinal() - 719163)] * 2))[0].raw
        )


def revision(rev: int, batch: ObjectId, flags: int = 0) -> Revision:
    return Revision(rev, batch, "test", rev * 1000, flags, None, None)


def stored(batch: ObjectId, session: int, close: float) -> dict[ObjectId, list[dict[str, object]]]:
    [row] = journal_rows(1, batch, Bars(np.array([session]), np.full((5, 1), close)))
    options: bson.CodecOptions[dict[str, object]] = bson.CodecOptions(tz_aware=True)
    return {batch: [bson.decode(row.raw, options)]}


def test_the_last_word_stands_manual_covers_and_retracting_uncovers() -> None:
    first, manual, later, retracted = (ObjectId() for _ in range(4))
    rows = stored(first, 10, 1.0) | stored(manual, 10, 2.0) | stored(later, 10, 3.0) | stored(retracted, 10, 0.0)
    history = [revision(1, first), revision(2, manual, MANUAL), revision(3, later), revision(4, retracted, RETRACTED)]
    closes = [replay_rows(history[:n], rows).bars.close.tolist() for n in range(5)]
    assert closes == [[], [1.0], [2.0], [2.0], [3.0]]


def test_rows_without_a_revision_are_counted_and_left_out() -> None:
    lost = ObjectId()
    replayed = replay_rows([], stored(lost, 10, 1.0))
    assert len(replayed.bars) == 0
    assert replayed.orphans == 1
