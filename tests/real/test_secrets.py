"""A connection's secret, on a whole daemon: its server gets it, and says it back in every way that it can think of.
It is in no file of the daemon's, no history, no description, no line of the log."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

SECRET = "s3cr3t/of+the shop"
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()
FORMS = [SECRET, quote(SECRET), quote(SECRET, safe=""), SECRET.replace(" ", "+"), BASIC, "czNjcjN0L29mK3RoZSBzaG9w"]


class Echo:
    """A server that repeats what it hears, in the way that its path says."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def talk(self, stream: trio.SocketStream) -> None:
        async with stream:
            heard = bytearray()
            while b"\r\n\r\n" not in heard:
                heard += await stream.receive_some()
            self.heard.append(bytes(heard))
            path = heard.split(b" ")[1].decode()
            told = heard.replace(b"\r\n", b" | ").decode() + SECRET + quote(SECRET) + base64.b64encode(heard).decode()
            await stream.send_all(self._answer(path, told))

    def _answer(self, path: str, told: str) -> bytes:
        if path.startswith("/garbage"):
            return told.encode() + b"\r\n\r\n"
        status, headers, body = "200 OK", f"X-Told: {SECRET} {quote(SECRET)}\r\n", told
        if path.startswith("/json"):
            body = json.dumps({"told": told, SECRET: [told]})
            headers += "Content-Type: application/json\r\n"
        elif path.startswith("/bytes"):
            headers += "Content-Type: image/png\r\n"
        elif path.startswith("/refuse"):
            status = f"401 {SECRET}"
        elif path.startswith("/away"):
            status = "302 Found"
            headers += f"Location: http://localhost:1/?{quote(SECRET)}\r\n"
        return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


PATHS = {
    "/json": None,
    "/text": None,
    "/bytes": None,
    "/refuse": "States.Http.StatusCode.401",
    "/away": "Http.ConnectionMismatch",
    "/garbage": "Http.ProtocolError",
}


@pytest.fixture
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "secret"
    path.write_text(SECRET)
    return path


def settings(url: str, secret_file: Path) -> str:
    common = f'url = "{url}"\ntenants = ["acme"]\nsecret_file = "{secret_file}"\n'
    return (
        f'[log]\nlevel = "debug"\n[connections.bearer]\nauth = "bearer"\n{common}'
        f'[connections.basic]\nauth = "basic"\nusername = "ann"\n{common}'
        f'[connections.key]\nauth = "api_key"\nquery = "key"\n{common}'
    )


def calling(connection: str, path: str) -> dict:
    parameters = {"Method": "GET", "ApiEndpoint": path, "Connection": connection}
    call = {"Type": "Task", "Resource": "http", "Parameters": parameters, "End": True}
    return {"StartAt": "Call", "States": {"Call": call}}


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


async def test_a_secret_is_nowhere_but_with_its_server(
    tmp_path, secret_file, start_daemon, stored_events, nursery
) -> None:
    echo = Echo()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, echo.talk, [listener])
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    real = await trio.to_thread.run_sync(start_daemon, settings(url, secret_file))
    told: list[str] = []
    async with real.connected() as wire:
        for connection in ("bearer", "basic", "key"):
            for path, error in PATHS.items():
                run = await wire.result("StartWorkflow", definition=calling(connection, path))
                seen = await wire.result("WaitWorkflow", wait_seconds=60, **run)
                assert seen.get("error") == error, seen
                history = await wire.result("GetHistory", **run)
                described = await wire.result("DescribeWorkflow", **run)
                told += [json.dumps(part, ensure_ascii=False) for part in (seen, history, described)]
                assert "[redacted]" in "".join(told[-3:]) or path in ("/away", "/bytes")
        told.append(json.dumps(await wire.result("DescribeDaemon")))
    await trio.to_thread.run_sync(real.stop)
    sent = b"".join(echo.heard)
    assert len(echo.heard) == 3 * len(PATHS)
    assert SECRET.encode() in sent
    assert BASIC.encode() in sent
    files = list(written(tmp_path))
    histories = stored_events(tmp_path)
    assert b"[redacted]" in histories
    files.append((Path("histories"), histories))
    assert {path.name for path, _ in files} >= {"engine.db", "daemon.log"}
    for form in FORMS:
        assert not [text for text in told if form in text]
        assert not [path for path, data in files if form.encode() in data]


async def test_connections_are_known_when_a_definition_is_registered(secret_file, start_daemon) -> None:
    real = await trio.to_thread.run_sync(start_daemon, settings("http://127.0.0.1:1", secret_file))
    async with real.connected() as wire, real.connected(real.token("other")) as others:
        error = await wire.error("RegisterWorkflow", name="w", definition=calling("shop", "/"))
        (fault,) = error["data"]["faults"]
        assert fault["path"] == "States.Call.Parameters.Connection"
        assert fault["message"] == 'names no connection of tenant "acme": there is no "shop"'
        known = calling("bearer", "/")
        assert (await wire.result("RegisterWorkflow", name="w", definition=known))["version"] == 1
        error = await others.error("RegisterWorkflow", name="w", definition=known)
        (fault,) = error["data"]["faults"]
        assert fault["message"] == 'names no connection of tenant "other": there is no "bearer"'
        # What a definition leaves open, a task finds out.
        given = calling("x", "/")
        parameters = given["States"]["Call"]["Parameters"]
        del parameters["Connection"]
        parameters["Connection.$"] = "$.which"
        run = await others.result("StartWorkflow", definition=given, input={"which": "bearer"})
        seen = await others.result("WaitWorkflow", wait_seconds=60, **run)
        assert seen["error"] == "Engine.UnknownConnection"
