"""The worker kit: run your own functions for the tasks of `activity:NAME` resources.

    async with open_client(url, token) as client:
        await Worker(client, {"resize": resize}).run()

What lives here: polling for as many tasks as there are free slots, running them, keeping their leases, stopping. What
a function looks like is in `activity`, how outcomes are reported in `reports`.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import trio

from enginekit.activity import (
    CURRENT,
    Activities,
    Activity,
    ActivityError,
    Prepared,
    TaskContext,
    failure,
    prepare,
)
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.calls import HeartbeatTask, PollTask, ReturnTask, StopPolls, TaskCompletion, WorkerTask
from enginekit.messages.json import NULL, decode, encode
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.methods import Caller
from enginekit.reports import Reporter

__all__ = ["Activities", "Activity", "ActivityError", "TaskContext", "Worker"]

_POLL_TASKS: Final = 100
_RETURN_SECONDS: Final = 2.0
_DEFECT_PAUSE_SECONDS: Final = 5.0
"""After an answer that says the daemon is at fault."""

_log = logging.getLogger("enginekit.worker")


class _Running:
    """A task in a slot."""

    def __init__(self, queue: str, task: WorkerTask) -> None:
        self.task = task
        token = trio.lowlevel.current_trio_token()
        self.context = TaskContext(task, partial(_call_soon, token, self._speak))
        self.spoke = trio.Event()
        self.sent = NULL
        """The details that the daemon has."""
        self.function = trio.CancelScope()
        self.ended = False
        """The function has: what is left is to report how."""
        self.unwanted = False
        self.about = {
            "queue": queue,
            "workflow_id": task.workflow_id,
            "run_id": task.run_id,
            "path": task.path,
            "attempt": task.attempt,
        }
        """For the log."""

    def stop(self) -> None:
        self.context.cancelled = True
        self.function.cancel()

    def _speak(self) -> None:
        self.spoke.set()


class Worker:
    """Polls the queues named in `activities` and runs their functions: async ones on Trio, others in threads.

    `concurrency` bounds how many run at once, over all queues; each queue needs one. `poll_seconds` is how long the
    daemon may hold a poll, `drain_seconds` how long running tasks may go on after `stop`. `heartbeat_seconds` is the
    longest time between two heartbeats of a task, and so until a function learns that it is cancelled; a short lease or
    a state's `HeartbeatSeconds` makes it shorter.

    Raises ValueError for too few slots or a queue's name that there cannot be, TypeError for a function that cannot be
    an activity.
    """

    def __init__(
        self,
        client: Caller,
        activities: Mapping[str, Activity],
        *,
        concurrency: int = 16,
        worker_id: str | None = None,
        poll_seconds: float = 30.0,
        drain_seconds: float = 20.0,
        heartbeat_seconds: float = 5.0,
    ) -> None:
        if not activities:
            raise ValueError("a worker needs at least one activity")
        if concurrency < len(activities):
            raise ValueError(f"{len(activities)} queues need as many slots, concurrency is {concurrency}")
        self.worker_id = worker_id or _make_worker_id()
        self._client = client
        self._activities = {queue: prepare(queue, function) for queue, function in activities.items()}
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._slots = trio.Semaphore(concurrency)
        self._threads = trio.CapacityLimiter(concurrency)
        self._reporter = Reporter(client)
        self._running: set[_Running] = set()
        self._idle = trio.Event()
        self._polling = 0
        self._poll_ended = trio.Event()
        self._stopping = trio.Event()
        self._refusal: Refused | ProtocolError | None = None

    @property
    def queues(self) -> list[str]:
        """The task queues it polls."""
        return list(self._activities)

    @property
    def running(self) -> int:
        """How many tasks it has in hand."""
        return len(self._running)

    def stop(self) -> None:
        """Take no more tasks. `run` returns when those that run have ended, or `drain_seconds` later, after giving
        back what is left."""
        self._stopping.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until `stop`. A daemon that is away for a while is waited for.

        Raises Refused when the daemon does not let this worker poll, ProtocolError when it is not understood. When
        cancelled, it stops what runs and takes at most two seconds to give the tasks back.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reporter.run)
            async with trio.open_nursery() as pollers:
                for queue, activity in self._activities.items():
                    pollers.start_soon(self._poll, queue, activity, nursery)
                task_status.started()
                await self._stopping.wait()
                if self._refusal is None:
                    with trio.move_on_after(_RETURN_SECONDS):
                        await self._stop_polls()
                pollers.cancel_scope.cancel()
            await self._drain()
            nursery.cancel_scope.cancel()
        if self._refusal is not None:
            raise self._refusal

    async def _poll(self, queue: str, activity: Prepared, tasks: trio.Nursery) -> None:
        """While a queue is quiet its poll holds one slot (all that are free, if it is the only queue); as long as
        tasks come, it asks for as many as there are free slots."""
        alone = len(self._activities) == 1
        busy = False
        while not self._stopping.is_set():
            await self._slots.acquire()
            reserved = 1
            while (alone or busy) and reserved < _POLL_TASKS and self._try_slot():
                reserved += 1
            taken: list[WorkerTask] = []
            self._polling += 1
            try:
                poll = PollTask(
                    queue=queue,
                    worker_id=self.worker_id,
                    max_tasks=reserved,
                    wait_seconds=0.0 if busy and not alone else self._poll_seconds,
                )
                taken = (await self._client.call(poll)).tasks
            except Unreachable as error:
                _log.warning("queue %s: %s", queue, error)
            except (Refused, ProtocolError) as error:
                if isinstance(error, Refused) and error.status is ErrorStatus.INTERNAL:
                    _log.error("queue %s: %s", queue, error)
                    await trio.sleep(_DEFECT_PAUSE_SECONDS)
                    continue
                self._refusal = error
                self.stop()
                return
            finally:
                self._polling -= 1
                self._poll_ended.set()
                for _ in range(reserved - len(taken)):
                    self._slots.release()
            busy = len(taken) == reserved
            for task in taken:
                running = _Running(queue, task)
                self._running.add(running)
                tasks.start_soon(self._run_task, activity, running)

    async def _stop_polls(self) -> None:
        """Have the daemon end the polls: one that is only forgotten here would take a task yet, which then has to be
        given back."""
        try:
            await self._client.call(StopPolls(worker_id=self.worker_id))
        except (Refused, Unreachable, ProtocolError) as error:
            _log.info("the daemon was not told that no more is polled: %s", error)
            return
        while self._polling:
            self._poll_ended = trio.Event()
            await self._poll_ended.wait()

    def _try_slot(self) -> bool:
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def _run_task(self, activity: Prepared, running: _Running) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_lease, running)
                outcome = await self._attempt(activity, running)
                running.ended = True
                if (outcome is None or outcome.error is not None) and not running.unwanted:
                    await self._say(running)
                if outcome is not None:
                    await self._reporter.report(outcome)
                elif not running.unwanted:
                    await self._give_back(running)
                nursery.cancel_scope.cancel()
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _RETURN_SECONDS):
                await self._give_back(running)
            raise
        finally:
            self._running.remove(running)
            self._slots.release()
            if not self._running:
                self._idle.set()

    async def _attempt(self, activity: Prepared, running: _Running) -> TaskCompletion | None:
        """Run the function. None when it was stopped before it had an outcome."""
        token = running.task.token
        CURRENT.set(running.context)
        try:
            with running.function:
                _log.debug("task taken", extra=running.about)
                value = decode(running.task.input)
                if activity.is_async:
                    result = await activity.call_async(value, running.context)
                else:
                    result = await trio.to_thread.run_sync(
                        activity.call_sync, value, running.context, abandon_on_cancel=True, limiter=self._threads
                    )
                outcome = TaskCompletion(token=token, output=encode(result))
                _log.debug("task done", extra=running.about)
                return outcome
        except (Exception, SystemExit) as error:  # noqa: BLE001 whatever a function raises is how its task failed
            if not running.context.cancelled:
                failed = failure(error)
                _log.warning(
                    "task failed: %s: %s",
                    failed.error,
                    failed.cause,
                    extra=running.about,
                    exc_info=None if failed.expected else error,
                )
                return TaskCompletion(
                    token=token,
                    error=failed.error,
                    cause=failed.cause,
                    retry_after_seconds=failed.retry_after_seconds,
                )
        return None

    async def _keep_lease(self, running: _Running) -> None:
        """Heartbeats, until the outcome is recorded or somebody says that nobody wants it.

        What the function says goes out at once, but no sooner than an interval after what it said last: so two calls
        of its own that are less than `HeartbeatSeconds` apart arrive less than that apart.
        """
        task, context = running.task, running.context
        interval = min(task.lease_seconds / 3, (task.heartbeat_seconds or math.inf) / 3, self._heartbeat_seconds)
        sent_at = trio.current_time()
        said_at = -math.inf
        while not running.unwanted:
            with trio.move_on_at(sent_at + interval):
                await running.spoke.wait()
                await trio.sleep_until(said_at + interval)
            sent_at = trio.current_time()
            spoke = running.spoke.is_set()
            if spoke:
                running.spoke = trio.Event()
                said_at = sent_at
            await self._beat(running, spoke or not context.speaks, interval)

    async def _say(self, running: _Running) -> None:
        """What the function said last, before the attempt ends without a result: the next one goes on from there."""
        if running.context.details != running.sent:
            await self._beat(running, True, _RETURN_SECONDS)

    async def _beat(self, running: _Running, progress: bool, timeout_seconds: float) -> None:
        details = running.context.details
        beat = HeartbeatTask(token=running.task.token, details=details, progress=progress)
        try:
            answer = await self._client.call(beat, timeout_seconds=timeout_seconds)
        except Unreachable as error:
            _log.warning("a heartbeat was not answered: %s", error, extra=running.about)
        except ProtocolError as error:
            _log.error("a heartbeat was not understood: %s", error, extra=running.about)
        except Refused as refused:
            if refused.status in (ErrorStatus.FAILED_PRECONDITION, ErrorStatus.NOT_FOUND):
                self._abandon(running, logging.WARNING, refused.message)
            else:
                _log.error("a heartbeat was refused: %s", refused, extra=running.about)
        else:
            running.sent = details
            if answer.cancel_requested:
                self._abandon(running, logging.INFO, "its execution does not want it any more")

    def _abandon(self, running: _Running, level: int, why: str) -> None:
        """Nobody wants the outcome: there is nothing to report, and nothing to give back. Where there is one already,
        its report finds that out (or has just been recorded)."""
        if running.ended:
            return
        if not running.unwanted:
            _log.log(level, "task stopped: %s", why, extra=running.about)
        running.unwanted = True
        running.stop()

    async def _drain(self) -> None:
        if self._running:
            _log.info("finishing %d tasks, for at most %g s", len(self._running), self._drain_seconds)
        with trio.move_on_after(self._drain_seconds):
            await self._until_idle()
        for running in self._running:
            running.stop()
        with trio.move_on_after(_RETURN_SECONDS):
            await self._until_idle()

    async def _until_idle(self) -> None:
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _give_back(self, running: _Running) -> None:
        reason = f'worker "{self.worker_id}" is stopping'
        try:
            await self._client.call(ReturnTask(token=running.task.token, reason=reason))
        except (Refused, Unreachable, ProtocolError, trio.ClosedResourceError) as error:
            _log.warning("task not given back, its lease will lapse: %s", error, extra=running.about)
        else:
            _log.info("task given back", extra=running.about)


def _call_soon(token: trio.lowlevel.TrioToken, function: Callable[[], None]) -> None:
    """In Trio's thread, from any. Nothing once its run has ended: a synchronous activity may outlive it."""
    try:
        token.run_sync_soon(function, idempotent=True)
    except trio.RunFinishedError:
        return


def _make_worker_id() -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "worker"
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
