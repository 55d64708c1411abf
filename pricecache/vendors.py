"""The providers of prices that the settings name, each behind its pool, together as one chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pricecache.clock import Clock
from pricecache.core.asking import Capability
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Misconfigured
from pricecache.providers.base import Provider
from pricecache.providers.chain import ProviderChain
from pricecache.providers.csvfiles import CsvProvider
from pricecache.providers.fmp import FmpProvider
from pricecache.providers.limits import limited, parse_limits
from pricecache.providers.pool import ProviderPool
from pricecache.providers.sample import SampleProvider
from pricecache.providers.yahoo import YahooProvider
from pricecache.settings import Settings
from pricecache.stores.provider_accounts import ProviderAccounts


def chain_of(
    settings: Settings,
    clock: Clock,
    book: CalendarBook,
    accounts: ProviderAccounts,
    observer: Callable[[str], Callable[[str], object]],
) -> ProviderChain:
    """The providers that the settings name, each behind its pool, with its account among `accounts`.

    `observer` gives what is told of every call to the provider of that name. Raises `Misconfigured` with code
    `bad_providers`, `bad_provider_limits`, or what a provider misses.
    """
    makers = _makers(settings, clock, book)
    own = _orders(settings)
    names = list(dict.fromkeys([*settings.providers, *(name for order in own.values() for name in order)]))
    unknown = [name for name in names if name not in makers]
    if unknown or not settings.providers:
        said = f"There is no provider {', '.join(map(repr, unknown))}" if unknown else "No provider is named"
        raise Misconfigured(f"{said}; there are {', '.join(makers)}.", code="bad_providers")
    limits = parse_limits(settings.provider_limits, makers)
    pools = []
    for provider in (makers[name]() for name in names):
        pace = limited(provider.pace, limits.get(provider.name, {}))
        keeper = accounts.account(provider.name, pace)
        pools.append(ProviderPool(provider, clock, observer(provider.name), pace=pace, keeper=keeper))
    chain = ProviderChain(pools, orders=own, usual=settings.providers)
    _check_orders(chain, own)
    return chain


def _orders(settings: Settings) -> dict[Capability, tuple[str, ...]]:
    orders: dict[Capability, tuple[str, ...]] = {
        "history": settings.providers_history,
        "live": settings.providers_live,
        "actions": settings.providers_actions,
        "search": settings.providers_search,
        "stream": settings.providers_stream,
    }
    return {capability: names for capability, names in orders.items() if names}


def _check_orders(chain: ProviderChain, orders: Mapping[Capability, Sequence[str]]) -> None:
    for capability, names in orders.items():
        able = {pool.name for pool in chain.pools if pool.can(capability)}
        if unable := [name for name in names if name not in able]:
            raise Misconfigured(
                f"PRICECACHE_PROVIDERS_{capability.upper()}: {', '.join(unable)} cannot do that; "
                f"of those named {', '.join(sorted(able)) or 'none'} can.",
                code="bad_providers",
            )


def _makers(settings: Settings, clock: Clock, book: CalendarBook) -> Mapping[str, Callable[[], Provider]]:
    return {
        "yfinance": lambda: YahooProvider(settings.data_dir / "yfinance", clock, settings.yahoo_url),
        "csv": lambda: CsvProvider(_csv_dir(settings), clock, book),
        "sample": lambda: SampleProvider(clock, book),
        "fmp": lambda: _fmp(settings, clock, book),
    }


def _fmp(settings: Settings, clock: Clock, book: CalendarBook) -> FmpProvider:
    key = settings.financial_modeling_prep_api_key
    return FmpProvider(
        None if key is None else key.get_secret_value(),
        clock,
        book,
        settings.fmp_url,
        batch_quotes=settings.fmp_batch_quotes,
    )


def _csv_dir(settings: Settings) -> Path:
    if settings.csv_dir is None:
        raise Misconfigured("The csv provider needs a folder: set PRICECACHE_CSV_DIR.", code="csv_folder_missing")
    return settings.csv_dir
