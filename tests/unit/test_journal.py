"""Journal rows are written as BSON by hand: they have to be what the driver would have written."""

from __future__ import annotations

from dataclasses import replace

import bson
import numpy as np
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import APPROVED, MANUAL, RETRACTED, Bars, day_of
from pricecache.stores.journal import known_by, replayed
from pricecache.stores.journal_rows import journal_rows, rows_from
from pricecache.stores.revisions import Revision, pack_sessions, unpack_sessions


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


def stored(batch: ObjectId, session: int, close: float) -> bytes:
    [row] = journal_rows(1, batch, Bars(np.array([session]), np.full((5, 1), close)))
    fields = bson.decode(row.raw)
    del fields["meta"]
    return bson.encode(fields)


def test_the_last_word_stands_manual_covers_and_retracting_uncovers() -> None:
    first, manual, later, retracted = (ObjectId() for _ in range(4))
    rows = rows_from(
        stored(first, 10, 1.0) + stored(manual, 10, 2.0) + stored(later, 10, 3.0) + stored(retracted, 10, 0.0)
    )
    history = [revision(1, first), revision(2, manual, MANUAL), revision(3, later), revision(4, retracted, RETRACTED)]
    closes = [replayed(history[:n], rows).bars.close.tolist() for n in range(5)]
    assert closes == [[], [1.0], [2.0], [2.0], [3.0]]


def test_rows_without_a_revision_are_counted_and_left_out() -> None:
    lost = ObjectId()
    found = replayed([], rows_from(stored(lost, 10, 1.0)))
    assert len(found.bars) == 0
    assert found.orphans == 1


def replayed_one_by_one(history: list[Revision], rows: list[tuple[int, int, float]]) -> dict[int, float]:
    """The rule itself: of each session the last word by hand, if not taken back, else the last of a provider."""
    below: dict[int, float] = {}
    above: dict[int, float] = {}
    for place, session, close in sorted(rows):
        flags = history[place].flags
        if flags & RETRACTED:
            above.pop(session, None)
        elif flags & MANUAL:
            above[session] = close
        else:
            below[session] = close
    return below | above


@given(
    st.lists(st.sampled_from([0, MANUAL, RETRACTED, APPROVED]), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), max_size=40),
)
def test_columns_say_what_going_through_the_rows_one_by_one_says(
    flags: list[int], places: list[tuple[int, int]]
) -> None:
    history = [revision(rev, ObjectId(), flag) for rev, flag in enumerate(flags, 1)]
    rows = [(place % len(flags), day, 1.0 + n) for n, (place, day) in enumerate(dict.fromkeys(places))]
    rows = list({(place, day): (place, day, close) for place, day, close in rows}.values())
    data = b"".join(stored(history[place].batch, day, close) for place, day, close in rows)
    found = replayed(history, rows_from(data))
    expected = replayed_one_by_one(history, rows)
    assert dict(zip(found.bars.sessions.tolist(), found.bars.close.tolist(), strict=True)) == expected
    assert found.orphans == 0


def test_rows_of_another_layout_are_read_too() -> None:
    batch = ObjectId()
    plain = stored(batch, 10, 1.0)
    odd = bson.encode({**bson.decode(stored(batch, 11, 2.0)), "v": 7})
    rows = rows_from(plain + odd)
    assert rows.sessions.tolist() == [10, 11]
    assert rows.values[3].tolist() == [1.0, 2.0]
    assert rows.values[4].tolist() == [1.0, 7.0]
    assert len(rows_from(b"")) == 0


def test_a_batch_counts_as_committed_no_earlier_than_the_one_before_it() -> None:
    history = [replace(revision(n, ObjectId()), committed_at=at) for n, at in ((1, 1000), (2, 9000), (3, 4000))]
    assert [known_by(history, instant) for instant in (0.5, 1.0, 4.0, 8.9, 9.0)] == [0, 1, 1, 1, 3]


@given(st.sets(st.integers(-20_000, 60_000)))
def test_packed_sessions_unpack(sessions: set[int]) -> None:
    days = np.array(sorted(sessions), np.int64)
    assert unpack_sessions(pack_sessions(days)).tolist() == days.tolist()


def test_the_sessions_of_a_first_fill_of_ten_years_take_little() -> None:
    weekdays = np.array([day for day in range(16_000, 19_650) if (day + 3) % 7 < 5], np.int64)
    holidays = np.delete(weekdays, np.arange(7, len(weekdays), 29))
    assert len(pack_sessions(holidays)) < 600
