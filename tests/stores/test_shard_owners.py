"""A store that several daemons share: who may claim which shard, and who may still write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import trio
from inline_store import InlineStore
from store_builders import append, batch, effect, ref, schedule, start

from daemon.stores.interface import Fenced, Store
from daemon.stores.memory import MemoryStore
from daemon.stores.postgres.database import PostgresDriver
from daemon.stores.rows import Batch, ShardPlace
from tests.servers.postgres import PostgresServer

LEASE = 10.0
EVERY = [0, 1, 2, 3]


Passing = Callable[[float], None]


@pytest.fixture(params=["memory:", "postgresql:"])
def made(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory:":
        return MemoryStore(4, bytes(32), shared=True)
    return InlineStore(request.getfixturevalue("empty_driver"))


@pytest.fixture
async def shared(made: Store, nursery: trio.Nursery) -> AsyncIterator[Store]:
    await nursery.start(made.run)
    yield made
    nursery.cancel_scope.cancel()


@pytest.fixture
def passing(made: Store, request: pytest.FixtureRequest) -> Passing:
    """Let so many seconds pass for all leases. No database's clock can be set: they are moved instead."""

    def in_memory(seconds: float) -> None:
        assert isinstance(made, MemoryStore)
        leases = made._owners._leases
        leases.update({owner: until - seconds for owner, until in leases.items()})

    def in_database(seconds: float) -> None:
        server: PostgresServer = request.getfixturevalue("postgres")
        driver: PostgresDriver = request.getfixturevalue("postgres_driver")
        with server.connect(driver.writer._connection.info.dbname) as connection:
            connection.execute(
                "UPDATE engine.members SET lease_until = lease_until - %s * interval '1 second'", (seconds,)
            )

    return in_memory if isinstance(made, MemoryStore) else in_database


async def owners(store: Store, asked_by: str = "a") -> list[str | None]:
    return [place.owner for place in (await store.attend(asked_by, LEASE)).shards]


async def test_who_attends_and_who_has_what_is_told(shared: Store) -> None:
    assert (await shared.info()).shared
    there = await shared.attend("b", LEASE)
    assert there.members == ["b"]
    assert there.shards == [ShardPlace(shard=shard, epoch=0, owner=None) for shard in EVERY]
    assert (await shared.claim_shards("b", [1, 3])).epochs == {1: 1, 3: 1}
    there = await shared.attend("a", LEASE)
    assert there.members == ["a", "b"]
    assert there.shards[1] == ShardPlace(shard=1, epoch=1, owner="b")
    assert await owners(shared) == [None, "b", None, "b"]


async def test_a_shard_that_somebody_has_is_not_to_be_had(shared: Store) -> None:
    await shared.attend("a", LEASE)
    await shared.attend("b", LEASE)
    await shared.claim_shards("a", [0, 1])
    assert (await shared.claim_shards("b", EVERY)).epochs == {2: 1, 3: 1}
    assert (await shared.claim_shards("a", [0])).epochs == {}


async def test_an_owner_without_a_lease_gets_nothing(shared: Store) -> None:
    assert (await shared.claim_shards("a", EVERY)).epochs == {}


async def test_a_lapsed_lease_leaves_the_shards_to_whoever_claims_them(shared: Store, passing: Passing) -> None:
    await shared.attend("a", LEASE)
    taken = (await shared.claim_shards("a", EVERY)).epochs
    passing(LEASE / 2)
    await shared.attend("b", LEASE)
    await shared.attend("a", LEASE)
    passing(LEASE * 0.6)
    await shared.attend("b", LEASE)
    assert (await shared.claim_shards("b", EVERY)).epochs == {}
    passing(LEASE / 2)
    assert (await shared.claim_shards("b", [2])).epochs == {2: taken[2] + 1}
    # What nobody has taken meanwhile is its own again as soon as it attends.
    assert await owners(shared) == ["a", "a", "b", "a"]


async def test_only_who_has_the_newest_epoch_writes(shared: Store, passing: Passing) -> None:
    await shared.attend("a", LEASE)
    await shared.claim_shards("a", EVERY)
    await shared.commit(batch(start(ref(1), events=1)))
    passing(2 * LEASE)
    # Nobody has taken the shard: a lapsed lease alone takes nothing away.
    await shared.commit(batch(append(ref(1), 2)))
    await shared.attend("b", LEASE)
    await shared.claim_shards("b", [0])
    with pytest.raises(Fenced) as fenced:
        await shared.commit(batch(append(ref(1), 3)))
    assert fenced.value.shards == [0]
    assert len(await shared.events("acme", ref(1).run_id, 0, 10, 10_000)) == 2


async def test_what_is_released_is_to_be_had_at_once(shared: Store) -> None:
    await shared.attend("a", LEASE)
    await shared.attend("b", LEASE)
    taken = (await shared.claim_shards("a", EVERY)).epochs
    await shared.release_shards("a", {0: taken[0], 1: taken[1] + 1})
    await shared.release_shards("b", {2: taken[2]})
    assert await owners(shared) == [None, "a", "a", "a"]
    assert (await shared.claim_shards("b", [0])).epochs == {0: taken[0] + 1}
    await shared.leave("a")
    assert await owners(shared, "b") == ["b", None, None, None]
    assert (await shared.attend("b", LEASE)).members == ["b"]


async def test_effects_are_read_by_shard(shared: Store) -> None:
    await shared.attend("a", LEASE)
    await shared.claim_shards("a", EVERY)
    await shared.commit(batch(msgspec.structs.replace(start(ref(1), events=1), effects_added=[effect(1)])))
    assert len(await shared.effects(10)) == 1
    assert len(await shared.effects(10, None, [0, 1])) == 1
    assert await shared.effects(10, None, [1, 2, 3]) == []
    (first,) = await shared.effects(10)
    assert await shared.effects(10, first, [0]) == []


async def test_schedules_that_wait_are_read_by_shard(shared: Store) -> None:
    await shared.attend("a", LEASE)
    await shared.claim_shards("a", EVERY)
    waiting = [schedule(name, waiting=True, shard=shard) for shard, name in enumerate("abcd")]
    await shared.commit(Batch(schedules=waiting))
    assert [each.schedule_id for each in await shared.waiting_schedules(10)] == list("abcd")
    assert [each.schedule_id for each in await shared.waiting_schedules(10, None, [3, 1])] == list("bd")
    first = (await shared.waiting_schedules(1, None, [1, 3]))[0]
    assert [each.schedule_id for each in await shared.waiting_schedules(10, first, [1, 3])] == ["d"]


async def test_what_several_daemons_share_has_a_name(store: Store) -> None:
    info = await store.info()
    assert info.shared == (info.kind == "postgresql") == (info.cluster is not None)
