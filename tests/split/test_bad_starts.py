"""What a split engine is started with by mistake: each ends the start with status 3 and says what to do, or is waited
for, and that is said. SQLite with split roles is in tests/cli/test_cli_serve.py."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, closing

import psycopg
import pytest
import trio

from daemon.stores.postgres.database import open_driver
from daemon.stores.postgres.schema import SCHEMA_VERSION
from examples.orders.stage import Program, running
from examples.split.cluster import engine_command
from tests.redis_server import RedisServer
from tests.servers.postgres import LOCKED_USER

SHARDS = 4
WHOLE_SECONDS = 400.0
UNUSABLE = 3


class Serving:
    """`engine serve --roles timer`, which needs both the store and the links, with what a test puts in engine.toml."""

    def __init__(self, folder, postgres, redis):
        self._folder = folder
        self._postgres = postgres
        self._redis = redis
        self._count = 0

    @asynccontextmanager
    async def running(self, *, store=None, redis=None, shards=SHARDS, more=""):
        self._count += 1
        config = self._folder / f"{self._count}.toml"
        config.write_text(
            f'[store]\nurl = "{store or self._postgres}"\nshards = {shards}\nlock_wait_seconds = 0.5\n'
            f'[links]\nurl = "{redis or self._redis.url}"\n{more}'
        )
        command = engine_command(config, self._folder / f"data-{self._count}", "timer")
        async with running(f"engine {self._count}", command, self._folder / f"{self._count}.log") as program:
            yield program

    async def refused(self, **settings) -> str:
        """Its last words, once it has ended with status 3."""
        async with self.running(**settings) as program:
            status = await program.process.wait()
        said = log(program)
        assert status == UNUSABLE, said
        return said


def log(program: Program) -> str:
    return " ".join(program.log.read_text().split())


async def says(program: Program, pattern: str) -> None:
    while not re.search(pattern, log(program)):
        assert program.process.returncode is None, log(program)
        await trio.sleep(0.05)


@pytest.fixture
def database(postgres):
    return postgres.url(postgres.new_database())


@pytest.fixture
def serving(tmp_path, database, redis_server):
    with closing(redis_server.client()) as client:
        client.flushall()  # `[links] name` is the same in all of these tests.
    return Serving(tmp_path, database, redis_server)


async def test_a_store_that_is_not_there_is_waited_for_and_so_is_redis(serving):
    with trio.fail_after(WHOLE_SECONDS):
        async with serving.running(store="postgresql://engine:s3cret@127.0.0.1:1/engine") as program:
            await says(program, "onnection refused.*store cannot be reached, and is waited for")
            assert "s3cret" not in log(program)
            program.process.terminate()
            assert await program.process.wait() == 0
        async with serving.running(redis="redis://:s3cret@127.0.0.1:1") as program:
            await says(program, "onnection refused.*links wait for Redis")
            assert "s3cret" not in log(program)
            program.process.terminate()
            assert await program.process.wait() == 0


async def test_a_wrong_password(serving, postgres):
    postgres.have_locked_user()
    with trio.fail_after(WHOLE_SECONDS):
        said = await serving.refused(store=postgres.url(user=f"{LOCKED_USER}:s3cret"))
    assert "check the user and the password in `[store] url`" in said
    assert "s3cret" not in said


async def test_a_database_of_a_newer_schema(serving, database):
    open_driver(database, SHARDS, 10.0, 10.0).close()
    with psycopg.connect(database, autocommit=True) as somebody:
        somebody.execute("INSERT INTO engine.schema_version (version) VALUES (%s)", (SCHEMA_VERSION + 1,))
    with trio.fail_after(WHOLE_SECONDS):
        said = await serving.refused()
    assert re.search(rf"version {SCHEMA_VERSION + 1}.*newer engine", said)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--maxmemory-policy", "allkeys-lru"), "set maxmemory-policy noeviction"),
        (("--rename-command", "XAUTOCLAIM", ""), "links need streams with XAUTOCLAIM"),
    ],
)
async def test_a_redis_that_will_not_do(serving, options, words):
    with closing(RedisServer(*options)) as redis, trio.fail_after(WHOLE_SECONDS):
        assert words in await serving.refused(redis=redis.url)


@pytest.mark.usefixtures("thorough")
async def test_who_does_not_agree_with_the_cluster(serving, postgres):
    """Another store under the same name, another number of shards, other partitions."""
    with trio.fail_after(WHOLE_SECONDS):
        async with serving.running() as first:
            await says(first, "timer.*service running")
            another = await serving.refused(store=postgres.url(postgres.new_database()))
            assert "another cluster uses this Redis under the same name" in another
            assert "Give each its own [links] name" in another
            assert f"set `[store] shards = {SHARDS}`" in await serving.refused(shards=SHARDS * 2)
            parted = await serving.refused(more="[matching]\npartitions = 7\n")
            assert "this process 7. All must be configured alike" in parted
            assert first.process.returncode is None
            await first.stop()
