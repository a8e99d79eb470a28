"""Shards of an owner that was stopped or cut off in the middle of something: taken over, and never written by two."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import trio
from store_builders import append, batch, numbered, ref, start

from daemon.settings import StoreSettings
from daemon.stores.faults import Fenced, StoreLost, StoreUnavailable
from daemon.stores.open import open_store
from daemon.stores.postgres.database import PostgresDriver, open_driver
from daemon.stores.process import ProcessStore
from tests.servers.postgres import PostgresServer

RUN = ref(1)
EVERY = [0, 1, 2, 3]
LEASE = 60.0

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def two(postgres_url: str) -> Iterator[tuple[PostgresDriver, PostgresDriver]]:
    drivers = [open_driver(postgres_url, 4, 10.0, 30.0) for _ in range(2)]
    yield drivers[0], drivers[1]
    for driver in drivers:
        driver.close()


def lapse(url: str, owner: str) -> None:
    with psycopg.connect(url, autocommit=True) as somebody:
        somebody.execute("UPDATE engine.members SET lease_until = clock_timestamp() WHERE owner = %s", (owner,))


def in_the_middle(url: str, epochs: dict[int, int]) -> psycopg.Connection:
    """A session that has sent the beginning of a commit to these shards, and no more."""
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("BEGIN")
    connection.execute("SELECT engine.check_epochs(%s, %s)", (list(epochs), list(epochs.values())))
    return connection


def test_an_owner_that_never_ends_its_commit_has_its_session_ended(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    first, second = two
    first.writer.attend("a", LEASE)
    epochs = first.writer.claim_shards("a", EVERY).epochs
    first.writer.commit(batch(start(RUN, epoch=epochs[0])))
    stuck = in_the_middle(postgres_url, {0: epochs[0], 2: epochs[2]})
    stuck.execute("UPDATE engine.executions SET error = 'written by two'")
    lapse(postgres_url, "a")
    second.writer.attend("b", LEASE)
    assert second.writer.claim_shards("b", EVERY).epochs == dict.fromkeys(EVERY, 2)
    with pytest.raises(psycopg.OperationalError, match="terminating connection"):
        stuck.execute("COMMIT")
    stuck.close()
    with pytest.raises(Fenced):
        first.writer.commit(batch(append(RUN, 2, epoch=epochs[0])))
    second.writer.commit(batch(append(RUN, 2, epoch=2)))
    execution = second.reader.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.error, execution.last_event_id) == (None, 2)


def test_a_commit_that_is_under_way_ends_before_its_shard_is_taken(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    first, second = two
    first.writer.attend("a", LEASE)
    epochs = first.writer.claim_shards("a", EVERY).epochs
    slow = in_the_middle(postgres_url, {0: epochs[0]})
    committed: list[bool] = []

    def commit_when_somebody_waits() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as watching:
            deadline = time.monotonic() + 60
            while watching.execute(WAITING).fetchone() == (0,) and time.monotonic() < deadline:
                pass
        slow.execute("COMMIT")
        committed.append(True)

    lapse(postgres_url, "a")
    second.writer.attend("b", LEASE)
    thread = threading.Thread(target=commit_when_somebody_waits)
    thread.start()
    assert second.writer.claim_shards("b", EVERY).epochs == dict.fromkeys(EVERY, 2)
    thread.join()
    slow.close()
    assert committed == [True]


def test_commits_and_takeovers_lock_shards_in_the_order_of_their_numbers(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    """Two that lock some of the same shards wait for one another, and not each for the other."""
    first, second = two
    first.writer.attend("a", LEASE)
    epochs = first.writer.claim_shards("a", EVERY).epochs

    runs = [start(ref(1 + shard), shard=shard, epoch=epochs[shard]) for shard in reversed(EVERY)]

    def until_done(change: Callable[[], object]) -> None:
        while True:
            try:
                change()
                return
            except StoreUnavailable:  # It does not wait for a lock for ever.
                continue

    for change in (lambda: first.writer.commit(batch(*runs)), second.writer.take_shards):
        with psycopg.connect(postgres_url) as holder, psycopg.connect(postgres_url, autocommit=True) as watching:
            holder.execute("SELECT FROM engine.shards WHERE shard = 1 FOR UPDATE")
            thread = threading.Thread(target=until_done, args=(change,))
            thread.start()
            deadline = time.monotonic() + 60
            while (locked := _locked(watching)) == {1} and thread.is_alive() and time.monotonic() < deadline:
                pass
            holder.rollback()
            thread.join()
        assert locked == {0, 1}, "it waits for the second, has the first, and not those behind"


def _locked(connection: psycopg.Connection) -> set[int]:
    """The shards whose rows somebody has locked."""
    free = connection.execute("SELECT shard FROM engine.shards FOR UPDATE SKIP LOCKED").fetchall()
    return set(EVERY) - {shard for (shard,) in free}


def test_a_lease_goes_by_the_clock_of_the_database(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    """Whatever a daemon's machine says that the time is."""
    first, second = two
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert first.writer.attend("slow", LEASE).members == ["slow"]
    monkeypatch.setattr(time, "time", lambda: 1e10)
    monkeypatch.setattr(time, "time_ns", lambda: 10**19)
    assert second.writer.attend("fast", LEASE).members == ["fast", "slow"]
    with psycopg.connect(postgres_url, autocommit=True) as somebody:
        ahead = "SELECT count(*) FROM engine.members WHERE lease_until > clock_timestamp() + %s * interval '1 second'"
        assert somebody.execute(ahead, (LEASE,)).fetchone() == (0,)


def test_sessions_of_owners_that_have_their_leases_are_left_alone(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    first, second = two
    for owner, driver in (("a", first), ("b", second)):
        driver.writer.attend(owner, LEASE)
    mine = first.writer.claim_shards("a", [0, 1]).epochs
    theirs = second.writer.claim_shards("b", [2]).epochs
    well = in_the_middle(postgres_url, {2: theirs[2]})
    stuck = in_the_middle(postgres_url, {0: mine[0]})
    lapse(postgres_url, "a")
    with psycopg.connect(postgres_url, autocommit=True) as somebody:
        somebody.execute(
            "INSERT INTO engine.members (owner, lease_until) VALUES ('c', clock_timestamp() + interval '1 hour')"
        )
    assert second.writer.claim_shards("b", EVERY).epochs == {0: 2, 1: 2, 3: 1}
    well.execute("COMMIT")
    well.close()
    with pytest.raises(psycopg.OperationalError):
        stuck.execute("COMMIT")
    stuck.close()


def test_taking_all_shards_ends_whoever_holds_on_to_one(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    first, _ = two
    epochs = first.writer.take_shards().epochs
    first.writer.attend("a", 8.0)  # Bounds the wait for a lock.
    stuck = in_the_middle(postgres_url, epochs)
    assert first.writer.take_shards().epochs == dict.fromkeys(EVERY, 2)
    stuck.close()


def test_two_that_claim_the_same_shards_get_each_of_them_once(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    for turn in range(10):
        claimed: list[list[int]] = [[], []]
        ready = threading.Barrier(2)

        def claim(number: int, name: str, claimed: list[list[int]] = claimed, ready: threading.Barrier = ready) -> None:
            two[number].writer.attend(name, LEASE)
            ready.wait()
            claimed[number] = list(two[number].writer.claim_shards(name, EVERY[:: 1 - 2 * number]).epochs)

        names = [f"{turn}-{number}" for number in range(2)]
        threads = [threading.Thread(target=claim, args=(number, name)) for number, name in enumerate(names)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed[0] + claimed[1]) == EVERY
        for number, name in enumerate(names):
            two[number].writer.leave(name)


def test_a_session_that_was_ended_is_lost_not_fenced(
    postgres_url: str, two: tuple[PostgresDriver, PostgresDriver]
) -> None:
    first, _ = two
    first.writer.take_shards()
    with psycopg.connect(postgres_url, autocommit=True) as somebody:
        somebody.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'engine write lane' AND datname = current_database()"
        )
    with pytest.raises(StoreLost, match=r"connection to .* was lost"):
        first.writer.commit(batch(start(RUN)))


# --- processes ------------------------------------------------------------------------------------------------------


async def until(happened: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.01)


def stopped(pid: int) -> bool:
    return all(
        state.read_text().rsplit(")", 1)[1].split()[0] == "T" for state in Path(f"/proc/{pid}/task").glob("*/stat")
    )


async def claim_all(store: ProcessStore, owner: str) -> dict[int, int]:
    """As soon as they are to be had."""
    claimed: dict[int, int] = {}
    with trio.fail_after(60):
        while len(claimed) < 4:
            await store.attend(owner, LEASE)
            claimed.update((await store.claim_shards(owner, EVERY)).epochs)
            await trio.sleep(0.02)
    return claimed


async def test_a_driver_that_was_stopped_past_its_lease_writes_nothing_more(
    postgres_url: str, tmp_path: Path, nursery: trio.Nursery
) -> None:
    settings = StoreSettings(url=postgres_url, shards=4)
    stores: list[ProcessStore] = []
    for _ in range(2):
        store = open_store(settings, tmp_path)
        assert isinstance(store, ProcessStore)
        await nursery.start(store.run)
        stores.append(store)
    last = 0
    first, second = stores
    epochs = await claim_all(first, "0")
    await first.commit(batch(start(RUN, epoch=epochs[0])))
    last = 1
    for turn in range(1, 4):
        acknowledged: list[int] = []
        failures: list[Exception] = []

        async def write(
            store: ProcessStore = first,
            epoch: int = epochs[0],
            event_id: int = last + 1,
            acknowledged: list[int] = acknowledged,
            failures: list[Exception] = failures,
        ) -> None:
            try:
                while True:
                    await store.commit(batch(append(RUN, event_id, epoch=epoch)))
                    acknowledged.append(event_id)
                    event_id += 1
            except (Fenced, StoreUnavailable) as error:
                failures.append(error)

        pid = first.driver_pid
        assert pid is not None
        async with trio.open_nursery() as writing:
            writing.start_soon(write)
            await until(lambda acknowledged=acknowledged: len(acknowledged) >= 3)
            os.kill(pid, signal.SIGSTOP)
            try:
                await until(lambda pid=pid: stopped(pid))
                await trio.to_thread.run_sync(lapse, postgres_url, str(turn - 1))
                epochs = await claim_all(second, str(turn))
                # What it had begun may have been committed before the shard was taken, or not at all.
                execution = await second.execution("acme", RUN.run_id)
                assert execution is not None
                last = execution.last_event_id
                assert acknowledged[-1] <= last <= acknowledged[-1] + 1
                await second.commit(batch(append(RUN, last + 1, epoch=epochs[0])))
                last += 1
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        assert len(failures) == 1
        events = await second.events("acme", RUN.run_id, 0, 1_000_000, 10**9)
        assert events == numbered(RUN, 1, last)
        first, second = second, first
        await second.wait_ready()
    nursery.cancel_scope.cancel()


def test_the_driver_process_does_not_load_trio(postgres: PostgresServer) -> None:
    import subprocess
    import sys

    code = "import sys, daemon.stores.host, daemon.stores.postgres.database; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
