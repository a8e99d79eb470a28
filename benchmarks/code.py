"""What code in a sandbox costs: `python -m benchmarks.code`.

Calls of the node types themselves, with their real processes: how long the first call takes, one that has to start a
process again, one that finds a warm one, one of another tenant than the last; how many a second go through the pool;
what the daemon's own process pays; and how long the loop stood still meanwhile. Prints figures; asserts nothing.
"""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path

import trio

from daemon.nodes.sandbox.node import CodeNode
from daemon.nodes.sandbox.pool import Pool
from daemon.settings import CodeSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall

SOURCES = {
    "python": "total = 0\nfor line in input['lines']: total += line['n']\nreturn {'id': input['id'], 'total': total}",
    "javascript": "let total = 0; for (const line of input.lines) total += line.n; return {id: input.id, total}",
}
FOREVER = {"python": "while True: pass", "javascript": "for (;;);"}
INPUT: JSON = {"id": "o-17", "lines": [{"sku": f"s-{number}", "n": number} for number in range(20)]}
WARM_CALLS = 300
COLD_STARTS = 5
AT_ONCE = 8
PROCESSES = 2


def call(source: str, tenant: str = "acme") -> NodeCall:
    return NodeCall(
        tenant=tenant,
        workflow_id="w",
        run_id="r",
        node="Compute",
        path="Compute",
        resource="code",
        input={"Source": source, "Input": INPUT},
        attempt=1,
        timeout_seconds=60.0,
        idempotency_key="k",
    )


async def timed(node: CodeNode, source: str, tenant: str = "acme") -> float:
    begun = time.perf_counter()
    await node.run(call(source, tenant))
    return time.perf_counter() - begun


def pool_of(node: CodeNode) -> Pool:
    assert isinstance(node._sandbox, Pool)
    return node._sandbox


def private_mib(pid: int) -> float:
    """Memory that a process shares with no other, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def under(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def measure(language: str) -> None:
    source = SOURCES[language]
    settings = CodeSettings(processes=PROCESSES)
    node = CodeNode(language, settings)
    print(f"code:{language}")
    first = await timed(node, source)
    print(f"  the first call of all                {first * 1000:9.1f} ms")
    cold = []
    for _ in range(COLD_STARTS):
        for process in pool_of(node)._idle:
            await process.end()
        cold.append(await timed(node, source))
    warm = []
    for _ in range(WARM_CALLS):
        warm.append(await timed(node, source))
        await trio.sleep(0.005)
    back_to_back = [await timed(node, source) for _ in range(WARM_CALLS)]
    turns = [await timed(node, source, f"tenant-{number}") for number in range(60)]
    median = statistics.median(warm)
    for name, times in (
        ("a call that starts a process", cold),
        ("a call that finds a warm one", warm),
        ("the same, one straight after another", back_to_back),
        ("the same, each of another tenant", turns),
    ):
        times.sort()
        p99 = times[int(len(times) * 0.99)]
        half = statistics.median(times)
        print(f"  {name:37}{half * 1000:9.2f} ms   99 %: {p99 * 1000:8.2f} ms   {half / median:6.1f} x warm")
    for process in pool_of(node)._idle:
        parts = [process.pid, *under(process.pid)]
        print(
            f"  private memory of a process          {sum(map(private_mib, parts)):9.1f} MiB ({len(parts)} processes)"
        )
    await throughput(node, source)
    await node.aclose()


async def throughput(node: CodeNode, source: str) -> None:
    """Many at once, and what that costs this process; then the loop's pauses beside calls that never end."""
    done = 0

    async def go_round() -> None:
        nonlocal done
        while True:
            await node.run(call(source))
            done += 1

    used, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with trio.move_on_after(3):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(go_round)
    seconds, now = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(f"  {AT_ONCE} at once, {PROCESSES} processes            {done / seconds:9.0f} calls a second")
    print(f"  CPU of the daemon's process, a call  {cpu / done * 1e6:9.0f} µs")


async def pauses(language: str) -> None:
    """How long the loop stands still while as many calls as there are processes compute without end."""
    node = CodeNode(language, CodeSettings(processes=1))
    await timed(node, SOURCES[language])
    longest = 0.0
    with trio.move_on_after(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, call(FOREVER[language]))
            while True:
                begun = time.perf_counter()
                await trio.sleep(0.001)
                longest = max(longest, time.perf_counter() - begun - 0.001)
    print(f"  longest pause of the loop beside an endless call {longest * 1000:6.1f} ms")
    await node.aclose()


async def main() -> None:
    for language in SOURCES:
        await measure(language)
        await pauses(language)


if __name__ == "__main__":
    trio.run(main)
