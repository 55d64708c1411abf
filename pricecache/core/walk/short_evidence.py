"""Where a walk backwards may be below zero, and what there is that no short position explains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ShortEvidence:
    """Of one position. `opens`: sources of rows that sell short; `closes`: of rows that buy back what was sold short.
    `is_contract`: it may be written by whatever sells it; `expires`: on which day nothing of it is left, or None."""

    opens: frozenset[int] = frozenset()
    closes: frozenset[int] = frozenset()
    is_contract: bool = False
    expires: int | None = None


class Point(NamedTuple):
    """A day of a walk on which something moved, in units of today: what there was at its `end` and `before`, and how
    much of that was bought back and sold short by rows that say so."""

    day: int
    end: Fraction
    before: Fraction
    closed: Fraction
    opened: Fraction


def unexplained(points: Sequence[Point], *, is_contract: bool) -> list[tuple[int, Fraction]]:
    """What is missing behind rows of `points`, which go back in time: (day, how much went, or came where above zero).

    Going back, the balance may fall below zero by what a row says it bought back, or where what was sold before makes
    up for it: of a contract whatever sold it, of anything else a row that sold it short. What was sold short has to be
    owed then, or bought back by a row. Where it is below zero already nothing is asked.
    """
    highest = _so_far(points, max)
    lowest = _so_far(points, min)
    found: list[tuple[int, Fraction]] = []
    shift = Fraction(0)
    for place, one in enumerate(points):
        end, before = one.end + shift, one.before + shift
        missing = Fraction(0)
        if before < 0 <= end:
            missing = min(highest[place] + shift + one.closed, missing)
            if not is_contract:
                missing = min(before + one.closed + _sold_short(points, place, shift), missing)
        elif one.opened and before > end >= 0:
            missing = max(min(lowest[place] + shift, one.opened, before - end), missing)
        if missing:
            found.append((one.day, missing))
            shift -= missing
    return found


def _so_far(points: Sequence[Point], which: Callable[[Fraction, Fraction], Fraction]) -> list[Fraction]:
    """Of all balances from each point back."""
    return list(accumulate((one.before for one in reversed(points)), which))[::-1]


def _sold_short(points: Sequence[Point], place: int, shift: Fraction) -> Fraction:
    """From a point back, until the balance is above zero again."""
    total = Fraction(0)
    for one in points[place:]:
        total += one.opened
        if one.before + shift >= 0:
            break
    return total
