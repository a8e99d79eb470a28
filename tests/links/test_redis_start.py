"""What stops links at the start, and what is waited for: each with what to do about it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
import trustme
from redis_server import RedisServer, a_name

from daemon.links.exchange import MemoryExchange
from daemon.links.faults import ExchangeUnusable
from daemon.links.open import open_exchange
from daemon.links.redis import frames
from daemon.links.redis.exchange import RedisExchange
from daemon.links.redis.frames import Layout
from daemon.links.redis.host import _Host
from daemon.settings import LinkSettings
from enginekit.messages.links import LookAtClock

NOTHING_KNOWN = Layout(None, None, None)
DOCS = Path(__file__).parents[2] / "docs" / "links.md"


def opened(
    url: str,
    *,
    name: str = "engine",
    layout: Layout = NOTHING_KNOWN,
    password: str | None = None,
    ca_file: str | None = None,
) -> frames.Opened | frames.Unavailable | frames.Unusable:
    """What the driver answers who tells it to open this."""
    request = frames.Open(
        url=url,
        password=password,
        ca_file=ca_file,
        cert_file=None,
        key_file=None,
        prefix=f"engine:{{{name}}}",
        consumer="one",
        replies=f"engine:{{{name}}}:replies:one",
        layout=layout,
        timeout_seconds=2.0,
    )
    host = _Host()
    try:
        answer = host.write(request)
    finally:
        host._close()
    assert isinstance(answer, frames.Opened | frames.Unavailable | frames.Unusable)
    return answer


@contextmanager
def suppress_all_lost() -> Iterator[None]:
    try:
        yield
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@contextmanager
def server(*options: str) -> Iterator[RedisServer]:
    with closing(RedisServer(*options)) as made:
        yield made


def refusal(answer: object) -> str:
    assert isinstance(answer, frames.Unusable)
    return answer.message


def test_redis_is_too_old() -> None:
    """A server without XAUTOCLAIM, as it says itself."""
    with server("--rename-command", "XAUTOCLAIM", "") as old:
        reason = refusal(opened(old.url))
    assert "too old (" in reason
    assert "6.2" in reason


@pytest.mark.parametrize("hidden", [(), ("--rename-command", "CONFIG", "")])
def test_redis_evicts(hidden: tuple[str, ...]) -> None:
    with server("--maxmemory-policy", "allkeys-lru", *hidden) as evicting:
        reason = refusal(opened(evicting.url))
    assert "maxmemory-policy allkeys-lru" in reason
    assert reason.endswith("set maxmemory-policy noeviction")


def test_a_redis_that_does_not_say_whether_it_evicts() -> None:
    with server("--rename-command", "CONFIG", "", "--rename-command", "INFO", "") as silent:
        answer = opened(silent.url)
    assert isinstance(answer, frames.Opened)
    assert answer.warning is not None
    assert "must be noeviction" in answer.warning


def test_a_wrong_password() -> None:
    with server("--requirepass", "right-password") as guarded:
        for url, password in (
            (guarded.url, None),
            (guarded.url, "wrong-password"),
            (f"redis://:wrong-password@127.0.0.1:{guarded.port}", None),
            (f"redis://nobody:wrong-password@127.0.0.1:{guarded.port}", None),
        ):
            reason = refusal(opened(url, password=password))
            assert "check the user and the password" in reason
            assert "wrong-password" not in reason
        assert isinstance(opened(guarded.url, password="right-password"), frames.Opened)
        assert isinstance(opened(f"unix://{guarded.unix_socket}", password="right-password"), frames.Opened)


def documented_acl() -> list[str]:
    """The line of docs/links.md that makes a user who may do what links need."""
    (line,) = [line for line in DOCS.read_text().splitlines() if line.startswith("user engine ")]
    return line.removeprefix("user engine ").split()


async def test_a_user_who_may_do_what_is_documented(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    """... and nothing else: not even ask for the configuration."""
    rules = [rule.replace(">PASSWORD", ">secret") for rule in documented_acl()]
    with closing(own_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "engine", "reset", *rules)
        client.execute_command("ACL", "SETUSER", "other", "reset", *rules, "resetkeys", "~engine:{other}:*")
    url = f"redis://engine:secret@127.0.0.1:{own_redis.port}"
    exchange = RedisExchange(url, process="here", cluster="c", shards=4, partitions=4)
    await nursery.start(exchange.run)
    assert exchange.history(1).offer(LookAtClock())
    with trio.fail_after(60):
        assert await exchange.history(1).receive() == [LookAtClock()]
        with trio.move_on_after(1.2):  # Long enough for a look at what others left.
            await exchange.history(1).receive()
    assert exchange.ready
    assert exchange.reconnects == 0
    reason = refusal(opened(f"redis://other:secret@127.0.0.1:{own_redis.port}"))
    assert "docs/links.md" in reason
    nursery.cancel_scope.cancel()


def test_two_clusters_with_one_name(redis_server: RedisServer) -> None:
    name = a_name()
    assert isinstance(opened(redis_server.url, name=name, layout=Layout("store-1", 64, 4)), frames.Opened)
    reason = refusal(opened(redis_server.url, name=name, layout=Layout("store-2", 64, 4)))
    assert "another cluster uses this Redis under the same name" in reason
    assert "store-1" in reason
    assert "[links] name" in reason
    other = opened(redis_server.url, name=a_name(), layout=Layout("store-2", 64, 4))
    assert isinstance(other, frames.Opened)


def test_numbers_that_differ(redis_server: RedisServer) -> None:
    name = a_name()
    assert isinstance(opened(redis_server.url, name=name, layout=Layout("store", 64, 4)), frames.Opened)
    assert "has 64 shards, and this process 16" in refusal(
        opened(redis_server.url, name=name, layout=Layout("store", 16, 4))
    )
    assert "has 4 partitions, and this process 8" in refusal(
        opened(redis_server.url, name=name, layout=Layout(None, None, 8))
    )
    assert opened(redis_server.url, name=name) == frames.Opened(Layout("store", 64, 4))


def test_a_key_that_is_something_else(redis_server: RedisServer) -> None:
    name = a_name()
    with closing(redis_server.client()) as client:
        client.set(f"engine:{{{name}}}:cluster", "mine")
    assert "nothing else may use the keys" in refusal(opened(redis_server.url, name=name))


async def test_what_cannot_be_used_ends_the_exchange(nursery: trio.Nursery) -> None:
    with server("--requirepass", "right-password") as guarded:
        exchange = RedisExchange(guarded.url, process="here", password="wrong-password")
        with pytest.raises(ExchangeUnusable, match="check the user and the password"):
            await exchange.run()
    assert not exchange.ready
    assert exchange.driver_pid is None


async def test_a_redis_that_is_not_there_yet_is_waited_for(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    own_redis.kill()
    exchange = RedisExchange(own_redis.url, process="here")
    started = trio.Event()

    async def start() -> None:
        await nursery.start(exchange.run)
        started.set()

    nursery.start_soon(start)
    await trio.sleep(0.5)
    assert not started.is_set()
    assert not exchange.ready
    assert exchange.history(0).offer(LookAtClock())
    await trio.to_thread.run_sync(own_redis.start)
    with trio.fail_after(60):
        await started.wait()
        assert await exchange.history(0).receive() == [LookAtClock()]
    nursery.cancel_scope.cancel()


async def test_who_knows_no_numbers_learns_them(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    name = a_name()
    worker = RedisExchange(redis_server.url, process="worker", name=name)
    await nursery.start(worker.run)
    learned: list[tuple[int, int]] = []

    async def learn() -> None:
        learned.append(await worker.layout())

    async with trio.open_nursery() as learning:
        learning.start_soon(learn)
        await trio.sleep(0.1)
        assert not learned
        answer = await trio.to_thread.run_sync(
            lambda: opened(redis_server.url, name=name, layout=Layout("store", 64, 8))
        )
        assert isinstance(answer, frames.Opened)
    assert learned == [(64, 8)]
    nursery.cancel_scope.cancel()


async def test_tls(redis_server: RedisServer, nursery: trio.Nursery, tmp_path: Path) -> None:
    """In front of the server, which has none of its own: whom the certificate is of, and who signed it, count."""
    authority, stranger = trustme.CA(), trustme.CA()
    for each, file in ((authority, "ca.pem"), (stranger, "stranger.pem")):
        each.cert_pem.write_to_path(str(tmp_path / file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
    port = listeners[0].transport_listener.socket.getsockname()[1]

    async def forward(client: trio.SSLStream[trio.SocketStream]) -> None:
        async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
            async for some in source:
                await sink.send_all(some)
            both.cancel_scope.cancel()

        with suppress_all_lost():
            async with (
                client,
                await trio.open_tcp_stream("127.0.0.1", redis_server.port) as inner,
                trio.open_nursery() as both,
            ):
                both.start_soon(copy, client, inner)
                both.start_soon(copy, inner, client)

    nursery.start_soon(trio.serve_listeners, forward, listeners)

    async def attempt(host: str, file: str) -> object:
        return await trio.to_thread.run_sync(
            lambda: opened(f"rediss://{host}:{port}", name=a_name(), ca_file=str(tmp_path / file))
        )

    assert isinstance(await attempt("localhost", "ca.pem"), frames.Opened)
    assert "[links] ca_file" in refusal(await attempt("localhost", "stranger.pem"))
    assert "certificate is not trusted" in refusal(await attempt("127.0.0.1", "ca.pem"))
    nursery.cancel_scope.cancel()


def test_settings_name_the_exchange(tmp_path: Path) -> None:
    assert isinstance(open_exchange(LinkSettings(), process="one"), MemoryExchange)
    password = tmp_path / "password"
    password.write_text("secret\n")
    settings = LinkSettings(url="redis://localhost", password_file=str(password))
    exchange = open_exchange(settings, process="one")
    assert isinstance(exchange, RedisExchange)
    assert exchange._open("one", Layout(None, None, None)).password == "secret"
    for text in ("", None):
        if text is None:
            password.unlink()
        else:
            password.write_text(text)
        with pytest.raises(ExchangeUnusable, match="password_file"):
            open_exchange(settings, process="one")
