"""By which splits a reconstruction walked, and which prices it did without: it stands while these are so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pricecache.core.stamps import SeriesFacts

Ratios = tuple[tuple[int, float], ...]
"""`(ex-date, new units for one old)` of splits and rebases, ascending, days since 1970-01-01."""


@dataclass(frozen=True, slots=True)
class WalkFooting:
    """`series`: the ids of all series that a walk was told of; `ratios`: by series, those that took effect after
    `first_day`, up to `last_day`, of those that had any; `awaited`: the series that should have prices and had none."""

    first_day: int
    last_day: int
    series: frozenset[int] = frozenset()
    ratios: Mapping[int, Ratios] = field(default_factory=dict)
    awaited: frozenset[int] = frozenset()

    @classmethod
    def of(cls, facts: Iterable[SeriesFacts], awaited: Iterable[int], first_day: int, last_day: int) -> WalkFooting:
        known = list(facts)
        ratios = {one.series: within(ratios_of(one), first_day, last_day) for one in known}
        series = frozenset(one.series for one in known)
        return cls(first_day, last_day, series, {one: found for one, found in ratios.items() if found},
                   frozenset(awaited))  # fmt: skip

    def holds(self, series: int, ratios: Ratios, has_prices: bool) -> bool:
        """Whether a walk would be told the same of `series` by splits, and goes without its prices still."""
        if series in self.awaited and has_prices:
            return False
        is_same = within(ratios, self.first_day, self.last_day) == self.ratios.get(series, ())
        return is_same or series not in self.series


def ratios_of(facts: SeriesFacts) -> Ratios:
    return tuple((day, value) for day, _, value in facts.ratios)


def within(ratios: Ratios, first_day: int, last_day: int) -> Ratios:
    return tuple(one for one in ratios if first_day < one[0] <= last_day)


def earliest_difference(before: Ratios, after: Ratios) -> int | None:
    """The first ex-date that only one of both has, or has with another ratio; None: there is none."""
    return min((day for day, _ in {*before} ^ {*after}), default=None)
