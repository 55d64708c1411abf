"""What a portfolio is worth now and how it changed today, by position; totals are sums of rounded parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

import numpy as np

from pricecache.core.book import Book, Held
from pricecache.core.currencies import digits
from pricecache.core.daychange import Change, Changes, Session, known
from pricecache.core.grid import lay_out
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.present import OF_WORTH, CashNow, Gains, PositionNow, SummaryNow, Worth, sum_of_all, sum_of_known
from pricecache.core.replay import replay
from pricecache.core.scopes import By, Scope
from pricecache.core.valuation import CASH, NET_FLOW, Valued, value

_PASSES = (
    "rules", "market", "sessions", "end", "places", "start", "replayed", "book", "grid", "valued", "changes",
    "by_account", "shown", "previous",
)  # fmt: skip
_WORTH = ("value", "change", "from_open", "before", "flow", "base", "base_at_open")
_GAINS = ("cost", "unrealized", "realized", "dividends", "fees", "interest")


def summary(
    ledger: Ledger,
    market: MarketData,
    sessions: Mapping[Instrument, Session],
    end: int,
    *,
    since: Book | None = None,
    account: str | None = None,
) -> SummaryNow:
    """At the end of day `end`. `sessions`: of every instrument of the ledger. What came before the book `since` is not
    looked at again: a session before that would lie there counts from the day after it. Pure, so safe in any thread."""
    return Summing(ledger, market, sessions, end, since, account).run()


def summaries_by_account(
    ledger: Ledger,
    market: MarketData,
    sessions: Mapping[Instrument, Session],
    end: int,
    *,
    since: Book | None = None,
) -> tuple[SummaryNow, dict[str, SummaryNow]]:
    """The same of all of it, and of each account that anything was ever in, by account: one pass for all of them."""
    whole = Summing(ledger, market, sessions, end, since, None)
    accounts = sorted({one.account for one in whole.book.positions} | {one.account for one in whole.book.cash})
    return whole.run(), {account: whole.within(account).run() for account in accounts}


class Summing:
    """What a summary is made of, each part once. `replayed`, `valued`: by position, on `grid`, from day `start` on."""

    def __init__(
        self,
        ledger: Ledger,
        market: MarketData,
        sessions: Mapping[Instrument, Session],
        end: int,
        since: Book | None,
        account: str | None,
    ) -> None:
        self.rules, self.market, self.sessions, self.end, self.account = ledger.rules, market, sessions, end, account
        self.places = digits(self.rules.currency)
        first = end if ledger.first_day is None else min(ledger.first_day, end)
        self.start = first if since is None else since.day + 1
        self.replayed = replay(ledger, market, end, since=since, books=[end])
        self.book = self.replayed.books[end]
        names = sorted({name for _, name in self.replayed.keys if name is not None})
        self.grid = lay_out(names, market, self.rules.currency, self.start, end)
        self.valued = self._value("position")
        self.changes = Changes(self.replayed, self.valued, self.grid, market, self.rules.currency, sessions)

    def within(self, account: str) -> Summing:
        """The same of one account, from the passes that were made already."""
        one = object.__new__(Summing)
        one.__dict__.update({name: getattr(self, name) for name in _PASSES})
        one.account = account
        one._cells = [cell for cell in self._cells if cell.account == account]
        return one

    @cached_property
    def by_account(self) -> Valued:
        return self._value("account")

    def _value(self, by: By) -> Valued:
        return value(self.replayed, self.market, self.rules, self.end, start=self.start, grid=self.grid, by=by)

    def run(self) -> SummaryNow:
        worths = [one.worth for one in self.positions]
        cash = sum_of_known([one.value for one in self.balances], self.places) if self.rules.cash_tracking else None
        incomplete: set[str] = set()
        changes = {
            "positions": self._known(worths, "change", incomplete),
            "cash": self.rest.cash,
            "other": self.rest.other,
        }
        worth = self._worth(worths, self.balances, changes, self.rest, incomplete)
        return SummaryNow(
            self.end, self.previous, self.rules.currency, worth, self._gains(self._held, self._cells), cash,
            self.balances, changes, self.positions, frozenset(incomplete),
        )  # fmt: skip

    @cached_property
    def positions(self) -> tuple[PositionNow, ...]:
        groups: dict[Instrument, list[PositionNow]] = {}
        for cell in self._cells:
            groups.setdefault(cell.instrument, []).append(cell)
        return tuple(self._together(groups[name]) for name in sorted(groups))

    @cached_property
    def previous(self) -> int:
        """The last day that a position changed from, which is that of cash, in every account."""
        return max((self.sessions[one].previous for one, _, _ in self.shown), default=self.end - 1)

    @cached_property
    def shown(self) -> list[tuple[Instrument, Held, Change]]:
        """Of all accounts, what is held, and what changed since the close before."""
        found = []
        for one in self.book.positions:
            if one.instrument is not None:
                change = self.change(one.account, one.instrument)
                if one.quantity or change.before or change.flow or change.inflow:
                    found.append((one.instrument, one, change))
        return found

    @cached_property
    def balances(self) -> tuple[CashNow, ...]:
        amounts: dict[str, Decimal] = {}
        for one in self.book.cash:
            if self.account in (None, one.account):
                amounts[one.currency] = amounts.get(one.currency, ZERO) + one.amount
        return tuple(
            CashNow(currency, amount, self._round(known(float(amount * self._rate(currency)))))
            for currency, amount in sorted(amounts.items())
        )

    @cached_property
    def rest(self) -> Rest:
        return self._rest(self.changes.column(self.previous) + 1)

    def change(self, account: str, instrument: Instrument) -> Change:
        """Of one instrument in one account, not rounded."""
        return self.changes.of(self.valued.scopes.index((account, instrument)), instrument)

    @cached_property
    def _held(self) -> list[Held]:
        return [one for one in self.book.positions if self.account in (None, one.account)]

    @cached_property
    def _cells(self) -> list[PositionNow]:
        return [self._cell(*one) for one in self.shown if self.account in (None, one[1].account)]

    # positions

    def _cell(self, instrument: Instrument, one: Held, change: Change) -> PositionNow:
        quantity = one.quantity * Decimal(repr(one.factor))
        return PositionNow(instrument, one.account, quantity, self._rounded(change), self._gains_of(one, change.value))

    def _rounded(self, change: Change) -> Worth:
        now, before, flow, at_open = map(self._round, (change.value, change.before, change.flow, change.at_open))
        return Worth(
            now, self._less(now, before, flow), self._less(now, at_open, flow), before, flow,
            None if before is None else before + change.inflow, None if at_open is None else at_open + change.inflow,
        )  # fmt: skip

    def _together(self, cells: list[PositionNow]) -> PositionNow:
        within = self.changes.moved_within(cells[0].instrument) if self.account is None else 0.0
        if len(cells) == 1 and not within:
            return replace(cells[0], account=None, parts=tuple(cells))
        worths, gains = [cell.worth for cell in cells], [cell.gains for cell in cells]
        columns = {name: sum_of_all([getattr(one, name) for one in worths], self.places) for name in _WORTH}
        for name in ("base", "base_at_open"):
            base = columns[name]
            columns[name] = None if base is None else base - within
        return PositionNow(
            cells[0].instrument,
            None,
            sum((cell.quantity for cell in cells), ZERO),
            Worth(**columns),
            Gains(*(sum_of_all([getattr(one, name) for one in gains], self.places) for name in _GAINS)),
            tuple(cells),
        )

    # what is left

    def _rest(self, after: int) -> Rest:
        """Of cash and of what belongs to no position, from column `after` on."""
        own = [(n, scope) for n, scope in enumerate(self.valued.scopes) if n and self.account in (None, scope[0])]
        flows = self.valued.values[NET_FLOW]
        loose = -sum(float(np.add.reduce(flows[n, after:])) for n, scope in own if scope[1] is None)
        if not self.rules.cash_tracking and self.account is None:
            return Rest(None, self._round(known(loose)), self._inflow(self.valued, after), 0.0)
        by_account = self.by_account
        inflow = self._inflow(by_account, after)
        if not self.rules.cash_tracking:
            return Rest(None, self._round(known(loose)), inflow, 0.0)
        places = [n for n, (one, _) in enumerate(by_account.scopes) if n and self.account in (None, one)]
        cash = by_account.values[CASH, places].sum(axis=0) if places else np.zeros(1)
        before = float(cash[after - 1]) if after and places else 0.0
        crossed = float(np.add.reduce(by_account.values[NET_FLOW, places, after:], axis=None)) if places else 0.0
        traded = sum(float(np.add.reduce(flows[n, after:])) for n, _ in own)
        moved_by_rates = float(cash[-1]) - before - crossed + traded
        base = before + self._traded_before(own, after)
        return Rest(
            self._round(known(moved_by_rates)), self._round(known(loose)), inflow, self._round(known(base)),
            before, crossed, traded,
        )  # fmt: skip

    def _traded_before(self, own: list[tuple[int, Scope]], after: int) -> float:
        """What went into positions before column `after`, and yet since the close that they changed from: it is in
        neither the cash before nor in what they were worth before."""
        flows, total = self.valued.values[NET_FLOW], 0.0
        for n, (_, instrument) in own:
            if instrument is not None:
                since = self.changes.column(self.sessions[instrument].previous) + 1
                moved = flows[n, since:after]
                total += float(np.add.reduce(moved[~np.isnan(moved)]))
        return total

    def _inflow(self, valued: Valued, after: int) -> float:
        scope = (self.account, None)
        return (
            float(np.add.reduce(valued.inflow[valued.scopes.index(scope), after:])) if scope in valued.scopes else 0.0
        )

    def _rate(self, currency: str) -> Decimal:
        return self.market.rate(currency, self.rules.currency, self.end)

    # all of it

    def _worth(
        self,
        worths: list[Worth],
        balances: tuple[CashNow, ...],
        changes: dict[str, float | None],
        rest: Rest,
        incomplete: set[str],
    ) -> Worth:
        cash = [one.value for one in balances]
        if None in cash:
            incomplete.add("value")
        now = sum_of_known([self._known(worths, "value", incomplete), *cash], self.places, of_worth=True)
        parts = [part for name, part in changes.items() if name != "cash" or self.rules.cash_tracking]
        if None in parts:
            incomplete.add("change")
        change = None if changes["positions"] is None else sum_of_known(parts, self.places)
        opened = self._known(worths, "from_open", incomplete)
        if opened is not None:
            opened = sum_of_known([opened, changes["other"]], self.places)
        before = sum_of_known([self._known(worths, "before", incomplete), rest.before], self.places, of_worth=True)
        at_open = self._known(worths, "base_at_open", incomplete)
        base_at_open = None if at_open is None or rest.before is None else at_open + rest.before
        base = None if before is None else before + rest.inflow
        return Worth(now, change, opened, before, self._less(now, before, change), base, base_at_open)

    def _known(self, worths: list[Worth], name: str, incomplete: set[str]) -> float | None:
        found: list[float | None] = [getattr(one, name) for one in worths]
        if None in found:
            incomplete.add(name)
        return sum_of_known(found, self.places, of_worth=name in OF_WORTH)

    def _gains(self, held: list[Held], cells: list[PositionNow]) -> Gains:
        """Of everything there ever was; what has no price is no part of what is not realised."""
        shown: dict[tuple[str | None, Instrument | None], Gains] = {
            (cell.account, cell.instrument): cell.gains for cell in cells
        }
        of_all = [shown.get((one.account, one.instrument)) or self._gains_of(one, None) for one in held]
        open_ones = [cell for cell in cells if cell.quantity]
        valued = [cell.gains.unrealized for cell in open_ones if cell.worth.value is not None]
        return Gains(
            sum_of_all([cell.gains.cost for cell in open_ones], self.places),
            sum_of_all(valued, self.places),
            *(sum_of_all([getattr(one, name) for one in of_all], self.places) for name in _GAINS[2:]),
        )

    def _gains_of(self, one: Held, now: float | None) -> Gains:
        cost = self._exact(one.basis[0])
        realized = self._exact(one.proceeds - one.original)
        value_now = self._round(now)
        return Gains(
            cost, None if value_now is None else self._less(value_now, cost, 0.0), realized,
            self._exact(one.dividends), self._exact(one.fees), self._exact(one.interest),
        )  # fmt: skip

    def _exact(self, amount: Decimal) -> float | None:
        return None if amount.is_nan() else float(round(amount, self.places)) + 0.0

    def _round(self, amount: float | None) -> float | None:
        return None if amount is None else round(amount, self.places) + 0.0

    def _less(self, now: float | None, before: float | None, flow: float | None) -> float | None:
        if now is None or before is None or flow is None:
            return None
        return round(now - before - flow, self.places) + 0.0


@dataclass(frozen=True, slots=True)
class Rest:
    """What cash did by its rates (None also where it is not tracked), what belongs to no position, gross inflow, and
    the cash that there was before, with what went into positions since the closes that they changed from. What cash did
    is what there is less `had`, less `crossed` (net, over the portfolio's border), and with `traded` (net, into
    positions) put back: these three not rounded."""

    cash: float | None
    other: float | None
    inflow: float
    before: float | None
    had: float = 0.0
    crossed: float = 0.0
    traded: float = 0.0
