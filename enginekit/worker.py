"""The worker kit: run your own functions for the tasks of `activity:NAME` resources.

    async with open_client(url, token) as client:
        await Worker(client, {"resize": resize}).run()

What lives here: polling for as many tasks as there are free slots, running them, keeping their leases, stopping. What
a function looks like is in `activity`, how outcomes are reported in `reports`.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import uuid
from collections.abc import Mapping
from typing import Final

import trio

from enginekit.activity import Activity, ActivityError, Prepared, TaskContext, failure, prepare
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.calls import HeartbeatTask, PollTask, ReturnTask, TaskCompletion, WorkerTask
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.methods import Caller
from enginekit.reports import Reporter

__all__ = ["Activity", "ActivityError", "TaskContext", "Worker"]

CANCELED: Final = "ActivityCanceled"
"""What a task fails with that was stopped because its execution asked for it."""
_POLL_TASKS: Final = 100
_RETURN_SECONDS: Final = 2.0

_log = logging.getLogger("enginekit.worker")


class _Running:
    """A task in a slot."""

    def __init__(self, task: WorkerTask) -> None:
        self.task = task
        self.context = TaskContext(task)
        self.function = trio.CancelScope()
        self.canceled = False
        self.unwanted = False

    def stop(self) -> None:
        self.context.cancelled = True
        self.function.cancel()


class Worker:
    """Polls the queues named in `activities` and runs their functions: async ones on Trio, others in threads.

    `concurrency` bounds how many run at once, over all queues; each queue needs one. `poll_seconds` is how long the
    daemon may hold a poll, `drain_seconds` how long running tasks may go on after `stop`.

    Raises ValueError for too few slots, TypeError for a function that cannot be an activity.
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
        self._slots = trio.Semaphore(concurrency)
        self._threads = trio.CapacityLimiter(concurrency)
        self._reporter = Reporter(client)
        self._running: set[_Running] = set()
        self._idle = trio.Event()
        self._stopping = trio.Event()
        self._refusal: Refused | ProtocolError | None = None

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
        while True:
            await self._slots.acquire()
            reserved = 1
            while (alone or busy) and reserved < _POLL_TASKS and self._try_slot():
                reserved += 1
            taken: list[WorkerTask] = []
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
                self._refusal = error
                self.stop()
                return
            finally:
                for _ in range(reserved - len(taken)):
                    self._slots.release()
            busy = len(taken) == reserved
            for task in taken:
                tasks.start_soon(self._run_task, activity, task)

    def _try_slot(self) -> bool:
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def _run_task(self, activity: Prepared, task: WorkerTask) -> None:
        running = _Running(task)
        self._running.add(running)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_lease, running)
                outcome = await self._attempt(activity, running)
                if outcome is not None:
                    await self._reporter.report(outcome)
                elif not running.unwanted:
                    await self._give_back(task.token)
                nursery.cancel_scope.cancel()
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _RETURN_SECONDS):
                await self._give_back(task.token)
            raise
        finally:
            self._running.remove(running)
            self._slots.release()
            if not self._running:
                self._idle.set()

    async def _attempt(self, activity: Prepared, running: _Running) -> TaskCompletion | None:
        """Run the function. None when it was stopped before it had an outcome."""
        token = running.task.token
        try:
            with running.function:
                value = decode(running.task.input)
                if activity.is_async:
                    result = await activity.call_async(value, running.context)
                else:
                    result = await trio.to_thread.run_sync(
                        activity.call_sync, value, running.context, abandon_on_cancel=True, limiter=self._threads
                    )
                return TaskCompletion(token=token, output=encode(result))
        except Exception as error:  # noqa: BLE001 whatever a function raises is how its task failed
            if not running.context.cancelled:
                name, cause = failure(error)
                _log.info("%s, attempt %d failed: %s: %s", running.task.node, running.task.attempt, name, cause)
                return TaskCompletion(token=token, error=name, cause=cause)
        if running.canceled:
            return TaskCompletion(token=token, error=CANCELED, cause="stopped at the execution's request")
        return None

    async def _keep_lease(self, running: _Running) -> None:
        """Heartbeats, until the outcome is recorded or somebody says that nobody wants it."""
        task = running.task
        interval = min(task.lease_seconds, task.heartbeat_seconds or task.lease_seconds) / 3
        while True:
            await trio.sleep(interval)
            try:
                answer = await self._client.call(
                    HeartbeatTask(token=task.token, details=running.context.details), timeout_seconds=interval
                )
            except Unreachable as error:
                _log.warning("%s: a heartbeat was not answered: %s", task.node, error)
            except ProtocolError as error:
                _log.error("%s: a heartbeat was not understood: %s", task.node, error)
            except Refused as refused:
                if refused.status not in (ErrorStatus.FAILED_PRECONDITION, ErrorStatus.NOT_FOUND):
                    _log.error("%s: a heartbeat was refused: %s", task.node, refused)
                    continue
                running.unwanted = True
                running.stop()
                return
            else:
                if answer.cancel_requested:
                    running.canceled = True
                    running.stop()

    async def _drain(self) -> None:
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

    async def _give_back(self, token: str) -> None:
        try:
            await self._client.call(ReturnTask(token=token, reason=f"{self.worker_id} is stopping"))
        except (Refused, Unreachable, ProtocolError, trio.ClosedResourceError) as error:
            _log.info("a task was not given back, its lease will lapse: %s", error)


def _make_worker_id() -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "worker"
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
