"""What a broker may say, drawn by hypothesis, and a lot of it at once."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pricecache.core.broker.data import (
    BROKER_ACTIONS,
    SECURITY_KINDS,
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    Cancellation,
    OptionContract,
    Remark,
    Waypoint,
)

LAST = 20_777
"""2026-11-20."""
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_AMOUNT = st.decimals(min_value=-(10**14), max_value=10**14, places=6) | st.decimals(-1, 1, places=12)
_DAY = st.integers(LAST - 900, LAST)
_ACCOUNT = st.sampled_from(["a", "b", "c"])
_SECURITY = st.sampled_from(["s", "t", "u", "v"])
_CURRENCY = st.sampled_from(["USD", "EUR"])
_OPTIONS = st.none() | st.builds(
    OptionContract, st.sampled_from(["call", "put"]), _DAY, _AMOUNT, st.none() | _TEXT, st.sampled_from([None, 1, 100])
)


def accounts(name: str) -> st.SearchStrategy[BrokerAccount]:
    return st.builds(
        BrokerAccount, st.just(name), _TEXT, st.none() | _TEXT, st.none() | _TEXT, _CURRENCY, st.none() | _AMOUNT
    )


def securities(name: str) -> st.SearchStrategy[BrokerSecurity]:
    optional = st.none() | _TEXT
    return st.builds(
        BrokerSecurity, st.just(name), st.sampled_from(SECURITY_KINDS), *[optional] * 5,
        optional, _CURRENCY, st.booleans(), _OPTIONS, _TEXT,
    )  # fmt: skip


_HOLDINGS = st.builds(
    BrokerHolding, _ACCOUNT, _SECURITY, _AMOUNT, st.none() | _AMOUNT, st.none() | _DAY, st.none() | _AMOUNT, _CURRENCY
)
_ROWS = st.builds(
    BrokerTransaction, st.sampled_from([f"row{number}" for number in range(12)]), _ACCOUNT, _DAY,
    st.sampled_from(BROKER_ACTIONS), st.none() | _SECURITY, _AMOUNT, st.none() | _AMOUNT, _AMOUNT, _AMOUNT, _AMOUNT,
    _CURRENCY, st.none() | _AMOUNT, st.none() | _TEXT,
)  # fmt: skip
_LATE = st.just(()) | st.tuples(st.tuples(_DAY, _AMOUNT))
_WAYPOINTS = st.builds(
    Waypoint, _DAY, _ACCOUNT, _AMOUNT, st.none() | _SECURITY, _CURRENCY, st.none() | _AMOUNT, _LATE
)  # fmt: skip
_CANCELLATIONS = st.builds(
    Cancellation, st.sampled_from(["c0", "c1", "c2"]), _ACCOUNT, _DAY,
    st.none() | st.sampled_from([f"row{number}" for number in range(12)]), st.none() | _SECURITY, _AMOUNT, _AMOUNT,
    _CURRENCY, st.sampled_from([(), ("cash", "fee")]),
)  # fmt: skip
_REMARKS = st.builds(Remark, _TEXT, _TEXT, _TEXT)


@st.composite
def broker_data(draw: st.DrawFn, last: st.SearchStrategy[int] = _DAY) -> BrokerData:
    day = draw(last)
    named = draw(st.sets(_ACCOUNT, min_size=1))
    rows = [row for row in draw(st.lists(_ROWS, max_size=8, unique_by=lambda row: row.id)) if row.day <= day]
    rows = [row for row in rows if row.account in named]
    held = draw(st.lists(_HOLDINGS, max_size=4, unique_by=lambda one: (one.account, one.security)))
    money = draw(st.dictionaries(st.tuples(_ACCOUNT, _CURRENCY), _AMOUNT, max_size=3))
    points = draw(st.lists(_WAYPOINTS, max_size=5))
    named_securities = {name: draw(securities(name)) for name in ("s", "t", "u", "v")}
    sweeps = {name for name, one in named_securities.items() if one.is_money}
    return BrokerData(
        day=day,
        first_day=min([draw(_DAY), day, *(row.day for row in rows)]),
        accounts={name: draw(accounts(name)) for name in sorted(named)},
        securities=named_securities,
        holdings=tuple(one for one in held if one.account in named and one.security not in sweeps),
        money={key: amount for key, amount in money.items() if key[0] in named},
        transactions=tuple(rows),
        waypoints=tuple(one for one in points if one.day < day and one.account in named and one.security not in sweeps),
        cancellations=tuple(
            one
            for one in draw(st.lists(_CANCELLATIONS, max_size=2, unique_by=lambda one: one.id))
            if one.account in named and one.day <= day
        ),
        remarks=tuple(draw(st.lists(_REMARKS, max_size=2))),
    )


def much(count: int, accounts: int = 3, securities: int = 30) -> dict[str, Any]:
    """A Plaid payload of `count` transactions, none of which moves more than a share."""
    usd = {"iso_currency_code": "USD", "unofficial_currency_code": None}
    return {
        "accounts": [
            {"account_id": f"a{i}", "name": f"A {i}", "type": "investment", "subtype": "ira", "balances": {**usd}}
            for i in range(accounts)
        ],
        "securities": [
            {"security_id": f"s{i}", "type": "equity", "ticker_symbol": f"T{i}", **usd} for i in range(securities)
        ],
        "holdings": [
            {
                "account_id": f"a{i % accounts}", "security_id": f"s{i}", "quantity": 10.5, "institution_price": 20.25,
                "institution_value": 212.63, "cost_basis": 180.5, **usd,
            }
            for i in range(securities)
        ],
        "investment_transactions": [
            {
                "investment_transaction_id": f"row-{i:08}-of-a-payload-of-many", "account_id": f"a{i % accounts}",
                "security_id": f"s{i % securities}", "date": f"2025-{i % 12 + 1:02}-{i % 28 + 1:02}",
                "name": f"BUY T{i % securities} AT MARKET", "quantity": (i % 97 + 1) / 8, "price": 20 + (i % 50) / 100,
                "amount": round((i % 97 + 1) / 8 * (20 + (i % 50) / 100), 2), "fees": 0.0, "type": "buy",
                "subtype": "buy", **usd,
            }
            for i in range(count)
        ],
    }  # fmt: skip
