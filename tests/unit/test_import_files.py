"""Files of transactions are read as they are meant, or refused with the place of every fault; nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pricecache.api import exports, import_files, imports
from pricecache.api.import_files import ImportFile, read_file
from pricecache.api.import_inputs import ImportQuery, ImportRow
from pricecache.api.ledger_inputs import RefusedRow
from pricecache.api.uploads import Upload
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.portfolios import Portfolio
from pricecache.errors import Invalid
from pricecache.stores.ledger import Row
from pricecache.stores.portfolios import Account
from tests.ledgers import ledgers

PORTFOLIO = Portfolio("p", "ann", "Own", Rules(), "asTraded", "UTC", False, 1, 0.0, 0.0)
TODAY = 20_000


def csv_file(text: str | bytes) -> ImportFile:
    return read_file(Upload(text if isinstance(text, bytes) else text.encode(), "csv"))


def json_file(value: Any) -> ImportFile:
    return read_file(Upload((value if isinstance(value, str) else json.dumps(value)).encode(), "json"))


def told(file: ImportFile) -> list[dict[str, Any]]:
    return [
        file.located({**fault, "row": number})
        for number, row in enumerate(file.rows)
        if isinstance(row, RefusedRow)
        for fault in row.faults
    ]


def said(file: ImportFile, number: int = 0) -> dict[str, Any]:
    row = file.rows[number]
    assert isinstance(row, ImportRow), row
    return row.model_dump(by_alias=True, exclude_none=True)


def refusal(text: str | bytes, kind: Any = "csv") -> Invalid:
    with pytest.raises(Invalid) as refused:
        read_file(Upload(text if isinstance(text, bytes) else text.encode(), kind))
    return refused.value


# CSV


@pytest.mark.parametrize(
    "header",
    [
        "date,type,symbol,quantity,fxRate",
        "DATE,Type,Symbol,Quantity,fx_rate",
        "Trade Date,Action,Ticker,Shares,FX-Rate",
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_columns_are_known_by_their_names_however_they_are_written(header: str, delimiter: str, end: str) -> None:
    lines = [header, "2026-01-05,Buy,AAPL,10,1.25", ""]
    row = said(csv_file(end.join(lines).replace(",", delimiter)))
    assert (row["type"], row["symbol"], row["quantity"], row["fxRate"]) == ("buy", "AAPL", 10, Decimal("1.25"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_name(encoding: str) -> None:
    assert said(csv_file("date,type,amount,note\n2026-01-05,deposit,1,ä€\n".encode(encoding)))["note"] == "ä€"


def test_quotes_hold_delimiters_quotes_and_line_breaks() -> None:
    file = csv_file('date,type,amount,note\n\n2026-01-05,deposit,1,"a, ""b""\r\nc"\n2026-01-06,deposit,2,\n')
    assert said(file)["note"] == 'a, "b"\r\nc'
    assert "note" not in said(file, 1)
    assert file.lines == [3, 5]


def test_a_delimiter_in_a_quoted_title_does_not_decide() -> None:
    assert said(csv_file('"date";"type";"amount"\n2026-01-05;deposit;"1"\n'))["amount"] == 1


@pytest.mark.parametrize(
    "number", ["1,234", "1,234.50", "1.234,50", "12,50", "1 234", "1'234", "1.234.567", "1\u202f234", "-1,5"]
)
def test_a_number_that_can_be_read_in_two_ways_is_refused(number: str) -> None:
    file = csv_file(f'date,type,symbol,Shares,price\n2026-01-05,buy,AAPL,"{number}",5\n')
    (fault,) = told(file)
    assert (fault["row"], fault["line"], fault["column"], fault["code"]) == (0, 2, "Shares", "ambiguous_number")


def test_every_fault_is_told_with_its_line_and_column() -> None:
    file = csv_file(
        "Date,Action,Ticker,Shares,Price\n"
        "2026-02-30,buy,AAPL,many,1\n"
        "2026-01-05,gift,AAPL,1,1\n"
        "2026-01-05,buy,AAPL,1\n"
        "2026-01-05,buy,!!,1,1\n"
        "2026-01-05,buy,AAPL,1,1\n"
    )
    assert [(f["row"], f["line"], f.get("column"), f["code"]) for f in told(file)] == [
        (0, 2, "Date", "bad_date"),
        (0, 2, "Shares", "invalid_value"),
        (1, 3, "Action", "invalid_value"),
        (2, 4, None, "cell_count"),
        (3, 5, "Ticker", "invalid_symbol"),
    ]
    assert isinstance(file.rows[4], ImportRow)


@pytest.mark.parametrize(
    ("code", "column"),
    [("fx_rate_not_positive", "FX"), ("quantity_required", "Shares"), ("instrument_required", "Ticker"),
     ("to_account_not_allowed", "To"), ("over_sale", None), ("same_account", None)],
)  # fmt: skip
def test_a_fault_of_the_ledger_leads_to_its_column(code: str, column: str | None) -> None:
    columns = {"fxRate": "FX", "quantity": "Shares", "symbol": "Ticker", "toAccountId": "To"}
    assert ImportFile([], [7], columns).located({"row": 0, "code": code}).get("column") == column


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("date,type,colour\n", "unknown_column"),
        ("date,type,ticker,symbol\n", "duplicate_column"),
        ("date,symbol\n", "column_missing"),
        ("symbol,colour\n", "invalid"),
        ("", "invalid"),
        ("date,type\n", "too_few"),
        ('date,type\n2026-01-05,"dep', "malformed_csv"),
        ('date,type\n2026-01-05,"dep"osit\n', "malformed_csv"),
        (b"date,type,note\n2026-01-05,deposit,\xe4\n", "bad_encoding"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused_as_a_whole(text: str | bytes, code: str) -> None:
    assert refusal(text).code == code


def test_every_fault_of_the_header_is_told() -> None:
    error = refusal("symbol,colour,Ticker\n")
    assert [(row["column"], row["code"]) for row in error.rows] == [
        ("colour", "unknown_column"), ("Ticker", "duplicate_column"),
        ("date", "column_missing"), ("type", "column_missing"),
    ]  # fmt: skip


def test_columns_without_a_name_are_passed_over_while_they_are_empty() -> None:
    file = csv_file("date,type,amount,,\n2026-01-05,deposit,1,,\n2026-01-05,deposit,1,x,\n,,,,\n")
    assert said(file)["amount"] == 1
    assert [(fault["row"], fault["code"]) for fault in told(file)] == [(1, "cell_count")]


# JSON


def test_numbers_of_json_keep_every_digit() -> None:
    text = '[{"date": "2026-01-05", "type": "deposit", "amount": 123456789012345.123456789012, "fees": "0.10"}]'
    row = said(json_file(text))
    assert (str(row["amount"]), str(row["fees"])) == ("123456789012345.123456789012", "0.10")


@pytest.mark.parametrize(
    "wrapped", [lambda row: [row], lambda row: {"transactions": [row], "total": 1}, lambda row: row]
)
def test_rows_come_in_a_list_or_an_object_or_alone(wrapped: Any) -> None:
    listed = {"date": "2026-01-05", "type": "deposit", "amount": 1, "version": 3, "createdAt": "x", "updatedAt": None}
    assert len(json_file(wrapped(listed)).rows) == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "malformed_json"),
        ('[{"amount": NaN}]', "malformed_json"),
        ("[" * 100_000, "malformed_json"),
        ("5", "invalid_value"),
        ('[{"amount": 1%s}]' % ("0" * 5000), "malformed_json"),
        ("[]", "too_few"),
        ('{"transactions": [], "rows": []}', "unknown_field"),
    ],
)
def test_json_that_is_no_list_of_transactions_is_refused(text: str, code: str) -> None:
    assert refusal(text, "json").code == code


def test_a_number_no_decimal_can_be_is_a_fault_of_its_row() -> None:
    text = f'[{{"date": "2026-01-05", "type": "deposit", "amount": 1e{"9" * 50}}}]'
    assert [fault["code"] for fault in told(json_file(text))] == ["invalid_value"]


def test_rows_of_json_are_checked_one_by_one() -> None:
    file = json_file([5, {"date": "2026-01-05", "type": "deposit", "amount": True}, {"colour": 1}])
    assert [(f["row"], f["code"]) for f in told(file)] == [
        (0, "invalid_value"), (1, "invalid_value"), (2, "missing"), (2, "missing"), (2, "unknown_field"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_of_too_many_rows_is_refused(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_files, "MOST_ROWS", 2)
    rows = [{"date": "2026-01-05", "type": "deposit", "amount": 1}] * 3
    text = json.dumps(rows) if kind == "json" else "date,type,amount\n" + "2026-01-05,deposit,1\n" * 3
    assert refusal(text, kind).code == "too_many"


def test_what_is_as_traded_is_restated_on_no_day() -> None:
    rows = [
        {
            "date": "2026-01-05",
            "type": "deposit",
            "amount": 1,
            "quantityBasis": "asTraded",
            "adjustedAsOf": "2026-01-06",
        }
    ]
    assert [fault["code"] for fault in told(json_file(rows))] == ["adjusted_as_of_not_allowed"]


PIECES = st.sampled_from(
    ["date", "type", "symbol", ",", ";", "\t", "\n", "\r", '"', "2026-01-05", "buy", "AAPL", "1,5", "1e999999999",
     "-", "\x00", "{", "}", "[", "]", ":", "null", "1" * 5000, '"transactions"', '"date"', "\ud7ff", "quantity"]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=30).map(lambda parts: "".join(parts).encode())))
def test_whatever_is_sent_is_read_or_refused(content: bytes) -> None:
    for kind in ("csv", "json"):
        with suppress(Invalid):
            assert all(fault["code"] for fault in told(read_file(Upload(content, kind))))


# exported and imported


def taken(file: ImportFile, accounts: Sequence[Account]) -> list[Transaction]:
    known = imports._Accounts.of(accounts)
    incoming, refused = imports._incoming(file, PORTFOLIO, known, ImportQuery(), TODAY)
    assert refused == []
    return [one.transaction for one in incoming]


def account(account_id: str, name: str) -> Account:
    return Account(account_id, "p", name, None, None, False, 1, 0.0, 0.0)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: bool(text.strip())
)


@given(ledgers(), TEXTS, TEXTS, st.booleans())
def test_what_is_exported_comes_back_to_the_digit(ledger: Ledger, note: str, name: str, is_csv: bool) -> None:
    sayable = [row for row in ledger.transactions if row.to_account != ""]  # to the implicit account nobody can say
    assume(sayable)
    rows = [replace(row, note=note, external_id=f"{note}{n}", id=str(n)) for n, row in enumerate(sayable)]
    stored = [Row(row, None, place, 1, 0.0, 0.0) for place, row in enumerate(rows)]
    names = {"one": name, "two": f"{name}2"}
    content = exports._csv(stored, names) if is_csv else exports._json(stored, names)
    here = [account("one", name), account("two", f"{name}2")]
    elsewhere = [account("1", name), account("2", f"{name}2")]
    moved = {"": "", "one": "1", "two": "2", None: None}
    # only what has a quantity is in units at all
    expected = [row if row.quantity is not None else replace(row, adjusted_as_of=None) for row in rows]
    file = read_file(Upload(content, "csv" if is_csv else "json"))
    assert taken(file, here) == [replace(row, id="") for row in expected]
    file = read_file(Upload(content, "csv" if is_csv else "json"))
    assert taken(file, elsewhere) == [
        replace(row, id="", account=moved[row.account] or "", to_account=moved[row.to_account]) for row in expected
    ]


def test_an_account_is_found_by_its_name_or_it_is_a_fault() -> None:
    accounts = imports._Accounts.of([account("a", "IRA"), account("b", "Twice"), account("c", "Twice")])
    text = "date,type,amount,accountId,account\n" + "".join(
        f"2024-01-05,deposit,1,{row}\n" for row in (",IRA", "a,", "x,IRA", "a,Other", ",Twice", ",None", "x,")
    )
    incoming, refused = imports._incoming(csv_file(text), PORTFOLIO, accounts, ImportQuery(), TODAY)
    assert [one.transaction.account for one in incoming] == ["a", "a", "a", "a", "x"]  # the last one the ledger refuses
    assert [(row["row"], row["code"]) for row in refused] == [(4, "ambiguous_account"), (5, "unknown_account")]


def test_units_are_said_by_the_row_or_else_the_query_or_else_the_portfolio() -> None:
    rows = [{"date": "2024-01-05", "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 1}] * 3
    rows[1] = {**rows[1], "quantityBasis": "adjusted"}
    rows[2] = {**rows[2], "adjustedAsOf": "2024-06-01"}
    for query, first in ((ImportQuery(), (None, False)), (ImportQuery(quantityBasis="adjusted"), (TODAY, True))):
        incoming, _ = imports._incoming(json_file(rows), PORTFOLIO, imports._Accounts.of([]), query, TODAY)
        assert [(one.transaction.adjusted_as_of, one.says_units) for one in incoming] == [
            first, (TODAY, True), (19_875, True),
        ]  # fmt: skip
