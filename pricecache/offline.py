"""What a command does with the database by itself, when no daemon runs."""

from __future__ import annotations

from typing import Any

from pricecache.clock import SystemClock
from pricecache.core.catalog import Catalog
from pricecache.settings import Settings
from pricecache.stores.bars import BarStore
from pricecache.stores.client import connect, prepare, wait_until_writable
from pricecache.stores.embedded import PrivateMongod
from pricecache.stores.instruments import InstrumentStore
from pricecache.sync.verify import Verifier


async def verify(settings: Settings, mongod: PrivateMongod | None, rebuild: bool) -> list[dict[str, Any]]:
    """Every difference between the journal and what is read, mended if `rebuild`.

    `mongod`: the private server, which is started for this and stopped again; None with a server of the user's own.
    """
    if mongod is None:
        assert settings.mongodb_uri is not None
        return await _verify(settings, settings.mongodb_uri.get_secret_value(), rebuild)
    async with mongod:
        return await _verify(settings, mongod.uri, rebuild)


async def _verify(settings: Settings, uri: str, rebuild: bool) -> list[dict[str, Any]]:
    clock, catalog = SystemClock(), Catalog()
    async with connect(uri) as client:
        await wait_until_writable(client, clock)
        database = client[settings.mongodb_database]
        await prepare(database)
        await InstrumentStore(database, catalog).load_all()
        return await Verifier(catalog, BarStore(database, clock), clock).differences(rebuild)
