"""Accounts that two logins show are told to be the same, and what was known of them goes on under the new ids."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pricecache.core.broker.account_identity import AccountIdentity, ShownAccounts, followed, renamed
from pricecache.core.broker.data import BrokerAccount, BrokerData, BrokerHolding, BrokerTransaction, Waypoint

IRA = AccountIdentity("old", None, "1111", "Own IRA", "ira")


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (AccountIdentity("new", None, "1111", "own ira", "ira"), True),
        (AccountIdentity("new", None, "2222", "Own IRA", "ira"), False),
        (AccountIdentity("new", None, "1111", "Own IRA", "roth"), False),
        (AccountIdentity("new", None, "1111", "Another", "ira"), False),
        (AccountIdentity("new", None, None, "Own IRA", "ira"), False),
        (AccountIdentity("new", "p", "1111", "Own IRA", "ira"), True),
    ],
)
def test_an_account_is_known_by_mask_name_and_kind(other: AccountIdentity, is_same: bool) -> None:
    assert IRA.is_same_as(other) is other.is_same_as(IRA) is is_same


def test_where_both_have_a_persistent_id_it_alone_counts() -> None:
    one = AccountIdentity("old", "p1", "1111", "Own IRA", "ira")
    assert one.is_same_as(AccountIdentity("new", "p1", "9999", "Renamed", None))
    assert not one.is_same_as(AccountIdentity("new", "p2", "1111", "Own IRA", "ira"))


def test_accounts_without_a_mask_are_not_told_to_be_the_same() -> None:
    assert not AccountIdentity("a", name="Own").is_same_as(AccountIdentity("b", name="Own"))


def test_each_account_is_the_same_as_one_at_most_and_only_at_one_institution() -> None:
    twins = ShownAccounts("ins_1", (IRA, AccountIdentity("old2", None, "1111", "Own IRA", "ira")))
    shown = ShownAccounts("ins_1", tuple(AccountIdentity(name, None, "1111", "Own IRA", "ira") for name in "xyz"))
    assert shown.same_in(twins) == {"x": "old", "y": "old2"}
    assert ShownAccounts("ins_2", shown.accounts).same_in(twins) == {}
    assert ShownAccounts(None, shown.accounts).same_in(ShownAccounts(None, twins.accounts)) == {}


def test_ids_are_followed_through_several_logins() -> None:
    assert followed({"a": "b", "x": "y"}, {"b": "c"}) == {"a": "c", "b": "c", "x": "y"}


def test_everything_of_an_account_goes_on_under_its_new_id() -> None:
    one, other = Decimal(1), "kept"

    def data(name: str) -> BrokerData:
        return BrokerData(
            day=10,
            first_day=1,
            accounts={name: BrokerAccount(name, "Own"), other: BrokerAccount(other, "Other")},
            securities={},
            holdings=(BrokerHolding(name, "s", one), BrokerHolding(other, "s", one)),
            money={(name, "USD"): one, (other, "USD"): one},
            transactions=(BrokerTransaction("t", name, 5, "buy", "s", one), BrokerTransaction("u", other, 5, "buy")),
            waypoints=(Waypoint(3, name, one, "s"), Waypoint(3, other, one, "s")),
        )

    assert renamed(data("old"), {"old": "new"}) == data("new")
    assert renamed(data("new"), {"old": "new"}) == data("new")
