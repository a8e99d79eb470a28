"""The Worker: runs node types inside the daemon, one Trio task an attempt.

Matching sends it at most as many tasks as it has slots. Each attempt ends in one outcome, offered to History at once
and kept until History says that it is on disk; only then may it be forgotten, so that a History that restarts in
between asks again and loses nothing. The Worker itself keeps nothing on disk: when it restarts it attaches under a new
incarnation, and Matching queues again what the earlier one held.

Nothing here decides what an outcome means: no retries, no matching of errors.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from daemon.execution.destination import model_of
from daemon.links.interface import Caller, Request
from daemon.links.table import Links
from daemon.logs import about
from daemon.metrics import Metrics
from daemon.nodes.attempt import Attempt
from daemon.nodes.registry import NodeTypes
from daemon.settings import WorkerSettings
from enginekit.messages.links import (
    Announce,
    AttachWorker,
    CancelTasks,
    DestinationReport,
    LoadTask,
    LoadTaskResult,
    OutcomesRecorded,
    Ping,
    Pong,
    ReportAgain,
    RunTask,
    TaskOutcome,
    TaskRef,
    TasksFinished,
    TaskSpec,
    ToWorker,
)
from enginekit.messages.status import ErrorStatus, Refused

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

WORKER_ID = "daemon"
"""The `worker` of what the daemon runs itself."""

REPORT_AGAIN_SECONDS = 10.0
"""How long an outcome may stay unrecorded before it is reported again: a commit takes milliseconds."""
RECORD_SECONDS = 5.0
"""How long the end of a drain waits for History to record the last outcomes."""
LOAD_SECONDS = 10.0
LOAD_PAUSE_SECONDS = 0.1
LOAD_PAUSE_LIMIT_SECONDS = 5.0

_log: FilteringBoundLogger = structlog.get_logger("worker")


class _Report:
    """An outcome that History has not yet confirmed.

    `reported_at` is when it was last put on the link; `freed` says that Matching is told of the free slot, `again`
    that Matching, restarted since, offered the task once more and counts a slot for it.
    """

    __slots__ = ("again", "freed", "outcome", "reported_at")

    def __init__(self, outcome: TaskOutcome) -> None:
        self.outcome = outcome
        self.reported_at = math.inf
        self.freed = False
        self.again = False


class Worker:
    """One run of the Worker service.

    `incarnations` numbers the runs, upwards for as long as Matching may remember one: it belongs to whoever restarts
    the Worker. An output over `payload_bytes` fails the attempt.
    """

    def __init__(
        self,
        links: Links,
        settings: WorkerSettings,
        nodes: NodeTypes,
        *,
        incarnations: Iterator[int],
        payload_bytes: int = 256 * 1024,
        worker_id: str = WORKER_ID,
        metrics: Metrics | None = None,
    ) -> None:
        self._links = links
        self._settings = settings
        self._nodes = nodes
        self._payload_bytes = payload_bytes
        self._worker_id = worker_id
        self._metrics = metrics
        self._incarnation = next(incarnations)
        self._slots = settings.slots
        self._running: dict[TaskRef, Attempt] = {}
        self._unrecorded: dict[TaskRef, _Report] = {}
        self._unsent: deque[_Report] = deque()
        self._finished: list[TaskRef] = []
        self._reports: list[DestinationReport] = []
        self._attach_due = True
        self._wake_outcomes = trio.Event()
        self._wake_slots = trio.Event()
        self._wake_again = trio.Event()
        self._wake_drain = trio.Event()

    @property
    def running(self) -> int:
        """How many attempts are under way."""
        return len(self._running)

    @property
    def unrecorded(self) -> int:
        """How many outcomes History has not yet confirmed."""
        return len(self._unrecorded)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Attach to Matching and run what it sends, until cancelled. Once: a restart takes a new Worker.

        Started as soon as it receives. Cancelled: what runs is cancelled with it and reports nothing.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report_outcomes)
            nursery.start_soon(self._report_slots)
            nursery.start_soon(self._report_again)
            nursery.start_soon(self._nodes.serve)
            task_status.started()
            while True:
                for message in await self._links.worker.receive():
                    self._take(message, nursery)

    async def drain(self) -> None:
        """Take no more, and return when what runs has ended and is recorded. Needs `run` to go on meanwhile.

        Bounded by `drain_seconds` for what runs and RECORD_SECONDS more for what is to be recorded; what is left is
        run again after the next start. Cancelled: still takes no more.
        """
        self._slots = 0
        self._attach()
        _log.info("worker drains", running=len(self._running), unrecorded=len(self._unrecorded))
        with trio.move_on_after(self._settings.drain_seconds):
            while self._running:
                await self._change()
        with trio.move_on_after(RECORD_SECONDS):
            while self._unrecorded:
                await self._change()
        if self._running or self._unrecorded:
            _log.warning(
                "worker drained in part: what is left runs again at the next start",
                running=len(self._running),
                unrecorded=len(self._unrecorded),
            )

    async def _change(self) -> None:
        self._wake_drain = trio.Event()
        await self._wake_drain.wait()

    # --- what comes in -------------------------------------------------------------------------------------------

    def _take(self, message: ToWorker | Request, nursery: trio.Nursery) -> None:
        match message:
            case RunTask():
                self._begin(message, nursery)
            case OutcomesRecorded():
                self._forget(message.tasks)
            case CancelTasks():
                self._cancel(message.tasks)
            case Announce():
                self._attach()
            case ReportAgain():
                self._unsent.clear()
                self._send_again(list(self._unrecorded.values()))
            case Request(call=Ping()):
                message.answer(Pong())
            case Request():
                name = type(message.call).__name__
                message.refuse(Refused(ErrorStatus.INVALID_ARGUMENT, f"the Worker does not answer {name}"))

    def _begin(self, message: RunTask, nursery: trio.Nursery) -> None:
        task = message.task
        if task in self._running:
            return
        report = self._unrecorded.get(task)
        if report is not None:
            report.again = True
        elif self._slots:
            attempt = self._running[task] = Attempt()
            nursery.start_soon(self._run, task, message.spec, attempt)

    def _forget(self, tasks: list[TaskRef]) -> None:
        for task in tasks:
            report = self._unrecorded.pop(task, None)
            if report is not None and (report.again or not report.freed):
                self._finished.append(task)
        if self._finished:
            self._wake_slots.set()
        self._wake_drain.set()

    def _cancel(self, tasks: list[TaskRef]) -> None:
        for task in tasks:
            attempt = self._running.get(task)
            if attempt is not None:
                attempt.wanted = False
                attempt.scope.cancel()
        self._forget(tasks)

    def _attach(self) -> None:
        self._attach_due = True
        self._wake_slots.set()

    # --- an attempt ----------------------------------------------------------------------------------------------

    async def _run(self, task: TaskRef, spec: TaskSpec | None, attempt: Attempt) -> None:
        outcome: TaskOutcome | None = None
        started = trio.current_time()
        try:
            with attempt.scope:
                if spec is None:
                    spec = await self._load(task)
                if spec is not None:
                    started = trio.current_time()
                    outcome = await attempt.run(spec, self._nodes, self._worker_id, self._payload_bytes)
            if attempt.scope.cancelled_caught:
                outcome = attempt.timed_out(task, self._worker_id)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - out of a node type's clean-up; the others go on
            outcome = attempt.failed(task, None if spec is None else spec.resource, self._worker_id, error)
        del self._running[task]
        if outcome is not None and attempt.wanted:
            if spec is not None and spec.destination is not None and attempt.healthy is not None:
                self._reports.append(DestinationReport(task, spec.destination, attempt.healthy))
            self._count(spec, outcome)
            self._report(msgspec.structs.replace(outcome, ran_seconds=trio.current_time() - started))
        else:
            self._finished.append(task)
            self._wake_slots.set()
        self._wake_drain.set()

    def _count(self, spec: TaskSpec | None, outcome: TaskOutcome) -> None:
        called = None if spec is None else model_of(spec.resource, spec.destination)
        if called is None or self._metrics is None:
            return
        result = "timed_out" if outcome.timed_out is not None else "failed" if outcome.error is not None else "ok"
        self._metrics.model_called(*called, result, outcome.usage)

    async def _load(self, task: TaskRef) -> TaskSpec | None:
        """The task's spec, or None when it is over. Asks until History answers: it may be restarting."""
        pause = LOAD_PAUSE_SECONDS
        while True:
            try:
                caller = Caller(task.run.tenant, self._worker_id)
                loaded = await self._links.history.request(caller, LoadTask(task=task), LoadTaskResult, LOAD_SECONDS)
                return loaded.spec
            except Refused as refused:
                if refused.status is ErrorStatus.NOT_FOUND:
                    return None
                _log.warning("task not loaded, asking again", reason=str(refused), **about(task))
            await trio.sleep(pause)
            pause = min(pause * 2, LOAD_PAUSE_LIMIT_SECONDS)

    # --- what goes out -------------------------------------------------------------------------------------------

    def _report(self, outcome: TaskOutcome) -> None:
        report = self._unrecorded[outcome.task] = _Report(outcome)
        self._wake_again.set()
        if self._links.history.offer(outcome):
            self._reported(report)
        else:
            self._unsent.append(report)
            self._wake_outcomes.set()

    def _reported(self, report: _Report) -> None:
        # Only now may Matching forget the task: were this Worker to end earlier, nobody would run it again.
        report.reported_at = trio.current_time()
        if not report.freed:
            report.freed = True
            self._finished.append(report.outcome.task)
            self._wake_slots.set()

    def _held(self, report: _Report) -> bool:
        return self._unrecorded.get(report.outcome.task) is report

    def _send_again(self, reports: list[_Report]) -> None:
        for report in reports:
            report.reported_at = math.inf
        self._unsent.extend(reports)
        self._wake_outcomes.set()

    async def _report_outcomes(self) -> None:
        """Put on History's link what found no room there, or is to be reported again."""
        while True:
            while self._unsent:
                report = self._unsent.popleft()
                if self._held(report):
                    await self._links.history.send(report.outcome)
                    if self._held(report):
                        self._reported(report)
            self._wake_outcomes = trio.Event()
            await self._wake_outcomes.wait()

    async def _report_slots(self) -> None:
        """Tell Matching of this Worker and of the slots that came free, many at once."""
        # While History does not keep up with recording, no more work: what is unrecorded is in memory.
        limit = 2 * self._settings.slots
        while True:
            if self._attach_due:
                self._attach_due = False
                resources = sorted(self._nodes.names())
                await self._links.matching.send(
                    AttachWorker(self._worker_id, self._incarnation, resources, self._slots)
                )
            elif self._finished and len(self._unrecorded) <= limit:
                tasks, self._finished = self._finished, []
                reports, self._reports = self._reports, []
                await self._links.matching.send(TasksFinished(self._worker_id, self._incarnation, tasks, reports))
            else:
                self._wake_slots = trio.Event()
                await self._wake_slots.wait()

    async def _report_again(self) -> None:
        """Report once more what has stayed unrecorded for long: a message may be lost when its receiver restarts."""
        while True:
            if not self._unrecorded:
                self._wake_again = trio.Event()
                await self._wake_again.wait()
            await trio.sleep(REPORT_AGAIN_SECONDS)
            due = trio.current_time() - REPORT_AGAIN_SECONDS
            late = [report for report in self._unrecorded.values() if report.reported_at <= due]
            if late:
                _log.warning("outcomes stay unrecorded, reporting them again", outcomes=len(late))
                self._send_again(late)
