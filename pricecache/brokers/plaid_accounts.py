"""Which accounts of investments an answer of Plaid's shows, and at which institution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pricecache.core.broker.account_identity import AccountIdentity, ShownAccounts

_OF_INVESTMENTS = frozenset({"investment", "brokerage", None})
_LONGEST = 200


def shown_accounts(answer: Mapping[str, Any]) -> ShownAccounts:
    """What cannot be read is left out: this only tells accounts apart."""
    item, listed = answer.get("item"), answer.get("accounts")
    found = [_identity(one) for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    institution = _text(item, "institution_id") if isinstance(item, Mapping) else None
    return ShownAccounts(institution, tuple(one for one in found if one is not None))


def _identity(account: Mapping[str, Any]) -> AccountIdentity | None:
    name = _text(account, "account_id")
    if name is None or _text(account, "type") not in _OF_INVESTMENTS:
        return None
    facts = (_text(account, field) for field in ("persistent_account_id", "mask", "name", "subtype"))
    return AccountIdentity(name, *facts)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value[:_LONGEST] if isinstance(value, str) and value else None
