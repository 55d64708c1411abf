"""Which instrument each security of a user's brokers is priced by: mapped once for everybody, or the user's own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.broker.identifiers import (
    cusip_in_isin,
    cusip_of,
    isin_of,
    isins_of_cusip,
    sedol_in_isin,
    sedol_of,
)
from pricecache.core.broker.security_matching import (
    CONFLICTED,
    PRICED_BY_BROKERS,
    Judged,
    MappingState,
    plain_name,
)
from pricecache.core.catalog import Catalog
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.portfolio.candidates import Assessment, Assessor, Case, market_of, name_ratio, ticker_of
from pricecache.stores.ids import new_id
from pricecache.stores.instruments import InstrumentStore, Own
from pricecache.stores.symbol_mappings import SymbolMapping, SymbolMappingStore, Target, Verdict

SHARED_SCOPES = frozenset({"plaid"})
"""Whose ids of securities mean the same for every user."""
ALIKE, SIMILAR, UNLIKE = 90.0, 75.0, 55.0
"""From where on two names with one ticker are of one security, with one number; below, they are of two."""
AGAIN_AFTER = 7.0 * DAY_SECONDS
AGAIN_AFTER_FAILURE = 3600.0
"""Seconds until what could not be mapped is looked at again; until what somebody did not answer to is."""
SEARCHES = 200
"""Securities of one call that providers are searched for; the others are at the next."""
AT_ONCE = 4
NO_PRICES: Mapping[str, tuple[int, Decimal]] = {}
NO_DAYS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a security is priced by. `is_brokers_own`: by what its broker says, under an instrument of the user's own;
    `candidate`: what it may be instead, for a person to decide. `confidence`: 0 to 1; `reasons`: the evidence for it,
    as `code (weight): what`. `mapping`: the id under which the user can decide."""

    security: BrokerSecurity
    instrument: Instrument
    confidence: float
    reasons: tuple[str, ...]
    state: MappingState
    is_brokers_own: bool
    candidate: Instrument | None = None
    mapping: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A mapping as it stands, for a person. `instrument`: None for one of everybody's that brokers price; `decision`:
    what counts of what persons decided, `is_by_user` says whose; `looked_at`: seconds since 1970 UTC."""

    id: str
    security: BrokerSecurity
    state: MappingState
    instrument: Instrument | None
    is_brokers_own: bool
    confidence: float
    reasons: tuple[str, ...]
    candidate: Instrument | None
    decision: Target | None
    is_by_user: bool
    looked_at: float


@dataclass(slots=True)
class _Work:
    """One security on its way. `mine`: what is kept of it for the user; `shared`: for everybody."""

    case: Case
    mine: SymbolMapping | None
    shared: SymbolMapping | None
    verdict: Verdict | None = None
    override: Target | None = None


class Mapper:
    """Maps securities. Loop-only.

    `on_overridden` is called with a user, or None for everybody concerned, and the id of the mapping, once a decision
    or its end is durable.
    """

    def __init__(
        self,
        store: SymbolMappingStore,
        catalog: Catalog,
        instruments: InstrumentStore,
        assessor: Assessor,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._instruments = instruments
        self._assessor = assessor
        self._clock = clock
        self.on_overridden: Callable[[str | None, str], object] = lambda user, mapping_id: None

    async def map(
        self,
        securities: Sequence[BrokerSecurity],
        *,
        user: str,
        prices: Mapping[str, tuple[int, Decimal]] = NO_PRICES,
        used_from: Mapping[str, int] = NO_DAYS,
        since_before: Collection[str] = (),
    ) -> dict[str, Mapped]:
        """What each security that is not money is priced by, by its id; every one of them gets an instrument.

        `prices`: the broker's latest, by id: day and price of one unit in the security's currency. `used_from`: the day
        it was first held or traded; `since_before`: those that may have been earlier. Instruments of the user's own are
        made known; nothing is tracked. Asks providers only for what nobody had before, and never raises for their sake.
        Once prices have come, the same call holds them against the broker's: what disagrees by more than 25 % is then
        mapped no longer.
        """
        await self._store.refresh()
        held = await self._store.of_user(user)
        works = []
        for one in securities:
            if not one.is_money:
                mine = held.get(own_key(one))
                case = replace(_case(one, prices, used_from), is_since_before=one.id in since_before)
                works.append(_Work(case, mine, self._shared_of(mine, one)))
        await self._decide(works)
        kept = await self._keep(works, user)
        await self._make_own_known(works, user)
        return {work.case.security.id: self._mapped(work, user, kept) for work in works}

    # for persons

    async def of_user(self, user: str) -> list[Seen]:
        """The securities of a user's brokers, by name."""
        await self._store.refresh()
        found = sorted((await self._store.of_user(user)).values(), key=_by_name)
        return [self._seen_by(user, one) for one in found]

    async def of_everybody(self) -> list[Seen]:
        """What is known for everybody, the least certain first."""
        await self._store.refresh()
        return sorted(map(self._seen, self._store.all()), key=lambda one: (one.confidence, one.id))

    async def override(self, user: str | None, mapping_id: str, instrument: Instrument | None, *, by: str) -> Seen:
        """Decide what a security is for a user, or with None for everybody who does not decide otherwise; it counts
        from the next reconstruction on. `instrument`: None for the broker's own price.

        Raises `NotFound` with code `unknown_mapping`.
        """
        entry = None if instrument is None else self._catalog.find(instrument)
        target = Target(instrument, None if entry is None else entry.id, by, self._clock.time())
        return await self._decided(user, mapping_id, target)

    async def take_back(self, user: str | None, mapping_id: str) -> Seen:
        """Let count again what was found by itself. Raises as `override`."""
        return await self._decided(user, mapping_id, None)

    async def users_of(self, mapping_id: str) -> list[str]:
        """Who has a security that is this one of everybody's."""
        return await self._store.users_of(mapping_id)

    async def _decided(self, user: str | None, mapping_id: str, target: Target | None) -> Seen:
        await self._store.refresh()
        if user is None:
            seen = self._seen(await self._store.override(mapping_id, target))
        else:
            seen = self._seen_by(user, await self._store.override_of_user(user, mapping_id, target))
        self.on_overridden(user, mapping_id)
        return seen

    def _seen_by(self, user: str, mine: SymbolMapping) -> Seen:
        shared = None if mine.shared is None else self._store.by_id(mine.shared)
        work = _Work(Case(mine.security), mine, shared, mine.verdict)
        work.override = _override_of(work)
        one = self._mapped(work, user, {})
        facts = (one.state, one.instrument, one.is_brokers_own, one.confidence, one.reasons, one.candidate)
        return Seen(mine.id, mine.security, *facts, work.override, mine.override is not None, mine.verdict.at)

    def _seen(self, shared: SymbolMapping) -> Seen:
        work = _Work(Case(shared.security), None, shared, shared.verdict, shared.override)
        one, provided = self._mapped(work, "", {}), self._provided(work)
        facts = (one.state, provided, one.is_brokers_own, one.confidence, one.reasons, one.candidate)
        return Seen(shared.id, shared.security, *facts, shared.override, False, shared.verdict.at)

    # deciding

    async def _decide(self, works: Sequence[_Work]) -> None:
        unsettled = []
        for work in works:
            work.override = _override_of(work)
            if work.override is None and not await self._settle(work):
                unsettled.append(work)
        gate = asyncio.Semaphore(AT_ONCE)

        async def judge(number: int, work: _Work) -> None:
            async with gate:
                assessed = await self._assessor.assess(work.case, may_search=number < SEARCHES)
            self._judge(work, assessed)

        await asyncio.gather(*(judge(number, work) for number, work in enumerate(unsettled)))

    async def _settle(self, work: _Work) -> bool:
        """Decide by what is known of the security already, if that will do."""
        kind = work.case.security.kind
        if kind in PRICED_BY_BROKERS:
            reason = f"brokers_own (+0.00): no provider has prices of a {kind.replace('_', ' ')}"
            work.verdict = Verdict(reasons=(reason,), at=self._clock.time())
            return True
        mine = work.mine.verdict if work.mine is not None and _is_same(work.mine.security, work.case.security) else None
        everybodys = work.shared.verdict if work.shared is not None else None
        for verdict in (mine, everybodys):
            if verdict is not None and verdict.state == "mapped" and self._is_fresh(verdict):
                work.verdict = await self._held_against_price(work.case, verdict)
                return True
        if mine is not None and self._is_fresh(mine):
            work.verdict = mine
            return True
        return False

    def _is_fresh(self, verdict: Verdict) -> bool:
        age = self._clock.time() - verdict.at
        if not verdict.is_complete:
            return age < AGAIN_AFTER_FAILURE
        return verdict.state == "mapped" or age < AGAIN_AFTER

    async def _held_against_price(self, case: Case, verdict: Verdict) -> Verdict:
        if verdict.is_checked or verdict.instrument is None:
            return verdict
        judged = await self._assessor.price_judged(case, self._present(verdict))
        if judged is None:
            return verdict
        reasons = (*verdict.reasons, judged.reasons[-1])
        if judged.is_off:
            return replace(verdict, state="review", confidence=min(verdict.confidence, CONFLICTED), reasons=reasons)
        return replace(verdict, is_checked=True, reasons=reasons)

    def _judge(self, work: _Work, assessed: Assessment) -> None:
        work.verdict = self._verdict(assessed.judged, assessed.is_complete)
        keys, security = shared_keys(work.case.security), work.case.security
        if not keys:
            return
        shared = self._verdict(assessed.shared, assessed.is_complete)
        before = work.shared
        if before is None:
            work.shared = SymbolMapping(new_id(), _without_private(security), keys, ticker_key(security), shared)
        else:
            work.shared = replace(before, verdict=shared)

    def _verdict(self, judged: Judged, is_complete: bool) -> Verdict:
        entry = None if judged.instrument is None else self._catalog.find(judged.instrument)
        series = None if entry is None or entry.instrument != judged.instrument else entry.id
        facts = (judged.state, judged.instrument, series, judged.confidence, judged.reasons)
        return Verdict(*facts, is_complete, judged.is_checked, self._clock.time())

    # what is known

    def _shared_of(self, mine: SymbolMapping | None, security: BrokerSecurity) -> SymbolMapping | None:
        known = None if mine is None or mine.shared is None else self._store.by_id(mine.shared)
        if known is not None and mine is not None and _is_same(mine.security, security):
            return known  # what did not contradict it does not now
        return self.shared_of(security)

    def shared_of(self, security: BrokerSecurity) -> SymbolMapping | None:
        """What is known of it for everybody. One that is found by an id or a number counts only where it does not
        contradict the rest: anybody can post anything."""
        for key in shared_keys(security):
            found = self._store.by_key(key)
            if found is not None and not contradicts(found.security, security):
                return found
        ticker, name = ticker_key(security), plain_name(security.name)
        if ticker is None or name is None:
            return None
        for other in self._store.by_ticker(ticker):
            theirs = plain_name(other.security.name)
            if theirs is None or name_ratio(name, theirs, is_lenient=False) < ALIKE:
                continue
            if not contradicts(other.security, security):
                return other
        return None

    # keeping

    async def _keep(self, works: Sequence[_Work], user: str) -> dict[str, str]:
        """The ids of the user's mappings by key."""
        shared = [one for work in works if (one := work.shared) is not None and one is not self._store.by_id(one.id)]
        if shared:
            await self._store.put(_without_repeats(shared))  # where another was faster, that one stands
        ids: dict[str, str] = {}
        changed: list[SymbolMapping] = []
        new: list[SymbolMapping] = []
        for work in works:
            if work.shared is not None:
                work.shared = self._store.by_id(work.shared.id) or self.shared_of(work.case.security)
            one = self._of_user(work, user)
            ids[one.keys[0]] = one.id
            if work.mine is None:
                new.append(one)
            elif one is not work.mine:
                changed.append(one)
        await self._store.put_of_user(changed, new)
        return ids

    def _of_user(self, work: _Work, user: str) -> SymbolMapping:
        security, mine = work.case.security, work.mine
        verdict = work.verdict or (mine.verdict if mine is not None else Verdict())
        facts, shared = _facts_of(security), None if work.shared is None else work.shared.id
        if mine is not None and (mine.security, mine.shared) == (facts, shared) and mine.verdict is verdict:
            return mine  # nearly all of them
        if mine is None:
            named = _digest(user, security).hex()[:24]  # the same whoever makes it first
            return SymbolMapping(named, facts, (own_key(security),), None, verdict, user=user, shared=shared)
        return replace(mine, security=facts, verdict=verdict, shared=shared)

    async def _make_own_known(self, works: Sequence[_Work], user: str) -> None:
        wanted = [work.case for work in works if self._provided(work) is None]
        new = [case for case in wanted if self._catalog.get(own_instrument(user, case.security)) is None]
        if not new:
            return
        now = self._clock.time()
        first = min((case.used_from for case in new if case.used_from is not None), default=int(now // DAY_SECONDS))
        own = [Own(own_instrument(user, case.security), case.security.currency, case.security.name) for case in new]
        await self._instruments.add_own(own, user, wanted_from=first, by=f"user:{user}", now=now)

    # answering

    def _provided(self, work: _Work) -> Instrument | None:
        """The instrument that providers price, None for the user's own."""
        if work.override is not None:
            return None if work.override.instrument is None else self._present(work.override)
        verdict = work.verdict
        return self._present(verdict) if verdict is not None and verdict.state == "mapped" else None

    def _present(self, named: Target | Verdict) -> Instrument:
        entry = None if named.series is None else self._catalog.by_id(named.series)
        assert named.instrument is not None
        return named.instrument if entry is None else entry.instrument

    def _mapped(self, work: _Work, user: str, ids: Mapping[str, str]) -> Mapped:
        security, override = work.case.security, work.override
        provided, verdict = self._provided(work), work.verdict or Verdict()
        instrument = provided or own_instrument(user, security)
        mapping = ids.get(own_key(security))
        if override is not None:
            whom = "the user" if work.mine is not None and override is work.mine.override else "an operator"
            reasons = (f"overridden (+1.00): decided by {whom}",)
            return Mapped(security, instrument, 1.0, reasons, "overridden", provided is None, None, mapping)
        likely = None if provided is not None or verdict.instrument is None else self._present(verdict)
        facts = (verdict.confidence, verdict.reasons, verdict.state, provided is None, likely, mapping)
        return Mapped(security, instrument, *facts)


def own_instrument(user: str, security: BrokerSecurity) -> Instrument:
    """The instrument that a user's broker prices: always the same, and nobody else's."""
    return Instrument(f"B-{base64.b32encode(_digest(user, security)).decode()[:20]}", "CUSTOM")


def _digest(user: str, security: BrokerSecurity) -> bytes:
    return hashlib.sha256("\0".join((user, security.scope, security.id)).encode()).digest()


def own_key(security: BrokerSecurity) -> str:
    """What a user's security is kept by."""
    return f"{security.scope}:{security.id}"


def shared_keys(security: BrokerSecurity) -> tuple[str, ...]:
    """By what it is found for everybody, the strongest first; a number of a security says nothing of the currency that
    it trades in, so that is part of it."""
    found = [f"id:{own_key(security)}"] if security.scope in SHARED_SCOPES else []
    numbers, currency = _numbers(security), major(security.currency)
    found += [f"{number}:{currency}" for number in numbers]
    ticker, name = ticker_key(security), plain_name(security.name)
    if not found and ticker is not None and name is not None:
        found = [f"ticker:{ticker}|{name}"]
    return tuple(dict.fromkeys(found))


def _numbers(security: BrokerSecurity) -> list[str]:
    isin, cusip, sedol = isin_of(security.isin), cusip_of(security.cusip), sedol_of(security.sedol)
    if isin is not None:
        cusip, sedol = cusip or cusip_in_isin(isin), sedol or sedol_in_isin(isin)
    isins = [isin] if isin is not None else list(isins_of_cusip(cusip)) if cusip is not None else []
    found = [f"isin:{one}" for one in isins]
    return found + [f"{kind}:{one}" for kind, one in (("cusip", cusip), ("sedol", sedol)) if one is not None]


def ticker_key(security: BrokerSecurity) -> str | None:
    """Its ticker, market and currency; None without a ticker."""
    ticker = ticker_of(security)
    if ticker is None:
        return None
    return f"{ticker}|{market_of(security.exchange) or security.exchange or '-'}|{major(security.currency)}"


def contradicts(one: BrokerSecurity, other: BrokerSecurity) -> bool:
    """Whether two descriptions cannot be of one security, though something in them is the same. With another name, or
    none, another ticker is another security."""
    if one == other:
        return False
    isin, other_isin = isin_of(one.isin), isin_of(other.isin)
    if major(one.currency) != major(other.currency) or (isin and other_isin and isin != other_isin):
        return True
    mine, theirs = plain_name(one.name), plain_name(other.name)
    alike = None if not mine or not theirs else 100.0 if mine == theirs else name_ratio(mine, theirs, is_lenient=True)
    ticker, other_ticker = ticker_of(one), ticker_of(other)
    if ticker and other_ticker and ticker != other_ticker:
        return alike is None or alike < SIMILAR
    return alike is not None and alike < UNLIKE


def _by_name(one: SymbolMapping) -> tuple[str, str]:
    return (one.security.name or one.security.ticker or "").casefold(), one.id


def _override_of(work: _Work) -> Target | None:
    for one in (work.mine, work.shared):
        if one is not None and one.override is not None:
            return one.override
    return None


def _case(one: BrokerSecurity, prices: Mapping[str, tuple[int, Decimal]], used_from: Mapping[str, int]) -> Case:
    day, price = prices.get(one.id, (None, None))
    return Case(one, None if price is None else float(price), day, used_from.get(one.id))


def _is_same(one: BrokerSecurity, other: BrokerSecurity) -> bool:
    return one == _facts_of(other)


def _facts_of(security: BrokerSecurity) -> BrokerSecurity:
    """What is kept of it."""
    return security if security.option is None else replace(security, option=None)


def _without_private(security: BrokerSecurity) -> BrokerSecurity:
    """What others may know of it: not the id that only one user's broker gave it."""
    public = _facts_of(security)
    return public if security.scope in SHARED_SCOPES else replace(public, id="", scope="")


def _without_repeats(mappings: Sequence[SymbolMapping]) -> list[SymbolMapping]:
    seen: set[str] = set()
    kept = []
    for one in mappings:
        if one.keys[0] not in seen:
            kept.append(one)
        seen.update(one.keys)
    return kept
