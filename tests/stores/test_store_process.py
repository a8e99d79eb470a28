"""The driver process: killed, stopped, orphaned, unwanted. What was acknowledged is there afterwards, once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from store_builders import NOW, append, batch, event, loaded_run, numbered, ref, start

from daemon.settings import StoreSettings
from daemon.stores.interface import BatchRefused, StoreUnavailable, StoreUnusable
from daemon.stores.open import open_store
from daemon.stores.process import ProcessStore

RUN = ref(1)
HERE = Path(__file__).parent


def sqlite_store(folder: Path, *, lock_wait_seconds: float = 10.0) -> ProcessStore:
    settings = StoreSettings(lock_wait_seconds=lock_wait_seconds, call_timeout_seconds=30.0)
    store = open_store(settings, folder)
    assert isinstance(store, ProcessStore)
    return store


def pid_of(store: ProcessStore) -> int:
    pid = store.driver_pid
    assert pid is not None
    return pid


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that nobody has waited for has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


async def until(happened: Callable[[], object]) -> None:
    """Processes tell nobody when they come and go."""
    with trio.fail_after(120):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.01)


def stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(thread.read_text().rsplit(")", 1)[1].split()[0] == "T" for thread in threads)


async def stop(pid: int) -> None:
    """Stop the process in its tracks, every thread of it."""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: stopped(pid))


async def until_lost(store: ProcessStore, pid: int) -> None:
    """Until the store has noticed that this driver is gone, and has another."""
    await until(lambda: store.driver_pid not in (pid, None))


@pytest.fixture
async def store(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[ProcessStore]:
    opened = sqlite_store(tmp_path)
    await nursery.start(opened.run)
    await opened.take_shards()
    yield opened
    nursery.cancel_scope.cancel()


# --- killed ---------------------------------------------------------------------------------------------------------


async def test_nothing_acknowledged_is_lost_when_the_driver_is_killed_under_load(
    store: ProcessStore, nursery: trio.Nursery
) -> None:
    kills = 6
    seed = 2026
    chance = random.Random(seed)
    acknowledged = dict.fromkeys(range(1, 9), 1)
    unknown = 0
    await store.commit(batch(*(start(ref(number)) for number in acknowledged)))

    async def append_for_ever(number: int) -> None:
        nonlocal unknown
        while True:
            last = acknowledged[number]
            try:
                await store.commit(batch(append(ref(number), last + 1, 3)))
            except StoreUnavailable:
                unknown += 1
                stored = await last_event_id(store, number)
                assert stored in (last, last + 3), f"seed {seed}"
                acknowledged[number] = stored
            else:
                acknowledged[number] = last + 3

    async with trio.open_nursery() as load:
        for number in acknowledged:
            load.start_soon(append_for_ever, number)
        for _ in range(kills):
            await trio.sleep(chance.uniform(0.0, 0.1))
            await store.wait_ready()
            pid = pid_of(store)
            os.kill(pid, signal.SIGKILL)
            await until_lost(store, pid)
        load.cancel_scope.cancel()

    await store.wait_ready()
    assert store.restarts == kills
    assert unknown
    for number, last in acknowledged.items():
        loaded = await loaded_run(store, ref(number))
        assert loaded is not None
        assert loaded.execution.last_event_id in (last, last + 3), f"seed {seed}"
        assert loaded.tail == numbered(ref(number), 1, loaded.execution.last_event_id), f"seed {seed}"


async def last_event_id(store: ProcessStore, number: int) -> int:
    """As stored, however often the store is lost meanwhile."""
    while True:
        await store.wait_ready()
        with suppress(StoreUnavailable):
            execution = await store.execution("acme", ref(number).run_id)
            assert execution is not None
            return execution.last_event_id


async def test_every_call_under_way_ends_at_once_and_later_ones_find_the_store_again(
    store: ProcessStore, nursery: trio.Nursery
) -> None:
    await store.commit(batch(start(RUN)))
    pid = pid_of(store)
    await stop(pid)
    failed: list[str] = []

    async def call(number: int) -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await (store.execution("acme", RUN.run_id) if number % 2 else store.commit(batch(start(ref(10 + number)))))
        failed.append(str(caught.value))

    async with trio.open_nursery() as calls:
        for number in range(10):
            calls.start_soon(call, number)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(pid, signal.SIGKILL)
    assert len(failed) == 10
    assert not store.ready
    with pytest.raises(StoreUnavailable, match="is being started"):
        await store.execution("acme", RUN.run_id)
    await store.wait_ready()
    assert store.ready
    assert store.restarts == 1
    assert await store.events("acme", RUN.run_id, 0, 10, 1000) == [event(RUN, 1)]
    await store.commit(batch(append(RUN, 2)))


async def test_a_hung_driver_is_killed_and_another_takes_its_place(tmp_path: Path, nursery: trio.Nursery) -> None:
    store = sqlite_store(tmp_path)
    await nursery.start(store.run)
    await store.take_shards()
    pid = pid_of(store)
    await stop(pid)
    store._call_timeout = 0.3  # For the one that hangs: others may take longer, when the machine has much to do.
    with pytest.raises(StoreUnavailable, match=r"within 0\.3 seconds"):
        await store.commit(batch(start(RUN)))
    store._call_timeout = 30.0
    await until_lost(store, pid)
    assert gone(pid)
    assert store.restarts == 1
    execution = await store.execution("acme", RUN.run_id)
    if execution is None:
        await store.commit(batch(start(RUN)))
    nursery.cancel_scope.cancel()


async def test_signals_to_the_whole_group_leave_the_driver_to_the_daemon(store: ProcessStore) -> None:
    pid = pid_of(store)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    await store.commit(batch(start(RUN)))
    assert pid_of(store) == pid


async def test_a_store_that_cannot_be_opened_again_ends_run(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    caught: list[str] = []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(StoreUnusable) as unusable:
            await store.run(task_status=task_status)
        caught.append(str(unusable.value))

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        await store.take_shards()
        somebody = sqlite3.connect(tmp_path / "engine.db")
        somebody.execute("PRAGMA user_version = 99")
        somebody.close()
        os.kill(pid_of(store), signal.SIGKILL)
    assert "schema version 99" in caught[0]
    assert not store.ready


async def test_damage_that_a_call_meets_ends_run(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.take_shards()
        for number in range(40):
            events = [event(ref(number), event_id, size=3000) for event_id in range(1, 6)]
            await store.commit(batch(msgspec.structs.replace(start(ref(number)), events=events)))
        nursery.cancel_scope.cancel()

    store = sqlite_store(tmp_path)
    caught: list[str] = []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(StoreUnusable) as unusable:
            await store.run(task_status=task_status)
        caught.append(str(unusable.value))

    async def read_everything() -> None:
        for number in range(40):
            await store.events("acme", ref(number).run_id, 0, 10, 1_000_000)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        path = tmp_path / "engine.db"
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size // 4 // 4096 * 4096)
            file.write(b"\xa5" * (size // 2))
        with pytest.raises(StoreUnavailable, match="damaged"):
            await read_everything()
    assert "damaged" in caught[0]


# --- orphaned -------------------------------------------------------------------------------------------------------

DAEMON = """
import sys
from pathlib import Path
import trio
import trio.testing
sys.path.insert(0, sys.argv[2])
from store_builders import append, batch, ref, start
from daemon.settings import StoreSettings
from daemon.stores.open import open_store

async def main():
    store = open_store(StoreSettings(), Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.take_shards()
        print(store.driver_pid, flush=True)
        await store.commit(batch(start(ref(1))))
        last = 1
        while True:
            await store.commit(batch(append(ref(1), last + 1)))
            last += 1
            print(last, flush=True)

trio.run(main)
"""


async def test_a_killed_daemon_takes_its_driver_along_and_the_next_one_opens(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    command = [sys.executable, "-c", DAEMON, str(tmp_path), str(HERE)]
    daemon = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    output = b""
    async with daemon.stdout:
        while output.count(b"\n") < 30:
            output += await daemon.stdout.receive_some()
        daemon.kill()
        while some := await daemon.stdout.receive_some():
            output += some
    await daemon.wait()
    pid, *printed = [int(line) for line in output.decode().splitlines(keepends=True) if line.endswith("\n")]

    store = sqlite_store(tmp_path)
    await nursery.start(store.run)
    assert pid_of(store) != pid
    await until(lambda: gone(pid))
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert execution.last_event_id in (printed[-1], printed[-1] + 1, printed[-1] + 2)
    events = await store.events("acme", RUN.run_id, 0, 1_000_000, 1_000_000_000)
    assert events == numbered(RUN, 1, execution.last_event_id)
    assert (await store.take_shards()).epochs == {0: 2, 1: 2, 2: 2, 3: 2}
    nursery.cancel_scope.cancel()


async def test_a_driver_that_waits_for_the_lock_ends_with_its_daemon(store: ProcessStore, tmp_path: Path) -> None:
    second = sqlite_store(tmp_path, lock_wait_seconds=3600.0)
    before = children()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.run)
        await until(lambda: children() - before)
        (waiting,) = children() - before
        nursery.cancel_scope.cancel()
    assert gone(waiting)
    await store.commit(batch(start(RUN)))


def children() -> set[int]:
    """The processes that this one has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == os.getpid() and state not in "ZX":
                found.add(int(stat.parent.name))
    return found


async def test_one_daemon_at_a_time(store: ProcessStore, tmp_path: Path) -> None:
    second = sqlite_store(tmp_path, lock_wait_seconds=0.1)
    with pytest.raises(StoreUnusable, match=f"in use by process {store.driver_pid} "):
        await second.run()
    await store.commit(batch(start(RUN)))


async def test_cancelling_run_leaves_no_process_behind(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.take_shards()
        await store.commit(batch(start(RUN)))
        pid = pid_of(store)
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / "engine.db-wal").exists(), "the driver was killed instead of closing its store"
    assert not store.ready


async def test_what_was_sent_before_the_end_is_executed(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await store.take_shards()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(batch(start(RUN, wake_at=NOW)))
        nursery.cancel_scope.cancel()
    again = sqlite_store(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(again.run)
        assert await again.events("acme", RUN.run_id, 0, 10, 1000) == [event(RUN, 1)]
        nursery.cancel_scope.cancel()


async def test_a_store_runs_again_after_it_was_stopped(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    for epoch in (1, 2):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            assert (await store.take_shards()).epochs == dict.fromkeys(range(4), epoch)
            nursery.cancel_scope.cancel()


def test_the_driver_process_does_not_load_trio() -> None:
    code = "import sys, daemon.stores.host, daemon.stores.sqlite.database; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_driver_that_cannot_start_says_so(tmp_path: Path) -> None:
    store = ProcessStore("nonsense:x", shards=4, lock_wait_seconds=1.0, call_timeout_seconds=30.0)
    with pytest.raises(StoreUnusable, match="no store backend is called 'nonsense'"):
        await store.run()
    store = sqlite_store(tmp_path / "nowhere")
    with pytest.raises(StoreUnusable, match="No such file"):
        await store.run()


@pytest.mark.parametrize("url", ["postgres://x", "sqlite:engine.db", "sqlite://engine.db", "", "memory"])
def test_a_url_that_names_no_store_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"names no store: write"):
        open_store(StoreSettings(url=url), tmp_path)


async def test_a_relative_path_is_one_in_the_data_folder(tmp_path: Path, nursery: trio.Nursery) -> None:
    absolute = tmp_path / "here.db"
    for url, path in ((f"sqlite:///{absolute}", absolute), ("sqlite:///there ?#%41.db", tmp_path / "there ?#%41.db")):
        store = open_store(StoreSettings(url=url), tmp_path)
        await nursery.start(store.run)
        assert path.exists()
    nursery.cancel_scope.cancel()


# --- many calls at once ---------------------------------------------------------------------------------------------


async def test_calls_of_any_size_overlap_and_each_gets_its_own_answer(store: ProcessStore) -> None:
    runs = [ref(number) for number in range(1, 21)]
    big = {run: [event(run, number, size=120_000) for number in range(1, 11)] for run in runs}

    async def write_and_read(number: int) -> None:
        run = runs[number]
        await store.commit(batch(msgspec.structs.replace(start(run), events=big[run])))
        assert await store.events("acme", run.run_id, 0, 100, 100_000_000) == big[run]
        execution = await store.execution("acme", run.run_id)
        assert execution is not None
        assert execution.run == run

    async with trio.open_nursery() as nursery:
        for number in range(len(runs)):
            nursery.start_soon(write_and_read, number)


async def test_a_caller_that_goes_away_leaves_the_others_their_answers(store: ProcessStore) -> None:
    runs = [ref(number) for number in range(1, 9)]
    await store.commit(batch(*(start(run) for run in runs)))
    answered = []

    async def read(number: int, scope: trio.CancelScope) -> None:
        with scope:
            execution = await store.execution("acme", runs[number].run_id)
            assert execution is not None
            assert execution.run == runs[number]
            answered.append(number)

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in runs]
        for number, scope in enumerate(scopes):
            nursery.start_soon(read, number, scope)
        await trio.lowlevel.checkpoint()
        for scope in scopes[::2]:
            scope.cancel()
    assert set(answered) >= {1, 3, 5, 7}


async def test_a_value_that_cannot_be_stored_is_refused_and_the_lane_goes_on(store: ProcessStore) -> None:
    await store.commit(batch(start(RUN)))
    for write in (append(RUN, 2, wake_at=2**70), append(RUN, 2, wake_at=2**63), start(ref(2, workflow_id="\ud800"))):
        with pytest.raises(BatchRefused, match="value of this batch"):
            await store.commit(batch(write))
    await store.commit(batch(append(RUN, 2)))
