"""Whether two logins at an institution show the same accounts: a broker may name them anew with each login."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from pricecache.core.broker.data import BrokerData


@dataclass(frozen=True, slots=True)
class AccountIdentity:
    """What tells an account apart at its institution. `id`: the broker's, of one login; `persistent`: of all logins,
    where there is one; `mask`: the last digits of its number; `kind` as `ira`."""

    id: str
    persistent: str | None = None
    mask: str | None = None
    name: str | None = None
    kind: str | None = None

    def is_same_as(self, other: AccountIdentity) -> bool:
        """Whether it is the account that another login shows. What has no mask is none that can be told."""
        if self.persistent is not None and other.persistent is not None:
            return self.persistent == other.persistent
        own, others = ((one.mask, (one.name or "").casefold(), one.kind) for one in (self, other))
        return self.mask is not None and own == others


@dataclass(frozen=True, slots=True)
class ShownAccounts:
    """What a login shows: the accounts, and at which institution, by the broker's id of it."""

    institution: str | None = None
    accounts: tuple[AccountIdentity, ...] = ()

    def with_earlier(self, before: ShownAccounts) -> ShownAccounts:
        """With those that were shown `before` and are not now."""
        shown = {one.id for one in self.accounts}
        return replace(self, accounts=(*self.accounts, *(one for one in before.accounts if one.id not in shown)))

    def without(self, names: Collection[str]) -> ShownAccounts:
        return replace(self, accounts=tuple(one for one in self.accounts if one.id not in names))

    def same_in(self, other: ShownAccounts) -> dict[str, str]:
        """The ids of `other`'s accounts that are the same, by the ids here; empty at another institution."""
        if self.institution is None or self.institution != other.institution:
            return {}
        left = list(other.accounts)
        found: dict[str, str] = {}
        for one in self.accounts:
            same = next((another for another in left if one.is_same_as(another)), None)
            if same is not None:
                left.remove(same)
                found[one.id] = same.id
        return found


def renamed(data: BrokerData, names: Mapping[str, str]) -> BrokerData:
    """`data` with accounts under other ids: the new one by the old one. Pure."""
    if not names.keys() & data.accounts.keys():
        return data

    def name(old: str) -> str:
        return names.get(old, old)

    return replace(
        data,
        accounts={name(old): replace(one, id=name(old)) for old, one in data.accounts.items()},
        holdings=tuple(replace(one, account=name(one.account)) for one in data.holdings),
        money={(name(old), currency): amount for (old, currency), amount in data.money.items()},
        transactions=tuple(replace(one, account=name(one.account)) for one in data.transactions),
        waypoints=tuple(replace(one, account=name(one.account)) for one in data.waypoints),
    )


def followed(before: Mapping[str, str], then: Mapping[str, str]) -> dict[str, str]:
    """What ids are called now that were renamed by `before` and after that by `then`."""
    return {**{old: then.get(new, new) for old, new in before.items()}, **then}
