"""How a worker's outcomes reach the daemon: one at a time while little happens, many in a call when they queue up.

An outcome is kept until the daemon has it on disk or says that it has no use for it.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

import trio

from enginekit.activity import CAUSE_LENGTH
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.calls import CompleteTask, CompleteTasks, CompletionResult, FailTask, TaskCompletion
from enginekit.messages.json import size
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.methods import Caller

DATA_LIMIT_EXCEEDED: Final = "States.DataLimitExceeded"
"""What a task fails with whose output is larger than the daemon takes."""
OUTPUT_REFUSED: Final = "OutputRefused"
"""What it fails with when the daemon does not take its output for another reason (nested too deeply, for one)."""
_BATCH_TASKS: Final = 100
_BATCH_BYTES: Final = 512 * 1024

_log = logging.getLogger("enginekit.worker")


class _Waiting:
    __slots__ = ("completion", "settled")

    def __init__(self, completion: TaskCompletion) -> None:
        self.completion = completion
        self.settled = trio.Event()


class Reporter:
    """`run` it in a nursery. It holds at most one outcome for each task that runs."""

    def __init__(self, client: Caller) -> None:
        self._client = client
        self._waiting: deque[_Waiting] = deque()
        self._work = trio.Event()

    async def report(self, completion: TaskCompletion) -> None:
        """Return once the daemon has the outcome, or will never want it. Never raises Refused or Unreachable."""
        waiting = _Waiting(completion)
        self._waiting.append(waiting)
        self._work.set()
        await waiting.settled.wait()

    async def run(self) -> None:
        while True:
            batch = self._next_batch()
            if not batch:
                self._work = trio.Event()
                await self._work.wait()
            elif len(batch) == 1:
                await self._send_one(batch[0])
            else:
                await self._send_many(batch)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        length = 0
        while self._waiting and len(batch) < _BATCH_TASKS:
            length += size(self._waiting[0].completion.output)
            if batch and length > _BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send_many(self, batch: list[_Waiting]) -> None:
        try:
            answer = await self._client.call(CompleteTasks(tasks=[each.completion for each in batch]))
        except Unreachable as error:
            _log.warning("%d outcomes are still to be reported: %s", len(batch), error)
            self._waiting.extendleft(reversed(batch))
            return
        except (Refused, ProtocolError):
            # One of them spoils the call: alone, each is refused or taken for itself.
            for each in batch:
                await self._send_one(each)
            return
        for each, result in zip(batch, answer.results, strict=True):
            if result.status is None:
                each.settled.set()
            elif _worth_repeating(result):
                await self._send_one(each)
            else:
                _log.info("an outcome was not wanted: %s", result.message or result.reason or result.status)
                each.settled.set()

    async def _send_one(self, waiting: _Waiting) -> None:
        done = waiting.completion
        try:
            if done.error is None:
                await self._client.call(CompleteTask(token=done.token, output=done.output))
            else:
                await self._client.call(
                    FailTask(
                        token=done.token,
                        error=done.error,
                        cause=done.cause,
                        retry_after_seconds=done.retry_after_seconds,
                    )
                )
        except Unreachable as error:
            _log.warning("an outcome is still to be reported: %s", error)
            self._waiting.appendleft(waiting)
            return
        except Refused as refused:
            if refused.status is ErrorStatus.INVALID_ARGUMENT and done.error is None:
                _log.error("the daemon did not take an output: %s", refused.message)
                too_large = "limit_bytes" in refused.data
                waiting.completion = TaskCompletion(
                    token=done.token,
                    error=DATA_LIMIT_EXCEEDED if too_large else OUTPUT_REFUSED,
                    cause=refused.message[:CAUSE_LENGTH],
                )
                self._waiting.appendleft(waiting)
                return
            level = logging.INFO if refused.status is ErrorStatus.FAILED_PRECONDITION else logging.ERROR
            _log.log(level, "an outcome was not wanted: %s", refused)
        except ProtocolError as error:
            _log.error("an outcome's fate is unknown: %s", error)
        waiting.settled.set()


def _worth_repeating(result: CompletionResult) -> bool:
    """Alone, this outcome may still be taken, or gets an answer that can be acted on."""
    return result.status in (
        ErrorStatus.UNAVAILABLE.value,
        ErrorStatus.RESOURCE_EXHAUSTED.value,
        ErrorStatus.INVALID_ARGUMENT.value,
    )
