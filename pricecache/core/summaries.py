"""Several portfolios as they are now, added up in one currency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from pricecache.core.currencies import digits
from pricecache.core.present import OF_WORTH, Gains, SummaryNow, Worth, sum_of_all, sum_of_known

_UNKNOWN = Worth(None, None, None)


@dataclass(frozen=True, slots=True)
class Turned:
    """A portfolio beside what its currency is in that of the total: now, and at the close that its change is measured
    from; None is unknown, and never 1."""

    summary: SummaryNow
    rate: float | None
    rate_before: float | None


@dataclass(frozen=True, slots=True)
class Together:
    """The total, in whole minor units of `currency`. `incomplete`: fields of `Worth` that are of what is known; a field
    of `gains` is None as soon as one part of it is not known. `cash`: None where nobody keeps any."""

    currency: str
    worth: Worth
    gains: Gains
    cash: float | None
    incomplete: frozenset[str]


def together(parts: Sequence[Turned], currency: str) -> Together:
    """Of all `parts` in `currency`. What a rate did to a portfolio since its last close is part of its change."""
    places = digits(currency)
    worths = [_worth(part, places) for part in parts]
    gains = [_gains(part, places) for part in parts]
    cash = [_times(part.summary.cash, part.rate, places) for part in parts if part.summary.cash is not None]
    columns = {one.name: [getattr(worth, one.name) for worth in worths] for one in fields(Worth)}
    known = {name: sum_of_known(column, places, of_worth=name in OF_WORTH) for name, column in columns.items()}
    incomplete = {name for name, column in columns.items() if None in column}
    incomplete.update(*(part.summary.incomplete for part in parts))
    return Together(
        currency,
        Worth(**known),
        Gains(*(sum_of_all(column, places) for column in zip(*map(astuple, gains), strict=True))),
        sum_of_known(cash, places) if cash else None,
        frozenset(incomplete),
    )


def _worth(part: Turned, places: int) -> Worth:
    own, now, before = part.summary.worth, part.rate, part.rate_before
    if now is None or before is None:
        return _UNKNOWN
    value, earlier = _times(own.value, now, places), _times(own.before, before, places)
    change = None
    if own.change is not None and own.before is not None:
        change = round(own.change * now + own.before * (now - before), places)
    flow = None if value is None or earlier is None or change is None else round(value - earlier - change, places) + 0.0
    base = None
    if own.base is not None and own.before is not None:
        base = own.before * before + (own.base - own.before) * now
    at_open = None if own.base_at_open is None else own.base_at_open * now
    return Worth(value, change, _times(own.from_open, now, places), earlier, flow, base, at_open)


def _gains(part: Turned, places: int) -> Gains:
    return Gains(*(_times(amount, part.rate, places) for amount in astuple(part.summary.gains)))


def _times(amount: float | None, rate: float | None, places: int) -> float | None:
    return None if amount is None or rate is None else round(amount * rate, places) + 0.0
