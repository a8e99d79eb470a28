"""One real engine for the tests of a module, a tenant of its own for each of them."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from worker_site import ENGINE, Site

from enginekit.client import open_client
from enginekit.local import LocalDaemon
from examples.orders.stage import ENGINE_TOML


@pytest.fixture(scope="module")
def engine_data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running engine, with what the module names LEASES in its engine.toml. Without it leases are
    long enough for a machine that does much else: none lapses by chance."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "engine.toml").write_text(ENGINE_TOML + getattr(request.module, "LEASES", ""))
    command = [ENGINE, "serve", "--config", str(folder / "engine.toml"), "--data-dir", str(folder / "data")]
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(2400):
        if (folder / "data" / "daemon.json").exists():
            break
        assert process.poll() is None, (folder / "engine.log").read_text()
        time.sleep(0.05)  # another process, and no clock of ours in it
    yield folder / "data"
    process.terminate()
    assert process.wait(120) == 0, (folder / "engine.log").read_text()


@pytest.fixture
async def site(engine_data: Path, tmp_path: Path) -> AsyncIterator[Site]:
    local = LocalDaemon(engine_data, f"tenant-{uuid.uuid4().hex[:8]}")
    async with open_client(local.url, local.token, timeout_seconds=60) as client:
        yield Site(tmp_path, local, client)
