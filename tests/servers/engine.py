"""`engine serve` in a process of its own, spoken to frame by frame."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import jwt
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

CONFIG = """
[frontend]
rpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
"""
TABLES = ("executions", "open_runs", "events", "registrations", "definitions", "tasks", "effects", "schedules")
ALL = "read write work admin"


class Wire:
    """One connection: calls out, answers in."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self._last = 0

    async def raw(self, frame: str) -> dict:
        """What comes back for a frame."""
        await self.connection.send_message(frame)
        return json.loads(await self.connection.get_message())

    async def ask(self, method: str, **params: object) -> dict:
        """The whole response to a call."""
        self._last += 1
        frame = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        answer = await self.raw(json.dumps(frame))
        assert answer["id"] == self._last
        return answer

    async def result(self, method: str, **params: object) -> dict:
        answer = await self.ask(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, **params: object) -> dict:
        answer = await self.ask(method, **params)
        assert "error" in answer, answer
        return answer["error"]


class RealDaemon:
    """`engine serve` on a folder of its own, with `more` in its engine.toml."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.data = folder / "data"
        config = folder / "engine.toml"
        config.write_text(CONFIG + more)
        self.log = folder / "daemon.log"
        command = [sys.executable, "-m", "daemon.cli", "serve", "--config", str(config), "--data-dir", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(2400):
            if (self.data / "daemon.json").exists():
                break
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)  # another process, and no clock of ours in it
        self.url = json.loads((self.data / "daemon.json").read_text())["rpc"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)

    def token(self, tenant: str = "acme", key: bytes | None = None, algorithm: str = "HS256", **claims: object) -> str:
        now = int(time.time())
        whole = {"sub": "tester", "tenant": tenant, "scope": ALL, "aud": "engine", "iss": "engine", "exp": now + 600}
        whole.update(claims)
        secret = (self.data / "key").read_bytes() if key is None else key
        return jwt.encode(whole, secret, algorithm=algorithm)

    @asynccontextmanager
    async def connected(self, token: str | None = None) -> AsyncIterator[Wire]:
        headers = [(b"Authorization", f"Bearer {token or self.token()}".encode())]
        host, port = urlsplit(self.url).hostname, urlsplit(self.url).port
        # The library leaves its own socket open when the other side refuses or closes first.
        async with await trio.open_tcp_stream(host, port) as stream:
            try:
                async with trio.open_nursery() as nursery:
                    connection = await wrap_client_stream(
                        nursery, stream, host, "/rpc", subprotocols=["engine.v1"], extra_headers=headers
                    )
                    yield Wire(connection)
                    await connection.aclose()
                    nursery.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                error: BaseException = group
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                raise error from None

    def rows(self) -> dict[str, int]:
        """How much is written, by table."""
        database = sqlite3.connect(f"file:{self.data / 'engine.db'}?mode=ro", uri=True)
        try:
            return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
        finally:
            database.close()
