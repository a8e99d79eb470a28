"""`make demo-split`: the order example through the engine as eleven processes, while one of each kind is killed.

    python -m examples.split.demo [--orders N] [--seed N]

Starts a real PostgreSQL and a real server of Redis's protocol from their wheels, two processes of History, two of
Matching, one Frontend, one Timer and three Workers, runs the orders through them, kills one process of each kind with
SIGKILL while they run, and looks whether anything was lost or done twice. Exits 0 when nothing was, else 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import trio
from rich.table import Table

from enginekit.client import Client, open_client
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages import calls
from enginekit.messages.status import Refused
from examples.orders.demo import WORKFLOW, Disappointed, console, endings_table, fulfil, leaves, shop_table
from examples.orders.stage import StageError, open_shop, shop_report
from examples.orders.verdict import Order, faults_found, load_definition, load_orders
from examples.split.cluster import Cluster, open_cluster
from tests.redis_server import RedisServer
from tests.servers.postgres import PostgresServer

WHOLE_SECONDS = 420.0
FIRST_KILL_SECONDS = 3.0
BETWEEN_KILLS_SECONDS = 3.0
VICTIMS = ("history", "matching", "worker", "timer", "frontend")
FAULTS_SHOWN = 10


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """A PostgreSQL database and a Redis-protocol server, as URLs; both are gone afterwards."""
    postgres = PostgresServer(durable=True)
    postgres.start()
    try:
        redis = RedisServer()
        try:
            yield postgres.url(postgres.new_database()), redis.url
        finally:
            redis.close()
    finally:
        postgres.stop()


async def kill_one_of_each(cluster: Cluster, *, task_status: trio.TaskStatus[None]) -> None:
    """While the orders run."""
    task_status.started()
    await trio.sleep(FIRST_KILL_SECONDS)
    for role in VICTIMS:
        member = cluster.of(role)[0]
        console.print(f"[red]kill -9[/red] {member.name} (process {member.pid})")
        member.kill()
        await trio.sleep(BETWEEN_KILLS_SECONDS)


async def histories_whole(client: Client, orders: list[Order]) -> list[str]:
    """What is wrong with the orders' histories: each is to be gapless, with one end, its last event."""
    found: list[str] = []
    for order in orders:
        events = [event async for event in client.history(order.id)]
        if [event.id for event in events] != list(range(1, len(events) + 1)):
            found.append(f"{order.id}: its history has gaps")
        ends = [event for event in events if type(event).__name__ in ("WorkflowSucceeded", "WorkflowFailed")]
        if len(ends) != 1 or ends[0] is not events[-1]:
            found.append(f"{order.id}: its history has {len(ends)} ends")
    return found


async def demo(arguments: argparse.Namespace, folder: Path, postgres: str, redis: str) -> None:
    """Raises Disappointed, StageError and what the clients raise."""
    orders = load_orders(arguments.orders)
    console.print(f"[bold]{len(orders)} orders[/bold] through the engine as many processes")
    async with (
        open_shop(folder, seed=arguments.seed) as (_, shop_url),
        open_cluster(folder, postgres, redis) as cluster,
    ):
        table = Table(title="The processes", title_justify="left")
        for column in ("role", "process"):
            table.add_column(column)
        for member in cluster.members:
            table.add_row(member.name, str(member.pid))
        console.print(table)
        local = cluster.local
        async with open_client(local.url, local.token, timeout_seconds=WHOLE_SECONDS) as client:
            await client.call(calls.RegisterWorkflow(name=WORKFLOW, definition=load_definition()))
            async with trio.open_nursery() as nursery:
                await nursery.start(kill_one_of_each, cluster)
                endings = await fulfil(client, orders, shop_url)
            found = await histories_whole(client, orders)
        report = await shop_report(shop_url)
        console.print(endings_table(endings))
        console.print(shop_table(report))
        found += faults_found(orders, endings, report)
        if found:
            raise Disappointed("\n".join([f"{len(found)} things are not as promised:", *found[:FAULTS_SHOWN]]))
        killed = sum(member.deaths for member in cluster.members)
        await cluster.stop()
    if killed < len(VICTIMS):
        raise Disappointed(f"{len(VICTIMS)} kills were to hit the orders, and {killed} did: take more orders")
    console.print(
        f"\n[green]nothing was lost:[/green] {killed} processes were killed, every order ended as it had to, every "
        "history is whole, every charge was performed once, and all processes stopped with status 0"
    )


async def bounded_demo(arguments: argparse.Namespace, folder: Path, postgres: str, redis: str) -> None:
    try:
        with trio.fail_after(WHOLE_SECONDS):
            await demo(arguments, folder, postgres, redis)
    except trio.TooSlowError:
        raise Disappointed(f"not done after {WHOLE_SECONDS:g} s") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.split.demo", description="Orders through a split engine.")
    parser.add_argument("--orders", type=int, default=200, help="how many of the file's orders (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="which of the shop's calls meet which faults")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="engine-split-") as folder, servers() as (postgres, redis):
        try:
            trio.run(bounded_demo, arguments, Path(folder), postgres, redis)
        except* (Disappointed, StageError, Refused, Unreachable, ProtocolError, httpx2.HTTPError) as group:
            failed = True
            for error in leaves(group):
                console.print(f"[red]the demo failed:[/red] {type(error).__name__}", highlight=False)
                console.print(str(error), markup=False, highlight=False, soft_wrap=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
