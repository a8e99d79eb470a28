"""A whole daemon inside a test: the memory store, no sockets, Trio's mock clock, one seed. Fakes stand for workers.

What a test does with it is the `engine` fixture of `enginekit.pytest_plugin`; what is here puts it together. Time
stands still while anything happens and jumps to the next thing due when nothing does, so that a wait of thirty days is
over at once.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import msgspec
import trio
import trio.testing
from msgspec import UNSET, Raw

from daemon.api.auth import Principal
from daemon.assembly import Daemon
from daemon.clock import TrioClock, moment
from daemon.links.interface import Caller
from daemon.nodes.registry import NodeTypes
from daemon.settings import Settings
from daemon.stores.memory import MemoryStore
from enginekit.activity import ActivityError
from enginekit.errors import WorkflowFailed
from enginekit.messages import calls
from enginekit.messages.events import AnyEvent, NodeEntered, TaskKind, decode_event
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.links import MatchTasks, MatchTasksResult, QueueKey, StartTasks
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.node import NodeCall, NodeFailure
from enginekit.reports import DATA_LIMIT_EXCEEDED, OUTPUT_REFUSED

TENANT: Final = "test"
WORKER: Final = "test"
FOREVER_SECONDS: Final = 1e9
LEASES: Final = 3.0
"""How often within its lease a task that a fake works on is heard of."""
POLL_TASKS: Final = 100
SCAN_LIMIT_SECONDS: Final = 1e8
"""The timer's looks for what was lost would be all that happens in months that pass at once."""

Fake: TypeAlias = Callable[[JSON], "JSON | Awaitable[JSON]"]
"""What stands for an activity or a node type: it is given the task's input and answers its output, now or later."""

R = TypeVar("R", bound=calls.Result)

_OWNER: Final = Principal(
    tenant=TENANT, subject="test", scopes=frozenset({"read", "write", "work", "admin"}), expires_at=None
)


class TestRun:
    """An execution that a test has started."""

    __test__ = False

    def __init__(self, engine: TestEngine, workflow_id: str, run_id: str) -> None:
        self._engine = engine
        self.workflow_id = workflow_id
        self.run_id = run_id

    async def result(self) -> JSON:
        """Its output, once it has succeeded: whatever time that takes passes. Raises WorkflowFailed."""
        closed = await self.closed()
        if closed.status is not ExecutionStatus.SUCCEEDED:
            raise WorkflowFailed(closed.workflow_id, closed.run_id, closed.status, closed.error, closed.cause)
        return decode(closed.output)

    async def closed(self) -> calls.DescribeWorkflowResult:
        """How it ended, once it has: whatever time that takes passes."""
        return await self._engine.wait(self.workflow_id, self.run_id)

    async def describe(self) -> calls.DescribeWorkflowResult:
        """What it is doing, once everything that can happen now has."""
        await self._engine.settle()
        call = calls.DescribeWorkflow(workflow_id=self.workflow_id, run_id=self.run_id)
        return await self._engine.call(call, calls.DescribeWorkflowResult)

    async def status(self) -> ExecutionStatus:
        return (await self.describe()).status

    async def signal(self, name: str, input: JSON = None) -> None:
        """Send it a signal."""
        call = calls.SignalWorkflow(workflow_id=self.workflow_id, run_id=self.run_id, name=name, input=encode(input))
        await self._engine.call(call, calls.Acknowledged)

    async def cancel(self, reason: str = "") -> None:
        call = calls.CancelWorkflow(workflow_id=self.workflow_id, run_id=self.run_id, reason=reason)
        await self._engine.call(call, calls.Acknowledged)

    async def history(self) -> list[AnyEvent]:
        """Its events so far, once everything that can happen now has."""
        await self._engine.settle()
        found: list[AnyEvent] = []
        while True:
            call = calls.GetHistory(workflow_id=self.workflow_id, run_id=self.run_id, after_id=len(found))
            page = await self._engine.call(call, calls.GetHistoryResult)
            found += [decode_event(bytes(event)) for event in page.events]
            if not page.events:
                return found

    async def visited(self) -> list[str]:
        """The states it has entered, in order, each with its path (`Ship[3].Pack` in an iteration)."""
        return [event.path for event in await self.history() if isinstance(event, NodeEntered)]

    async def assert_history(self, *types: str) -> None:
        """Events of these types are in its history, in this order, whatever else is between them. Raises AssertionError
        with the history."""
        seen = [type(event).__name__ for event in await self.history()]
        rest = iter(seen)
        for position, wanted in enumerate(types):
            if not any(name == wanted for name in rest):
                before = f" after {types[position - 1]}" if position else ""
                listed = "\n  ".join(seen)
                raise AssertionError(f"no {wanted}{before} in the history of {self.workflow_id}:\n  {listed}")


class TestEngine:
    """The daemon, and what a test does to it."""

    __test__ = False

    def __init__(self, daemon: Daemon, nodes: NodeTypes, clock: TrioClock, nursery: trio.Nursery) -> None:
        self._daemon = daemon
        self._nodes = nodes
        self._clock = clock
        self._nursery = nursery
        self._calls: dict[str, list[JSON]] = {}
        self._fakes: dict[str, Fake] = {}

    @property
    def now(self) -> datetime:
        """The time it is for the daemon."""
        return moment(self._clock.now())

    async def settle(self) -> None:
        """Let everything happen that can, while no time passes."""
        await trio.testing.wait_all_tasks_blocked()

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """So much time passes, and what is due on the way happens when it is due."""
        await trio.sleep(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds())
        await self.settle()

    # --- fakes ------------------------------------------------------------------------------------------------------

    def activity(self, name: str, fake: Fake | None = None) -> Callable[[Fake], Fake]:
        """Have this stand for the workers of `activity:NAME` (or a Lambda function of that name): as a decorator, or
        with the function. Raise `ActivityError` in it for an error with a name. A second one of a name takes the
        first's place."""

        def add(function: Fake) -> Fake:
            if name not in self._fakes:
                self._nursery.start_soon(self._work, name)
            self._fakes[name] = function
            return function

        if fake is not None:
            add(fake)
        return add

    def node(self, resource: str, fake: Fake | None = None) -> Callable[[Fake], Fake]:
        """The same for a node type: `engine.node("http", answer)` stands for HTTP calls."""

        def add(function: Fake) -> Fake:
            self._nodes.replace(resource, _FakeNode(self, resource, function))
            return function

        if fake is not None:
            add(fake)
        return add

    def calls_of(self, name: str) -> list[JSON]:
        """What the fake of that name was given so far, attempt by attempt."""
        return self._calls.setdefault(name, [])

    async def _work(self, name: str) -> None:
        links, caller = self._daemon.links, Caller(TENANT, WORKER)
        queue = QueueKey(TENANT, TaskKind.ACTIVITY, name)
        while True:
            ask = MatchTasks(queue=queue, worker_id=WORKER, max_tasks=POLL_TASKS, wait_seconds=FOREVER_SECONDS)
            chosen = await links.matching.request(caller, ask, MatchTasksResult, 2 * FOREVER_SECONDS)
            start = StartTasks(tasks=chosen.tasks, worker_id=WORKER)
            started = await links.history.request(caller, start, calls.PollTaskResult, FOREVER_SECONDS)
            for task in started.tasks:
                self._nursery.start_soon(self._run, name, task)

    async def _run(self, name: str, task: calls.WorkerTask) -> None:
        report: calls.Call
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat, task)
            try:
                output = await self.answer(name, self._fakes[name], decode(task.input))
                report = calls.CompleteTask(token=task.token, output=encode(output))
            except ActivityError as error:
                report = calls.FailTask(
                    token=task.token,
                    error=error.error,
                    cause=error.cause,
                    retry_after_seconds=error.retry_after_seconds,
                )
            except Exception as error:  # noqa: BLE001 - as in a worker: whatever a function raises fails its task
                report = calls.FailTask(token=task.token, error=type(error).__name__, cause=str(error))
            nursery.cancel_scope.cancel()
        try:
            await self._report(report)
        except Refused as refused:
            if refused.status is not ErrorStatus.INVALID_ARGUMENT or not isinstance(report, calls.CompleteTask):
                raise
            # As the worker kit does with an output that the daemon does not take.
            why = DATA_LIMIT_EXCEEDED if "limit_bytes" in refused.data else OUTPUT_REFUSED
            await self._report(calls.FailTask(token=task.token, error=why, cause=refused.message))

    async def _report(self, report: calls.Call) -> None:
        try:
            await self.call(report, calls.Acknowledged)
        except Refused as refused:
            if refused.status is not ErrorStatus.FAILED_PRECONDITION:
                raise  # else nobody waits for it any more, as it may be for any worker

    async def _beat(self, task: calls.WorkerTask) -> None:
        while True:
            await trio.sleep(task.lease_seconds / LEASES)
            beat = calls.HeartbeatTask(token=task.token, progress=False)
            try:
                if (await self.call(beat, calls.HeartbeatTaskResult)).cancel_requested:
                    return
            except Refused as refused:
                if refused.status is not ErrorStatus.FAILED_PRECONDITION:
                    raise
                return  # nobody waits for it any more; what it answers will not count

    async def answer(self, name: str, fake: Fake, given: JSON) -> JSON:
        """What the fake says, noted as a call of it."""
        self.calls_of(name).append(given)
        answer = fake(given)
        return await answer if inspect.isawaitable(answer) else answer

    # --- executions -------------------------------------------------------------------------------------------------

    async def register(self, name: str, definition: Mapping[str, JSON] | str | Path) -> int:
        """Register a definition (a document, its text, or the file that has it). Its version. Raises Refused."""
        call = calls.RegisterWorkflow(name=name, definition=_document(definition))
        return (await self.call(call, calls.RegisterWorkflowResult)).version

    async def start(
        self,
        workflow: str | Path | Mapping[str, JSON],
        input: JSON = None,
        *,
        workflow_id: str | None = None,
        timeout_seconds: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> TestRun:
        """Start an execution of a registered workflow (by its name), or of a definition (a document or a file). Raises
        Refused."""
        named = isinstance(workflow, str)
        call = calls.StartWorkflow(
            workflow=workflow if isinstance(workflow, str) else None,
            definition=UNSET if named else _document(workflow),
            input=encode({} if input is None else input),
            workflow_id=workflow_id,
            timeout_seconds=timeout_seconds,
            labels=dict(labels or {}),
        )
        started = await self.call(call, calls.StartWorkflowResult)
        return TestRun(self, started.workflow_id, started.run_id)

    async def wait(self, workflow_id: str, run_id: str) -> calls.DescribeWorkflowResult:
        """How this run ended, once it has. Not over the wire, which lets nobody wait for more than an hour at once."""
        call = calls.WaitWorkflow(workflow_id=workflow_id, run_id=run_id, wait_seconds=FOREVER_SECONDS)
        history, caller = self._daemon.links.history, Caller(TENANT, _OWNER.subject)
        while True:
            seen = await history.request(caller, call, calls.DescribeWorkflowResult, 2 * FOREVER_SECONDS)
            if seen.status.closed:
                return seen

    async def call(self, call: calls.Call, result: type[R]) -> R:
        """Any call of the wire. Raises Refused."""
        answer = await self._daemon.gateway.call(_OWNER, type(call).__name__, msgspec.json.encode(call))
        return msgspec.json.decode(answer, type=result)


class _FakeNode:
    """Stands for a node type."""

    def __init__(self, engine: TestEngine, resource: str, fake: Fake) -> None:
        self._engine = engine
        self._resource = resource
        self._fake = fake

    async def run(self, call: NodeCall) -> JSON:
        try:
            return await self._engine.answer(self._resource, self._fake, call.input)
        except ActivityError as error:
            raise NodeFailure(error.error, error.cause, retry_after_seconds=error.retry_after_seconds) from error


@asynccontextmanager
async def running_engine(folder: Path, seed: int, settings: Settings | None = None) -> AsyncIterator[TestEngine]:
    """A daemon, from its start to its end. To be used under a mock clock that jumps by itself."""
    chosen = settings if settings is not None else Settings()
    timer = msgspec.structs.replace(chosen.timer, scan_limit_seconds=SCAN_LIMIT_SECONDS)
    chosen = msgspec.structs.replace(chosen, timer=timer)
    clock, nodes = TrioClock(), NodeTypes(chosen)
    store = MemoryStore(chosen.store.store_shards, random.Random(seed).randbytes(32))
    daemon = Daemon(chosen, folder, clock, store=store, nodes=nodes, seed=seed, listen=False)
    async with trio.open_nursery() as services:
        await services.start(daemon.run)
        async with trio.open_nursery() as workers:
            yield TestEngine(daemon, nodes, clock, workers)
            workers.cancel_scope.cancel()
        services.cancel_scope.cancel()


def _document(definition: Mapping[str, JSON] | str | Path) -> Raw:
    if isinstance(definition, Path):
        return encode(definition.read_text())
    return encode(definition if isinstance(definition, str) else dict(definition))
