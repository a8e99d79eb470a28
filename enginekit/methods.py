"""Which result answers which call: the wire's methods as one typed `call`.

A method's name is the name of its params' struct. No I/O lives here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import overload

import msgspec

from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages.calls import Call, Result
from enginekit.messages.subscriptions import Subscribe, SubscribeResult, Unsubscribe

RESULTS: dict[type[Call], type[Result]] = {
    calls.Hello: calls.HelloResult,
    calls.Authenticate: calls.HelloResult,
    calls.RegisterWorkflow: calls.RegisterWorkflowResult,
    calls.GetDefinition: calls.GetDefinitionResult,
    calls.ListDefinitions: calls.ListDefinitionsResult,
    calls.StartWorkflow: calls.StartWorkflowResult,
    calls.DescribeWorkflow: calls.DescribeWorkflowResult,
    calls.WaitWorkflow: calls.DescribeWorkflowResult,
    calls.ListWorkflows: calls.ListWorkflowsResult,
    calls.GetHistory: calls.GetHistoryResult,
    calls.SignalWorkflow: calls.Acknowledged,
    calls.CancelWorkflow: calls.Acknowledged,
    calls.TerminateWorkflow: calls.Acknowledged,
    calls.RedriveWorkflow: calls.RedriveResult,
    dead_letters.ListDeadLetters: dead_letters.ListDeadLettersResult,
    dead_letters.GetDeadLetter: dead_letters.GetDeadLetterResult,
    dead_letters.RedriveDeadLetter: calls.RedriveResult,
    dead_letters.DiscardDeadLetter: calls.Acknowledged,
    calls.PollTask: calls.PollTaskResult,
    calls.StopPolls: calls.StopPollsResult,
    calls.CompleteTask: calls.Acknowledged,
    calls.FailTask: calls.Acknowledged,
    calls.ReturnTask: calls.Acknowledged,
    calls.HeartbeatTask: calls.HeartbeatTaskResult,
    Subscribe: SubscribeResult,
    Unsubscribe: calls.Acknowledged,
    calls.CompleteTasks: calls.CompleteTasksResult,
    schedules.CreateSchedule: schedules.CreateScheduleResult,
    schedules.ListSchedules: schedules.ListSchedulesResult,
    schedules.DescribeSchedule: schedules.DescribeScheduleResult,
    schedules.PauseSchedule: calls.Acknowledged,
    schedules.ResumeSchedule: calls.Acknowledged,
    schedules.TriggerSchedule: schedules.TriggerScheduleResult,
    schedules.DeleteSchedule: calls.Acknowledged,
    calls.ListQueues: calls.ListQueuesResult,
    calls.DescribeDaemon: calls.DescribeDaemonResult,
}

DECODERS: dict[type[Call], msgspec.json.Decoder[Result]] = {
    params: msgspec.json.Decoder(result) for params, result in RESULTS.items()
}


_SMALL_ANSWERS = (
    calls.StartWorkflow,
    calls.SignalWorkflow,
    calls.CancelWorkflow,
    calls.TerminateWorkflow,
    calls.CompleteTask,
    calls.FailTask,
    calls.ReturnTask,
    calls.HeartbeatTask,
)


def goes_in_batches(params: Call) -> bool:
    """May this call share a message with others? Not when its answer may be long or late: a batch is answered as a
    whole."""
    return isinstance(params, _SMALL_ANSWERS)


def wait_seconds(params: Call) -> float:
    """How long the daemon may sit on this call because it was asked to."""
    if isinstance(params, calls.WaitWorkflow | calls.GetHistory | calls.PollTask):
        return params.wait_seconds
    return 0.0


class Caller(ABC):
    """Something that makes the wire's calls."""

    @overload
    async def call(
        self, params: calls.Hello | calls.Authenticate, *, timeout_seconds: float | None = None
    ) -> calls.HelloResult: ...
    @overload
    async def call(
        self, params: calls.RegisterWorkflow, *, timeout_seconds: float | None = None
    ) -> calls.RegisterWorkflowResult: ...
    @overload
    async def call(
        self, params: calls.GetDefinition, *, timeout_seconds: float | None = None
    ) -> calls.GetDefinitionResult: ...
    @overload
    async def call(
        self, params: calls.ListDefinitions, *, timeout_seconds: float | None = None
    ) -> calls.ListDefinitionsResult: ...
    @overload
    async def call(
        self, params: calls.StartWorkflow, *, timeout_seconds: float | None = None
    ) -> calls.StartWorkflowResult: ...
    @overload
    async def call(
        self, params: calls.DescribeWorkflow | calls.WaitWorkflow, *, timeout_seconds: float | None = None
    ) -> calls.DescribeWorkflowResult: ...
    @overload
    async def call(
        self, params: calls.ListWorkflows, *, timeout_seconds: float | None = None
    ) -> calls.ListWorkflowsResult: ...
    @overload
    async def call(
        self, params: calls.GetHistory, *, timeout_seconds: float | None = None
    ) -> calls.GetHistoryResult: ...
    @overload
    async def call(
        self, params: dead_letters.ListDeadLetters, *, timeout_seconds: float | None = None
    ) -> dead_letters.ListDeadLettersResult: ...
    @overload
    async def call(
        self, params: dead_letters.GetDeadLetter, *, timeout_seconds: float | None = None
    ) -> dead_letters.GetDeadLetterResult: ...
    @overload
    async def call(
        self, params: calls.RedriveWorkflow | dead_letters.RedriveDeadLetter, *, timeout_seconds: float | None = None
    ) -> calls.RedriveResult: ...
    @overload
    async def call(self, params: Subscribe, *, timeout_seconds: float | None = None) -> SubscribeResult: ...
    @overload
    async def call(self, params: Unsubscribe, *, timeout_seconds: float | None = None) -> calls.Acknowledged: ...
    @overload
    async def call(self, params: calls.PollTask, *, timeout_seconds: float | None = None) -> calls.PollTaskResult: ...
    @overload
    async def call(self, params: calls.StopPolls, *, timeout_seconds: float | None = None) -> calls.StopPollsResult: ...
    @overload
    async def call(
        self,
        params: calls.SignalWorkflow
        | calls.CancelWorkflow
        | calls.TerminateWorkflow
        | dead_letters.DiscardDeadLetter
        | calls.CompleteTask
        | calls.FailTask
        | calls.ReturnTask,
        *,
        timeout_seconds: float | None = None,
    ) -> calls.Acknowledged: ...
    @overload
    async def call(
        self, params: calls.HeartbeatTask, *, timeout_seconds: float | None = None
    ) -> calls.HeartbeatTaskResult: ...
    @overload
    async def call(
        self, params: calls.CompleteTasks, *, timeout_seconds: float | None = None
    ) -> calls.CompleteTasksResult: ...
    @overload
    async def call(
        self, params: schedules.CreateSchedule, *, timeout_seconds: float | None = None
    ) -> schedules.CreateScheduleResult: ...
    @overload
    async def call(
        self, params: schedules.ListSchedules, *, timeout_seconds: float | None = None
    ) -> schedules.ListSchedulesResult: ...
    @overload
    async def call(
        self, params: schedules.DescribeSchedule, *, timeout_seconds: float | None = None
    ) -> schedules.DescribeScheduleResult: ...
    @overload
    async def call(
        self, params: schedules.TriggerSchedule, *, timeout_seconds: float | None = None
    ) -> schedules.TriggerScheduleResult: ...
    @overload
    async def call(
        self,
        params: schedules.PauseSchedule | schedules.ResumeSchedule | schedules.DeleteSchedule,
        *,
        timeout_seconds: float | None = None,
    ) -> calls.Acknowledged: ...
    @overload
    async def call(
        self, params: calls.ListQueues, *, timeout_seconds: float | None = None
    ) -> calls.ListQueuesResult: ...
    @overload
    async def call(
        self, params: calls.DescribeDaemon, *, timeout_seconds: float | None = None
    ) -> calls.DescribeDaemonResult: ...
    async def call(self, params: Call, *, timeout_seconds: float | None = None) -> Result:
        """Make the call named like `params` and answer its result.

        A lost connection, `UNAVAILABLE` and `RESOURCE_EXHAUSTED` are ridden out, and the call repeated, until
        `timeout_seconds` (the client's, without one) are over; what the call itself asks to wait comes on top. Every
        method of the wire may be repeated: reads change nothing, starts and cancels carry a `request_id`, reports
        are known by their token.

        Raises Refused, Unreachable, ProtocolError. Cancelling is safe: the answer is dropped, whether or not the
        daemon has carried out the call.
        """
        return await self._perform(params, timeout_seconds)

    @abstractmethod
    async def _perform(self, params: Call, timeout_seconds: float | None) -> Result: ...
