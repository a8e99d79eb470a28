"""The methods of the wire, as a table: what each takes and answers, who may call it, who answers it and how long
that may take.

A token's `scope` claim is a space-separated string of these scopes; none implies another:

- `read`: definitions, executions, histories, queues, schedules, dead letters
- `write`: register definitions; start, signal, cancel, terminate and redrive executions; make, change and delete
  schedules; discard dead letters
- `work`: poll for tasks and report on them
- `admin`: look into the daemon itself

`engine token` without `--scope` gives all four. A token without the claim may only say Hello.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from daemon.api.limits import Group
from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages.subscriptions import Subscribe, SubscribeResult, Unsubscribe


class Scope(str, Enum):
    """What a token allows."""

    READ = "read"
    WRITE = "write"
    WORK = "work"
    ADMIN = "admin"


class Answerer(Enum):
    """Who answers a method."""

    GATEWAY = "gateway"
    CONNECTION = "connection"
    HISTORY = "history"
    MATCHING = "matching"
    BOTH = "matching, then history"


_READS = (
    calls.DescribeWorkflow,
    calls.ListWorkflows,
    calls.GetHistory,
    calls.GetDefinition,
    calls.ListDefinitions,
    dead_letters.ListDeadLetters,
    dead_letters.GetDeadLetter,
    calls.ListQueues,
    calls.DescribeDaemon,
    schedules.ListSchedules,
    schedules.DescribeSchedule,
)
_WAITING = (calls.WaitWorkflow, calls.GetHistory, calls.PollTask)


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `new_work`: refused while the daemon drains."""

    params: type[calls.Call]
    result: type[calls.Result]
    scope: Scope | None
    answerer: Answerer
    new_work: bool = False

    @property
    def group(self) -> Group | None:
        """What it is counted with; None for the connection's own."""
        if self.scope is Scope.WORK:
            return Group.WORK
        if self.scope is Scope.WRITE:
            return Group.START if self.new_work else Group.WRITE
        return Group.READ if self.scope is not None else None

    @property
    def name(self) -> str:
        return self.params.__name__

    @property
    def timed(self) -> bool:
        """Whether the time it takes says how fast the daemon is, not how long somebody wanted to wait."""
        return self.params not in _WAITING

    @property
    def reads(self) -> bool:
        """Whether it only looks: such calls take turns."""
        return self.params in _READS

    def waits(self, call: calls.Call) -> bool:
        """Whether somebody wants to wait with it."""
        return isinstance(call, calls.WaitWorkflow | calls.GetHistory | calls.PollTask) and call.wait_seconds > 0

    def timeout(self, call: calls.Call, base_seconds: float) -> float:
        """Seconds the call may take in all."""
        if isinstance(call, calls.WaitWorkflow | calls.GetHistory | calls.PollTask):
            return call.wait_seconds + base_seconds
        return base_seconds


def _history(params: type[calls.Call], result: type[calls.Result], scope: Scope, new_work: bool = False) -> Method:
    return Method(params=params, result=result, scope=scope, answerer=Answerer.HISTORY, new_work=new_work)


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(params=calls.Hello, result=calls.HelloResult, scope=None, answerer=Answerer.GATEWAY),
        Method(params=calls.Authenticate, result=calls.HelloResult, scope=None, answerer=Answerer.CONNECTION),
        Method(params=Subscribe, result=SubscribeResult, scope=Scope.READ, answerer=Answerer.CONNECTION),
        Method(params=Unsubscribe, result=calls.Acknowledged, scope=Scope.READ, answerer=Answerer.CONNECTION),
        _history(calls.RegisterWorkflow, calls.RegisterWorkflowResult, Scope.WRITE),
        _history(calls.GetDefinition, calls.GetDefinitionResult, Scope.READ),
        _history(calls.ListDefinitions, calls.ListDefinitionsResult, Scope.READ),
        _history(calls.StartWorkflow, calls.StartWorkflowResult, Scope.WRITE, new_work=True),
        _history(calls.DescribeWorkflow, calls.DescribeWorkflowResult, Scope.READ),
        _history(calls.WaitWorkflow, calls.DescribeWorkflowResult, Scope.READ),
        _history(calls.ListWorkflows, calls.ListWorkflowsResult, Scope.READ),
        _history(calls.GetHistory, calls.GetHistoryResult, Scope.READ),
        _history(calls.SignalWorkflow, calls.Acknowledged, Scope.WRITE, new_work=True),
        _history(calls.CancelWorkflow, calls.Acknowledged, Scope.WRITE),
        _history(calls.TerminateWorkflow, calls.Acknowledged, Scope.WRITE),
        _history(calls.RedriveWorkflow, calls.RedriveResult, Scope.WRITE, new_work=True),
        _history(dead_letters.ListDeadLetters, dead_letters.ListDeadLettersResult, Scope.READ),
        _history(dead_letters.GetDeadLetter, dead_letters.GetDeadLetterResult, Scope.READ),
        _history(dead_letters.RedriveDeadLetter, calls.RedriveResult, Scope.WRITE, new_work=True),
        _history(dead_letters.DiscardDeadLetter, calls.Acknowledged, Scope.WRITE),
        Method(
            params=calls.PollTask,
            result=calls.PollTaskResult,
            scope=Scope.WORK,
            answerer=Answerer.BOTH,
            new_work=True,
        ),
        Method(params=calls.StopPolls, result=calls.StopPollsResult, scope=Scope.WORK, answerer=Answerer.GATEWAY),
        _history(calls.CompleteTask, calls.Acknowledged, Scope.WORK),
        _history(calls.FailTask, calls.Acknowledged, Scope.WORK),
        _history(calls.ReturnTask, calls.Acknowledged, Scope.WORK),
        _history(calls.HeartbeatTask, calls.HeartbeatTaskResult, Scope.WORK),
        _history(calls.CompleteTasks, calls.CompleteTasksResult, Scope.WORK),
        _history(schedules.CreateSchedule, schedules.CreateScheduleResult, Scope.WRITE),
        _history(schedules.ListSchedules, schedules.ListSchedulesResult, Scope.READ),
        _history(schedules.DescribeSchedule, schedules.DescribeScheduleResult, Scope.READ),
        _history(schedules.PauseSchedule, calls.Acknowledged, Scope.WRITE),
        _history(schedules.ResumeSchedule, calls.Acknowledged, Scope.WRITE),
        _history(schedules.TriggerSchedule, schedules.TriggerScheduleResult, Scope.WRITE, new_work=True),
        _history(schedules.DeleteSchedule, calls.Acknowledged, Scope.WRITE),
        Method(params=calls.ListQueues, result=calls.ListQueuesResult, scope=Scope.READ, answerer=Answerer.MATCHING),
        Method(
            params=calls.DescribeDaemon,
            result=calls.DescribeDaemonResult,
            scope=Scope.ADMIN,
            answerer=Answerer.GATEWAY,
        ),
    )
}
