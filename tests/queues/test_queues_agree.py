"""Random asks, to the queues of memory and to those of Redis: what they answer is the same."""

from __future__ import annotations

import random

import pytest
import trio
from redis_server import RedisServer, a_name

from daemon.queues.interface import Ask, Demand, Told
from daemon.queues.memory import MemoryTaskQueues
from daemon.queues.redis.queues import RedisTaskQueues
from daemon.redis.frames import Server
from enginekit.messages.links import QueuedTask, QueueKey, RunRef, TaskKind, TaskRef
from tests.queues.conftest import LONG

QUEUES = (
    QueueKey("a", TaskKind.ACTIVITY, "orders"),
    QueueKey("a", TaskKind.NODE, "http"),
    QueueKey("b", TaskKind.NODE, "http"),
    QueueKey("b", TaskKind.NODE, "echo"),
)
TASKS = 120
TURNS = 400


def task(number: int) -> QueuedTask:
    key = QUEUES[number % len(QUEUES)]
    run = RunRef(key.tenant, f"w-{number}", f"0190f0e0-0000-7000-8000-{number:012d}")
    age = 1_764_000_000_000 + number * 7 % 13
    return QueuedTask(TaskRef(run, 1 + number % 3), key, number % 5 - 2, age, "dead" if number % 7 == 0 else None)


def some(chance: random.Random, most: int) -> list[TaskRef]:
    return [task(chance.randrange(TASKS)).task for _ in range(chance.randint(0, most))]


def an_ask(chance: random.Random) -> Ask:
    demands = [
        Demand(tasks=chance.randint(1, 6), queue=QUEUES[0])
        if chance.random() < 0.5
        else Demand(
            tasks=chance.randint(1, 6),
            resources=chance.choice([["http"], ["echo"], ["echo", "http"]]),
            without=[("a", "dead")] if chance.random() < 0.3 else [],
        )
        for _ in range(chance.randint(0, 3))
    ]
    keys = [key for key in QUEUES if chance.random() < 0.1]
    return Ask(
        offered=[task(chance.randrange(TASKS)) for _ in range(chance.choice([0, 3, 30]))],
        brought=[task(chance.randrange(TASKS)) for _ in range(chance.choice([0, 0, 10]))],
        dropped=some(chance, 20),
        released=some(chance, 10),
        delayed=some(chance, 3),
        renewed=some(chance, 3),
        fills=keys if chance.random() < 0.5 else [],
        filled=keys if chance.random() < 0.5 else [],
        demands=demands,
    )


def comparable(told: Told) -> object:
    claims = [(claim.tasks, claim.more) for claim in told.claims]
    return claims, told.anew, told.places, sorted(map(str, told.turned_away)), sorted(map(str, told.to_fill))


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_asks_are_answered_alike(redis_server: RedisServer, nursery: trio.Nursery, seed: int) -> None:
    chance = random.Random(seed)
    redis = RedisTaskQueues(Server("queues", redis_server.url), member="m", terms=LONG, partitions=1, name=a_name())
    await nursery.start(redis.run)
    inside, outside = MemoryTaskQueues(LONG).partition(0), redis.partition(0)
    claimed = 0
    for _ in range(TURNS):
        ask = an_ask(chance)
        expected, told = await inside.turn(ask), await outside.turn(ask)
        assert comparable(told) == comparable(expected)
        claimed += sum(len(claim.tasks) for claim in told.claims)
    depths = [sorted(map(str, await each.depths())) for each in (inside, outside)]
    assert depths[0] == depths[1]
    assert claimed > TURNS
    nursery.cancel_scope.cancel()
