"""Writing to ledgers and reading them: rows planned and checked against the whole, prices of what they name kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from operator import attrgetter
from typing import Any

from cachetools import LRUCache

from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.catalog import Catalog
from pricecache.core.history import check
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction, faults
from pricecache.core.marketdata import MarketData
from pricecache.core.plausibility import EARLIEST_DATE_ON_EARTH
from pricecache.core.portfolios import LedgerState, Portfolio
from pricecache.errors import Invalid, NotFound, VersionMismatch
from pricecache.portfolio.market import Markets, currencies_of, pair_of
from pricecache.stores.commits import pause
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.ledger import RACES, LedgerChange, LedgerMoved, LedgerStore, Row, gave_up, new_id
from pricecache.stores.portfolios import RULES, PortfolioStore
from pricecache.sync.backfill import Tracker

CHANGES_KEPT = 50
"""Changes of a ledger of which it is known from when on they count."""
ROWS_KEPT = 200_000
"""Transactions of all ledgers together that are kept in memory."""
IN_THREAD_FROM = 300
"""Rows from which on a ledger is replayed in a thread."""
FIRST_DAY = day_number(date(1900, 1, 1))
SPLITS_SECONDS = 5.0
"""How long a sale of more than is held waits for the splits of an instrument that is new here."""
ROWS_TOLD = 1000
"""Bad rows that one answer lists."""
_OWN = ("id", "adjusted_as_of")
_FACTS = attrgetter(*(one.name for one in fields(Transaction) if one.compare and one.name not in _OWN))


@dataclass(frozen=True, slots=True, eq=False)
class LedgerView:
    """A ledger as it was at one moment. `rows`: by day and order of entry. `names`: the state of the catalog's names
    that its instruments are called by. `changes`: from which day on each of the last changes counts, None for none, as
    far as they were made here."""

    state: LedgerState
    names: int
    changes: tuple[int | None, ...]
    rows: tuple[Row, ...]
    ledger: Ledger
    by_id: dict[str, Row] = field(repr=False)
    by_external_id: dict[str, Row] = field(repr=False)

    def dirty_since(self, generation: int) -> int | None:
        """The first day whose history may be another since the ledger was at `generation`; None: none is."""
        number = self.state.generation - generation
        if number > len(self.changes):
            return self.state.dirty_from
        recent = self.changes[len(self.changes) - number :]
        return min((day for day in recent if day is not None), default=None)


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the rows of one input; `ids` in their order."""

    created: int
    updated: int
    unchanged: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    change: LedgerChange
    outcome: Any
    numbers: Mapping[str, int] = field(default_factory=dict)


class Ledgers:
    """Ledgers for whoever reads and writes them. Loop-only.

    Every change is one step: what is wrong with any of it is refused with all of its faults, and nothing is stored.
    """

    def __init__(
        self,
        store: LedgerStore,
        portfolios: PortfolioStore,
        catalog: Catalog,
        instruments: InstrumentStore,
        tracker: Tracker[Any],
        markets: Markets,
        clock: Clock,
    ) -> None:
        self._store = store
        self._portfolios = portfolios
        self._catalog = catalog
        self._instruments = instruments
        self._tracker = tracker
        self._markets = markets
        self._clock = clock
        self._kept: LRUCache[str, LedgerView] = LRUCache(ROWS_KEPT, getsizeof=lambda view: len(view.rows) + 1)

    async def read(self, portfolio: Portfolio) -> LedgerView:
        """The ledger as it is now. Raises `NotFound` when the portfolio has gone."""
        for attempt in range(RACES):
            state = await self._store.state(portfolio.id)
            if state is None:
                self._kept.pop(portfolio.id, None)
                raise NotFound("The portfolio has been deleted.", code="unknown_portfolio")
            kept = self._kept.get(portfolio.id)
            if kept is not None and kept.state.generation == state.generation:
                return self._current(portfolio, kept, state)
            rows = await self._store.rows(portfolio.id)
            after = await self._store.stored_state(portfolio.id)
            if after is not None and after.generation == state.generation:
                return self._keep(portfolio.id, self._view(after, rows, portfolio.rules))
            await pause(attempt)
        raise gave_up()

    async def state(self, portfolio: Portfolio) -> LedgerState:
        """Where the ledger stands. Raises `NotFound` when the portfolio has gone."""
        state = await self._store.state(portfolio.id)
        if state is None:
            raise NotFound("The portfolio has been deleted.", code="unknown_portfolio")
        return state

    async def read_many(self, portfolios: Sequence[Portfolio]) -> None:
        """Read the ledgers of several portfolios at once, so that each is there when it is asked for next; those that
        somebody changes meanwhile are not."""
        missing = [one for one in portfolios if one.id not in self._kept]
        ids = [one.id for one in missing]
        before, rows, after = (
            await self._store.states(ids),
            await self._store.rows_of(ids),
            await self._store.states(ids),
        )
        for one in missing:
            state = after.get(one.id)
            if state is not None and (old := before.get(one.id)) is not None and old.generation == state.generation:
                self._keep(one.id, self._view(state, rows[one.id], one.rules))

    def dirty_since(self, portfolio: Portfolio, state: LedgerState, generation: int) -> int | None:
        """From when on what was computed of the ledger at `generation` is doubtful at `state`; None: nowhere."""
        if state.generation == generation:
            return None
        kept = self._kept.get(portfolio.id)
        known = kept is not None and kept.state.generation == state.generation
        return kept.dirty_since(generation) if kept is not None and known else state.dirty_from

    async def after(self, portfolio: Portfolio, state: LedgerState, day: int) -> Ledger | None:
        """Its transactions after `day` only; None when the ledger is not at `state` any more."""
        kept = self._kept.get(portfolio.id)
        if kept is not None and kept.state.generation == state.generation:
            return self._current(portfolio, kept, state).ledger
        rows = await self._store.rows(portfolio.id, day)
        now = await self._store.stored_state(portfolio.id)
        if now is None or now.generation != state.generation:
            return None
        return _ledger_of(map(self._present, rows), portfolio.rules)

    def _current(self, portfolio: Portfolio, kept: LedgerView, state: LedgerState) -> LedgerView:
        if kept.ledger.rules != portfolio.rules or kept.names != self._catalog.renames:
            return self._keep(portfolio.id, self._view(state, kept.rows, portfolio.rules, kept.changes))
        if kept.state != state:  # what was doubtful of it has been computed since
            return self._keep(portfolio.id, replace(kept, state=state))
        return kept

    def _keep(self, portfolio_id: str, view: LedgerView) -> LedgerView:
        if len(view.rows) < ROWS_KEPT:
            self._kept[portfolio_id] = view
        return view

    def _renamed(self, row: Row) -> bool:
        entry = None if row.series is None else self._catalog.by_id(row.series)
        return entry is not None and entry.instrument != row.transaction.instrument

    def _view(
        self, state: LedgerState, rows: Iterable[Row], rules: Rules, changes: tuple[int | None, ...] = ()
    ) -> LedgerView:
        present = tuple(self._present(row) for row in rows)
        return LedgerView(
            state,
            self._catalog.renames,
            changes,
            present,
            _ledger_of(present, rules),
            {row.id: row for row in present},
            {row.transaction.external_id: row for row in present if row.transaction.external_id is not None},
        )

    def _present(self, row: Row) -> Row:
        """With the symbol that its instrument has now."""
        if not self._renamed(row):
            return row
        assert row.series is not None
        entry = self._catalog.by_id(row.series)
        assert entry is not None
        return replace(row, transaction=replace(row.transaction, instrument=entry.instrument))

    # changes

    async def add(
        self,
        portfolio: Portfolio,
        given: Sequence[Transaction | None],
        refused: Sequence[Mapping[str, Any]],
        by: str,
    ) -> Added:
        """Put rows in, or in the place of those with the same external id.

        `given`: None where `refused` says, by `row`, what was wrong before it got here. Raises `Invalid` with every
        fault found, `NotFound` when the portfolio goes meanwhile.
        """
        ids = [new_id() for _ in given]  # the same at every attempt: what is there already came by one of them

        def plan(view: LedgerView, accounts: set[str]) -> _Plan:
            found = [dict(row) for row in refused]
            present = [(number, self._resolved(row)) for number, row in enumerate(given) if row is not None]
            for number, row in present:
                found += ({**fault, "row": number} for fault in self._faults_of(row, accounts))
            found += _repeated(present)
            _refuse(found)
            return self._planned(view, present, ids)

        return Added(*await self._write(portfolio, plan, by))

    async def put(
        self, portfolio: Portfolio, row_id: str, given: Transaction, by: str, version: int | None = None
    ) -> Row:
        """Another row in the place of one. Raises as `add` does, `NotFound` with code `unknown_transaction`, and
        `VersionMismatch` when the row is not at `version`."""

        def plan(view: LedgerView, accounts: set[str]) -> _Plan:
            before = _require(view, row_id, version)
            resolved = self._resolved(given)
            found = self._faults_of(resolved, accounts)
            other = view.by_external_id.get(resolved.external_id or "")
            if other is not None and other.id != row_id:
                found.append({"code": "duplicate_external_id", "detail": f"{other.id} has this externalId."})
            _refuse(found)
            after = self._next(before, resolved)
            if _is_same(before.transaction, after.transaction):
                return _Plan(LedgerChange(), before)
            return _Plan(LedgerChange(replaced=[after], affected_from=_affected([before, after])), after)

        row: Row = await self._write(portfolio, plan, by)
        return row

    async def remove(self, portfolio: Portfolio, row_id: str, by: str, version: int | None = None) -> None:
        """Take a row out. Raises `NotFound`, `VersionMismatch`, and `Invalid` when what is left cannot be."""

        def plan(view: LedgerView, accounts: set[str]) -> _Plan:
            row = _require(view, row_id, version)
            return _Plan(LedgerChange(deleted=[row], affected_from=_affected([row])), None)

        await self._write(portfolio, plan, by)

    async def change_portfolio(
        self, portfolio: Portfolio, facts: Mapping[str, Any], by: str, version: int | None = None
    ) -> Portfolio:
        """Set fields of a portfolio. Raises `Invalid` when its ledger cannot be under the new rules, `NotFound`,
        `VersionMismatch`."""
        for attempt in range(RACES):
            rules = _rules_with(portfolio.rules, facts)
            generation = None
            if rules != portfolio.rules:
                view = await self.read(portfolio)
                generation = view.state.generation
                after = Ledger(view.ledger.transactions, rules)
                _refuse(_numbered(await self._impossible(view.ledger, after), {}))
                await self._follow([row.transaction for row in view.rows], rules.currency, by)
            try:
                now = self._clock.time()
                return await self._portfolios.change(portfolio, facts, now, version=version, generation=generation)
            except LedgerMoved:
                await pause(attempt)
            portfolio = await self._portfolios.get(portfolio.owner, portfolio.id)
        raise gave_up()

    async def _write(self, portfolio: Portfolio, plan: Callable[[LedgerView, set[str]], _Plan], by: str) -> Any:
        for attempt in range(RACES):
            view = await self.read(portfolio)
            accounts = {account.id for account in await self._portfolios.accounts(portfolio.id)}
            planned = plan(view, accounts)
            if planned.change.is_empty:
                return planned.outcome
            change = await self._checked(portfolio, view, planned, by)
            try:
                state = await self._store.commit(portfolio.id, view.state, change)
                changes = (*view.changes[1 - CHANGES_KEPT :], change.affected_from)
                self._keep(portfolio.id, self._view(state, _applied(view.rows, change), portfolio.rules, changes))
                return planned.outcome
            except LedgerMoved:
                await pause(attempt)
            portfolio = await self._portfolios.get(portfolio.owner, portfolio.id)
        raise gave_up()

    async def _checked(self, portfolio: Portfolio, view: LedgerView, planned: _Plan, by: str) -> LedgerChange:
        """The change with the instruments of its rows made known, once the ledger can be with it."""
        change = planned.change
        after = _ledger_of(_applied(view.rows, change), portfolio.rules)
        found = await self._impossible(view.ledger, after)
        rows = [row.transaction for row in (*change.inserted, *change.replaced)]
        ignorant = {row.instrument for row in rows if row.instrument is not None and self._is_new(row.instrument)}
        if found and not ignorant:
            _refuse(_numbered(found, planned.numbers))
        run = await self._follow(rows, portfolio.rules.currency, by)
        if found:
            if run is not None:
                await run.finished(SPLITS_SECONDS)
            _refuse(_numbered(await self._impossible(view.ledger, after), planned.numbers))
        return replace(
            change,
            inserted=[self._with_series(row) for row in change.inserted],
            replaced=[self._with_series(row) for row in change.replaced],
        )

    def _with_series(self, row: Row) -> Row:
        instrument = row.transaction.instrument
        entry = None if instrument is None else self._catalog.find(instrument)
        return replace(row, series=None if entry is None else entry.id)

    def _is_new(self, instrument: Instrument) -> bool:
        """Whether nobody could say yet which splits it had."""
        entry = self._catalog.find(instrument)
        return instrument.place.has_provider and (entry is None or entry.state.last_update is None)

    async def _impossible(self, before: Ledger, after: Ledger) -> list[dict[str, Any]]:
        """What `after` takes more of than there is, as far as `before` did not do so already."""
        market = self._markets.splits(after.instruments() | before.instruments())
        if len(after.transactions) < IN_THREAD_FROM:
            return _new_faults(before, after, market)
        return await asyncio.to_thread(_new_faults, before, after, market)

    async def _follow(self, rows: Sequence[Transaction], base: str, by: str) -> Any:
        """Keep the prices of everything that `rows` name, and of the currencies they need, from their first use on;
        the run that fills what is new, or None."""
        await self._make_known(rows, by)
        uses: dict[Instrument, int] = {}
        for row in rows:
            for instrument in self._needed(row, base):
                day = row.day if row.acquired_on is None else min(row.day, row.acquired_on)
                uses[instrument] = min(uses.get(instrument, day), day)
        return (await self._tracker.follow(uses, by)).run if uses else None

    def _needed(self, row: Transaction, base: str) -> Iterable[Instrument]:
        if row.instrument is not None and row.instrument.place.has_provider:
            yield row.instrument
        for currency in currencies_of(Ledger((row,), Rules()), self._markets.currency_of):
            pair = pair_of(currency, base)
            if pair is not None:
                yield pair

    async def _make_known(self, rows: Sequence[Transaction], by: str) -> None:
        own: dict[Instrument, Transaction] = {}
        for row in rows:
            instrument = row.instrument
            if instrument is None or instrument.place.has_provider or self._catalog.find(instrument) is not None:
                continue
            own.setdefault(instrument, row)
        for instrument, row in own.items():
            now = self._clock.time()
            (entry,) = await self._instruments.add([instrument], wanted_from=row.day, tracked=False, by=by, now=now)
            if row.currency is not None and not entry.head.count:
                await self._instruments.set_facts(entry, currency=row.currency)

    # planning

    def _resolved(self, row: Transaction) -> Transaction:
        if row.instrument is None:
            return row
        entry = self._catalog.find(row.instrument, row.day)
        if entry is None or entry.instrument == row.instrument:
            return row
        return replace(row, instrument=entry.instrument)

    def _planned(self, view: LedgerView, given: Sequence[tuple[int, Transaction]], ids: Sequence[str]) -> _Plan:
        inserted: list[Row] = []
        replaced: list[Row] = []
        touched: list[Row] = []
        names: list[str] = []
        unchanged, created, now = 0, 0, self._now()
        for number, transaction in given:
            held = view.by_external_id.get(transaction.external_id or "")
            if held is None:
                created += 1
                names.append(ids[number])
                if ids[number] not in view.by_id:
                    place = view.state.places + len(inserted)
                    inserted.append(Row(replace(transaction, id=ids[number]), None, place, 1, now, now))
                continue
            names.append(held.id)
            if held.id == ids[number]:
                created += 1
            elif _is_same(held.transaction, transaction):
                unchanged += 1
            else:
                replaced.append(self._next(held, transaction))
                touched.append(held)
        change = LedgerChange(inserted, replaced, (), _affected([*inserted, *replaced, *touched]))
        outcome = created, len(replaced), unchanged, tuple(names)
        return _Plan(change, outcome, {name: number for name, (number, _) in zip(names, given, strict=True)})

    def _next(self, before: Row, transaction: Transaction) -> Row:
        return Row(
            replace(transaction, id=before.id), None, before.place, before.version + 1, before.created_at,
            self._now(),
        )  # fmt: skip

    def _now(self) -> float:
        """To the millisecond, as it is stored."""
        return round(self._clock.time(), 3)

    def _faults_of(self, row: Transaction, accounts: set[str]) -> list[dict[str, Any]]:
        found = [{"code": fault["code"], "detail": fault["detail"]} for fault in faults([row])]
        for name, account in (("accountId", row.account), ("toAccountId", row.to_account)):
            if account and account not in accounts:
                found.append({"field": name, "code": "unknown_account", "detail": "There is no such account here."})
        if row.day * 86400 > self._clock.time() + EARLIEST_DATE_ON_EARTH:
            found.append({"field": "date", "code": "date_in_the_future", "detail": "the day has not come yet"})
        elif row.day < FIRST_DAY:
            found.append({"field": "date", "code": "date_too_early", "detail": "Ledgers begin in 1900."})
        return found


def _ledger_of(rows: Iterable[Row], rules: Rules) -> Ledger:
    return Ledger.of((row.transaction for row in rows), rules)


def _applied(rows: Sequence[Row], change: LedgerChange) -> list[Row]:
    replaced = {row.id: row for row in change.replaced}
    gone = {row.id for row in change.deleted}
    after = [replaced.get(row.id, row) for row in rows if row.id not in gone] + list(change.inserted)
    return sorted(after, key=lambda row: (row.transaction.day, row.place))


def _new_faults(before: Ledger, after: Ledger, market: MarketData) -> list[dict[str, Any]]:
    found = _faults_in(after, market)
    if not found:
        return []
    known = {(fault["id"], fault["code"]) for fault in _faults_in(before, market)}
    return [fault for fault in found if (fault["id"], fault["code"]) not in known]


def _faults_in(ledger: Ledger, market: MarketData) -> list[dict[str, Any]]:
    try:
        check(ledger, market)
    except Invalid as exc:
        return exc.rows
    return []


def _numbered(found: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """With the place in the input instead of the one in the ledger; those that are none of the input have their id."""
    rows = []
    for fault in found:
        row = {name: value for name, value in fault.items() if name != "row"}
        number = numbers.get(fault["id"])
        if number is not None:
            row = {"row": number, **{name: value for name, value in row.items() if name != "id"}}
        rows.append(row)
    return sorted(rows, key=lambda row: row.get("row", ROWS_KEPT))


def _repeated(rows: Sequence[tuple[int, Transaction]]) -> list[dict[str, Any]]:
    first: dict[str, int] = {}
    found = []
    for number, row in rows:
        if row.external_id is not None and first.setdefault(row.external_id, number) != number:
            detail = f"row {first[row.external_id]} has this externalId"
            found.append({"row": number, "field": "externalId", "code": "duplicate_external_id", "detail": detail})
    return found


def _refuse(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row.get("row", ROWS_KEPT))
    first = rows[0]
    if len(rows) == 1:
        raise Invalid(first["detail"], code=first["code"], rows=list(rows))
    more = f"{len(rows)} faults; the first: {first['detail']}"
    raise Invalid(more, code="transactions_refused", rows=list(rows[:ROWS_TOLD]), total=len(rows))


def _is_same(a: Transaction, b: Transaction) -> bool:
    """But for the day as of which it is restated: that is when it was sent."""
    return (a.adjusted_as_of is None) == (b.adjusted_as_of is None) and _FACTS(a) == _FACTS(b)


def _affected(rows: Sequence[Row]) -> int | None:
    return min((row.transaction.affects_from for row in rows), default=None)


def _require(view: LedgerView, row_id: str, version: int | None) -> Row:
    row = view.by_id.get(row_id)
    if row is None:
        raise NotFound("There is no such transaction in this portfolio.", code="unknown_transaction")
    if version not in (None, row.version):
        raise VersionMismatch
    return row


_NAMES = dict(zip(RULES, ("currency", "cost_basis", "cash_tracking", "fees_in_cost", "allow_short"), strict=True))


def _rules_with(rules: Rules, facts: Mapping[str, Any]) -> Rules:
    return replace(rules, **{_NAMES[name]: value for name, value in facts.items() if name in _NAMES})
