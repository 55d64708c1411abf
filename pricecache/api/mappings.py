"""What brokers' securities are priced by: listed, decided, and a decision taken back, by users and by operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, get_args

from pricecache.api.call import Answer, Call
from pricecache.api.mapping_models import MappingBody, MappingOut, MappingsOut, MappingsQuery
from pricecache.api.ownership import require_visible
from pricecache.api.portfolios import user_of
from pricecache.api.routing import Route
from pricecache.api.wire import instant
from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.broker.security_matching import MappingState
from pricecache.core.catalog import unknown_symbol
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid
from pricecache.portfolio.mapping import Seen

STATES = get_args(MappingState)


async def of_user(call: Call) -> Answer:
    return _listed(call, await call.services.mapper.of_user(user_of(call)))


async def of_everybody(call: Call) -> Answer:
    return _listed(call, await call.services.mapper.of_everybody())


async def decide(call: Call) -> Answer:
    """For the user who asks."""
    instrument, user, name = _wanted(call), user_of(call), call.principal.name
    entry = None if instrument is None else call.services.catalog.find(instrument)
    if entry is not None and entry.owner not in (None, user):  # whoever acts for the user may see it, and they may not
        raise unknown_symbol(entry.instrument)
    return Answer(_fields(await call.services.mapper.override(user, call.path["id"], instrument, by=name)))


async def decide_for_everybody(call: Call) -> Answer:
    instrument = _wanted(call)
    if instrument is not None:
        entry = call.services.catalog.find(instrument)
        if entry is not None and entry.owner is not None:
            raise Invalid(f"{instrument} is one user's own.", code="symbol_of_another_user")
    name = call.principal.name
    return Answer(_fields(await call.services.mapper.override(None, call.path["id"], instrument, by=name)))


async def take_back(call: Call) -> Answer:
    return Answer(_fields(await call.services.mapper.take_back(user_of(call), call.path["id"])))


async def take_back_for_everybody(call: Call) -> Answer:
    return Answer(_fields(await call.services.mapper.take_back(None, call.path["id"])))


def _wanted(call: Call) -> Instrument | None:
    """The instrument that the body names, by the symbol it has now. Raises `NotFound` for one without a provider that
    is not known here or is another user's own."""
    instrument: Instrument | None = call.body.instrument
    if instrument is None:
        return None
    catalog = call.services.catalog
    require_visible(catalog, instrument, call.principal)
    if not instrument.place.has_provider and catalog.find(instrument) is None:
        raise unknown_symbol(instrument)
    return catalog.present(instrument)


def _listed(call: Call, seen: Iterable[Seen]) -> Answer:
    query: MappingsQuery = call.query
    found = list(seen)
    counts = Counter(one.state for one in found)
    wanted = [one for one in found if query.state in (None, one.state)][: query.limit]
    return Answer({"counts": {state: counts[state] for state in STATES}, "mappings": list(map(_fields, wanted))})


def _fields(one: Seen) -> dict[str, Any]:
    target = one.decision
    return {
        "id": one.id,
        "state": one.state,
        **_named(one.instrument),
        "isBrokersOwn": one.is_brokers_own,
        "confidence": one.confidence,
        "reasons": list(one.reasons),
        "candidate": None if one.candidate is None else _named(one.candidate),
        "security": _security_fields(one.security),
        "decision": None
        if target is None
        else {
            **_named(None if target.instrument is None else one.instrument),
            "by": "user" if one.is_by_user else "operator",
            "at": instant(target.at),
        },
        "updatedAt": instant(one.looked_at),
    }


def _named(instrument: Instrument | None) -> dict[str, Any]:
    symbol, market = (None, None) if instrument is None else instrument
    return {"symbol": symbol, "market": market}


def _security_fields(security: BrokerSecurity) -> dict[str, Any]:
    names = ("name", "kind", "ticker", "exchange", "isin", "cusip", "sedol", "currency")
    return {"id": security.id or None, **{name: getattr(security, name) for name in names}}


_MINE, _ADMIN = "/api/portfolio/mappings", "/api/admin/mappings"
_TAGS = ("brokers",)
_ONE = {200: MappingOut}

MAPPING_ROUTES: tuple[Route, ...] = (
    Route(
        "GET", _MINE, of_user, scope="user", query=MappingsQuery, answers={200: MappingsOut}, tags=_TAGS,
        summary="What each security of the user's brokers is priced by, how sure that is, and why.",
    ),
    Route(
        "PUT", _MINE + "/{id}", decide, scope="user", body=MappingBody, answers=_ONE, tags=_TAGS,
        summary="Decide what a security is, for oneself.",
    ),
    Route(
        "DELETE", _MINE + "/{id}", take_back, scope="user", answers=_ONE, tags=_TAGS,
        summary="Take that back; what was found by itself counts again.",
    ),
    Route(
        "GET", _ADMIN, of_everybody, scope="ops", query=MappingsQuery, answers={200: MappingsOut}, tags=_TAGS,
        summary="What securities are for everybody; state=review lists those to be decided.",
    ),
    Route(
        "PUT", _ADMIN + "/{id}", decide_for_everybody, scope="ops", body=MappingBody, answers=_ONE, tags=_TAGS,
        summary="Decide what a security is, for everybody who has not decided otherwise.",
    ),
    Route(
        "DELETE", _ADMIN + "/{id}", take_back_for_everybody, scope="ops", answers=_ONE, tags=_TAGS,
        summary="Take that back.",
    ),
)  # fmt: skip
