"""Where a provider and what is held part is told as long as it is so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import Bars
from pricecache.core.coverage import Divergence
from pricecache.core.divergence import Finding, after_finding, disagreeing, lacking, noticed, settled

FIRST = 20_000


def found(*sessions: int) -> Finding:
    return Finding("provider_has_less", np.array([FIRST + s for s in sessions], np.int64), "less")


def closes(*values: float) -> Bars:
    return Bars(np.arange(FIRST, FIRST + len(values)), np.tile(np.array(values), (5, 1)))


def days(sessions: NDArray[np.int64]) -> list[int]:
    return [session - FIRST for session in sessions.tolist()]


def test_a_finding_is_kept_extended_and_forgotten_by_an_answer_that_covers_all_of_it() -> None:
    known = after_finding({}, found(3, 4), "one", FIRST, FIRST + 9, 1.0)
    assert known == {"provider_has_less": Divergence("one", "less", 1.0, 1.0, 2, FIRST + 3, FIRST + 4)}
    known = after_finding(known, found(8), "one", FIRST + 7, FIRST + 9, 2.0)
    assert known["provider_has_less"] == Divergence("one", "less", 1.0, 2.0, 2, FIRST + 3, FIRST + 8)
    assert after_finding(known, found(), "one", FIRST + 5, FIRST + 9, 3.0) is known
    assert after_finding(known, found(), "other", FIRST, FIRST + 9, 3.0) is known
    assert after_finding(known, found(), "one", FIRST, FIRST + 9, 3.0) == {}


def test_a_finding_of_an_answer_that_covers_the_former_one_takes_its_place() -> None:
    known = after_finding({}, found(3, 4, 5), "one", FIRST, FIRST + 9, 1.0)
    known = after_finding(known, found(4), "one", FIRST, FIRST + 9, 2.0)
    assert known["provider_has_less"] == Divergence("one", "less", 1.0, 2.0, 1, FIRST + 4, FIRST + 4)


def test_a_whole_answer_of_another_kind_is_noticed_until_it_is_settled() -> None:
    known = noticed(noticed({}, "other_currency", "one", "CAD", 1.0), "other_currency", "one", "CAD", 2.0)
    assert known["other_currency"] == Divergence("one", "CAD", 1.0, 2.0)
    assert settled(known, "other_currency", "other") is known
    assert settled(known, "other_currency", "one") == {}


def test_closes_disagree_from_half_a_percent_on() -> None:
    assert days(disagreeing(closes(100.0, 100.4, 100.6, 99.4), closes(100.0, 100.0, 100.0, 100.0))) == [2, 3]
    assert days(disagreeing(closes(1.0), Bars.empty())) == []


def test_what_an_answer_lacks_is_what_is_held_of_its_range() -> None:
    held = np.arange(FIRST, FIRST + 10)
    assert days(lacking(np.array([FIRST + 4]), held, FIRST + 3, FIRST + 5)) == [3, 5]
