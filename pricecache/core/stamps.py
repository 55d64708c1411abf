"""What a history was computed from, and from which day on it is another one when that has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules

ALWAYS = -(1 << 40)
"""The day from which on everything is doubtful."""
NEVER = 1 << 40
"""The day from which on something is doubtful of which nothing is."""


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Of one series of prices or rates: its id and revision, and what stands beside its bars.

    `ratios`: `(ex-date, kind, value)` of every split and rebase in effect, ascending. `absent`: sessions that are not
    expected any more, ascending; `ended`: the last session there is to be, None: nobody knows of one. All days since
    1970-01-01.
    """

    series: int
    rev: int
    currency: str
    ratios: tuple[tuple[int, str, float], ...] = ()
    absent: tuple[int, ...] = ()
    ended: int | None = None

    def to_list(self) -> list[Any]:
        plain = [self.series, self.rev, self.currency, [list(one) for one in self.ratios], list(self.absent)]
        return [*plain, self.ended]

    @classmethod
    def from_list(cls, plain: list[Any]) -> SeriesFacts:
        series, rev, currency, ratios, absent, ended = plain
        return cls(
            series, rev, currency, tuple((day, kind, value) for day, kind, value in ratios), tuple(absent), ended
        )


@dataclass(frozen=True, slots=True)
class Stamp:
    """`generation` of the ledger and the `rules` it was read by, version of the `engine`, and the facts of each
    instrument and pair of currencies by its key; None where nothing was known of one."""

    generation: int
    engine: int
    rules: Rules
    series: Mapping[str, SeriesFacts | None] = field(default_factory=dict)


def changed_series(before: Stamp, after: Stamp) -> dict[str, tuple[SeriesFacts, SeriesFacts]]:
    """Those known to both whose revision is another: what the revisions in between changed has to be looked up."""
    return {
        key: (old, new)
        for key, old in before.series.items()
        if old is not None and (new := after.series.get(key)) is not None and new.rev != old.rev
    }


def doubtful_from(before: Stamp, after: Stamp, ledger: Ledger, dirty_from: int | None) -> int:
    """The first day whose history may be another under `after` than it was under `before`, revisions of bars aside.

    `ledger`: as it is now; `dirty_from`: from when on its own changes since `before` count, None for none.
    """
    if (before.engine, before.rules) != (after.engine, after.rules) or before.generation > after.generation:
        return ALWAYS
    named = {facts.series: key for key, facts in before.series.items() if facts is not None}
    days = [NEVER if dirty_from is None else dirty_from]
    for key, new in after.series.items():
        if new is not None and named.get(new.series, key) != key:
            return ALWAYS  # it has another symbol now
        if key in before.series:
            days.append(_facts_from(key, before.series[key], new, ledger))
    return min(days)


def _facts_from(key: str, old: SeriesFacts | None, new: SeriesFacts | None, ledger: Ledger) -> int:
    if old == new:
        return NEVER
    if old is None or new is None or (old.series, old.currency) != (new.series, new.currency):
        return ALWAYS
    if new.rev < old.rev:  # the record was restored from a copy
        return ALWAYS
    days = [NEVER, *(set(old.absent) ^ set(new.absent))]
    if old.ended != new.ended:
        days.append(1 + min(day for day in (old.ended, new.ended) if day is not None))
    ratios = [day for day, _, _ in set(old.ratios) ^ set(new.ratios)]
    if ratios:
        days.append(_reach(key, min(ratios), ledger))
    return min(days)


def _reach(key: str, day: int, ledger: Ledger) -> int:
    named: Iterable[Instrument] = (one for one in ledger.instruments() if one.key == key)
    return min((ledger.affected_from(one, day) for one in named), default=day)
