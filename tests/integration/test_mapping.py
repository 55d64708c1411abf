"""Securities of brokers: which instrument each is priced by, how sure that is, and that nobody borrows another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from pricecache.core.actions import Action
from pricecache.core.asking import Found
from pricecache.core.bars import day_number, day_of
from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderError, RateLimited
from pricecache.portfolio.broker_prices import BrokerPriceWriter
from pricecache.portfolio.candidates import Assessor
from pricecache.portfolio.mapping import Mapped, Mapper, own_instrument
from pricecache.stores.searches import SearchStore
from pricecache.stores.symbol_mappings import SymbolMappingStore
from pricecache.sync.searching import ProviderSearch
from tests.integration.api_daemon import TODAY, ApiDaemon, api_daemon

AAPL, META, FB = Instrument("AAPL"), Instrument("META"), Instrument("FB")
APPLE = BrokerSecurity(
    "a1", "equity", "Apple Inc", "AAPL", "XNAS", "US0378331005", "037833100", currency="USD", scope="plaid"
)
FUND = BrokerSecurity("f1", "mutual_fund", "Stable Value Trust Class R", currency="USD", scope="plaid")
OPTION = BrokerSecurity("o1", "derivative", "AAPL Jan 2027 200 Call", "AAPL270115C00200000", scope="plaid")
CASH = BrokerSecurity("c1", "cash", "US Dollar", "CUR:USD", is_money=True, scope="plaid")


class Providers:
    """Finds what has the text in its symbol or name; and counts."""

    name = "one"

    def __init__(self, *found: Found) -> None:
        self.found = list(found)
        self.failures: dict[str, ProviderError] = {}
        self.asked: list[str] = []

    async def search(self, text: str, limit: int) -> tuple[list[Found], dict[str, ProviderError]]:
        self.asked.append(text)
        hits = [one for one in self.found if text in f"{one.instrument.symbol} {one.name} {one.source}".upper()]
        return hits[:limit], self.failures


@pytest.fixture
def providers() -> Providers:
    return Providers(
        Found(AAPL, "Apple Inc.", "equity", "USD", "one"),
        Found(Instrument("AAPL", "MX"), "Apple Inc.", "equity", "MXN", "one"),
        Found(Instrument("VFIAX"), "Vanguard 500 Index Fund Admiral Shares", "fund", "USD", "one"),
    )


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


@pytest.fixture
def mapper(daemon: ApiDaemon, database: Any, providers: Providers) -> Mapper:
    return mapper_on(daemon, database, providers)


def mapper_on(daemon: ApiDaemon, database: Any, providers: Providers) -> Mapper:
    parts, search = daemon.parts, ProviderSearch(providers, SearchStore(database, daemon.clock))
    assessor = Assessor(parts.prices.catalog, parts.prices.columns, search, lambda: True)
    store = SymbolMappingStore(database, daemon.clock)
    return Mapper(store, parts.prices.catalog, parts.prices.instruments, assessor, daemon.clock)


async def one(mapper: Mapper, security: BrokerSecurity, user: str = "alice", **facts: Any) -> Mapped:
    price, used = facts.get("price"), facts.get("used_from")
    prices = {} if price is None else {security.id: (facts.get("day", TODAY - 1), Decimal(price))}
    found = await mapper.map(
        [security],
        user=user,
        prices=prices,
        used_from={} if used is None else {security.id: used},
        since_before={security.id} if facts.get("is_since_before") else (),
    )
    return found[security.id]


async def named(daemon: ApiDaemon, instrument: Instrument, name: str | None, **facts: Any) -> None:
    entry = await daemon.stored(instrument, **facts)
    await daemon.services.instruments.set_facts(entry, name=name, kind="equity")


async def test_a_ticker_on_its_exchange_with_the_same_name_is_mapped(mapper: Mapper, providers: Providers) -> None:
    found = await one(mapper, APPLE)
    assert (found.instrument, found.state, found.is_brokers_own) == (AAPL, "mapped", False)
    assert found.confidence == 1.0
    assert providers.asked == ["AAPL"]
    assert any(reason.startswith("ticker_on_exchange (+0.70)") for reason in found.reasons)


async def test_every_security_but_money_gets_an_instrument_and_the_users_own_is_named(
    mapper: Mapper, daemon: ApiDaemon
) -> None:
    found = await mapper.map([APPLE, FUND, OPTION, CASH], user="alice")
    assert set(found) == {"a1", "f1", "o1"}
    own = found["f1"]
    assert (own.state, own.is_brokers_own, own.instrument) == ("unmapped", True, own_instrument("alice", FUND))
    assert found["o1"].is_brokers_own
    entry = daemon.services.catalog.require(own.instrument)
    assert (entry.owner, entry.currency, entry.name, entry.tracked) == ("alice", "USD", FUND.name, False)
    assert own_instrument("bob", FUND) != own.instrument


async def test_what_is_mapped_is_asked_for_once_for_everybody(
    mapper: Mapper, providers: Providers, daemon: ApiDaemon, database: Any
) -> None:
    await one(mapper, APPLE)
    await one(mapper, APPLE, "bob")
    await one(mapper_on(daemon, database, providers), replace(APPLE, id="x", scope="bob-1"), "carol")
    assert providers.asked == ["AAPL"]


async def test_a_price_far_off_is_never_mapped(mapper: Mapper, daemon: ApiDaemon) -> None:
    await named(daemon, AAPL, "Apple Inc.")  # closes at 107.25
    found = await one(mapper, APPLE, price="210.00")
    assert (found.state, found.is_brokers_own, found.candidate) == ("review", True, AAPL)
    assert any(reason.startswith("price_differs") for reason in found.reasons)
    assert (await one(mapper, APPLE, "bob", price="107.00")).state == "mapped"


async def test_a_mapping_is_held_against_the_price_once_there_is_one(mapper: Mapper, daemon: ApiDaemon) -> None:
    assert (await one(mapper, APPLE, price="210.00")).state == "mapped"
    await named(daemon, AAPL, "Apple Inc.")
    assert (await one(mapper, APPLE, price="210.00")).state == "review"


async def test_another_currency_is_never_mapped(mapper: Mapper) -> None:
    found = await one(mapper, replace(APPLE, currency="EUR", exchange=None, scope="x", isin=None, cusip=None))
    assert found.state != "mapped"


async def test_a_renamed_ticker_leads_to_the_same_instrument(mapper: Mapper, daemon: ApiDaemon) -> None:
    await named(daemon, FB, "Facebook")
    await daemon.call("POST", "/cache/symbols/FB/rename", json={"to": "META", "on": "2022-06-09"})
    await named(daemon, META, "Meta Platforms")
    old = BrokerSecurity("m", "equity", "Facebook Inc", "FB", "XNAS", scope="x")
    assert (await one(mapper, old, used_from=day_number(day_of(TODAY).replace(year=2021)))).instrument == META


async def test_a_ticker_used_again_does_not_borrow_the_history_of_another(
    mapper: Mapper, daemon: ApiDaemon, providers: Providers
) -> None:
    await named(daemon, FB, "Facebook")
    await daemon.call("POST", "/cache/symbols/FB/rename", json={"to": "META", "on": "2022-06-09"})
    await named(daemon, META, "Meta Platforms")
    providers.found.append(Found(FB, "ProShares Dynamic Buffer ETF", "etf", "USD", "one"))
    new = BrokerSecurity("n", "etf", "ProShares Dynamic Buffer ETF", "FB", "BATS", scope="x")
    assert (await one(mapper, new, used_from=TODAY - 100)).instrument == FB
    unknown = BrokerSecurity("u", "etf", "Fantastic Bonds", "FB", "BATS", scope="x")
    found = await one(mapper, unknown, used_from=TODAY - 100)
    assert (found.state, found.is_brokers_own) == ("review", True)


RENAMED_ON = TODAY - 170
LATER, BEFORE = RENAMED_ON + 150, RENAMED_ON - 400
NEW_HOLDER = BrokerSecurity("n", "equity", "Totally Different Mining Ltd", "FB", "XNAS", scope="x")


async def used_again(daemon: ApiDaemon, close: float | None = None, **names: str | None) -> None:
    """FB became META, and another company has the ticker by now; both close at 107.25 unless the new one's is said."""
    await named(daemon, FB, names.get("old"))
    body = {"to": "META", "on": day_of(RENAMED_ON).isoformat()}
    assert (await daemon.call("POST", "/cache/symbols/FB/rename", json=body))[0] == 200
    await named(daemon, FB, names.get("new"))
    if close is not None:
        bars = [{"date": day_of(TODAY - 1).isoformat(), "close": close}]
        status, answer = await daemon.call("PUT", "/cache/historical/FB", json={"bars": bars})
        assert status == 200, answer


async def test_what_was_bought_after_the_ticker_was_used_again_is_the_new_holders_at_whatever_price(
    mapper: Mapper, daemon: ApiDaemon
) -> None:
    await used_again(daemon)
    found = await one(mapper, NEW_HOLDER, used_from=LATER, price="107.25")
    assert (found.instrument, found.state) == (FB, "mapped")


@pytest.mark.parametrize("price", [None, "107.25"])
async def test_what_is_held_since_before_the_first_row_may_be_either_holders_of_its_ticker(
    mapper: Mapper, daemon: ApiDaemon, price: str | None
) -> None:
    await used_again(daemon)
    found = await one(mapper, NEW_HOLDER, used_from=BEFORE, is_since_before=True, price=price)
    assert (found.state, found.is_brokers_own) == ("review", True)
    assert any(reason.startswith("ambiguous") for reason in found.reasons)


async def test_a_name_or_a_price_tells_the_holders_of_a_ticker_apart(
    mapper: Mapper, daemon: ApiDaemon, database: Any, providers: Providers
) -> None:
    await used_again(daemon, close=54.0, old="Facebook", new="Totally Different Mining")
    facts = {"used_from": BEFORE, "is_since_before": True}
    assert (await one(mapper, NEW_HOLDER, **facts)).instrument == FB
    nameless = replace(NEW_HOLDER, id="m", name=None)
    assert (await one(mapper, nameless, price="54.20", **facts)).instrument == FB
    late = replace(NEW_HOLDER, id="o", name=None)  # whose broker goes on with the ticker that it had
    assert (await one(mapper, late, price="107.00", **facts)).instrument == META


async def test_a_number_tells_the_holders_of_a_ticker_apart(
    mapper: Mapper, daemon: ApiDaemon, providers: Providers
) -> None:
    await used_again(daemon)
    providers.found.append(Found(FB, "Totally Different Mining", "equity", "USD", "US30303M1027"))
    numbered = replace(NEW_HOLDER, name=None, isin="US30303M1027")
    found = await one(mapper, numbered, used_from=BEFORE, is_since_before=True)
    assert (found.instrument, found.state) == (FB, "mapped"), found.reasons
    assert any(reason.startswith("number_agrees (+0.20)") for reason in found.reasons)


async def test_the_days_of_one_user_do_not_decide_for_the_others_who_has_a_ticker(
    mapper: Mapper, daemon: ApiDaemon
) -> None:
    await used_again(daemon)
    assert (await one(mapper, NEW_HOLDER, used_from=LATER)).instrument == FB
    other = replace(NEW_HOLDER, scope="y")
    found = await one(mapper, other, "bob", used_from=BEFORE, is_since_before=True)
    assert (found.state, found.is_brokers_own) == ("review", True)


async def test_two_securities_with_one_ticker_are_not_one(mapper: Mapper, providers: Providers) -> None:
    await one(mapper, APPLE)
    other = BrokerSecurity("z", "equity", "Appalachian Power", "AAPL", "XNAS", scope="x")
    assert (await one(mapper, other)).state == "review"


async def test_what_contradicts_what_is_known_of_its_number_is_judged_by_itself(
    mapper: Mapper, providers: Providers
) -> None:
    providers.found.append(Found(Instrument("MSFT"), "Microsoft", "equity", "USD", "one"))
    planted = replace(APPLE, ticker="MSFT", name="Microsoft")
    assert (await one(mapper, planted, "mallory")).instrument == Instrument("MSFT")
    assert (await one(mapper, APPLE)).instrument == AAPL


async def test_a_provider_that_fails_is_asked_again_later(
    mapper: Mapper, providers: Providers, daemon: ApiDaemon
) -> None:
    fund = BrokerSecurity("v", "mutual_fund", "Vanguard 500 Index Admiral", "VFIAX", scope="x")
    providers.failures, found = {"one": RateLimited()}, providers.found
    providers.found = []
    assert (await one(mapper, fund)).state == "review"
    providers.failures, providers.found = {}, found
    daemon.clock.advance(3601)
    found = await one(mapper, fund)
    assert found.instrument == Instrument("VFIAX"), (found.reasons, found.state, providers.asked)


async def test_one_number_in_another_form_is_the_same_security(
    mapper: Mapper, providers: Providers, daemon: ApiDaemon
) -> None:
    await one(mapper, replace(APPLE, scope="x", cusip=None))
    await one(mapper, replace(APPLE, scope="y", isin=None), "bob")
    assert len(await mapper.of_everybody()) == 1
    await one(mapper, replace(APPLE, scope="z", currency="MXN", exchange="XMEX"), "carol")
    assert len(await mapper.of_everybody()) == 2  # the same shares, traded in another currency


async def test_what_others_know_of_a_security_has_no_id_of_a_users_own(mapper: Mapper) -> None:
    await one(mapper, replace(APPLE, id="account-4711", scope="alice-1"))
    (seen,) = await mapper.of_everybody()
    assert (seen.security.id, seen.security.scope) == ("", "")


@pytest.mark.parametrize(
    ("ticker", "currency", "instrument"),
    [("BTC", "USD", "BTC-USD"), ("CUR:ETH", "EUR", "ETH-EUR"), ("DOGE-USD", "USD", "DOGE-USD")],
)
async def test_a_coin_is_priced_in_its_currency(mapper: Mapper, ticker: str, currency: str, instrument: str) -> None:
    coin = BrokerSecurity("b", "crypto", None, ticker, currency=currency, scope="x")
    found = await one(mapper, coin)
    assert (found.candidate or found.instrument) == Instrument(instrument, "CRYPTO")


async def test_a_ticker_on_an_exchange_that_is_none_of_ours_is_not_taken_for_one_of_ours(mapper: Mapper) -> None:
    foreign = BrokerSecurity("h", "equity", "Hamburger Hafen", "AAPL", "XHAM", currency="EUR", scope="x")
    found = await one(mapper, foreign)
    assert (found.state, found.candidate) == ("unmapped", None)


async def test_a_listing_elsewhere_is_found_by_its_number(mapper: Mapper, providers: Providers) -> None:
    sap = Instrument("SAP", "DE")
    providers.found.append(Found(sap, "SAP SE", "equity", "EUR", "DE0007164600"))
    found = await one(
        mapper, BrokerSecurity("s", "equity", "SAP", None, isin="DE0007164600", currency="EUR", scope="x")
    )
    assert (found.instrument, found.state) == (sap, "mapped")


async def test_sample_prices_are_held_against_nothing(mapper: Mapper, daemon: ApiDaemon) -> None:
    entry = await daemon.stored(AAPL)
    await daemon.services.instruments.set_facts(entry, source="sample", name="Google and Apple (sample prices)")
    found = await one(mapper, APPLE, price="999")
    assert (found.state, found.instrument) == ("mapped", AAPL)
    assert not any("differs" in reason for reason in found.reasons)


async def test_a_number_with_a_wrong_digit_counts_for_nothing(mapper: Mapper, providers: Providers) -> None:
    await one(mapper, APPLE)
    wrong = BrokerSecurity("w", "equity", "Other", isin="US0378331006", currency="USD", scope="x")
    assert (await one(mapper, wrong)).state == "unmapped"


# decisions of persons


async def listed(daemon: ApiDaemon, query: str = "", base: str = "/api/portfolio/mappings") -> dict[str, Any]:
    status, answer = await daemon.get(f"{base}{query}")
    assert status == 200, answer
    return dict(answer)


async def test_a_user_decides_for_oneself_and_takes_it_back(daemon: ApiDaemon) -> None:
    told: list[Any] = []
    mapper = daemon.services.mapper
    mapper.on_overridden = lambda user, mapping: told.append((user, mapping))
    first = await one(mapper, FUND, "local")
    answer = await listed(daemon)
    assert answer["counts"] == {"mapped": 0, "review": 0, "unmapped": 1, "overridden": 0}
    (row,) = answer["mappings"]
    assert (row["id"], row["symbol"], row["isBrokersOwn"]) == (first.mapping, first.instrument.symbol, True)
    assert row["security"]["name"] == FUND.name
    target = f"/api/portfolio/mappings/{row['id']}"
    status, answer = await daemon.call("PUT", target, json={"symbol": "VFIAX"})
    assert (status, answer["state"], answer["symbol"], answer["decision"]["by"]) == (200, "overridden", "VFIAX", "user")
    found = await one(mapper, FUND, "local")
    assert (found.instrument, found.state, found.is_brokers_own) == (Instrument("VFIAX"), "overridden", False)
    assert (await one(mapper, FUND, "bob")).state == "unmapped"
    assert (await listed(daemon, "?state=overridden"))["mappings"][0]["id"] == row["id"]
    assert (await daemon.call("DELETE", target))[1]["state"] == "unmapped"
    assert (await one(mapper, FUND, "local")).is_brokers_own
    assert told == [("local", row["id"]), ("local", row["id"])]


async def test_an_operator_decides_for_everybody_who_has_not(daemon: ApiDaemon, database: Any) -> None:
    mapper = daemon.services.mapper
    mine = await one(mapper, FUND, "local")
    await one(mapper, FUND, "bob")
    await daemon.call("PUT", f"/api/portfolio/mappings/{mine.mapping}", json={"symbol": None})
    (row,) = (await listed(daemon, "?state=unmapped", "/api/admin/mappings"))["mappings"]
    assert (row["symbol"], row["isBrokersOwn"]) == (None, True)
    assert await mapper.users_of(row["id"]) == ["bob", "local"]
    target = f"/api/admin/mappings/{row['id']}"
    assert (await daemon.call("PUT", target, json={"symbol": "VFIAX", "market": "US"}))[1]["state"] == "overridden"
    assert (await one(mapper, FUND, "bob")).instrument == Instrument("VFIAX")
    assert (await one(mapper, FUND, "carol")).instrument == Instrument("VFIAX")
    assert (await one(mapper, FUND, "local")).is_brokers_own
    assert (await daemon.call("DELETE", target))[1]["state"] == "unmapped"
    assert (await one(mapper, FUND, "carol")).is_brokers_own


async def test_what_another_daemon_decided_counts_at_the_next_mapping(
    daemon: ApiDaemon, mapper: Mapper, database: Any, providers: Providers
) -> None:
    first = await one(mapper, FUND)
    other = mapper_on(daemon, database, providers)
    (seen,) = await other.of_everybody()
    await other.override(None, seen.id, Instrument("VFIAX"), by="operator")
    assert (await one(mapper, FUND)).instrument == Instrument("VFIAX")
    assert first.is_brokers_own


async def test_a_decision_follows_its_instrument_through_a_rename(daemon: ApiDaemon, mapper: Mapper) -> None:
    await named(daemon, FB, "Facebook")
    mapping = (await one(mapper, FUND)).mapping
    assert mapping is not None
    await mapper.override("alice", mapping, FB, by="alice")
    await daemon.call("POST", "/cache/symbols/FB/rename", json={"to": "META", "on": "2022-06-09"})
    assert (await one(mapper, FUND)).instrument == META


@pytest.mark.parametrize(
    ("method", "body", "status", "code"),
    [
        ("PUT", {"symbol": "AAPL"}, 404, "unknown_mapping"),
        ("PUT", {"symbol": "NOTHING", "market": "CUSTOM"}, 404, "unknown_symbol"),
        ("PUT", {"symbol": "?"}, 422, "invalid_symbol"),
        ("PUT", {}, 422, "missing"),
        ("DELETE", None, 404, "unknown_mapping"),
    ],
)
async def test_a_decision_that_cannot_be_is_refused(
    daemon: ApiDaemon, method: str, body: Any, status: int, code: str
) -> None:
    for base in ("/api/portfolio/mappings", "/api/admin/mappings"):
        answer = await daemon.call(method, f"{base}/nope", json=body)
        assert (answer[0], answer[1]["code"]) == (status, code), answer


async def test_a_mapping_of_another_user_is_not_there(daemon: ApiDaemon) -> None:
    theirs = await one(daemon.services.mapper, FUND, "bob")
    status, answer = await daemon.call("DELETE", f"/api/portfolio/mappings/{theirs.mapping}")
    assert (status, answer["code"]) == (404, "unknown_mapping")


# broker's prices


async def test_a_brokers_prices_are_bars_that_give_way_to_the_users(mapper: Mapper, daemon: ApiDaemon) -> None:
    own = (await one(mapper, FUND, "local")).instrument
    prices = BrokerPriceWriter(daemon.services.catalog, daemon.services.bars, daemon.clock)
    days = {TODAY - 3: Decimal("10.5"), TODAY - 1: Decimal("10.75"), TODAY + 9: Decimal(11), TODAY - 2: Decimal(0)}
    assert await prices.write({own: days}) == 3  # worth nothing is a price, tomorrow's is none
    entry = daemon.services.catalog.require(own)
    rev = entry.head.rev
    assert await prices.write({own: days}) == 0
    assert entry.head.rev == rev
    path = f"/cache/historical/{own.symbol}?market=CUSTOM"
    bars = {"bars": [{"date": day_of(TODAY - 1).isoformat(), "close": 12}]}
    assert (await daemon.call("PUT", path, json=bars))[0] == 200
    assert await prices.write({own: {TODAY - 1: Decimal("10.75"), TODAY - 4: Decimal(10)}}) == 1
    _, answer = await daemon.get(path)
    assert [bar["close"] for bar in answer["bars"]] == [10.0, 10.5, 0.0, 12.0]
    await daemon.stored(AAPL)
    with pytest.raises(ValueError, match="priced by providers"):
        await prices.write({AAPL: days})


async def test_a_connections_splits_are_what_it_tells_now_and_no_others(mapper: Mapper, daemon: ApiDaemon) -> None:
    own = (await one(mapper, FUND, "local")).instrument
    prices = BrokerPriceWriter(daemon.services.catalog, daemon.services.bars, daemon.clock)
    two, three = Action(TODAY - 3, "split", 2.0, source="broker:c"), Action(TODAY - 2, "split", 3.0, source="broker:c")
    other = Action(TODAY - 5, "split", 5.0, source="broker:d")
    entry = daemon.services.catalog.require(own)
    assert await prices.write_splits({own: [other]}, "broker:d")
    assert await prices.write_splits({own: [two]}, "broker:c")
    assert not await prices.write_splits({own: [two]}, "broker:c")
    assert entry.actions == (other, two)
    assert await prices.write_splits({own: [three]}, "broker:c")
    assert entry.actions == (other, three)
    assert await prices.write_splits({own: []}, "broker:c")
    assert entry.actions == (other,)
    assert prices.currencies([own, AAPL]) == {own: entry.currency}


async def test_a_thousand_securities_are_mapped_from_what_is_kept(mapper: Mapper, providers: Providers) -> None:
    many = securities(1000)
    first = await mapper.map(many, user="alice")
    asked = len(providers.asked)
    again = await mapper.map(many, user="alice")
    assert {key: one.instrument for key, one in again.items()} == {key: one.instrument for key, one in first.items()}
    assert len(providers.asked) == asked


def securities(count: int) -> Sequence[BrokerSecurity]:
    return [
        replace(APPLE, id=f"s{n}", ticker=f"S{n}", name=f"Security {n}", isin=None, cusip=None) for n in range(count)
    ]
