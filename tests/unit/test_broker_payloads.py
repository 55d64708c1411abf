"""What somebody posts is let go of once it is read, or refused before it takes more memory than it may."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, date, datetime
from typing import Any

import pytest

from pricecache.api import broker_payloads
from pricecache.api.broker_payloads import read_request
from pricecache.api.uploads import Upload, UploadGate
from pricecache.brokers.plaid_payload import plaids_day
from pricecache.core.bars import day_number
from pricecache.errors import Invalid, Unavailable
from tests.clock import START


def upload(body: Any) -> Upload:
    return Upload(json.dumps(body).encode(), "json")


def test_a_refusal_holds_nothing_of_what_it_refused() -> None:
    rows = [{"a": [number]} for number in range(10)]
    body = {"accounts": [{"account_id": "a"}], "holdings": [], "investment_transactions": rows}
    with pytest.raises(Invalid) as raised:
        read_request(upload(body), START)
    frames = [frame for frame, _ in traceback.walk_tb(raised.value.__traceback__)]
    (own,) = [frame for frame in frames if frame.f_code is read_request.__code__]
    assert own.f_locals["body"] == {}
    inner = frames[frames.index(own) + 1 :]
    assert inner
    assert [frame.f_locals for frame in inner] == [{}] * len(inner)


def test_more_values_than_a_payload_can_need_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_payloads, "MOST_VALUES", 20)
    with pytest.raises(Invalid) as raised:
        read_request(upload({"accounts": [[]] * 20}), START)
    assert (raised.value.code, raised.value.rows) == ("too_many", [])


def test_one_user_takes_no_more_than_their_share_of_what_all_may() -> None:
    gate = UploadGate(100, 60)
    gate.take("ann", 60)
    for who, size in (("ann", 1), ("bob", 41)):
        with pytest.raises(Unavailable) as raised:
            gate.take(who, size)
        assert raised.value.code == "uploads_busy"
    gate.take("bob", 40)
    gate.give_back("ann", 60)
    gate.take("bob", 20)


def test_what_plaid_holds_is_of_new_yorks_day_and_not_of_the_next_one_there_is_elsewhere() -> None:
    evening = datetime(2026, 11, 21, 2, tzinfo=UTC)  # 21:00 there
    body = {"accounts": [], "securities": [], "holdings": [], "investment_transactions": []}
    given = read_request(upload({"plaid": body}), evening.timestamp())
    assert given.posted is not None
    assert given.posted.data.day == plaids_day(evening.timestamp()) == day_number(date(2026, 11, 20))
    assert plaids_day(datetime(2026, 11, 21, 5, tzinfo=UTC).timestamp()) == day_number(date(2026, 11, 21))
    assert plaids_day(datetime(2026, 7, 21, 4, tzinfo=UTC).timestamp()) == day_number(date(2026, 7, 21))


HELD = {"accounts": [], "securities": [], "holdings": []}


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"plaid": 5}, [("plaid", "invalid_value")]),
        ({"broker": None}, [("broker", "invalid_value")]),
        ({"plaid": {"holdings": HELD, "transactions": 5}}, [("transactions", "invalid_value")]),
        ({"plaid": {"holdings": HELD, "transactions": None}}, [("transactions", "invalid_value")]),
        ({"plaid": {"holdings": HELD, "transactions": [{}, 7]}}, [("transactions[1]", "invalid_value")]),
        (
            {
                "accounts": None,
                "securities": None,
                "holdings": [{"account_id": "a", "security_id": "s", "quantity": 1}],
            },
            [("accounts", "missing"), ("securities", "invalid_value"), ("investment_transactions", "missing")],
        ),
    ],
)
def test_what_is_no_payload_is_refused_where_it_stands(body: Any, faults: list[tuple[str, str]]) -> None:
    with pytest.raises(Invalid) as raised:
        read_request(upload(body), START)
    assert [(one["path"], one["code"]) for one in raised.value.rows] == faults
