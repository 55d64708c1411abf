"""Writing to ledgers: rows planned and checked against the whole, prices of what they name kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_number
from pricecache.core.catalog import Catalog
from pricecache.core.history import check
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction, faults
from pricecache.core.marketdata import MarketData
from pricecache.core.plausibility import EARLIEST_DATE_ON_EARTH
from pricecache.core.portfolios import LedgerState, Portfolio
from pricecache.core.stream_events import StreamEvent
from pricecache.errors import Invalid, NotFound, VersionMismatch
from pricecache.portfolio.ledger_events import events_of
from pricecache.portfolio.market import Markets, pair_of
from pricecache.portfolio.planning import (
    Incoming,
    LedgerView,
    Plan,
    Use,
    affected_from,
    applied,
    in_order,
    is_same,
    ledger_of,
    next_row,
    numbered,
    plan,
    repeated,
    uses_of,
)
from pricecache.portfolio.reading import LedgerReader
from pricecache.portfolio.threads import aside
from pricecache.stores.commits import pause
from pricecache.stores.ids import new_id
from pricecache.stores.instruments import InstrumentStore, Own
from pricecache.stores.ledger import RACES, LedgerChange, LedgerMoved, LedgerStore, Row, gave_up
from pricecache.stores.portfolios import RULES, PortfolioStore
from pricecache.sync.backfill import Tracker

log = structlog.get_logger(__name__)

CHANGES_KEPT = 50
"""Changes of a ledger of which it is known from when on they count."""
FIRST_DAY = day_number(date(1900, 1, 1))
SPLITS_SECONDS = 5.0
"""How long a sale of more than is held waits for the splits of an instrument that is new here."""
ROWS_TOLD = 1000
"""Bad rows that one answer lists."""
ANOTHERS = "This is an instrument of another user's own. Give yours another symbol."
Question = Callable[[Plan], Awaitable[Iterable[Instrument]]]
"""Is asked before a plan is carried out: raises to refuse it, answers which splits it would like to know first."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the rows of one input; `ids` in their order."""

    created: int
    updated: int
    unchanged: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What rows would change, if they came now: the good ones of them, with every fault that was found. `faults` as
    `Invalid.rows`; `market`: the splits that the ledgers `before` and `after` were held against."""

    plan: Plan
    faults: list[dict[str, Any]]
    before: Ledger
    after: Ledger
    market: MarketData


class Ledgers(LedgerReader):
    """Ledgers for whoever reads and writes them. Loop-only.

    Every change is one step: what is wrong with any of it is refused with all of its faults, and nothing is stored.
    `on_events` is given what each change made here told, once it is durable, and `on_changed` its portfolio.
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
        super().__init__(store, catalog)
        self._portfolios = portfolios
        self._instruments = instruments
        self._tracker = tracker
        self._markets = markets
        self._clock = clock
        self.on_events: Callable[[str, Sequence[StreamEvent]], object] = lambda portfolio_id, events: None
        self.on_changed: Callable[[str], object] = lambda portfolio_id: None

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
        incoming = [Incoming(number, row, says_units=True) for number, row in enumerate(given) if row is not None]
        done = await self.take_in(portfolio, incoming, refused, by)
        counts = done.count("create"), done.count("update"), done.count("unchanged")
        return Added(*counts, tuple(row.id for row in done.rows))

    async def take_in(
        self,
        portfolio: Portfolio,
        incoming: Sequence[Incoming],
        refused: Sequence[Mapping[str, Any]],
        by: str,
        question: Question | None = None,
    ) -> Plan:
        """The same for rows that may name whose place they take, and what becomes of each. Raises what `question`
        does."""
        most = max((one.number for one in incoming), default=-1)
        # the same at every attempt: what is there already came by one of them
        ids = await aside(most, lambda: [new_id() for _ in range(most + 1)])

        def make(view: LedgerView, accounts: set[str]) -> Plan:
            return plan(view, self.accepted(view, incoming, accounts, refused), ids, self._now())

        return await self._write(portfolio, make, by, len(incoming), question)

    def accepted(
        self,
        view: LedgerView,
        incoming: Iterable[Incoming],
        accounts: set[str],
        refused: Iterable[Mapping[str, Any]] = (),
    ) -> list[Incoming]:
        """The rows with the names that their instruments have now. Raises `Invalid` with every fault that shows without
        the rest of the ledger, and those that `refused` has already. Safe in any thread."""
        present = [self._resolved(one) for one in incoming]
        _refuse([*refused, *self._faults_in(view, present, accounts)])
        return present

    async def preview(
        self, portfolio: Portfolio, incoming: Sequence[Incoming], refused: Sequence[Mapping[str, Any]]
    ) -> Preview:
        """What `take_in` would do now. Changes nothing, makes nothing known, tracks nothing.

        What is sold and not held is looked for when nothing else is wrong, by the splits known so far.
        """
        view, accounts = await self._read_with_accounts(portfolio)
        most = max((one.number for one in incoming), default=-1)
        ids = [f"new-{number}" for number in range(most + 1)]

        def make() -> tuple[Plan, list[dict[str, Any]], Ledger]:
            present = [self._resolved(one) for one in incoming]
            faults = in_order([*refused, *self._faults_in(view, present, accounts)])
            bad = {fault.get("row") for fault in faults}
            planned = plan(view, [one for one in present if one.number not in bad], ids, self._now())
            return planned, faults, ledger_of(applied(view.rows, planned.change), portfolio.rules)

        planned, faults, after = await aside(len(view.rows) + len(incoming), make)
        rows = [row.transaction for row in (*planned.change.inserted, *planned.change.replaced)]
        found, market = await self._impossible(view.ledger, after)
        found = self._of_others(rows, portfolio.owner) or found
        return Preview(planned, faults or numbered(found, planned.numbers), view.ledger, after, market)

    async def put(
        self, portfolio: Portfolio, row_id: str, given: Transaction, by: str, version: int | None = None
    ) -> Row:
        """Another row in the place of one. Raises as `add` does, `NotFound` with code `unknown_transaction`, and
        `VersionMismatch` when the row is not at `version`."""

        def make(view: LedgerView, accounts: set[str]) -> Plan:
            if outcome and _is_there(view.by_id.get(row_id), outcome[-1]):  # by the attempt before
                return Plan(LedgerChange())
            before = _require(view, row_id, version)
            one = self._resolved(Incoming(0, given, target=row_id))
            _refuse([_without_row(fault) for fault in self._faults_in(view, [one], accounts)])
            after = next_row(before, one.transaction, self._now())
            outcome.append(before if is_same(before.transaction, after.transaction) else after)
            if outcome[-1] is before:
                return Plan(LedgerChange())
            return Plan(LedgerChange(replaced=[after], affected_from=affected_from([before, after])))

        outcome: list[Row] = []
        await self._write(portfolio, make, by)
        return outcome[-1]

    async def remove(self, portfolio: Portfolio, row_id: str, by: str, version: int | None = None) -> None:
        """Take a row out. Raises `NotFound`, `VersionMismatch`, and `Invalid` when what is left cannot be."""

        def make(view: LedgerView, accounts: set[str]) -> Plan:
            if tried and row_id not in view.by_id:  # gone by the attempt before
                return Plan(LedgerChange())
            row = _require(view, row_id, version)
            tried.append(row)
            return Plan(LedgerChange(deleted=[row], affected_from=affected_from([row])))

        tried: list[Row] = []
        await self._write(portfolio, make, by)

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
                found, _ = await self._impossible(view.ledger, after)
                _refuse(numbered(found, {}))
                uses = await aside(len(view.rows), partial(uses_of, [row.transaction for row in view.rows]))
                await self._follow(uses, rules.currency, by, portfolio.owner)
            try:
                now = self._clock.time()
                changed = await self._portfolios.change(portfolio, facts, now, version=version, generation=generation)
            except LedgerMoved:
                await pause(attempt)
                portfolio = changed = await self._portfolios.get(portfolio.owner, portfolio.id)
                if portfolio.version - 1 != version or not _has(portfolio, facts):  # not by the attempt before
                    continue
            self._tell(self.on_changed, portfolio.id)
            return changed
        raise gave_up()

    async def _write(
        self,
        portfolio: Portfolio,
        make: Callable[[LedgerView, set[str]], Plan],
        by: str,
        size: int = 0,
        question: Question | None = None,
    ) -> Plan:
        for attempt in range(RACES):
            change_id = new_id()
            try:
                return await self.attempt(portfolio, make, by, change_id, size, question)
            except LedgerMoved:
                await pause(attempt)
                portfolio = await self._portfolios.get(portfolio.owner, portfolio.id)
                await self.tell_of(portfolio.id, change_id)
        raise gave_up()

    async def attempt(
        self,
        portfolio: Portfolio,
        make: Callable[[LedgerView, set[str]], Plan],
        by: str,
        change_id: str,
        size: int = 0,
        question: Question | None = None,
        *,
        before_commit: Callable[[LedgerView], object] | None = None,
    ) -> Plan:
        """Carry out, under a new id, what `make` plans of the ledger and the ids of its accounts. `before_commit`: told
        what the ledger will be if it succeeds.

        Raises `LedgerMoved` when somebody was faster or the outcome is not known: `tell_of` what was done then, and let
        `make` look for it.
        """
        view, accounts = await self._read_with_accounts(portfolio)
        planned = await aside(size, partial(make, view, accounts))
        if not planned.change.has_rows:
            await self.commit_beside(portfolio, planned.change, change_id)
            return planned
        change = replace(await self._checked(portfolio, view, planned, by, question), id=change_id)
        after = None
        if before_commit is not None:
            state = view.state.moved(change.affected_from, len(change.inserted), corrects=change.corrects)
            after = await self._after(view, change, state, portfolio)
            before_commit(after)
        committed = await self._store.commit(portfolio.id, view.state, change)
        self._tell_events(portfolio.id, committed.events)  # before anything else is awaited, so in their order
        self._tell(self.on_changed, portfolio.id)  # and whatever becomes of the rest
        if after is None or after.state != committed.state:
            after = await self._after(view, change, committed.state, portfolio)
        self._keep(portfolio.id, after)
        return planned

    async def _after(
        self, view: LedgerView, change: LedgerChange, state: LedgerState, portfolio: Portfolio
    ) -> LedgerView:
        """The ledger of `view` with `change`, then at `state`."""
        rows = await aside(len(view.rows) + len(change.inserted), partial(applied, view.rows, change))
        changes = (*view.changes[1 - CHANGES_KEPT :], change.affected_from)
        return await self._made(state, rows, portfolio.rules, changes)

    async def commit_beside(self, portfolio: Portfolio, change: LedgerChange, change_id: str) -> None:
        """The same for a change without rows, which needs nothing of the ledger."""
        if not change.is_empty:
            events = await self._store.commit_beside(portfolio.id, replace(change, id=change_id))
            self._tell_events(portfolio.id, events)

    async def tell_of(self, portfolio_id: str, change_id: str) -> None:
        """Tell what a change whose outcome was not known told, if it was made."""
        self._tell(self.on_changed, portfolio_id)  # it may be, and to value it once too often is no harm
        self._tell_events(portfolio_id, await self._store.events.of_change(change_id))

    def _tell_events(self, portfolio_id: str, events: Sequence[StreamEvent]) -> None:
        if events:
            self._tell(self.on_events, portfolio_id, events)

    def _tell(self, listener: Callable[..., object], *facts: Any) -> None:
        try:
            listener(*facts)
        except Exception:  # what is stored is stored, whatever becomes of those who hear of it
            log.exception("a listener to ledgers failed", portfolio=facts[0])

    async def _read_with_accounts(self, portfolio: Portfolio) -> tuple[LedgerView, set[str]]:
        view = await self.read(portfolio)
        return view, {account.id for account in await self._portfolios.accounts(portfolio.id)}

    async def _checked(
        self, portfolio: Portfolio, view: LedgerView, planned: Plan, by: str, question: Question | None
    ) -> LedgerChange:
        """The change with the instruments of its rows made known, once the ledger can be with it and `question` has
        nothing against it."""
        change, base = planned.change, portfolio.rules.currency
        size = len(view.rows) + len(change.inserted) + len(change.replaced)

        def looked_at() -> tuple[Ledger, list[dict[str, Any]], list[Use]]:
            rows = [row.transaction for row in (*change.inserted, *change.replaced)]
            after = ledger_of(applied(view.rows, change), portfolio.rules)
            return after, self._of_others(rows, portfolio.owner), uses_of(rows)

        after, of_others, uses = await aside(size, looked_at)
        found, market = await self._impossible(view.ledger, after)
        wanted = set(await question(planned)) if question is not None else set()
        _refuse_of(planned, of_others)
        ignorant = {use.instrument for use in uses if use.instrument is not None and self._is_new(use.instrument)}
        if not ignorant:
            _refuse_of(planned, found)
        run = await self._follow(uses, base, by, portfolio.owner)
        if run is not None and (found or wanted & ignorant):
            await run.finished(SPLITS_SECONDS)
        if question is not None and wanted:
            await question(planned)  # first: what is in other units than it says is often too much as well
        if found:
            found, market = await self._impossible(view.ledger, after)
            _refuse_of(planned, found)
        today, now = self._today(portfolio), self._now()

        def told() -> LedgerChange:
            events = events_of(change, view.by_id, view.ledger, after, market, today, now)
            corrects = bool(change.replaced or change.deleted or _is_before(change.affected_from, today))
            return replace(self._with_series(change), events=[*change.events, *events], corrects=corrects)

        return await aside(size, told)

    def _of_others(self, rows: Sequence[Transaction], owner: str) -> list[dict[str, Any]]:
        """A fault for each row that names an instrument of another user's own."""
        own = {row.instrument for row in rows if row.instrument is not None and not row.instrument.place.has_provider}
        entries = {one: self._catalog.find(one) for one in own}
        anothers = {one for one, entry in entries.items() if entry is not None and entry.owner not in (None, owner)}
        fault = {"field": "symbol", "code": "symbol_of_another_user", "detail": ANOTHERS}
        return [{"id": row.id, **fault} for row in rows if row.instrument in anothers]

    def _today(self, portfolio: Portfolio) -> int:
        return day_number(datetime.fromtimestamp(self._clock.time(), ZoneInfo(portfolio.time_zone)).date())

    def _with_series(self, change: LedgerChange) -> LedgerChange:
        """With the ids of the instruments of its rows."""

        rows = (*change.inserted, *change.replaced)
        named = {one for row in rows if (one := row.transaction.instrument) is not None}
        entries = {one: entry for one in named if (entry := self._catalog.find(one)) is not None}

        def known(row: Row) -> Row:
            one = row.transaction
            entry = None if one.instrument is None else entries.get(one.instrument)
            series = None if entry is None else entry.id
            return Row(one, series, row.place, row.version, row.created_at, row.updated_at)

        return replace(
            change, inserted=list(map(known, change.inserted)), replaced=list(map(known, change.replaced))
        )  # fmt: skip

    def _is_new(self, instrument: Instrument) -> bool:
        """Whether nobody could say yet which splits it had."""
        entry = self._catalog.find(instrument)
        return instrument.place.has_provider and (entry is None or entry.state.last_update is None)

    async def _impossible(self, before: Ledger, after: Ledger) -> tuple[list[dict[str, Any]], MarketData]:
        """What `after` takes more of than there is, as far as `before` did not do so already; by which splits."""
        size = len(after.transactions)
        market = self._markets.splits(await aside(size, lambda: after.instruments() | before.instruments()))
        return await aside(size, lambda: _new_faults(before, after, market)), market

    async def _follow(self, uses: Sequence[Use], base: str, by: str, owner: str) -> Any:
        """Keep the prices of everything in use, and of the currencies it needs, from its first use on; the run that
        fills what is new, or None."""
        await self._make_known(uses, by, owner)
        days: dict[Instrument, int] = {}
        for use in uses:
            for instrument in self._needed(use, base):
                days[instrument] = min(days.get(instrument, use.day), use.day)
        return (await self._tracker.follow(days, by)).run if days else None

    def _needed(self, use: Use, base: str) -> Iterable[Instrument]:
        currencies = {use.currency} if use.currency is not None else set()
        if use.instrument is not None:
            currencies.add(self._markets.currency_of(use.instrument))
            if use.instrument.place.has_provider:
                yield use.instrument
        for currency in currencies:
            pair = pair_of(currency, base)
            if pair is not None:
                yield pair

    async def _make_known(self, uses: Iterable[Use], by: str, owner: str) -> None:
        own: dict[Instrument, Use] = {}
        for use in uses:
            instrument = use.instrument
            if instrument is None or instrument.place.has_provider or self._catalog.find(instrument) is not None:
                continue
            own.setdefault(instrument, use)
        for instrument, use in own.items():
            now, new = self._clock.time(), Own(instrument, use.currency)
            (entry,) = await self._instruments.add_own([new], owner, wanted_from=use.day, by=by, now=now)
            if entry.owner != owner:  # who was faster by a moment
                raise Invalid(ANOTHERS, code="symbol_of_another_user")

    # planning: reads single entries of the catalog's dictionaries, which a thread may

    def _resolved(self, one: Incoming) -> Incoming:
        row = one.transaction
        day = None if one.says_series else row.day
        entry = None if row.instrument is None else self._catalog.find(row.instrument, day)
        if entry is None or entry.instrument == row.instrument:
            return one
        return replace(one, transaction=replace(row, instrument=entry.instrument))

    def _faults_in(self, view: LedgerView, rows: Sequence[Incoming], accounts: set[str]) -> list[dict[str, Any]]:
        found = [{"row": one.number, **fault} for one in rows for fault in self._faults_of(one.transaction, accounts)]
        return [*found, *repeated(view, rows)]

    def _now(self) -> float:
        """To the millisecond, as it is stored."""
        return round(self._clock.time(), 3)

    def _faults_of(self, row: Transaction, accounts: set[str]) -> list[dict[str, Any]]:
        found = [{"code": fault["code"], "detail": fault["detail"]} for fault in faults([row])]
        for name, account in (("accountId", row.account), ("toAccountId", row.to_account)):
            if account and account not in accounts:
                found.append({"field": name, "code": "unknown_account", "detail": "There is no such account here."})
        if row.day * DAY_SECONDS > self._clock.time() + EARLIEST_DATE_ON_EARTH:
            found.append({"field": "date", "code": "date_in_the_future", "detail": "the day has not come yet"})
        elif row.day < FIRST_DAY:
            found.append({"field": "date", "code": "date_too_early", "detail": "Ledgers begin in 1900."})
        return found


def _is_before(day: int | None, today: int) -> bool:
    return day is not None and day < today


def _new_faults(before: Ledger, after: Ledger, market: MarketData) -> list[dict[str, Any]]:
    found = _impossible_in(after, market)
    if not found:
        return []
    known = {(fault["id"], fault["code"]) for fault in _impossible_in(before, market)}
    return [fault for fault in found if (fault["id"], fault["code"]) not in known]


def _impossible_in(ledger: Ledger, market: MarketData) -> list[dict[str, Any]]:
    try:
        check(ledger, market)
    except Invalid as exc:
        return exc.rows
    return []


def _without_row(fault: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fault.items() if name != "row"}


def _refuse_of(planned: Plan, found: Sequence[Mapping[str, Any]]) -> None:
    if found:  # of a long plan the numbers alone take a while
        _refuse(numbered(found, planned.numbers))


def _refuse(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    rows = in_order(rows)
    first = rows[0]
    if len(rows) == 1:
        raise Invalid(first["detail"], code=first["code"], rows=list(rows))
    more = f"{len(rows)} faults; the first: {first['detail']}"
    raise Invalid(more, code="transactions_refused", rows=list(rows[:ROWS_TOLD]), total=len(rows))


def _is_there(row: Row | None, wanted: Row) -> bool:
    return row is not None and row.version == wanted.version and is_same(row.transaction, wanted.transaction)


def _has(portfolio: Portfolio, facts: Mapping[str, Any]) -> bool:
    own = {
        "name": portfolio.name,
        "quantityBasis": portfolio.quantity_basis,
        "timeZone": portfolio.time_zone,
        "isArchived": portfolio.is_archived,
    }
    told = {name: value for name, value in facts.items() if name in own}
    return _rules_with(portfolio.rules, facts) == portfolio.rules and told.items() <= own.items()


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
