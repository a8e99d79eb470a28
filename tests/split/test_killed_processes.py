"""Every kind of process of a split engine, killed at random under load: nothing is lost, nothing is done twice.

`make test` kills each kind once, in a cluster as small as has them all; `make chaos-split` goes on for five minutes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec
import trio

from enginekit.client import Client, open_client
from enginekit.messages import calls
from examples.orders.stage import open_shop, shop_report
from examples.orders.verdict import Ending, Order, faults_found, load_definition, load_orders, order_input
from examples.split.cluster import EVERY_KIND, Cluster, open_cluster
from tests.split.checks import histories, outcomes

SHARDS = 16
AT_ONCE = 40
SLOW = 3.0
"""The shop's delays are this much longer, so that the kills hit work."""
WHOLE_SECONDS = 540.0


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is of everything."""

    plan: Mapping[str, int]
    orders: int
    """In one round."""
    between_seconds: float
    """From one kill to the next, on average."""


SHORT = Scale(
    plan={"history": 2, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}, orders=30, between_seconds=1.0
)
LONG = Scale(plan={**EVERY_KIND, "worker": 2}, orders=60, between_seconds=2.0)


async def test_nothing_is_lost_or_done_twice(request, tmp_path, database, own_redis, chaos_seed):
    minutes = request.config.getoption("--chaos-minutes")
    scale = LONG if minutes else SHORT
    chance = random.Random(chaos_seed)
    rounds: list[tuple[list[Order], dict[str, str]]] = []
    with trio.fail_after(WHOLE_SECONDS + 60 * minutes):
        async with (
            open_shop(tmp_path, seed=chaos_seed % 1000, slow=SLOW) as (_, shop),
            open_cluster(tmp_path, database, own_redis.url, scale.plan, shards=SHARDS) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
        ):
            await client.call(calls.RegisterWorkflow(name="order", definition=load_definition()))
            until = trio.current_time() + 60 * minutes
            while not rounds or trio.current_time() < until:
                await _round(scale, cluster, client, shop, chance, rounds)
            report = await shop_report(shop)
            while not all(any(member.deaths for member in cluster.of(role)) for role in scale.plan):  # noqa: ASYNC110
                await trio.sleep(0.05)  # whoever was killed last may not have been missed yet
    orders = [order for some, _ in rounds for order in some]
    endings = {name: ending for _, some in rounds for name, ending in some.items()}
    assert faults_found(orders, endings, report) == []
    found = await histories(database, tmp_path, SHARDS)
    assert {order.id for order in orders} <= set(found)
    for events in found.values():
        assert set(outcomes(events).values()) <= {1}


async def _round(
    scale: Scale,
    cluster: Cluster,
    client: Client,
    shop: str,
    chance: random.Random,
    rounds: list[tuple[list[Order], dict[str, str]]],
) -> None:
    """Some orders, and one kill of each kind while they run, in an order that chance decides."""
    orders = [_renamed(order, len(rounds)) for order in load_orders(scale.orders)]
    endings: dict[str, str] = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(order: Order) -> None:
        async with limit:
            started = await client.start("order", input=order_input(order, shop), workflow_id=order.id)
            closed = await client.wait(started.workflow_id, started.run_id)
        endings[order.id] = Ending.FULFILLED.value if closed.error is None else closed.error

    async with trio.open_nursery() as nursery:
        for order in orders:
            nursery.start_soon(one, order)
        victims = list(scale.plan)
        chance.shuffle(victims)
        for role in victims:
            await trio.sleep(scale.between_seconds * (0.5 + chance.random()))
            chance.choice(cluster.of(role)).kill()
    rounds.append((orders, endings))


def _renamed(order: Order, number: int) -> Order:
    """The same order of another customer: the shop has not seen it before."""
    if not number:
        return order
    raw = bytes(order.raw).replace(order.id.encode(), f"{order.id}-{number}".encode())
    return msgspec.structs.replace(msgspec.json.decode(raw, type=Order), raw=msgspec.Raw(raw))
