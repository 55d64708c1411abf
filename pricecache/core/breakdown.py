"""What each account is worth, how it changed and what share of the whole it is; and several accounts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pricecache.core.chunks import between
from pricecache.core.currencies import digits
from pricecache.core.daychange import known
from pricecache.core.history import History
from pricecache.core.present import SummaryNow, percent_of, sum_of_all, sum_of_known
from pricecache.core.rows import partly_valued, rounded, rounded_values
from pricecache.core.totals import Part, total
from pricecache.core.valuation import CASH, COST, DIVIDENDS, NET_FLOW, REALIZED, UNREALIZED, VALUE

_MONEY = ("value", "before", "flow", "change", "base", "cost", "unrealized", "realized", "dividends", "cash")
_OF_ALL = ("cost", "realized", "dividends")


@dataclass(frozen=True, slots=True)
class Portion:
    """An account, or several together: money in whole minor units of one currency, None is unknown.

    `change` is `value` less `before` (at the close before, or the end of the day before) less `flow` (net, since), and
    a share of `base`. `cost`, `unrealized`: of what is held; `realized`, `dividends`: of all there ever was. `cash`:
    None also where none is kept. `incomplete`: which of `value` and `change` are of what is known only.
    `is_estimated`: a price of it is older than it should be.
    """

    value: float | None = 0.0
    before: float | None = 0.0
    flow: float | None = 0.0
    change: float | None = 0.0
    base: float | None = 0.0
    cost: float | None = 0.0
    unrealized: float | None = 0.0
    realized: float | None = 0.0
    dividends: float | None = 0.0
    cash: float | None = 0.0
    incomplete: frozenset[str] = frozenset()
    is_estimated: bool = False

    @property
    def percent(self) -> float | None:
        """The change, in percent; None where nothing was at stake."""
        return percent_of(self.change, self.base)

    def share_of(self, whole: float | None) -> float | None:
        """A fraction; None where the whole is not more than nothing."""
        return None if self.value is None or whole is None or whole <= 0 else self.value / whole


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One portfolio by account (`""`: of rows without one) at the end of `day`, or at present. `whole` is the sum of
    `accounts`. `previous`: the day whose end the change is measured from."""

    day: int
    previous: int
    currency: str
    accounts: Mapping[str, Portion]
    whole: Portion


@dataclass(frozen=True, slots=True, eq=False)
class AccountDays:
    """What accounts were worth on each day from `start` on, rounded, and their shares: float64, shape (accounts, days);
    NaN is unknown, and a share of what is not more than nothing. `no_shares`: of an account without anything."""

    start: int
    accounts: tuple[str, ...]
    values: NDArray[np.float64]
    shares: NDArray[np.float64]
    no_shares: NDArray[np.float64]


def breakdown_now(whole: SummaryNow, accounts: Mapping[str, SummaryNow], stale: frozenset[str]) -> Breakdown:
    """Of the present state. `stale`: the accounts that hold something with an old price."""
    parts = {name: _present(one, name in stale) for name, one in accounts.items()}
    summed = together(list(parts.values()), digits(whole.currency), tracks_cash=whole.cash is not None)
    # what went from one account to another was put into that one, and not into the whole
    summed = replace(summed, base=whole.worth.base)
    return Breakdown(whole.end, whole.previous, whole.currency, parts, summed)


def _present(one: SummaryNow, is_stale: bool) -> Portion:
    worth, gains = one.worth, one.gains
    return Portion(
        worth.value, worth.before, worth.flow, worth.change, worth.base, gains.cost,
        None if worth.value is None else gains.unrealized, gains.realized, gains.dividends, one.cash,
        one.incomplete & {"value", "change"}, is_stale,
    )  # fmt: skip


def breakdown_on(found: History | None, day: int, currency: str, *, tracks_cash: bool) -> Breakdown:
    """Of the end of `day`, from the rows of a history by account; a day before it begins has nothing.

    The change is that of the calendar day: value less value at the end of the day before, less flows.
    """
    if found is None or not found.start <= day <= found.end:
        return Breakdown(day, day - 1, currency, {}, together([], 0, tracks_cash=tracks_cash))
    rows = between(found, max(day - 1, found.start), day)
    shown = rounded(rows)
    parts = {scope[0]: _settled(rows, shown, place) for place, scope in enumerate(rows.scopes) if scope[0] is not None}
    summed, whole = together(list(parts.values()), digits(currency), tracks_cash=tracks_cash), _settled(rows, shown, 0)
    whole = replace(whole, before=summed.before, flow=summed.flow, change=summed.change, incomplete=summed.incomplete)
    return Breakdown(day, day - 1, currency, parts, whole)


def _settled(rows: History, shown: NDArray[np.float64], place: int) -> Portion:
    places, day = digits(rows.currency), rows.end
    now = [known(amount) for amount in shown[:, place, -1].tolist()]
    before = known(float(shown[VALUE, place, 0])) if rows.days > 1 else 0.0
    assert rows.gross is not None
    inflow, outflow = (float(flows[0]) for flows in rows.gross.of(place, day, 1))
    flow, partly = now[NET_FLOW], partly_valued(rows.values[:, place], rows.estimated[place]).tolist()
    if flow is not None and any(partly):  # what gets its first price today comes in at its worth: it is no gain
        flow = round(inflow - outflow, places) + 0.0
    value, change = now[VALUE], None
    if value is not None and before is not None and flow is not None:
        change = round(value - before - flow, places) + 0.0
    incomplete = {"value"} if partly[-1] and value is not None else set()
    incomplete |= {"change"} if any(partly) and change is not None else set()
    return Portion(
        value, before, flow, change, None if before is None else before + inflow, now[COST], now[UNREALIZED],
        now[REALIZED], now[DIVIDENDS], now[CASH], frozenset(incomplete), bool(rows.estimated[place, -1]),
    )  # fmt: skip


def together(portions: Sequence[Portion], places: int, *, tracks_cash: bool) -> Portion:
    """The sum. Of value, change and cash what is known; of any other amount nothing as soon as a part is unknown, and
    of what is not realised that of the parts which have a value."""
    columns = {name: [getattr(one, name) for one in portions] for name in _MONEY}
    known_only = {
        name: sum_of_known(columns[name], places, of_worth=name in ("value", "before"))
        for name in ("value", "before", "flow", "change", "base", "cash")
    }
    if not portions and not tracks_cash:
        known_only["cash"] = None
    whole = {name: sum_of_all(columns[name], places) for name in _OF_ALL}
    gained = sum_of_all([one.unrealized for one in portions if one.value is not None], places)
    incomplete = {name for one in portions for name in one.incomplete}
    incomplete |= {name for name in ("value", "change") if None in columns[name] and known_only[name] is not None}
    return Portion(
        **known_only, **whole, unrealized=None if known_only["value"] is None else gained,
        incomplete=frozenset(incomplete), is_estimated=any(one.is_estimated for one in portions),
    )  # fmt: skip


def turned(one: Portion, rate: float | None, rate_before: float | None, places: int) -> Portion:
    """In another currency, at the `rate` now and that of the day before, None is unknown. What the rate did to it since
    is part of its change."""
    now, before = _times(one.value, rate, places), _times(one.before, rate_before, places)
    change = base = flow = None
    if one.change is not None and one.before is not None and rate is not None and rate_before is not None:
        change = round(one.change * rate + one.before * (rate - rate_before), places) + 0.0
        base = None if one.base is None else one.before * rate_before + (one.base - one.before) * rate
    if now is not None and before is not None and change is not None:
        flow = round(now - before - change, places) + 0.0
    cost, unrealized, realized = (_times(part, rate, places) for part in (one.cost, one.unrealized, one.realized))
    dividends, cash = _times(one.dividends, rate, places), _times(one.cash, rate, places)
    return Portion(
        now, before, flow, change, base, cost, unrealized, realized, dividends, cash, one.incomplete, one.is_estimated
    )


def _times(amount: float | None, rate: float | None, places: int) -> float | None:
    return None if amount is None or rate is None else round(amount * rate, places) + 0.0


def account_days(found: History, first: int, last: int) -> AccountDays:
    """From day `first` to day `last`, both included and both in it."""
    shown = rounded_values(between(found, first, last))
    accounts = tuple(account for account, _ in found.scopes if account is not None)
    return AccountDays(
        first, accounts, shown[1:], _shares(shown[1:], shown[0]), _shares(np.zeros(last - first + 1), shown[0])
    )


def account_days_of_all(parts: Sequence[Part], currency: str, first: int | None) -> AccountDays | None:
    """The same of the accounts of several portfolios in the whole `currency`, named as the `parts` are; from `first` on
    where that is later than they begin. None without any day."""
    if not parts:
        return None
    found = total(parts, currency)
    first = found.start if first is None else max(first, found.start)
    return account_days(found, first, found.end) if first <= found.end else None


def _shares(values: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(values, whole, out=np.full(values.shape, np.nan), where=whole > 0)
