"""The daemon as a whole, on the memory store and the mock clock, asked through its links."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec import Raw
from trio.testing import MockClock

from daemon.assembly import Daemon
from daemon.clock import TrioClock
from daemon.links.interface import Caller
from daemon.settings import AuthSettings, FrontendSettings, Settings, StoreSettings, SupervisorSettings, WorkerSettings
from daemon.stores.faults import StoreUnusable
from daemon.stores.memory import MemoryStore
from daemon.supervisor import ServiceFailed, ServiceName, Unusable
from enginekit.messages.calls import (
    DescribeWorkflowResult,
    ListQueues,
    ListQueuesResult,
    StartWorkflow,
    StartWorkflowResult,
    WaitWorkflow,
)
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

ME = Caller(tenant="acme", subject="me")
SETTINGS = Settings(
    store=StoreSettings(url="memory:"),
    frontend=FrontendSettings(rpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0"),
)
DEFINITION = {
    "StartAt": "Echo",
    "States": {
        "Echo": {"Type": "Task", "Resource": "echo", "Next": "Nap"},
        "Nap": {"Type": "Wait", "Seconds": 3 * 86400, "Next": "Again"},
        "Again": {"Type": "Task", "Resource": "echo", "End": True},
    },
}


def daemon(data_dir: Path, settings: Settings = SETTINGS, store: MemoryStore | None = None) -> Daemon:
    return Daemon(settings, data_dir, TrioClock(), store=store or MemoryStore(2, b"key"), seed=7)


async def start(here: Daemon, workflow_id: str) -> None:
    """Start a workflow, asking again when the request was lost with a History that crashed."""
    call = StartWorkflow(
        definition=Raw(json.dumps(DEFINITION).encode()),
        input=Raw(b'{"n":1}'),
        workflow_id=workflow_id,
        request_id=workflow_id,
    )
    while True:
        try:
            await here.links.history.request(ME, call, StartWorkflowResult, timeout=5)
        except Refused as refused:
            if refused.status is not ErrorStatus.UNAVAILABLE:
                raise
        else:
            return


async def result(here: Daemon, workflow_id: str, seconds: float) -> DescribeWorkflowResult:
    call = WaitWorkflow(workflow_id=workflow_id, wait_seconds=seconds)
    return await here.links.history.request(ME, call, DescribeWorkflowResult, timeout=seconds + 30)


async def test_a_workflow_runs_to_its_end_over_a_wait_of_three_days(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    here = daemon(tmp_path)
    await nursery.start(here.run)
    await start(here, "order-1")
    closed = await result(here, "order-1", 4 * 86400)
    assert closed.status is ExecutionStatus.SUCCEEDED
    assert bytes(closed.output) == b'{"n":1}'
    assert closed.closed_at is not None
    assert (closed.closed_at - closed.started_at).total_seconds() == pytest.approx(3 * 86400, abs=1)
    queues = await here.links.matching.request(ME, ListQueues(), ListQueuesResult, timeout=5)
    assert [(view.queue, view.kind, view.dispatched, view.depth) for view in queues.queues] == [("echo", "node", 2, 0)]
    here.drain()


@pytest.mark.parametrize("service", [ServiceName.HISTORY, ServiceName.MATCHING, ServiceName.TIMER, ServiceName.WORKER])
async def test_any_service_that_raises_in_the_middle_is_restarted_and_the_work_completes(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path, service: ServiceName
) -> None:
    here = daemon(tmp_path)
    await nursery.start(here.run)
    link = {
        ServiceName.HISTORY: here.links.history,
        ServiceName.MATCHING: here.links.matching,
        ServiceName.TIMER: here.links.timer,
        ServiceName.WORKER: here.links.worker,
    }[service]
    receive = link.receive
    left = 3
    workflows = 12

    async def failing(limit: int = 256) -> list[object]:
        nonlocal left
        batch: list[object] = await receive(limit)  # type: ignore[assignment]
        if left:
            left -= 1
            raise ValueError("made to fail with what it had just received")
        return batch

    link.receive = failing  # type: ignore[method-assign, assignment]
    for number in range(workflows):
        await start(here, f"w{number}")
        await trio.sleep(0.2)
    for number in range(workflows):
        closed = await result(here, f"w{number}", 10 * 86400)
        assert closed.status is ExecutionStatus.SUCCEEDED
    view = next(view for view in here.supervisor.views() if view.name == service.value)
    assert (left, view.restarts) == (0, 3)
    assert view.last_error == "ValueError: made to fail with what it had just received"
    here.drain()


async def test_it_says_where_it_is_while_it_runs(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    folder = tmp_path / "state" / "engine"
    here = daemon(folder)
    ended = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await here.run(task_status=task_status)
        ended.set()

    await nursery.start(run)
    file = folder / "daemon.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = json.loads(file.read_bytes())
    assert found["pid"] == os.getpid()
    assert here.bound is not None
    assert found["rpc"] == f"ws://{here.bound.rpc}/rpc"
    assert found["http"] == f"http://{here.bound.http}"
    assert [view.state for view in here.supervisor.views()] == ["RUNNING"] * 7
    assert here.unready() == []
    described = here.describe()
    assert (described.store.kind, described.store.state, described.store.schema_version) == ("memory", "READY", 2)
    assert [shard.shard for shard in described.shards] == [0, 1]
    here.drain()
    await ended.wait()
    assert not file.exists()
    assert here.unready() == [name.value for name in ServiceName if name not in (ServiceName.LINKS, ServiceName.QUEUES)]


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        (AuthSettings(), None),
        (AuthSettings(issuer="engine"), None),
        (AuthSettings(audience="shop"), "auth.audience"),
        (AuthSettings(issuer="us"), "auth.issuer"),
        (AuthSettings(key_file="secret"), "auth.key_file"),
    ],
)
async def test_it_says_whether_it_takes_tokens_of_its_own_key(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path, auth: AuthSettings, said: str | None
) -> None:
    if auth.key_file is not None:
        key = tmp_path / auth.key_file
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        auth = msgspec.structs.replace(auth, key_file=str(key))
    here = daemon(tmp_path, msgspec.structs.replace(SETTINGS, auth=auth))
    await nursery.start(here.run)
    assert json.loads((tmp_path / "daemon.json").read_bytes()).get("tokens") == said
    here.drain()


class UnusableStore(MemoryStore):
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        raise StoreUnusable("engine.db is in use by another daemon")


async def test_a_daemon_that_cannot_start_leaves_the_running_ones_file_alone(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    first = daemon(tmp_path)
    await nursery.start(first.run)
    written = (tmp_path / "daemon.json").read_bytes()
    second = daemon(tmp_path, store=UnusableStore(2, b"key"))
    with pytest.RaisesGroup(pytest.RaisesExc(Unusable, match="in use by another daemon"), allow_unwrapped=True):
        await second.run()
    assert (tmp_path / "daemon.json").read_bytes() == written
    first.drain()


async def test_a_key_that_cannot_be_used_ends_it_at_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    (tmp_path / "key").chmod(0o600)
    with pytest.RaisesGroup(pytest.RaisesExc(Unusable, match="key"), allow_unwrapped=True):
        await daemon(tmp_path).run()


async def test_a_port_that_stays_taken_ends_it_and_names_the_setting(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    first = daemon(tmp_path / "first")
    await nursery.start(first.run)
    assert first.bound is not None
    settings = Settings(
        store=SETTINGS.store,
        frontend=FrontendSettings(rpc_listen=first.bound.rpc, http_listen="127.0.0.1:0"),
        supervisor=SupervisorSettings(restarts=1),
    )
    with pytest.RaisesGroup(
        pytest.RaisesExc(ServiceFailed, match=r"frontend service failed.*frontend\.rpc_listen"), allow_unwrapped=True
    ):
        await daemon(tmp_path / "second", settings).run()
    first.drain()


def test_a_store_that_there_is_not_and_a_folder_that_cannot_be_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="names no store"):
        Daemon(Settings(store=StoreSettings(url="mysql:")), tmp_path, TrioClock())
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match=r"data folder .*/file/engine cannot be made"):
        Daemon(SETTINGS, tmp_path / "file" / "engine", TrioClock())


async def test_a_drain_lets_running_tasks_finish(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    settings = Settings(
        store=SETTINGS.store, frontend=SETTINGS.frontend, worker=WorkerSettings(slots=4, drain_seconds=5)
    )
    store = MemoryStore(2, b"key")
    here = daemon(tmp_path, settings, store)
    ended = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await here.run(task_status=task_status)
        ended.set()

    await nursery.start(run)
    await start(here, "order-1")
    here.drain()
    with trio.fail_after(60):
        await ended.wait()
    again = daemon(tmp_path, settings, store)
    await nursery.start(again.run)
    closed = await result(again, "order-1", 4 * 86400)
    assert closed.status is ExecutionStatus.SUCCEEDED
    again.drain()
