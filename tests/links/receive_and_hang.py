"""A process that receives from a shard's inbox and never asks for more: `receive_and_hang.py URL NAME SHARD ROUNDS`.

It says how much it has received in each of its rounds.
"""

from __future__ import annotations

import sys

import trio

from daemon.links.redis.exchange import RedisExchange
from daemon.redis.frames import Server


async def main(url: str, name: str, shard: str, rounds: str) -> None:
    exchange = RedisExchange(Server("links", url), process="victim", name=name)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        for _ in range(int(rounds)):
            print(len(await exchange.history(int(shard)).receive(10)), flush=True)
        await trio.sleep_forever()


trio.run(main, *sys.argv[1:])
