"""Takes reports of orders: each once, and a fill with the transaction that it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.catalog import Catalog
from pricecache.core.ledger import Transaction
from pricecache.core.orders import Order, OrderReport, conflicts, report_faults, transaction_of
from pricecache.core.portfolios import Portfolio
from pricecache.core.stream_events import StreamEvent
from pricecache.errors import Conflict, Invalid, NotFound, VersionMismatch
from pricecache.portfolio.event_data import order_data
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.planning import Incoming, LedgerView, Plan, plan
from pricecache.stores.commits import pause
from pricecache.stores.ids import new_id
from pricecache.stores.ledger import RACES, LedgerChange, LedgerMoved, gave_up
from pricecache.stores.orders import OrderStore
from pricecache.stores.portfolios import PortfolioStore

Outcome = Literal["created", "updated", "unchanged"]


class Orders:
    """Orders of portfolios for whoever reports and reads them. Loop-only.

    An order, the event that tells of it, and the transaction of its fill are one step: all of it is stored, or nothing.
    """

    def __init__(
        self, ledgers: Ledgers, store: OrderStore, portfolios: PortfolioStore, catalog: Catalog, clock: Clock
    ) -> None:
        self._ledgers = ledgers
        self._store = store
        self._portfolios = portfolios
        self._catalog = catalog
        self._clock = clock

    async def get(self, portfolio: Portfolio, order_id: str) -> Order:
        """Raises `NotFound` with code `unknown_order`."""
        found = await self._store.find(portfolio.id, order_id)
        if found is None:
            raise NotFound("There is no such order in this portfolio.", code="unknown_order")
        return found

    async def page(
        self, portfolio: Portfolio, count: int, *, before: str | None = None, is_open: bool = False
    ) -> list[Order]:
        """The next `count`, those first that came last, below the number `before`; `is_open`: only those not final."""
        return await self._store.page(portfolio.id, count, before=before, is_open=is_open)

    async def put(
        self, portfolio: Portfolio, order_id: str, report: OrderReport, by: str, version: int | None = None
    ) -> tuple[Order, Outcome]:
        """Take a report. The same once more changes nothing, whatever became of its transaction since.

        Raises `Invalid` with every fault of it, `Conflict` when it cannot follow on the last one, `VersionMismatch`
        when the order is not at `version`, and what `Ledgers.add` does of the transaction. `Conflict` code
        `order_row_taken`: the external id of its transaction is that of something else.
        """
        number, row_id = new_id(), new_id()
        tried: dict[str, Outcome] = {}
        for attempt in range(RACES):
            before = await self._store.find(portfolio.id, order_id)
            if before is not None and before.change in tried:
                return before, tried[before.change]
            given = self._judged(before, report, version)
            if given is None:
                assert before is not None  # there is something that it is the same as
                return before, "unchanged"
            change_id = new_id()
            after = self._next(before, order_id, given, number, change_id)
            try:
                return await self._write(portfolio, before, after, by, row_id), "updated" if before else "created"
            except LedgerMoved:
                tried[change_id] = "updated" if before else "created"
                await pause(attempt)
                portfolio = await self._portfolios.get(portfolio.owner, portfolio.id)
                await self._ledgers.tell_of(portfolio.id, change_id)
        raise gave_up()

    def _judged(self, before: Order | None, report: OrderReport, version: int | None) -> OrderReport | None:
        """The report as it is to be kept; None when it says what is known."""
        if version is not None and (before is None or before.version != version):
            raise VersionMismatch
        given, found = self._present(report), report_faults(report)
        if before is None:
            _refuse(found, ())
            return given
        known = self._present(before.report)
        if given == known:
            return None
        _refuse(found, conflicts(known, given))
        return given

    def _present(self, report: OrderReport) -> OrderReport:
        """With the symbol that its instrument has now."""
        return replace(report, instrument=self._catalog.present(report.instrument))

    def _next(self, before: Order | None, order_id: str, report: OrderReport, number: str, change: str) -> Order:
        now = round(self._clock.time(), 3)  # to the millisecond, as it is stored
        if before is None:
            return Order(order_id, report, number, None, change, 1, now, now)
        return replace(before, report=report, change=change, version=before.version + 1, updated_at=now)

    async def _write(self, portfolio: Portfolio, before: Order | None, after: Order, by: str, row_id: str) -> Order:
        if not after.report.is_fill:
            await self._require_account(portfolio, after.report)
            await self._ledgers.commit_beside(portfolio, self._with_order(portfolio, before, after), after.change)
            return after
        filled = [after]

        def make(view: LedgerView, accounts: set[str]) -> Plan:
            fill = transaction_of(after.id, after.report, self._day(portfolio, after))
            incoming = self._ledgers.accepted(view, [Incoming(0, fill, says_units=True)], accounts)
            _require_free(view, incoming[0].transaction)
            planned = plan(view, incoming, [row_id], after.updated_at)
            filled[0] = replace(after, transaction_id=planned.rows[0].id)
            return replace(planned, change=self._with_order(portfolio, before, filled[0], planned.change))

        await self._ledgers.attempt(portfolio, make, by, after.change)
        return filled[0]

    def _with_order(
        self, portfolio: Portfolio, before: Order | None, after: Order, change: LedgerChange | None = None
    ) -> LedgerChange:
        event = StreamEvent(0, "order:updated", after.updated_at, order_data(after))
        companion = self._store.writing(portfolio.id, before, after)
        return replace(change or LedgerChange(), events=[event], companions=[companion])

    async def _require_account(self, portfolio: Portfolio, report: OrderReport) -> None:
        if not report.account:
            return
        if all(one.id != report.account for one in await self._portfolios.accounts(portfolio.id)):
            fault = {"field": "accountId", "code": "unknown_account", "detail": "There is no such account here."}
            raise Invalid(fault["detail"], code="unknown_account", rows=[fault])

    def _day(self, portfolio: Portfolio, order: Order) -> int:
        filled_at = order.report.filled_at if order.report.filled_at is not None else order.updated_at
        return day_number(datetime.fromtimestamp(filled_at, ZoneInfo(portfolio.time_zone)).date())


def _require_free(view: LedgerView, fill: Transaction) -> None:
    held = view.by_external_id.get(fill.external_id or "")
    if held is None:
        return
    row = held.transaction
    if row.type not in ("buy", "sell") or row.instrument != fill.instrument:
        detail = f"{row.external_id} is another transaction: {row.type} of {row.instrument or row.currency or 'cash'}."
        raise Conflict(detail, code="order_row_taken", transaction_id=held.id)


def _refuse(faults: Sequence[Mapping[str, Any]], conflicting: Sequence[Mapping[str, Any]]) -> None:
    found = [dict(fault) for fault in (*faults, *conflicting)]
    if not found:
        return
    detail, code = found[0]["detail"], found[0]["code"]
    if len(found) > 1:
        detail = f"{len(found)} faults; the first: {detail}"
    if faults:
        raise Invalid(detail, code=code if len(found) == 1 else "order_refused", rows=found)
    raise Conflict(detail, code=code if len(found) == 1 else "order_conflict", errors=found)
