"""The five years that the manual works out by hand: what it quotes, what it sums up, and what a daemon answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from tests.daemon import DaemonProcess
from tests.documents import MANUAL, ROOT
from tests.mongod import TestMongod

pytestmark = pytest.mark.slow

LEDGER = ROOT / "docs" / "examples" / "five_years.json"
DAYS = ("2020-03-31", "2022-11-15", "2024-12-31")
ACCOUNTS = ("BROKER", "IRA")
CHAPTER = MANUAL.read_text().partition("\n## Five years by hand\n")[2].partition("\n## ")[0]


def quoted() -> dict[str, dict[str, Any]]:
    """The rows that the chapter shows, by date; those of days before are shown in part."""
    found = {}
    for text in re.findall(r"^(\[\n.*?^\])$", CHAPTER, re.MULTILINE | re.DOTALL):
        for row in json.loads(re.sub(r", \.\.\.(?=\})", "", text)):
            found[row["date"]] = row
    return found


def sums() -> Iterator[tuple[str, str, str]]:
    """Label, calculation and result of each line that is worked out, in order."""
    for text in re.findall(r"^```text\n(.*?)^```", CHAPTER, re.MULTILINE | re.DOTALL):
        for line in filter(None, text.splitlines()):
            yield line[:24].strip(), *map(str.strip, line[24:].split(" = "))


def by_day() -> dict[str, dict[str, str]]:
    """What the lines under each day come to, by label."""
    found: dict[str, dict[str, str]] = {}
    number = -1
    for label, _, result in sums():
        number += label in ("AAPL", "AAPL at the broker")
        found.setdefault(DAYS[number], {})[label] = result
    return found


def worked_out(calculation: str) -> Fraction:
    plain = calculation.replace("×", "*").replace("÷", "/").replace("−", "-")
    assert re.fullmatch(r"[\d.+\-*/() ]+", plain), calculation
    exact = re.sub(r"\d+(\.\d+)?", lambda number: f"Fraction('{number[0]}')", plain)
    return Fraction(eval(exact, {"Fraction": Fraction}))


def number_of(result: str) -> Decimal:
    return Decimal(result.replace("−", "-"))


@pytest.mark.parametrize(("label", "calculation", "result"), list(sums()))
def test_every_line_comes_to_what_it_says(label: str, calculation: str, result: str) -> None:
    shown, exact = number_of(result), worked_out(calculation)
    assert abs(Fraction(shown) - exact) <= Fraction(1, 2 * 10 ** -int(shown.as_tuple().exponent)), (label, exact)


@pytest.mark.parametrize("day", DAYS)
def test_what_is_worked_out_is_what_the_answer_shows(day: str) -> None:
    row = quoted()[day]
    fields = {label: number_of(result) for label, result in by_day()[day].items() if label in row}
    assert {"totalValue", "totalCost", "totalUnrealizedGainLoss", "totalDividends", "cash"} < fields.keys()
    index = fields.pop("returnIndex")
    assert {name: float(value) for name, value in fields.items()} == {name: row[name] for name in fields}
    assert float(index) == pytest.approx(row["returnIndex"], abs=2e-7)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    process = DaemonProcess(
        tmp_path_factory.mktemp("five_years"),
        mongodb_uri=mongod.uri,
        mongodb_database="worked_example",
        providers="sample",
        symbols="AAPL",
        sync_start_delay_seconds="0",
    )
    try:
        yield process.start()
        assert process.stop() == 0
    finally:
        if process.process is not None and process.process.poll() is None:
            process.kill()


@pytest.fixture(scope="module")
def base(daemon: DaemonProcess) -> str:
    """The portfolio of the chapter, once all of its prices are there."""
    status, made = daemon.post("/api/portfolios", {"name": "Five years", "costBasis": "fifo", "cashTracking": True})
    assert status == 201
    base, text = f"/api/portfolios/{made['id']}", LEDGER.read_text()
    for name in ACCOUNTS:
        _, account = daemon.post(f"{base}/accounts", {"name": name})
        text = text.replace(f'"{name}"', f'"{account["id"]}"')
    status, answer = daemon.post(f"{base}/transactions", json.loads(text))
    assert (status, answer["created"]) == (201, 36)

    def is_whole() -> bool:
        _, answer = daemon.get("/api/portfolio/history?end=2024-12-31&format=columns")
        return all(part == 1.0 for part in answer["coverage"]) and answer["date"][0] == "2020-01-06"

    daemon.wait(is_whole, "in possession of all prices")
    return base


@pytest.mark.parametrize("use_materialized", ["true", "false"])
def test_a_daemon_answers_what_the_manual_quotes(daemon: DaemonProcess, base: str, use_materialized: str) -> None:
    rows = quoted()
    assert set(DAYS) < rows.keys()
    _, answer = daemon.get(f"/api/portfolio/history?end=2024-12-31&useMaterialized={use_materialized}")
    answered = {row["date"]: row for row in answer["history"]}
    for day, row in rows.items():
        assert {name: answered[day][name] for name in row} == row
    for day in DAYS:
        assert rows[day].keys() == answered[day].keys()


def test_the_transfer_is_a_flow_of_the_account_alone(daemon: DaemonProcess, base: str) -> None:
    accounts = {one["name"]: one["id"] for one in daemon.get(f"{base}/accounts")[1]["accounts"]}
    _, answer = daemon.get(f"/api/portfolio/history?accountId={accounts['IRA']}&start=2022-11-15&end=2022-11-15")
    assert "`netFlow` 3426.40 on this day" in CHAPTER
    assert answer["history"][0]["netFlow"] == 3426.40


def test_holdings_add_up_to_the_history(daemon: DaemonProcess, base: str) -> None:
    for day in DAYS:
        _, found = daemon.get(f"{base}/holdings?date={day}")
        assert found["totalValue"] == quoted()[day]["totalValue"]
        assert found["totalCost"] == quoted()[day]["totalCost"]


def test_the_ledger_of_the_chapter_is_small_and_whole() -> None:
    rows = json.loads(LEDGER.read_text())["transactions"]
    assert len(rows) == 36
    assert {row.get("accountId") for row in rows} <= {*ACCOUNTS}
    assert {row["type"] for row in rows} == {
        "deposit", "withdrawal", "buy", "sell", "dividend", "fee", "interest", "transfer_out",
    }  # fmt: skip
