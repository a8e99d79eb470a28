"""What every driver of Redis looks at when it connects: what is refused, and what to do about it."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trustme
from kinds import NOTHING_KNOWN, Answer, Kind
from redis_server import RedisServer, a_name

from daemon.drivers.faults import ServerUnusable
from daemon.redis.frames import Layout, Opened, Server, Unavailable, Unusable
from daemon.redis.settings import server_of
from daemon.settings import LinkSettings, QueueSettings


@contextmanager
def server(*options: str) -> Iterator[RedisServer]:
    with closing(RedisServer(*options)) as made:
        yield made


def test_its_process_does_without_trio(kind: Kind) -> None:
    """It starts the faster, and takes the less memory."""
    look = f"import sys, daemon.{kind.section}.redis.host; print(sorted({{'trio', 'structlog'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("hidden", [(), ("--rename-command", "CONFIG", "")])
def test_redis_evicts(kind: Kind, hidden: tuple[str, ...]) -> None:
    with server("--maxmemory-policy", "allkeys-lru", *hidden) as evicting:
        reason = kind.refused(kind.at(evicting.url))
    assert "maxmemory-policy allkeys-lru" in reason
    assert reason.endswith("set maxmemory-policy noeviction")


def test_a_redis_that_does_not_say_whether_it_evicts(kind: Kind) -> None:
    with server("--rename-command", "CONFIG", "", "--rename-command", "INFO", "") as silent:
        answer = kind.opened(kind.at(silent.url))
    assert isinstance(answer, Opened)
    assert answer.warning is not None
    assert "must be noeviction" in answer.warning


def test_a_wrong_password(kind: Kind) -> None:
    with server("--requirepass", "right-password") as guarded:
        for url, password in (
            (guarded.url, None),
            (guarded.url, "wrong-password"),
            (f"redis://:wrong-password@127.0.0.1:{guarded.port}", None),
            (f"redis://nobody:wrong-password@127.0.0.1:{guarded.port}", None),
        ):
            reason = kind.refused(kind.at(url, password))
            assert f"check the user and the password, in [{kind.section}] url" in reason
            assert "wrong-password" not in reason
        for url in (guarded.url, f"unix://{guarded.unix_socket}"):
            assert isinstance(kind.opened(kind.at(url, "right-password")), Opened)


def test_two_clusters_with_one_name(redis_server: RedisServer, kind: Kind) -> None:
    name = a_name()
    at = kind.at(redis_server.url)
    assert isinstance(kind.opened(at, name=name, layout=Layout("store-1", 64, 4)), Opened)
    reason = kind.refused(at, name=name, layout=Layout("store-2", 64, 4))
    assert "another cluster uses this Redis under the same name" in reason
    assert "store-1" in reason
    assert "[links] name" in reason
    assert isinstance(kind.opened(at, name=a_name(), layout=Layout("store-2", 64, 4)), Opened)


def test_processes_that_are_configured_otherwise(redis_server: RedisServer, kind: Kind) -> None:
    name = a_name()
    at = kind.at(redis_server.url)
    known = Layout("store", 64, 4, "memory")
    assert isinstance(kind.opened(at, name=name, layout=known), Opened)
    for other, difference in (
        (Layout("store", 16, 4), "has 64 shards, and this process 16"),
        (Layout(None, None, 8), "has 4 partitions, and this process 8"),
        (Layout(None, None, None, "redis"), "has memory queues, and this process redis. All must be configured alike"),
        (Layout(None, None, None, "redis"), "([queues] url)"),
    ):
        assert difference in kind.refused(at, name=name, layout=other)
    assert kind.opened(at, name=name, layout=NOTHING_KNOWN) == Opened(known)


def test_a_key_that_is_something_else(redis_server: RedisServer, kind: Kind) -> None:
    name = a_name()
    with closing(redis_server.client()) as client:
        client.set(f"engine:{{{name}}}:cluster", "mine")
    assert "nothing else may use the keys" in kind.refused(kind.at(redis_server.url), name=name)


async def test_tls(redis_server: RedisServer, nursery: trio.Nursery, tmp_path: Path, kind: Kind) -> None:
    """In front of the server, which has none of its own: whom the certificate is of, who signed it, and who asks."""
    authority, stranger = trustme.CA(), trustme.CA()
    for each, file in ((authority, "ca.pem"), (stranger, "stranger.pem")):
        each.cert_pem.write_to_path(str(tmp_path / file))
    ours = authority.issue_cert("engine")
    ours.private_key_pem.write_to_path(str(tmp_path / "engine.key"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "engine.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("localhost").configure_cert(context)
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
    port = listeners[0].transport_listener.socket.getsockname()[1]

    async def forward(client: trio.SSLStream[trio.SocketStream]) -> None:
        async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
            async for some in source:
                await sink.send_all(some)
            both.cancel_scope.cancel()

        try:
            async with (
                client,
                await trio.open_tcp_stream("127.0.0.1", redis_server.port) as inner,
                trio.open_nursery() as both,
            ):
                both.start_soon(copy, client, inner)
                both.start_soon(copy, inner, client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    nursery.start_soon(trio.serve_listeners, forward, listeners)

    async def attempt(host_name: str, authority_file: str, *, who: str | None = "engine") -> Answer:
        at = Server(
            kind.section,
            f"rediss://{host_name}:{port}",
            ca_file=str(tmp_path / authority_file),
            cert_file=None if who is None else str(tmp_path / f"{who}.pem"),
            key_file=None if who is None else str(tmp_path / f"{who}.key"),
            # A loaded machine may take a while to shake hands, and none of these is to run into it.
            timeout_seconds=60.0,
        )
        return await trio.to_thread.run_sync(lambda: kind.opened(at, name=a_name()))

    assert isinstance(await attempt("localhost", "ca.pem"), Opened)
    for host_name, file in (("localhost", "stranger.pem"), ("127.0.0.1", "ca.pem")):
        refused = await attempt(host_name, file)
        assert isinstance(refused, Unusable)
        assert "certificate is not trusted" in refused.message
        assert f"[{kind.section}] ca_file" in refused.message
    assert isinstance(await attempt("localhost", "ca.pem", who=None), Unavailable)
    nursery.cancel_scope.cancel()


def test_settings_say_where_it_is(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    for section, kind_of in (("links", LinkSettings), ("queues", QueueSettings)):
        settings = kind_of(
            url="rediss://there",
            password_file=str(password),
            ca_file="ca",
            cert_file="cert",
            key_file="key",
            call_timeout_seconds=3.0,
        )
        assert server_of(section, settings) == Server(section, "rediss://there", "secret", "ca", "cert", "key", 3.0)
        assert server_of(section, msgspec.structs.replace(settings, password_file=None)).password is None


@pytest.mark.parametrize("text", ["", None])
def test_a_password_file_that_has_none(tmp_path: Path, text: str | None) -> None:
    password = tmp_path / "password"
    if text is not None:
        password.write_text(text)
    with pytest.raises(ServerUnusable, match=r"\[queues\] password_file"):
        server_of("queues", QueueSettings(url="redis://localhost", password_file=str(password)))
