"""`make screenshots`: pictures of the console for the README, while the orders of `make demo` go through the engine.

    python -m examples.orders.screenshots [FOLDER]

Starts the shop and the engine as the demo does, lets orders flow, and has the console (in this process, in a thread of
its own, because it lives in asyncio) look at its pages. Writes one SVG a page.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from itertools import cycle
from pathlib import Path

import trio

from console.app import ConsoleApp
from console.connection import Connection
from enginekit.client import Client, open_client
from enginekit.local import Access, LocalDaemon
from enginekit.messages.calls import RegisterWorkflow
from examples.orders.stage import ROOT, open_engine, open_shop
from examples.orders.verdict import load_definition, load_orders, order_input

SIZE = (124, 30)
WORKFLOW = "order"
PER_SECOND = 8.0
FLOW_SECONDS = 15.0
"""How long orders flow before the first picture, so that the sparklines have something to tell."""


async def flow(client: Client, shop: str) -> None:
    """Start orders, evenly, until cancelled."""
    for number, order in enumerate(cycle(load_orders(200))):
        await client.start(WORKFLOW, input=order_input(order, shop), workflow_id=f"{order.id}-{number}")
        await trio.sleep(1 / PER_SECOND)


async def take(local: LocalDaemon, folder: Path) -> None:
    """In asyncio: one picture a page."""
    connection = Connection(Access(local.url, local.token))
    app = ConsoleApp(connection)
    async with connection.attached(app.exit), app.run_test(size=SIZE) as pilot:
        await asyncio.sleep(FLOW_SECONDS)
        for name, keys, seconds in (
            ("services", ("1",), 1.0),
            ("executions", ("3",), 1.0),
            ("execution", ("home", "enter"), 0.9),
        ):
            await pilot.press(*keys)
            await asyncio.sleep(seconds)
            picture = app.export_screenshot(title="engine console", simplify=True)
            await asyncio.to_thread((folder / f"console-{name}.svg").write_text, picture)


async def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="engine-pictures-") as name:
        place = Path(name)
        async with (
            open_shop(place, slow=4.0) as (_, shop),
            open_engine(place) as (_engine, local),
            open_client(local.url, local.token) as client,
            trio.open_nursery() as nursery,
        ):
            await client.call(RegisterWorkflow(name=WORKFLOW, definition=load_definition()))
            nursery.start_soon(flow, client, shop)
            await trio.to_thread.run_sync(asyncio.run, take(local, folder))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.orders.screenshots")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "images")
    trio.run(main, parser.parse_args().folder)
