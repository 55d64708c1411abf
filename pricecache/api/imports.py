"""Files of transactions over HTTP: taken into a portfolio, or looked through without changing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import orjson

from pricecache import garbage
from pricecache.api.call import Answer, Call
from pricecache.api.import_files import ImportFile, read_file
from pricecache.api.import_inputs import ImportQuery, ImportRow
from pricecache.api.ledger_inputs import RefusedRow
from pricecache.api.portfolios import portfolio_of
from pricecache.api.transactions import exact, exact_fields, transaction_of
from pricecache.api.wire import camel, iso_day
from pricecache.core.bars import day_number
from pricecache.core.ledger import Transaction
from pricecache.core.row_ids import row_ids
from pricecache.errors import Invalid
from pricecache.portfolio.importing import ImportPreview, Judged, evidence
from pricecache.portfolio.ledger import ROWS_TOLD
from pricecache.portfolio.planning import Incoming, Plan, PlannedRow

if TYPE_CHECKING:
    from pricecache.core.portfolios import Portfolio
    from pricecache.stores.portfolios import Account

LONG_FILE = 256 << 10
"""Bytes from which on garbage is not looked for among its rows while they are read."""
Faults = list[dict[str, Any]]


async def import_file(call: Call) -> Answer:
    if len(call.body.content) < LONG_FILE:
        return await _import_file(call)
    with garbage.young_only():
        return await _import_file(call)


async def _import_file(call: Call) -> Answer:
    query: ImportQuery = call.query
    portfolio = await portfolio_of(call)
    if query.account_id is not None:
        await call.services.portfolios.account(portfolio.id, query.account_id)
    accounts = _Accounts.of(await call.services.portfolios.accounts(portfolio.id))
    today = call.services.histories.today(portfolio)
    file = await asyncio.to_thread(read_file, call.body)
    incoming, refused = await asyncio.to_thread(_incoming, file, portfolio, accounts, query, today)
    try:
        if query.dry_run:
            found = await call.services.imports.preview(portfolio, incoming, refused)
            return await asyncio.to_thread(_preview_answer, file, found)
        done = await call.services.imports.store(portfolio, incoming, refused, call.principal.name)
        return await asyncio.to_thread(_answer, file, done.plan, done.judged)
    except Invalid as exc:
        if exc.rows:
            exc.rows = [file.located(fault) for fault in exc.rows]
        raise
    finally:
        await asyncio.to_thread(garbage.let_go, incoming, refused)


# from the rows of a file to rows on their way into a ledger


@dataclass(frozen=True, slots=True)
class _Accounts:
    """The accounts of a portfolio by id, and their ids by name."""

    ids: frozenset[str]
    by_name: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, accounts: Iterable[Account]) -> _Accounts:
        by_name: dict[str, list[str]] = {}
        for account in accounts:
            by_name.setdefault(account.name, []).append(account.id)
        return cls(frozenset(one for ids in by_name.values() for one in ids), by_name)

    def find(self, account_id: str | None, name: str | None) -> str | None:
        """By id where that is one of them, else by name. Raises `Invalid`: `unknown_account`, `ambiguous_account`."""
        if name is None or account_id in self.ids:
            return account_id
        found = self.by_name.get(name, ())
        if len(found) > 1:
            raise Invalid(f"{len(found)} accounts are called {name}: give the id.", code="ambiguous_account")
        if not found:
            raise Invalid(f"There is no account {name} here.", code="unknown_account")
        return found[0]


def _incoming(
    file: ImportFile, portfolio: Portfolio, accounts: _Accounts, query: ImportQuery, today: int
) -> tuple[list[Incoming], Faults]:
    incoming, refused = [], []
    for number in range(len(file.rows)):
        row = file.rows[number]
        found = row.faults if isinstance(row, RefusedRow) else []
        if isinstance(row, ImportRow):
            placed, found = _placed(row, accounts)
            found = [*found, *_dated_faults(row, today)]
            if not found:
                incoming.append(_one(number, placed, portfolio, query, today))
        refused += [{**fault, "row": number} for fault in found]
    garbage.let_go(file.rows)
    return _named(incoming), refused


def _placed(row: ImportRow, accounts: _Accounts) -> tuple[ImportRow, Faults]:
    """With the ids of the accounts that it names."""
    found: dict[str, str | None] = {}
    faults = []
    for by_id, by_name, field in (("account_id", "account", "account"), ("to_account_id", "to_account", "toAccount")):
        if getattr(row, by_name) is None:
            continue
        try:
            found[by_id] = accounts.find(getattr(row, by_id), getattr(row, by_name))
        except Invalid as exc:
            faults.append({"field": field, "code": exc.code, "detail": exc.detail})
    return (row.model_copy(update=found) if found else row), faults


def _dated_faults(row: ImportRow, today: int) -> Faults:
    if row.adjusted_as_of is None or day_number(row.adjusted_as_of) <= today:
        return []
    return [{"field": "adjustedAsOf", "code": "date_in_the_future", "detail": "the day has not come yet"}]


def _one(number: int, row: ImportRow, portfolio: Portfolio, query: ImportQuery, today: int) -> Incoming:
    said = row.basis or query.quantity_basis
    as_of = today if row.adjusted_as_of is None else day_number(row.adjusted_as_of)
    transaction = transaction_of(row, said or portfolio.quantity_basis, as_of, account=query.account_id)
    is_dated = row.adjusted_as_of is not None
    return Incoming(number, transaction, row.id, says_units=said is not None, says_day=is_dated)


def _named(incoming: list[Incoming]) -> list[Incoming]:
    """Those without an external id with the one that what they say makes."""
    nameless = [place for place, one in enumerate(incoming) if one.transaction.external_id is None]
    for place, name in zip(nameless, row_ids(incoming[place].transaction for place in nameless), strict=True):
        incoming[place] = replace(incoming[place], fallback=name)
    return incoming


# what is answered


def _answer(file: ImportFile, plan: Plan, judged: dict[int, Judged]) -> Answer:
    ids = _listed(plan.rows, lambda row: row.id)
    fields = {"dryRun": False, **_counts(plan), "ids": ids, **_units(file, judged.values())}
    garbage.let_go(judged, plan.rows)
    return Answer(fields, 201)


def _preview_answer(file: ImportFile, found: ImportPreview) -> Answer:
    fields = {
        "dryRun": True,
        "accepted": not found.faults,
        **_counts(found.plan),
        "rows": _listed(found.plan.rows, lambda row: _row_fields(file, row, found.judged[row.number])),
        "holdings": [
            {
                "symbol": instrument.symbol,
                "market": instrument.market,
                "accountId": account or None,
                "before": exact(before.normalize()),
                "after": exact(after.normalize()),
            }
            for (account, instrument), (before, after) in found.holdings.items()
        ],
        **_units(file, found.judged.values()),
        "errors": camel([file.located(fault) for fault in found.faults[:ROWS_TOLD]]),
        "errorsTotal": len(found.faults),
    }
    garbage.let_go(found.judged, found.plan.rows)
    return Answer(fields)


def _counts(plan: Plan) -> dict[str, Any]:
    counts = {"created": plan.count("create"), "updated": plan.count("update"), "unchanged": plan.count("unchanged")}
    return {**counts, "affectsFrom": iso_day(plan.change.affected_from)}


def _units(file: ImportFile, judged: Iterable[Judged]) -> dict[str, Any]:
    counts = {"traded": 0, "adjusted": 0, "ambiguous": 0, "notJudged": 0}
    questions = []
    for one in judged:
        counts["notJudged" if one.units is None else one.units.verdict] += 1
        if one.is_contradicted:
            questions.append(one)
    told = [_question_fields(file, one) for one in questions[:ROWS_TOLD]]
    return {"units": counts, "questions": told, "questionsTotal": len(questions)}


def _question_fields(file: ImportFile, one: Judged) -> dict[str, Any]:
    row = one.transaction
    return {
        **_place(file, one.number),
        "date": iso_day(row.day),
        "symbol": None if row.instrument is None else row.instrument.symbol,
        "market": None if row.instrument is None else row.instrument.market,
        "price": exact(row.price),
        **_units_fields(one),
    }


def _units_fields(one: Judged) -> dict[str, Any]:
    basis = "asTraded" if one.transaction.adjusted_as_of is None else "adjusted"
    return {"quantityBasis": basis, "isSaid": one.is_said, "units": one.units and camel(evidence(one.units))}


def _row_fields(file: ImportFile, row: PlannedRow, judged: Judged) -> dict[str, Any]:
    told: dict[str, Any] = {**_place(file, row.number), "action": row.action, "externalId": row.after.external_id}
    if row.before is not None:
        told["id"] = row.id
    if row.before is not None and row.action == "update":
        names = _changed(row.before, row.after)
        told["before"], told["after"] = (
            {name: value for name, value in exact_fields(one).items() if name in names}
            for one in (row.before, row.after)
        )
    return told if judged.units is None else {**told, **_units_fields(judged)}


def _place(file: ImportFile, number: int) -> dict[str, int]:
    return {"row": number, **({"line": file.lines[number]} if file.lines else {})}


_NAMES: dict[str, tuple[str, ...]] = {
    "day": ("date",),
    "instrument": ("symbol", "market"),
    "account": ("accountId",),
    "to_account": ("toAccountId",),
    "adjusted_as_of": ("quantityBasis", "adjustedAsOf"),
}


def _changed(before: Transaction, after: Transaction) -> set[str]:
    """The fields whose values differ."""
    found: set[str] = set()
    for one in fields(Transaction):
        if one.compare and getattr(before, one.name) != getattr(after, one.name):
            found.update(_NAMES.get(one.name) or camel({one.name: None}))
    return found


def _listed(rows: Iterable[PlannedRow], told: Callable[[PlannedRow], Any]) -> orjson.Fragment:
    """A JSON array made row by row, so that other threads get their turn while it is."""
    return orjson.Fragment(b"[" + b",".join(orjson.dumps(told(row)) for row in rows) + b"]")
