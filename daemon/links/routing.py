"""Which inbox a message goes to, where there are many: by the shard of what it is about, by the partition of its queue,
by the worker that has it. What is about several is cut up; a call about several is asked of each, and answered as one.

Only where things go is known here, not what becomes of them. These are the sending ends; owners receive from the
inboxes of what they own.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar, cast

import msgspec
import trio

from daemon.execution import tokens
from daemon.links.exchange import Exchange
from daemon.links.interface import Caller, Link, Request
from daemon.links.sharding import (
    partition_of,
    shard_of,
    shard_of_definition,
    shard_of_ref,
    shard_of_request,
    shard_of_run,
    shard_of_schedule,
    shard_of_tenant,
)
from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages.calls import Call, Result
from enginekit.messages.links import (
    CancelTasks,
    EndPolls,
    EndRun,
    ExpireTask,
    GiveBackTasks,
    ListBreakers,
    ListBreakersResult,
    LoadTask,
    LookAtClock,
    MatchTasks,
    MatchTasksResult,
    OfferTask,
    OutcomesRecorded,
    QueueKey,
    RefillQueues,
    RenewTasks,
    RetireTasks,
    ScheduleRef,
    StartNodes,
    StartNodesResult,
    StartRun,
    StartTasks,
    TaskExpired,
    TaskOutcome,
    TaskRef,
    TellParent,
    ToHistory,
    ToMatching,
    ToWorker,
    WakeRuns,
    WakeSchedules,
)
from enginekit.messages.repeats import identified
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import WatchExecutions, WatchExecutionsResult

WATCHES = ","
"""Between the names of what each shard counts."""
WATCH_SECONDS = 2.0
"""How long a shard's owner is waited for."""
WATCH_PAUSE_SECONDS = 1.0
"""Between two rounds in which all shards are asked what has changed."""

M = TypeVar("M")
R = TypeVar("R", bound=Result)
K = TypeVar("K")
V = TypeVar("V")

POLL_SECONDS = 5.0
"""A longer poll is asked again so often: who has a partition may change, and takes its pollers along."""
ANSWER_SECONDS = 1.0
"""What an answer may take beyond what the poll itself waits; the partition has no owner where it takes longer."""


class Router(Link[M]):
    """Sends each message to the inbox that it is for."""

    @abstractmethod
    def parts(self, message: M) -> Iterable[tuple[Link[M], M]]:
        """What goes where."""

    def offer(self, message: M) -> bool:
        """False as soon as one inbox has no room: those before it have got their part, and get it again."""
        return all(link.offer(part) for link, part in self.parts(message))

    async def send(self, message: M) -> None:
        """Cancelled: some inboxes may have got their part."""
        for link, part in self.parts(message):
            await link.send(part)

    async def receive(self, limit: int = 256) -> list[M | Request]:
        raise TypeError("messages are received from the inboxes of what one owns")


class HistoryRouter(Router[ToHistory]):
    """To the owners of shards. `entropy`: for request ids, which no other router may give too."""

    def __init__(self, exchange: Exchange, shards: int, entropy: random.Random) -> None:
        self._exchange = exchange
        self._shards = shards
        self._entropy = entropy

    def parts(self, message: ToHistory) -> Iterable[tuple[Link[ToHistory], ToHistory]]:
        link, shards = self._exchange.history, self._shards
        match message:
            case WakeRuns(runs):
                for shard, some in _grouped(runs, lambda run: shard_of_ref(run, shards)):
                    yield link(shard), WakeRuns(some)
            case WakeSchedules(woken):
                for shard, refs in _grouped(woken, lambda ref: shard_of_schedule(ref, shards)):
                    yield link(shard), WakeSchedules(refs)
            case LookAtClock():
                for shard in range(shards):
                    yield link(shard), message
            case RenewTasks(worker, tasks):
                for shard, held in self._by_shard(tasks):
                    yield link(shard), RenewTasks(worker, held)
            case GiveBackTasks(worker, tasks, reason):
                for shard, given in self._by_shard(tasks):
                    yield link(shard), GiveBackTasks(worker, given, reason)
            case TaskOutcome() | TaskExpired():
                yield link(shard_of_ref(message.task.run, shards)), message

    def _by_shard(self, tasks: Iterable[TaskRef]) -> list[tuple[int, list[TaskRef]]]:
        return _grouped(tasks, lambda task: shard_of_ref(task.run, self._shards))

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        """As `Link.request`. A call about tasks of several shards is refused only where every shard refuses it.

        Every call that changes something leaves with a request id: its shard's owner may die when it has carried it out
        and has not said so, and the next one finds it in the inbox.
        """
        call = identified(call, lambda: f"{self._entropy.getrandbits(128):032x}")
        match call:
            case StartTasks():
                return cast(R, await self._start_tasks(caller, call, timeout))
            case StartNodes():
                return cast(R, await self._start_nodes(caller, call, timeout))
            case calls.CompleteTasks():
                return cast(R, await self._complete_tasks(caller, call, timeout))
            case WatchExecutions():
                return cast(R, await self._watch(caller, call))
        link = self._exchange.history(self._shard(caller.tenant, call))
        return await link.request(caller, call, result, timeout)

    def _shard(self, tenant: str, call: Call) -> int:
        shards = self._shards
        match call:
            case calls.StartWorkflow():
                if call.workflow_id is not None:
                    return shard_of(tenant, call.workflow_id, shards)
                assert call.request_id is not None, "without one it does not leave"
                return shard_of_request(tenant, call.request_id, shards)
            case (
                calls.DescribeWorkflow()
                | calls.WaitWorkflow()
                | calls.GetHistory()
                | calls.SignalWorkflow()
                | calls.CancelWorkflow()
                | calls.TerminateWorkflow()
                | calls.RedriveWorkflow()
            ):
                return shard_of(tenant, call.workflow_id, shards)
            case dead_letters.GetDeadLetter() | dead_letters.RedriveDeadLetter() | dead_letters.DiscardDeadLetter():
                return shard_of_run(call.id.partition("/")[0], shards)
            case calls.CompleteTask() | calls.FailTask() | calls.ReturnTask() | calls.HeartbeatTask():
                return self._shard_of_token(tenant, call.token)
            case LoadTask():
                return shard_of_ref(call.task.run, shards)
            case (
                schedules.CreateSchedule()
                | schedules.DescribeSchedule()
                | schedules.PauseSchedule()
                | schedules.ResumeSchedule()
                | schedules.TriggerSchedule()
                | schedules.DeleteSchedule()
            ):
                return shard_of_schedule(ScheduleRef(tenant, call.schedule_id), shards)
            case StartRun():
                assert call.workflow_id is not None, "a run without a name is started where it is asked for"
                return shard_of(tenant, call.workflow_id, shards)
            case EndRun():
                return shard_of_ref(call.run, shards)
            case TellParent():
                return shard_of_ref(call.parent, shards)
            case calls.RegisterWorkflow():
                return shard_of_definition(tenant, call.name, shards)
        return shard_of_tenant(tenant, shards)

    def _shard_of_token(self, tenant: str, token: str) -> int:
        """Whoever gets one that is none says so."""
        task = tokens.named_in(tenant, token)
        return shard_of_tenant(tenant, self._shards) if task is None else shard_of_ref(task.run, self._shards)

    async def _start_tasks(self, caller: Caller, call: StartTasks, timeout: float) -> calls.PollTaskResult:
        asked = [
            partial(
                self._exchange.history(shard).request,
                caller,
                StartTasks(tasks=tasks, worker_id=call.worker_id),
                calls.PollTaskResult,
                timeout,
            )
            for shard, tasks in self._by_shard(call.tasks)
        ]
        answers = await _all(asked)
        return calls.PollTaskResult(tasks=[task for answer in _granted(answers) for task in answer.tasks])

    async def _start_nodes(self, caller: Caller, call: StartNodes, timeout: float) -> StartNodesResult:
        groups = self._by_shard(call.tasks)
        asked = [
            partial(
                self._exchange.history(shard).request,
                caller,
                StartNodes(tasks=tasks, worker_id=call.worker_id),
                StartNodesResult,
                timeout,
            )
            for shard, tasks in groups
        ]
        answers = await _all(asked)
        granted = _granted(answers)
        rest = [task for answer in granted for task in answer.rest]
        for (_, tasks), answer in zip(groups, answers, strict=True):
            if isinstance(answer, Refused):
                rest += tasks
        return StartNodesResult(tasks=[task for answer in granted for task in answer.tasks], rest=rest)

    async def _watch(self, caller: Caller, call: WatchExecutions) -> WatchExecutionsResult:
        """All shards are asked, now and then: who waits at each of them would be woken by most changes anyway. Raises
        Refused where one does not answer: what changes there is not known."""
        until = trio.current_time() + call.wait_seconds
        names: list[str | None] = [None] * self._shards if call.watch is None else [*call.watch.split(WATCHES)]
        after = [[number] for number in call.after] or [[] for _ in names]
        if not len(names) == len(after) == self._shards:
            raise Refused(ErrorStatus.INVALID_ARGUMENT, "watch: not one that was answered")
        while True:
            asked = [
                partial(
                    self._exchange.history(shard).request,
                    caller,
                    WatchExecutions(watch=names[shard], after=after[shard]),
                    WatchExecutionsResult,
                    WATCH_SECONDS,
                )
                for shard in range(self._shards)
            ]
            found: list[WatchExecutionsResult] = []
            for answer in await _all(asked):
                if isinstance(answer, Refused):
                    raise answer
                found.append(answer)
            begun_anew = [answer.watch for answer in found] != names
            told = [] if begun_anew else [each for answer in found for each in answer.executions]
            missed = sum(answer.missed for answer in found)
            if begun_anew or told or missed or trio.current_time() >= until:
                return WatchExecutionsResult(
                    watch=WATCHES.join(answer.watch for answer in found),
                    seq=[answer.seq[0] for answer in found],
                    executions=told,
                    missed=missed,
                )
            after = [answer.seq for answer in found]
            await trio.sleep(min(WATCH_PAUSE_SECONDS, until - trio.current_time()))

    async def _complete_tasks(
        self, caller: Caller, call: calls.CompleteTasks, timeout: float
    ) -> calls.CompleteTasksResult:
        numbered = list(enumerate(call.tasks))
        groups = _grouped(numbered, lambda each: self._shard_of_token(caller.tenant, each[1].token))
        asked = [
            partial(
                self._exchange.history(shard).request,
                caller,
                calls.CompleteTasks(tasks=[task for _, task in some]),
                calls.CompleteTasksResult,
                timeout,
            )
            for shard, some in groups
        ]
        answers = await _all(asked)
        _granted(answers)
        results: dict[int, calls.CompletionResult] = {}
        for (_, some), answer in zip(groups, answers, strict=True):
            for place, (number, _) in enumerate(some):
                results[number] = (
                    calls.CompletionResult(status=answer.status.value, message=answer.message)
                    if isinstance(answer, Refused)
                    else answer.results[place]
                )
        return calls.CompleteTasksResult(results=[results[number] for number, _ in numbered])


class MatchingRouter(Router[ToMatching]):
    """To the owners of partitions."""

    def __init__(self, exchange: Exchange, partitions: int) -> None:
        self._exchange = exchange
        self._partitions = partitions

    def parts(self, message: ToMatching) -> Iterable[tuple[Link[ToMatching], ToMatching]]:
        match message:
            case OfferTask(task):
                # Its spec comes with its start, as its Worker is elsewhere.
                yield self._exchange.matching(partition_of(task.queue, self._partitions)), OfferTask(task)
            case RefillQueues(list(queues)):
                for partition, some in _grouped(queues, lambda queue: partition_of(queue, self._partitions)):
                    yield self._exchange.matching(partition), RefillQueues(some)
            case EndPolls(queue) | ExpireTask(queue=queue) | RetireTasks(queue=QueueKey() as queue):
                yield self._exchange.matching(partition_of(queue, self._partitions)), message
            case _:
                # Of tasks only their names are known here: whoever does not have one passes it over.
                for partition in range(self._partitions):
                    yield self._exchange.matching(partition), message

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        """As `Link.request`. What is asked of all partitions is refused only where all refuse it."""
        match call:
            case MatchTasks():
                return cast(R, await self._match_tasks(caller, call, timeout))
            case calls.ListQueues():
                found = await self._every(caller, call, calls.ListQueuesResult, timeout)
                queues = sorted((each for answer in found for each in answer.queues), key=lambda each: each.queue)
                return cast(R, calls.ListQueuesResult(queues=queues))
            case ListBreakers():
                seen = await self._every(caller, call, ListBreakersResult, timeout)
                return cast(R, ListBreakersResult(breakers=[each for answer in seen for each in answer.breakers]))
        raise TypeError(f"no partition answers {type(call).__name__}")

    async def _match_tasks(self, caller: Caller, call: MatchTasks, timeout: float) -> MatchTasksResult:
        link = self._exchange.matching(partition_of(call.queue, self._partitions))
        now = trio.current_time()
        ends, deadline = now + call.wait_seconds, now + timeout
        while True:
            now = trio.current_time()
            wait = max(min(ends - now, POLL_SECONDS), 0.0)
            turn = msgspec.structs.replace(call, wait_seconds=wait)
            try:
                found = await link.request(caller, turn, MatchTasksResult, min(wait + ANSWER_SECONDS, deadline - now))
                if found.tasks or trio.current_time() >= ends:
                    return found
            except Refused as refused:
                if refused.status is not ErrorStatus.UNAVAILABLE or trio.current_time() >= min(ends, deadline):
                    raise

    async def _every(self, caller: Caller, call: Call, result: type[R], timeout: float) -> list[R]:
        links = [self._exchange.matching(partition) for partition in range(self._partitions)]
        return _granted(await _all([partial(link.request, caller, call, result, timeout) for link in links]))


class WorkerRouter(Router[ToWorker]):
    """To workers. What is for all of them goes to none: they report again by themselves."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def parts(self, message: ToWorker) -> Iterable[tuple[Link[ToWorker], ToWorker]]:
        match message:
            case OutcomesRecorded(worker) | CancelTasks(worker):
                yield self._exchange.worker(worker), message

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        raise TypeError("a worker in another process is asked nothing")


def _grouped(items: Iterable[V], key: Callable[[V], K]) -> list[tuple[K, list[V]]]:
    groups: dict[K, list[V]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


async def _all(asked: Sequence[Callable[[], Awaitable[R]]]) -> list[R | Refused]:
    """Ask all at once; their answers, in the order of the questions."""
    answers: dict[int, R | Refused] = {}

    async def ask(number: int, question: Callable[[], Awaitable[R]]) -> None:
        try:
            answers[number] = await question()
        except Refused as refused:
            answers[number] = refused

    async with trio.open_nursery() as nursery:
        for number, question in enumerate(asked):
            nursery.start_soon(ask, number, question)
    return [answers[number] for number in range(len(asked))]


def _granted(answers: list[R | Refused]) -> list[R]:
    """The answers without the refusals. Raises Refused where all are."""
    granted = [answer for answer in answers if not isinstance(answer, Refused)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    if refused and not granted:
        raise refused[0]
    return granted
