"""The stores under test: each one that `open_store` can make, opened for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from daemon.settings import StoreSettings
from daemon.stores.interface import Store
from daemon.stores.open import open_store


@pytest.fixture(params=["memory:", "sqlite:///"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Store]:
    """An empty store of four shards, taken once: epoch 1."""
    opened = open_store(StoreSettings(url=request.param), tmp_path)
    await nursery.start(opened.run)
    await opened.take_shards()
    yield opened
    nursery.cancel_scope.cancel()
