"""Which store a URL means."""

from __future__ import annotations

import secrets
from pathlib import Path

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
        return MemoryStore(settings.shards, secrets.token_bytes(_TOKEN_KEY_BYTES))
    if scheme == "sqlite" and rest.startswith("///"):
        path = (data_dir / (rest[3:] or "engine.db")).absolute()
        return ProcessStore(
            f"sqlite:{path}",
            shards=settings.shards,
            lock_wait_seconds=settings.lock_wait_seconds,
            call_timeout_seconds=settings.call_timeout_seconds,
        )
    raise StoreUnusable(
        f'[store] url = {settings.url!r} names no store: write "sqlite:///PATH" ("sqlite:///" for engine.db in the '
        'data folder) or "memory:"'
    )
