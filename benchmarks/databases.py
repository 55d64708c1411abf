"""A private mongod for as long as something is measured on it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.measure import Row
from pricecache.stores.client import connect, prepare
from pricecache.stores.embedded import PrivateMongod


def on_a_mongod(run: Callable[[AsyncDatabase[dict[str, Any]], str], Awaitable[list[Row]]]) -> list[Row]:
    """What `run` measures on an empty database, given that and the server's URI."""

    async def measured(folder: Path) -> list[Row]:
        async with PrivateMongod(folder) as mongod:
            client = connect(mongod.uri)
            database = client["bench"]
            await prepare(database)
            try:
                return await run(database, mongod.uri)
            finally:
                await client.close()

    with tempfile.TemporaryDirectory() as scratch:
        return asyncio.run(measured(Path(scratch)))
