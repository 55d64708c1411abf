"""The simulation of a million users, on a few: what is drawn is what was asked for, and the queue is the queue."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reconstruct_simulation import (
    CALL_SECONDS,
    FUNDS,
    MOST_HELD,
    STOCK_SYMBOLS,
    STOCKS,
    Holdings,
    drawn,
    queued,
)


def of_each(held: Holdings) -> list[list[int]]:
    return [part.tolist() for part in np.split(held.security, held.first[1:-1])]


def test_the_same_seed_draws_the_same_users() -> None:
    one, other = drawn(500), drawn(500)
    np.testing.assert_array_equal(one.security, other.security)
    assert drawn(500, seed=1).security.tolist() != one.security.tolist()


@pytest.mark.parametrize("exponent", [0.8, 1.2])
def test_each_user_holds_every_security_once(exponent: float) -> None:
    for own in of_each(drawn(2000, exponent)):
        assert len(own) == len(set(own))
        assert 2 <= len(own) <= 2 * MOST_HELD


def test_the_numbers_held_are_those_of_the_surveys() -> None:
    stocks = [sum(one < STOCK_SYMBOLS for one in own) for own in of_each(drawn(20_000))]
    funds = [sum(one >= STOCK_SYMBOLS for one in own) for own in of_each(drawn(20_000))]
    assert np.mean(np.array(stocks) <= 1) == pytest.approx(0.36, abs=0.01)
    assert np.mean(np.array(stocks) <= 9) == pytest.approx(0.84, abs=0.01)
    assert np.median(funds) == 4
    assert STOCKS != FUNDS


def test_the_popular_are_held_by_many() -> None:
    """1 / rank: the first twice as often as the second, of those that hold one stock."""
    single = [own[0] for own in of_each(drawn(60_000)) if own[0] < STOCK_SYMBOLS and own[1] >= STOCK_SYMBOLS]
    counts = np.bincount(single, minlength=4)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.15)
    assert counts[0] / counts[3] == pytest.approx(4, rel=0.2)


def test_whoever_needs_a_security_first_has_it_fetched_for_everybody() -> None:
    held = Holdings(np.array([7, 8, 7, 8, 9, 7]), np.array([0, 2, 3, 5, 6]))
    found = queued(held, own=0.5, gap=10.0, at_once=2)
    # 7 is asked for at 0, 8 at 10, 9 at 20; the second user waits for 7 alone, the third for 9
    assert found.begun.tolist() == [0, 0, CALL_SECONDS + 0.5, 10 + CALL_SECONDS + 0.5]
    assert found.done.tolist() == [10 + CALL_SECONDS + 0.5, CALL_SECONDS + 0.5, 20 + CALL_SECONDS + 0.5,
                                   10 + CALL_SECONDS + 1.0]  # fmt: skip


def test_the_queue_is_never_ahead_of_its_calls_and_its_work() -> None:
    held = drawn(3000)
    found = queued(held)
    took = found.done - found.begun
    assert (took >= 0.25).all()
    assert found.done[-1] >= held.distinct - 1
    assert (np.diff(found.begun) >= 0).all()
    running = np.sort(found.begun[2:]) >= np.sort(found.done)[:-2]
    assert running.all()  # two at once at most
