"""The pool against real processes: bounded, ended when idle, lost or cancelled, and never without an answer."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import structs
from sandbox_calls import call, code_node

from daemon.nodes.sandbox import process as process_module
from daemon.nodes.sandbox.node import CodeNode
from daemon.nodes.sandbox.pool import Pool
from enginekit.node import NodeFailure, NodeResult

FOREVER = {"python": "while True: pass", "javascript": "for (;;);"}
# One operation that looks at no clock.
DEAF = {"python": "3 ** (10 ** 8) % 7", "javascript": "new Array(2 ** 32 - 1).join('x')"}
LANGUAGES = ("python", "javascript")


def under(pid: int) -> list[int]:
    """The sandbox's processes that `pid` has started, and theirs."""
    hosts = [child for child in children(pid) if b"daemon.nodes.sandbox.host" in read(child, "cmdline")]
    return hosts + [child for host in hosts for child in children(host)]


def running(pid: int) -> list[int]:
    """Those in which code runs."""
    deepest = [process for process in under(pid) if b"monty" in read(process, "cmdline")] or under(pid)
    return [process for process in deepest if any(state(thread) == "R" for thread in threads(process))]


def busy(node: CodeNode) -> set[int]:
    """Of those in which code runs the processes that have a call."""
    return {os.getsid(pid) for pid in running(os.getpid())} - {process.pid for process in pool_of(node)._idle}


def threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def children(pid: int) -> list[int]:
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [
        child for child in found if (read(child, "stat").rpartition(b")")[2].split() or b"  ")[1:2] == [b"%d" % pid]
    ]


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def state(pid: int) -> str:
    return (read(pid, "stat").rpartition(b")")[2].split() or [b""])[0].decode()


async def until_gone(pids: Iterable[int]) -> None:
    with trio.fail_after(60):
        while any(state(pid) not in ("", "Z") for pid in pids):  # noqa: ASYNC110 - they are not all our children
            await trio.sleep(0.01)


def pool_of(node: CodeNode) -> Pool:
    assert isinstance(node._sandbox, Pool)
    return node._sandbox


@pytest.mark.parametrize("language", LANGUAGES)
async def test_calls_wait_their_turn_and_processes_stay_warm(language: str) -> None:
    most = 0
    async with code_node(language, processes=2) as node:

        async def one(index: int) -> None:
            result = await node.run(call("return input + 1", index))
            assert isinstance(result, NodeResult)
            assert result.output == index + 1

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len([pid for pid in under(os.getpid()) if os.getsid(pid) == pid]))
                await trio.sleep(0.005)

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as calls:
                for index in range(20):
                    calls.start_soon(one, index)
            watching.cancel_scope.cancel()
        assert most == 2
        warm = {process.pid for process in pool_of(node)._idle}
        assert len(warm) == 2
        await one(1)
        assert {process.pid for process in pool_of(node)._idle} == warm
        pids = under(os.getpid())
    await until_gone(pids)


async def test_what_is_idle_ends() -> None:
    async with code_node("python", idle_seconds=2.0) as node:
        await node.run(call("1"))
        pids = under(os.getpid())
        assert pids
        await until_gone(pids)
        assert pool_of(node)._idle == []
        assert isinstance(await node.run(call("1")), NodeResult)


@pytest.mark.parametrize("source", [FOREVER, DEAF], ids=["loop", "deaf"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_cancelled_call_is_killed_at_once(language: str, source: dict[str, str]) -> None:
    async with code_node(language) as node:
        await node.run(call("1"))
        with trio.move_on_after(0.3) as scope:
            await node.run(call(source[language], TimeoutMilliseconds=60_000, MemoryBytes=256 << 20))
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 30
        assert isinstance(await node.run(call("1")), NodeResult)
    await until_gone(under(os.getpid()))


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_outruns_its_interpreter_is_killed_from_outside(language: str) -> None:
    async with code_node(language) as node:
        with pytest.raises(NodeFailure, match=r"Code\.Timeout: it ran longer than 300 ms"):
            await node.run(call(DEAF[language], TimeoutMilliseconds=300, MemoryBytes=256 << 20))
        assert isinstance(await node.run(call("1")), NodeResult)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_was_printed_before_the_kill_is_kept(language: str) -> None:
    printing = {"python": "print('begun')\n", "javascript": "print('begun');\n"}[language]
    async with code_node(language) as node:
        with pytest.raises(NodeFailure) as failed:
            await node.run(call(printing + DEAF[language], TimeoutMilliseconds=300, MemoryBytes=256 << 20))
    assert failed.value.error == "Code.Timeout"
    assert failed.value.log == "begun\n"


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_process_that_dies_fails_its_call_alone(language: str) -> None:
    outcomes: list[str] = []

    async def fail(node: CodeNode) -> None:
        try:
            await node.run(call(FOREVER[language], TimeoutMilliseconds=60_000))
        except NodeFailure as failure:
            outcomes.append(str(failure))

    async with code_node(language, processes=2) as node:
        async with trio.open_nursery() as warming:
            for _ in range(2):
                warming.start_soon(node.run, call("1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, node)
            with trio.fail_after(60):
                # One that is idle may be busy yet with what comes after a call.
                while not (victims := busy(node)):  # noqa: ASYNC110 - the kernel tells nobody
                    await trio.sleep(0.01)
                assert isinstance(await node.run(call("1")), NodeResult)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        assert outcomes == ["Code.Crashed: its process ended by SIGKILL"]
        await until_gone(victims)
        assert isinstance(await node.run(call("1")), NodeResult)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_lost_process_is_replaced_while_nobody_waits(language: str) -> None:
    async with code_node(language) as node:
        with pytest.raises(NodeFailure, match=r"Code\.Timeout"):
            await node.run(call(FOREVER[language], TimeoutMilliseconds=100))
        with trio.fail_after(60):
            while not pool_of(node)._idle:  # noqa: ASYNC110 - the pool tells nobody
                await trio.sleep(0.01)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_all_die_with_a_daemon_that_is_killed(language: str, tmp_path: Path) -> None:
    # Python's long operations end by themselves too soon.
    sources = (FOREVER[language], DEAF[language] if language == "javascript" else FOREVER[language])
    script = tmp_path / "daemon_like.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import trio
            from sandbox_calls import call, code_node

            async def main():
                async with code_node({language!r}, processes=2) as node:
                    async with trio.open_nursery() as nursery:
                        for source in {sources!r}:
                            nursery.start_soon(node.run, call(source, TimeoutMilliseconds=60000, MemoryBytes=256 << 20))

            trio.run(main)
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, [sys.executable, str(script)], env=environment, check=False)
        )
        with trio.fail_after(60):
            expected = 4 if language == "python" else 2
            while len(running(process.pid)) < 2 or len(under(process.pid)) < expected:  # noqa: ASYNC110 - as below
                await trio.sleep(0.05)
        pids = under(process.pid)
        process.kill()
    await until_gone(pids)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_child_has_nothing_that_is_the_daemons(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "hunter2")
    descriptor = os.memfd_create("the daemon's own")
    os.set_inheritable(descriptor, True)
    async with code_node(language) as node:
        await node.run(call("1"))
        pids = under(os.getpid())
        assert pids
        for pid in pids:
            assert b"hunter2" not in read(pid, "environ")
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            for child in children(pid):
                assert not [target for target in links(child) if target.startswith("socket") and target in links(pid)]
            targets = links(pid)
            assert not [target for target in targets if target.startswith("/") and target not in allowed(pid)], targets
            assert b"Seccomp:\t2" in read(pid, "status")
            assert b"NoNewPrivs:\t1" in read(pid, "status")
            limits = read(pid, "limits").decode()
            assert limit(limits, "Max core file size") == "0"
            assert limit(limits, "Max open files") == "32"
            assert limit(limits, "Max file size") == "65536"
            assert limit(limits, "Max data size") != "unlimited"
            assert limit(limits, "Max cpu time") != "unlimited"
            if not children(pid):
                assert limit(limits, "Max processes") == "0"
    os.close(descriptor)


def allowed(pid: int) -> list[str]:
    own = [f"/proc/{pid}/stat", f"/proc/{pid}/statm"]
    return ["/dev/null", "/memfd:stderr (deleted)", "/memfd:wasm-memory-image (deleted)", *own]


def links(pid: int) -> set[str]:
    """What its descriptors lead to."""
    return {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}


def limit(limits: str, name: str) -> str:
    line = next(line for line in limits.splitlines() if line.startswith(name))
    return line[26:].split()[0]


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("raise SystemExit('no such library')", r"Code\.Unavailable: .*ended at once \(no such library\)"),
        ("import time; time.sleep(60)", r"Code\.Unavailable: .*not ready within 0\.5 seconds"),
        ("channel.sendall(b'\\xff' * 4096)", r"Code\.Unavailable: .*sends too much"),
        ("channel.sendall(b'\\x00\\x00\\x00\\x01\\xc1')", r"Code\.Unavailable: .*no answer"),
        ("send(frames.Ready('no memory'))", r"Code\.Unavailable: .*no memory"),
        ("send(frames.Ready()); channel.recv(9999); send(frames.Ready())", r"Code\.Crashed: "),
        ("send(frames.Ready()); channel.recv(9999); channel.sendall(b'\\x7f\\xff\\xff\\xff')", r"Code\.Crashed: "),
        ("send(frames.Ready()); channel.recv(9999); send(frames.Done(b'{'))", r"Code\.InvalidOutput: "),
        (
            "send(frames.Ready()); channel.recv(9999); [send(frames.Printed('x' * 9999)) for _ in range(99)]",
            r"Code\.Crashed",
        ),
    ],
)
async def test_a_child_that_misbehaves_harms_nobody(
    behaviour: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "child"
    script.write_text(
        f"#!{sys.executable}\n"
        "import socket, sys\n"
        "from daemon.nodes.sandbox import frames\n"
        "channel = socket.socket(fileno=int(sys.argv[-1]))\n"
        "def send(frame): channel.sendall(frames.framed(frame))\n"
        f"{behaviour}\n"
    )
    script.chmod(0o700)
    monkeypatch.setattr(process_module.sys, "executable", str(script))
    start_seconds = 0.5 if "sleep" in behaviour else 30.0
    async with code_node("python", start_seconds=start_seconds) as node:
        with pytest.raises(NodeFailure, match=error) as failed:
            await node.run(call("1", TimeoutMilliseconds=60_000))
        assert len(failed.value.log) <= 16 * 1024
    await until_gone(under(os.getpid()))


async def test_a_large_input_and_output_go_through() -> None:
    value = {"items": ["é" * 50] * 2000}
    for language in LANGUAGES:
        async with code_node(language) as node:
            result = await node.run(call("return input", value))
            assert isinstance(result, NodeResult)
            assert json.dumps(result.output) == json.dumps(value)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_printing_is_a_heartbeat(language: str) -> None:
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    source = {
        "python": "for i in range(30): print('a' * 1000)",
        "javascript": "for (let i = 0; i < 30; i++) print('a'.repeat(1000))",
    }
    async with code_node(language) as node:
        result = await node.run(structs.replace(call(source[language]), beat=beat, heartbeat_seconds=1.0))
    assert isinstance(result, NodeResult)
    assert len(result.log) == 16 * 1024
    assert beats == 30


@pytest.mark.parametrize("language", LANGUAGES)
async def test_many_small_prints_are_few_messages(language: str) -> None:
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    source = {
        "python": "for i in range(20000): print(i % 10)",
        "javascript": "for (let i = 0; i < 20000; i++) print(i % 10)",
    }
    async with code_node(language) as node:
        result = await node.run(structs.replace(call(source[language], TimeoutMilliseconds=60_000), beat=beat))
    assert isinstance(result, NodeResult)
    assert result.log == ("0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" * 820)[: 16 * 1024]
    assert 100 <= beats < 1000
