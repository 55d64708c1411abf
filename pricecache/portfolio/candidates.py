"""Which instruments a security of a broker's may be: by its ticker here, then by what providers answer to a search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pricecache.cache.columns import ColumnCache
from pricecache.core.asking import Found
from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.broker.identifiers import cusip_of, isin_of, isins_of_cusip, sedol_of
from pricecache.core.broker.security_matching import Candidate, Judged, Means, judged_of, plain_name
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.currencies import major, unit
from pricecache.core.instruments import Instrument
from pricecache.core.markets import EXCHANGES, MARKETS
from pricecache.errors import Invalid
from pricecache.sync.searching import ProviderSearch

CLOSE_FOR = 7
"""Calendar days that a close stands for a broker's price of a later day."""
LONGEST_TEXT = 60
SAMPLE_SOURCE = "sample"
_COIN_PREFIX = "CUR:"
_MORE_EXCHANGES: Mapping[str, str] = {
    name: market
    for market, names in {
        "US": "XASE BATS XCBO IEXG XNGS XNMS XNCM PINX OTCM XOTC OOTC OTC PSGM EXPM",
        "TO": "XTSX TSXV XTNX NEOE",
    }.items()
    for name in names.split()
}
"""Names that brokers use and people do not put in front of symbols."""
_NEVER = frozenset({"FX", "CUSTOM"})


@dataclass(frozen=True, slots=True)
class Case:
    """A security to be judged. `price`: of one unit in `security.currency`, on `price_day`; `used_from`: when it was
    first held or traded, `is_since_before`: or earlier still; days since 1970-01-01, None is unknown."""

    security: BrokerSecurity
    price: float | None = None
    price_day: int | None = None
    used_from: int | None = None
    is_since_before: bool = False

    @property
    def whole_price(self) -> float | None:
        return None if self.price is None else self.price * float(unit(self.security.currency))


@dataclass(slots=True)
class _Search:
    candidates: dict[Instrument, Candidate] = field(default_factory=dict)
    others: list[Candidate] = field(default_factory=list)  # that had the ticker, and not when this was first used
    is_complete: bool = True

    def add(self, one: Candidate) -> None:
        self.candidates.setdefault(one.instrument, one)


@dataclass(frozen=True, slots=True)
class Assessment:
    """`judged`: with everything that this user's broker said; `shared`: by what is the same for everybody, which are
    neither prices nor dates. `is_complete`: every provider that should have been asked answered."""

    judged: Judged
    shared: Judged
    is_complete: bool


class Assessor:
    """Finds and judges candidates. Loop-only. `is_able`: whether there is a provider that can be searched."""

    def __init__(
        self, catalog: Catalog, columns: ColumnCache, search: ProviderSearch, is_able: Callable[[], bool]
    ) -> None:
        self._catalog = catalog
        self._columns = columns
        self._search = search
        self._is_able = is_able

    async def assess(self, case: Case, *, may_search: bool = True) -> Assessment:
        """Never raises for a provider's sake. Asks the providers when what is known here does not settle it."""
        search = _Search(others=list(self._formers_of_other_days(case)))
        for candidate in self._by_ticker(case):
            search.add(candidate)
        judged = await self._judged(case, search)
        if self._is_settled(case, search, judged):
            return self._assessment(case, search, judged)
        for text, means in _texts(case.security) if self._is_able() else ():
            if not may_search:
                search.is_complete = False
                break
            await self._ask(case.security, search, text, means)
            judged = await self._judged(case, search)
            if judged.state == "mapped":
                break
        return self._assessment(case, search, judged)

    async def price_judged(self, case: Case, instrument: Instrument) -> Judged | None:
        """What the broker's price says of `instrument` alone; None when it cannot be held against anything."""
        entry = self._catalog.find(instrument)
        if entry is None or case.whole_price is None:
            return None
        close = await self._close(entry, case.price_day)
        if close is None:
            return None
        one = Candidate(instrument, "exchange", currency=entry.currency, close=close)
        return judged_of(case.security, [(one, None)], case.whole_price)

    def _assessment(self, case: Case, search: _Search, judged: Judged) -> Assessment:

        def timeless(some: Iterable[Candidate]) -> list[tuple[Candidate, float | None]]:
            plain = [replace(one, close=None, ended=False, began=False) for one in some]
            return [(one, alikeness(case.security.name, one)) for one in plain]

        shared = judged_of(case.security, timeless(search.candidates.values()), None, timeless(search.others))
        return Assessment(judged, shared, search.is_complete)

    async def _judged(self, case: Case, search: _Search) -> Judged:
        for instrument, one in search.candidates.items():
            entry = self._catalog.get(instrument)
            if entry is not None and one.close is None and case.whole_price is not None:
                search.candidates[instrument] = replace(one, close=await self._close(entry, case.price_day))
        alike = [(one, alikeness(case.security.name, one)) for one in search.candidates.values()]
        return judged_of(case.security, alike, case.whole_price)

    def _is_settled(self, case: Case, search: _Search, judged: Judged) -> bool:
        """Whether it is mapped, and by more than a ticker where a name, or who has that ticker now, could tell more."""
        if judged.state != "mapped" or judged.instrument is None:
            return False
        if case.is_since_before and all(judged.instrument != one for one, _, _ in _names_of(case.security)):
            return False
        best = search.candidates[judged.instrument]
        return best.is_listed is True and (judged.is_checked or best.name is not None or case.security.name is None)

    # what is known here

    def _by_ticker(self, case: Case) -> Iterator[Candidate]:
        security, day = case.security, case.used_from
        for instrument, means, is_meant in _names_of(security):
            present, former = self._catalog.get(instrument), self._former(instrument, case)
            if former is not None:
                is_renamed = day is not None and not case.is_since_before
                yield replace(self._candidate(former, means, day), is_renamed=is_renamed)
            if present is not None:
                yield self._candidate(present, means, day)
            elif is_meant and former is None:
                yield Candidate(instrument, means, currency=instrument.currency, kind=instrument.kind)

    def _former(self, instrument: Instrument, case: Case) -> Entry | None:
        """The one that may be meant by the ticker that it had: on the day of first use; the last one, where nobody
        knows that day. What is held since before the first row may have got its ticker at any time."""
        if case.used_from is not None and not case.is_since_before:
            return self._catalog.had(instrument, case.used_from)
        is_used_again = self._catalog.get(instrument) is not None
        formers = () if is_used_again and case.used_from is None else self._catalog.formers(instrument)
        return next(iter(formers), None)

    def _formers_of_other_days(self, case: Case) -> Iterator[Candidate]:
        for instrument, means, _ in _names_of(case.security):
            meant, formers = self._former(instrument, case), self._catalog.formers(instrument)
            if formers and meant is None and self._catalog.get(instrument) is not None:
                yield self._candidate(formers[0], means, None)

    def _candidate(self, entry: Entry, means: Means, used_from: int | None) -> Candidate:
        state = entry.state
        is_unknown = bool(state.not_found) and not entry.head.count
        return Candidate(
            entry.instrument,
            means,
            name=None if plain_name(entry.name) is None else entry.name,
            kind=entry.kind,
            currency=entry.currency,
            is_listed=True if entry.head.count else False if is_unknown else None,
            ended=None not in (used_from, state.delisted_after) and state.delisted_after < used_from,  # type: ignore[operator]
            began=None not in (used_from, state.listed_on) and state.listed_on > used_from,  # type: ignore[operator]
        )

    async def _close(self, entry: Entry, day: int | None) -> float | None:
        if day is None or not entry.head.count or entry.source == SAMPLE_SOURCE:
            return None
        bars = await self._columns.get(entry)
        place = int(bars.sessions.searchsorted(day, side="right")) - 1
        if place < 0 or day - int(bars.sessions[place]) > CLOSE_FOR:
            return None
        return float(bars.close[place]) * float(unit(entry.currency_on(int(bars.sessions[place]))))

    # what providers know

    async def _ask(self, security: BrokerSecurity, search: _Search, text: str, means: Means) -> None:
        answer = await self._search.search(text)
        search.is_complete = search.is_complete and not answer.failures
        wanted = {instrument: how for instrument, how, _ in _names_of(security)}
        for found in answer.found:
            if not _can_be_meant(found, security):
                continue
            how = wanted.get(found.instrument, None if means == "ticker" else means)
            if how is not None:
                one = self._found(found, how, search.candidates.get(found.instrument))
                is_identified = one.is_identified or means == "identifier"
                search.candidates[found.instrument] = replace(one, is_identified=is_identified)
        if means == "ticker" and not answer.failures:
            for instrument, one in search.candidates.items():
                if one.is_listed is None:
                    search.candidates[instrument] = replace(one, is_listed=False)

    def _found(self, found: Found, means: Means, known: Candidate | None) -> Candidate:
        before = known or Candidate(found.instrument, means)
        is_real = plain_name(found.name) is not None
        return replace(
            before,
            name=before.name or (found.name if is_real else None),
            kind=before.kind or found.kind or found.instrument.kind,
            currency=found.currency or before.currency or found.instrument.currency,
            is_listed=True,
        )


def market_of(exchange: str | None) -> str | None:
    """The market that a broker's name of an exchange stands for: a MIC, a common name, or a code of ours."""
    if exchange is None:
        return None
    name = exchange.strip().upper()
    return (
        EXCHANGES.get(name) or _MORE_EXCHANGES.get(name) or (name if name in MARKETS and name not in _NEVER else None)
    )


def ticker_of(security: BrokerSecurity) -> str | None:
    """Its ticker in our spelling, without what some brokers put in front of coins."""
    ticker = (security.ticker or "").strip().upper().removeprefix(_COIN_PREFIX)
    if ticker.isalnum() or not ticker or security.kind == "crypto":
        return ticker or None
    return next((one.symbol for one in _parsed(ticker, market_of(security.exchange) or "US")), ticker)


def _names_of(security: BrokerSecurity) -> list[tuple[Instrument, Means, bool]]:
    """What its ticker may name, by what, and whether that is meant though nothing is known of it."""
    ticker = ticker_of(security)
    if ticker is None:
        return []
    if security.kind == "crypto":
        code = ticker if "-" in ticker else f"{ticker}-{major(security.currency)}"
        return [(one, "coin", True) for one in _parsed(code, "CRYPTO")]
    market = market_of(security.exchange)
    if market is not None:
        return [(one, "exchange", True) for one in _parsed(ticker, market)]
    if security.exchange:  # on one that is none of ours
        return []
    places = [place for place in MARKETS.values() if place.major_currency == major(security.currency)]
    markets = [place.code for place in places if place.code not in (*_NEVER, "CRYPTO")]
    return [(one, "ticker", one.market == "US") for market in markets for one in _parsed(ticker, market)]


def _parsed(ticker: str, market: str) -> Iterable[Instrument]:
    try:
        return [Instrument.parse(ticker, market)]
    except Invalid:
        return []


def _texts(security: BrokerSecurity) -> Iterator[tuple[str, Means]]:
    """What to search for, the most telling first."""
    if (ticker := ticker_of(security)) is not None:
        yield ticker[:LONGEST_TEXT], "ticker"
    if (isin := isin_of_security(security)) is not None:
        yield isin, "identifier"
    if security.name and (name := plain_name(security.name)) is not None:
        yield name[:LONGEST_TEXT], "name"


def isin_of_security(security: BrokerSecurity) -> str | None:
    """Its ISIN, or the likelier one of its CUSIP, else its SEDOL; None without any."""
    isin, cusip = isin_of(security.isin), cusip_of(security.cusip)
    by_cusip = isins_of_cusip(cusip) if cusip is not None else ()
    canadian = len(by_cusip) > 1 and major(security.currency) == "CAD"
    return isin or (by_cusip[1 if canadian else 0] if by_cusip else None) or sedol_of(security.sedol)


def _can_be_meant(found: Found, security: BrokerSecurity) -> bool:
    if found.kind in ("index", "currency") or found.instrument.market in _NEVER:
        return False
    return (found.instrument.market == "CRYPTO") == (security.kind == "crypto")


def alikeness(name: str | None, one: Candidate) -> float | None:
    """How alike a name is to that of a candidate, 0 to 100; None when one of them is not known.

    Words in common are not enough to be alike, and enough not to be unlike; nor are initials.
    """
    mine, theirs = plain_name(name), plain_name(one.name)
    return None if mine is None or theirs is None else name_ratio(mine, theirs, is_lenient=one.means != "name")


def name_ratio(mine: str, theirs: str, *, is_lenient: bool) -> float:
    """The same of two plain names."""
    from rapidfuzz import fuzz

    alike: float = fuzz.token_sort_ratio(mine, theirs)
    if not is_lenient:
        return alike
    shared = min(74.0, fuzz.token_set_ratio(mine, theirs))
    initials = 74.0 if {mine, theirs} & {_initials(mine), _initials(theirs)} else 0.0
    return max(alike, shared, initials)


def _initials(name: str) -> str:
    words = name.split()
    return "".join(word[0] for word in words) if len(words) > 2 else ""
