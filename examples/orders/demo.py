"""`make demo`: 200 orders through the engine, against a shop that fails on purpose.

    python -m examples.orders.demo [--orders N] [--seed N] [--slow FACTOR]

Starts the shop and the engine (embedded store, free ports, a temporary folder), registers the workflow, starts an
execution an order and shows how they end, what the shop performed, and one order's history; then stops the engine.
Exits 0 when everything is as promised, else 1 with what was not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx2
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from enginekit.client import Client, open_client
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.status import ExecutionStatus, Refused
from examples.orders.history import history_table
from examples.orders.stage import StageError, open_engine, open_shop, shop_report
from examples.orders.verdict import (
    Ending,
    Order,
    ShopReport,
    faults_found,
    load_definition,
    load_orders,
    order_input,
)

WORKFLOW = "order"
WHOLE_SECONDS = 600.0
AT_ONCE = 100
"""Orders under way at the same time, each with a call that waits for its end."""
FAULTS_SHOWN = 10
SETTINGS = """\

[breakers]
# The shop refuses at once and performs when it has written: of the first answers to a hundred calls, most may be
# refusals. Twenty of those would open the breaker, and every order wait half a minute.
minimum_calls = 100
"""

console = Console()


class Disappointed(Exception):
    """Something was not as promised."""


async def fulfil(client: Client, orders: list[Order], shop: str) -> dict[str, str]:
    """Start an execution an order and wait for them all: how each ended. Raises as the client does."""
    endings: dict[str, str] = {}
    limit = trio.CapacityLimiter(AT_ONCE)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("orders", total=len(orders))

        async def one(order: Order) -> None:
            async with limit:
                started = await client.start(WORKFLOW, input=order_input(order, shop), workflow_id=order.id)
                closed = await client.wait(started.workflow_id, started.run_id)
            succeeded = closed.status is ExecutionStatus.SUCCEEDED
            endings[order.id] = Ending.FULFILLED.value if succeeded else closed.error or closed.status.value
            progress.advance(bar)

        async with trio.open_nursery() as nursery:
            for order in orders:
                nursery.start_soon(one, order)
    return endings


async def eventful_history(client: Client, orders: list[Order]) -> tuple[str, list[ev.AnyEvent]]:
    """The history of a short order that was tried again at least once, if there is one."""
    short = [order for order in orders if len(order.lines) == 1 and order.ending is Ending.FULFILLED]
    history: list[ev.AnyEvent] = []
    name = ""
    for order in short or orders[:1]:
        name, history = order.id, [event async for event in client.history(order.id)]
        if any(isinstance(event, ev.TaskRetryScheduled) for event in history):
            break
    return name, history


def endings_table(endings: dict[str, str]) -> Table:
    table = Table(title="How the orders ended", title_justify="left")
    table.add_column("ending")
    table.add_column("orders", justify="right")
    for ending, count in Counter(endings.values()).most_common():
        table.add_row(ending, str(count))
    return table


def shop_table(shop: ShopReport) -> Table:
    table = Table(title="What the shop performed", title_justify="left")
    for column in ("service", "performed", "asked again with the same key"):
        table.add_column(column, justify="left" if column == "service" else "right")
    performed = Counter(entry.kind for entry in shop.performed)
    repeats: Counter[str] = Counter()
    for entry in shop.performed:
        repeats[entry.kind] += entry.repeats
    for kind, count in performed.items():
        table.add_row(kind, str(count), str(repeats[kind]))
    return table


async def demo(arguments: argparse.Namespace, folder: Path) -> None:
    """Raises Disappointed, StageError and what the clients raise."""
    orders = load_orders(arguments.orders)
    console.print(f"[bold]{len(orders)} orders[/bold] through the engine, against a shop that fails on purpose")
    async with (
        open_shop(folder, seed=arguments.seed, slow=arguments.slow) as (_, shop_url),
        open_engine(folder, SETTINGS) as (engine, daemon),
    ):
        console.print(f"shop    {shop_url}\nengine  {daemon.url()} (process {engine.process.pid})\n")
        async with open_client(daemon.url, daemon.token) as client:
            await client.call(calls.RegisterWorkflow(name=WORKFLOW, definition=load_definition()))
            endings = await fulfil(client, orders, shop_url)
            name, history = await eventful_history(client, orders)
        report = await shop_report(shop_url)
        console.print(endings_table(endings))
        console.print(shop_table(report))
        met = ", ".join(f"{count} × {fault}" for fault, count in sorted(report.faults.items()))
        console.print(f"on its way the shop met out: {met}\n")
        console.print(history_table(f"The history of {name}", history))
        found = faults_found(orders, endings, report)
        if found:
            raise Disappointed("\n".join([f"{len(found)} things are not as promised:", *found[:FAULTS_SHOWN]]))
        await engine.stop()
    charged = sum(entry.amount_cents for entry in report.performed if entry.kind == "charge")
    console.print(
        f"\n[green]as promised:[/green] every order ended as it had to, every charge was performed once "
        f"({charged / 100:,.2f} EUR in all), the engine stopped with status 0"
    )


async def bounded_demo(arguments: argparse.Namespace, folder: Path) -> None:
    try:
        with trio.fail_after(WHOLE_SECONDS):
            await demo(arguments, folder)
    except trio.TooSlowError:
        raise Disappointed(f"not done after {WHOLE_SECONDS:g} s") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.orders.demo", description="200 orders and their shop.")
    parser.add_argument("--orders", type=int, default=200, help="how many of the file's orders (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="which of the shop's calls meet which faults")
    parser.add_argument("--slow", type=float, default=1.0, help="multiplies the shop's delays")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="engine-demo-") as folder:
        try:
            trio.run(bounded_demo, arguments, Path(folder))
        except* (Disappointed, StageError, Refused, Unreachable, ProtocolError, httpx2.HTTPError) as group:
            failed = True
            for error in leaves(group):
                console.print(f"[red]the demo failed:[/red] {type(error).__name__}", highlight=False)
                console.print(str(error), markup=False, highlight=False, soft_wrap=True)
    sys.exit(1 if failed else 0)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in a group of groups that are none themselves."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


if __name__ == "__main__":
    main()
