"""What belongs to one user: who sees it, and who may write the prices of an instrument of a user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pricecache.core.catalog import unknown_symbol
from pricecache.core.instruments import Instrument
from pricecache.errors import Conflict, Forbidden, Invalid

if TYPE_CHECKING:
    from pricecache.api.auth import Principal
    from pricecache.core.catalog import Catalog, Entry


OTHER = "other"
"""Stands for whoever asked for something, where the name is not for who reads it."""


def sees_all(principal: Principal) -> bool:
    """Whether `principal` may know what is of any user: operators, and whoever acts for no user at all."""
    return principal.user is None or "ops" in principal.scopes


def is_visible(entry: Entry, principal: Principal) -> bool:
    """Whether `principal` may know of it: its owner, and who sees all."""
    return entry.owner in (None, principal.user) or sees_all(principal)


def name_for(principal: Principal, by: str | None) -> str | None:
    """Who asked for something, as `principal` may know it: `other` where it is another user, or a key."""
    # what the daemon does by itself bears a plain word, such as `schedule`
    is_told = by is None or by == principal.name or ":" not in by
    return by if is_told or sees_all(principal) else OTHER


def require_visible(catalog: Catalog, instrument: Instrument, principal: Principal) -> None:
    """Raises the `NotFound` of a symbol that is not known here for one that is another user's own."""
    entry = None if instrument.place.has_provider else catalog.find(instrument)
    if entry is not None and not is_visible(entry, principal):
        raise unknown_symbol(instrument)


def names_own(symbol: str, market: str | None) -> bool:
    """Whether an instrument is named that could be a user's own."""
    try:
        return not Instrument.parse(symbol, market).place.has_provider
    except Invalid:
        return False


def require_writer(catalog: Catalog, instrument: Instrument, principal: Principal) -> None:
    """Raises `Forbidden` with code `scope_needed` for one that is everybody's, which only operators write prices
    of, and `Conflict` as `require_owner` does."""
    entry = catalog.find(instrument)
    if "ops" in principal.scopes:
        return
    if instrument.place.has_provider or (entry is not None and entry.owner is None):
        raise Forbidden("Prices that are everybody's need a key with scope ops.", code="scope_needed", needed="ops")
    if entry is not None:
        require_owner(entry, principal.user)


def require_owner(entry: Entry, user: str | None) -> None:
    """Raises `Conflict` with code `symbol_of_another_user` when it belongs to somebody else."""
    if entry.owner is not None and entry.owner != user:
        raise Conflict(
            f"{entry.instrument} is an instrument of another user's own. Give yours another symbol.",
            code="symbol_of_another_user",
            symbol=entry.instrument.symbol,
            market=entry.instrument.market,
        )
