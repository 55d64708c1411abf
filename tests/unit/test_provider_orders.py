"""The providers that the settings name: in order, by capability, with their limits; and settings that cannot work."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pricecache.clock import SystemClock
from pricecache.core.bars import day_number
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Misconfigured, ProviderUnavailable
from pricecache.providers.chain import ProviderChain
from pricecache.settings import Settings
from pricecache.stores.provider_accounts import ProviderAccounts
from pricecache.vendors import chain_of
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.fmp import FakeFmp
from tests.fakes.yahoo import sessions_back


async def made(folder: Path, **settings: Any) -> ProviderChain:
    clock = SystemClock()
    chosen = Settings(_env_file=None, data_dir=folder, csv_dir=folder, **settings)
    chain = chain_of(chosen, clock, CalendarBook(), ProviderAccounts(clock), lambda name: lambda outcome: None)
    await chain.close()
    return chain


def names(chain: ProviderChain, capability: Any) -> list[str]:
    return [pool.name for pool in chain.able(capability)]


async def test_the_order_of_the_setting_is_the_order_for_everything(tmp_path: Path) -> None:
    chain = await made(tmp_path, providers="csv, sample,csv")
    assert names(chain, "history") == names(chain, "live") == names(chain, "actions") == ["csv", "sample"]
    assert chain.name == "csv,sample"


async def test_a_capability_may_have_an_order_of_its_own(tmp_path: Path) -> None:
    """A provider named there only is asked for nothing else."""
    chain = await made(tmp_path, providers="csv", providers_live="sample,csv", providers_stream="yfinance")
    assert names(chain, "history") == ["csv"]
    assert names(chain, "live") == ["sample", "csv"]
    assert names(chain, "stream") == ["yfinance"]
    assert [chain.rank(name) for name in ("csv", "sample")] == [0, -1]


async def test_with_fmp_for_actions_the_bars_of_files_get_its_splits(tmp_path: Path) -> None:
    """As the settings have it, with both real adapters."""
    clock, calendar = ManualClock(datetime(2024, 3, 16, tzinfo=UTC)), xnys_book()
    days = sessions_back(date(2024, 3, 15), 5)
    rows = "".join(f"{day},10,12,9,11,1000\n" for day in days)
    (tmp_path / "AAPL.csv").write_text(f"date,open,high,low,close,volume\n{rows}")
    with FakeFmp("key", clock) as fmp:
        fmp.put("AAPL", {day: [1.0, 1.0, 1.0, 1.0, 1.0] for day in days}, splits={days[2]: 4.0})
        chosen = Settings(
            _env_file=None,  # type: ignore[call-arg]
            data_dir=tmp_path,
            csv_dir=tmp_path,
            providers="csv",
            providers_actions="fmp",
            financial_modeling_prep_api_key="key",
            fmp_url=fmp.url,
        )
        chain = chain_of(chosen, clock, calendar, ProviderAccounts(clock), lambda name: lambda outcome: None)
        answer = await chain.history(Instrument("AAPL"), day_number(days[0]), day_number(days[-1]))
        clock.advance(60)
        fmp.fail("server_error", times=None)
        with pytest.raises(ProviderUnavailable):
            await chain.history(Instrument("AAPL"), day_number(days[0]), day_number(days[-1]))
        await chain.close()
    assert (answer.source, answer.basis, len(answer.bars)) == ("csv", "as_traded", 5)
    assert [(action.ex_date, action.kind, action.value) for action in answer.actions] == [
        (day_number(days[2]), "split", 4.0)
    ]


async def test_limits_change_the_pace_and_make_a_local_provider_a_shared_one(tmp_path: Path) -> None:
    chain = await made(tmp_path, providers="csv,sample", provider_limits="csv:perDay=7,price=0.5")
    csv, sample = chain.pools
    assert (csv.pace.per_day, csv.pace.price, sample.pace.per_day) == (7, 0.5, None)
    assert csv.pace.concurrency == csv.provider.pace.concurrency
    assert [pool.keeper.is_shared for pool in chain.pools] == [True, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({"providers": "bloomberg,csv"}, "bad_providers", "'bloomberg'; there are yfinance, "),
        ({"providers": ""}, "bad_providers", "No provider is named; there are yfinance, "),
        ({"providers": "csv", "providers_live": "nobody"}, "bad_providers", "'nobody'"),
        ({"providers": "csv", "providers_stream": "csv"}, "bad_providers", "PRICECACHE_PROVIDERS_STREAM: csv cannot"),
        ({"providers": "csv", "provider_limits": "x:perDay=1"}, "bad_provider_limits", "'x'"),
    ],
)
async def test_settings_that_cannot_work_say_what_there_is(
    tmp_path: Path, settings: dict[str, str], code: str, told: str
) -> None:
    with pytest.raises(Misconfigured) as refused:
        await made(tmp_path, **settings)
    assert refused.value.code == code
    assert told in refused.value.detail
