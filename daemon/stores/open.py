"""Which store a URL means."""

from __future__ import annotations

import secrets
from pathlib import Path

from daemon.address import shown
from daemon.settings import StoreSettings
from daemon.stores.interface import Store, StoreUnusable
from daemon.stores.memory import MemoryStore
from daemon.stores.process import ProcessStore

_TOKEN_KEY_BYTES = 32


def open_store(settings: StoreSettings, data_dir: Path) -> Store:
    """The store that `[store] url` names; nothing is opened before its `run`. A path that is not absolute is one in
    the data folder.

    Raises StoreUnusable for a URL that names no backend.
    """
    scheme, _, rest = settings.url.partition(":")
    if settings.url == "memory:":
        return MemoryStore(settings.store_shards, secrets.token_bytes(_TOKEN_KEY_BYTES))
    if scheme == "sqlite" and rest.startswith("///"):
        return _in_a_process(f"sqlite:{(data_dir / (rest[3:] or 'engine.db')).absolute()}", settings)
    if scheme == "postgresql" and rest.startswith("//"):
        return _in_a_process(settings.url, settings)
    raise StoreUnusable(
        f'[store] url = {shown(settings.url)!r} names no store: write "sqlite:///PATH" ("sqlite:///" for engine.db in '
        'the data folder), "postgresql://USER:PASSWORD@HOST:PORT/DATABASE" or "memory:"'
    )


def _in_a_process(url: str, settings: StoreSettings) -> ProcessStore:
    return ProcessStore(
        url,
        shards=settings.store_shards,
        lock_wait_seconds=settings.lock_wait_seconds,
        call_timeout_seconds=settings.call_timeout_seconds,
    )
