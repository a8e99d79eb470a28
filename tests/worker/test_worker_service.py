"""The Worker between scripted peers: real links, a mock clock, node types of the tests' own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint

import msgspec
import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.links.interface import Request
from daemon.links.memory import MemoryLink
from daemon.links.table import Links
from daemon.nodes.registry import NodeTypes
from daemon.nurseries.worker import REPORT_AGAIN_SECONDS, Worker
from daemon.settings import Settings, WorkerSettings
from enginekit.messages.events import TimeoutKind
from enginekit.messages.json import JSON, encode
from enginekit.messages.links import (
    Announce,
    AttachWorker,
    CancelTasks,
    DestinationReport,
    LoadTask,
    LoadTaskResult,
    Message,
    OutcomesRecorded,
    ReportAgain,
    RunRef,
    RunTask,
    TaskOutcome,
    TaskRef,
    TasksFinished,
    TaskSpec,
    ToHistory,
    ToMatching,
    ToTimer,
    ToWorker,
)
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.node import NodeCall, NodeFailure, NodeResult, Usage

RUN = RunRef("tenant", "order-1", "run-1")


class Gate:
    """A node type that runs until the test lets it go. `call.input` says what it does then."""

    calls: list[NodeCall]
    cancelled: int
    opened: trio.Event

    def __init__(self) -> None:
        Gate.calls = []
        Gate.cancelled = 0
        Gate.opened = trio.Event()

    async def run(self, call: NodeCall) -> JSON:
        Gate.calls.append(call)
        try:
            await Gate.opened.wait()
        except trio.Cancelled:
            Gate.cancelled += 1
            raise
        return "through"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def in_a_nursery(error: Exception) -> Callable[[], BaseException]:
    return lambda: ExceptionGroup("of a nursery", [ExceptionGroup("inner", [error])])


RAISED: dict[str, Callable[[], BaseException]] = {
    "failure": lambda: NodeFailure("Acme.Busy", "come back"),
    "nested failure": in_a_nursery(NodeFailure("Acme.Busy", "come back")),
    "defect": lambda: ZeroDivisionError("by zero"),
    "too slow": lambda: trio.TooSlowError("inside"),
    "exit": lambda: SystemExit(3),
    "unprintable": Unprintable,
    "long": lambda: NodeFailure("E" * 1000, "c" * 100_000),
    "surrogate": lambda: NodeFailure("Acme.Odd", "half a \ud83d character"),
    "nameless": lambda: NodeFailure("", ""),
    "not called": lambda: NodeFailure("Acme.InvalidArguments", "no such field", unhealthy=None),
}


class Raising:
    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, str)
        raise RAISED[call.input]()


class Answering:
    """Answers something that is no JSON, or a long text."""

    async def run(self, call: NodeCall) -> JSON:
        return "x" * call.input if isinstance(call.input, int) else object()  # type: ignore[return-value]


class Telling:
    """Says more than its output."""

    async def run(self, call: NodeCall) -> NodeResult:
        usage = Usage(requests=1, input_tokens=3, output_tokens=5)
        if call.input == "fail":
            raise NodeFailure(
                "Acme.Busy", "come back", retry_after_seconds=7.5, unhealthy=True, log="so far\n", usage=usage
            )
        return NodeResult(output=call.input, log="x" * 20_000, usage=usage)


class Beating:
    """Shows progress every second, `call.input` times, and none after."""

    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, int)
        for _ in range(call.input):
            await trio.sleep(1)
            call.beat()
        await trio.sleep_forever()


class CleaningUp:
    """Raises out of its own clean-up when it is cancelled."""

    async def run(self, call: NodeCall) -> JSON:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while cleaning up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        raise AssertionError("not reached")


NODE_TYPES = [
    EntryPoint(name, f"{__name__}:{value}", "engine.nodes")
    for name, value in {
        "test:gate": "Gate",
        "test:raise": "Raising",
        "test:answer": "Answering",
        "test:beat": "Beating",
        "test:tell": "Telling",
        "test:clean": "CleaningUp",
        "test:broken": "Missing",
    }.items()
]


def ref(number: int) -> TaskRef:
    return TaskRef(RUN, number)


def run_task(number: int, resource: str = "echo", given: JSON = None, timeout_seconds: float = 60.0) -> RunTask:
    task = ref(number)
    spec = TaskSpec(task, resource, "Ship", "Each[0].Ship", encode(given), 2, timeout_seconds, f"key-{number}")
    return RunTask(task, spec)


class Stage:
    """A Worker's links, seen from the other ends."""

    def __init__(self, history_room: int = 1000) -> None:
        self.history = MemoryLink[ToHistory]("History", history_room)
        self.matching = MemoryLink[ToMatching]("Matching", 1000)
        self.worker = MemoryLink[ToWorker]("Worker", 1000)
        self.links = Links(self.history, self.matching, self.worker, MemoryLink[ToTimer]("Timer", 1))
        self.incarnations: Iterator[int] = itertools.count(1)

    @asynccontextmanager
    async def working(self, **settings: float) -> AsyncIterator[Worker]:
        nodes = NodeTypes(Settings(), NODE_TYPES)
        worker = Worker(
            self.links,
            WorkerSettings(slots=int(settings.get("slots", 10)), drain_seconds=settings.get("drain_seconds", 20.0)),
            nodes,
            incarnations=self.incarnations,
            payload_bytes=1000,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run)
            yield worker
            nursery.cancel_scope.cancel()

    async def give(self, *messages: ToWorker) -> None:
        for message in messages:
            assert self.worker.offer(message)
        await wait_all_tasks_blocked()

    async def told_history(self) -> list[TaskOutcome]:
        await wait_all_tasks_blocked()
        return [message for message in await _drained(self.history) if isinstance(message, TaskOutcome)]

    async def told_matching(self) -> list[Message]:
        await wait_all_tasks_blocked()
        return [message for message in await _drained(self.matching) if isinstance(message, Message)]

    async def freed(self) -> list[int]:
        """The tasks whose slots came free, in order."""
        told = await self.told_matching()
        return [task.event_id for message in told if isinstance(message, TasksFinished) for task in message.tasks]

    async def outcome(self, message: RunTask) -> TaskOutcome:
        await self.give(message)
        (outcome,) = await self.told_history()
        assert outcome.task == message.task
        return outcome


async def _drained(link: MemoryLink[ToHistory] | MemoryLink[ToMatching]) -> list[Message | Request]:
    return list(await link.receive()) if len(link) else []


@pytest.fixture
def stage() -> Stage:
    return Stage()


# --- the plain way -----------------------------------------------------------------------------------------------


async def test_attaches_with_what_it_can_run(stage: Stage) -> None:
    async with stage.working(slots=7):
        (attach,) = await stage.told_matching()
    assert attach == AttachWorker(
        "daemon",
        1,
        [
            "ai:anthropic",
            "ai:openai",
            "code:javascript",
            "code:python",
            "echo",
            "http",
            "test:answer",
            "test:beat",
            "test:broken",
            "test:clean",
            "test:gate",
            "test:raise",
            "test:tell",
        ],
        7,
    )


async def test_runs_reports_frees_the_slot_and_forgets_what_is_recorded(stage: Stage) -> None:
    async with stage.working() as worker:
        await stage.told_matching()
        await stage.give(run_task(1, given={"a": [1, 2]}))
        told = await stage.told_history()
        assert told == [TaskOutcome(ref(1), "daemon", output=encode({"a": [1, 2]}), ran_seconds=told[0].ran_seconds)]
        assert told[0].ran_seconds >= 0
        assert await stage.told_matching() == [TasksFinished("daemon", 1, [ref(1)])]
        assert worker.unrecorded == 1
        await stage.give(OutcomesRecorded("daemon", [ref(1)]))
        assert worker.unrecorded == 0
        assert await stage.freed() == []


async def test_a_node_gets_the_whole_call(stage: Stage) -> None:
    async with stage.working():
        await stage.give(run_task(1, "test:gate", {"n": 1}, timeout_seconds=12.5))
    (got,) = Gate.calls
    assert got == (
        NodeCall(
            tenant="tenant",
            workflow_id="order-1",
            run_id="run-1",
            node="Ship",
            path="Each[0].Ship",
            resource="test:gate",
            input={"n": 1},
            attempt=2,
            timeout_seconds=12.5,
            idempotency_key="key-1",
            beat=got.beat,
        )
    )


async def test_slots_that_come_free_together_are_told_together(stage: Stage) -> None:
    async with stage.working():
        await stage.told_matching()
        await stage.give(*[run_task(n) for n in range(8)])
        told = await stage.told_matching()
        assert len(await stage.told_history()) == 8
    assert len(told) < 8
    assert sorted(t.event_id for m in told if isinstance(m, TasksFinished) for t in m.tasks) == list(range(8))


# --- how attempts end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "cause"),
    [
        ("failure", "Acme.Busy", "come back"),
        ("nested failure", "Acme.Busy", "come back"),
        ("defect", "Engine.NodeCrashed", "ZeroDivisionError: by zero"),
        ("too slow", "Engine.NodeCrashed", "TooSlowError: inside"),
        ("exit", "Engine.NodeCrashed", "SystemExit: 3"),
        ("unprintable", "Engine.NodeCrashed", "Unprintable"),
        ("surrogate", "Acme.Odd", "half a ? character"),
        ("nameless", "Engine.NodeCrashed", ""),
    ],
)
async def test_whatever_a_node_raises_is_its_own_failure(stage: Stage, given: str, error: str, cause: str) -> None:
    async with stage.working():
        outcome = await stage.outcome(run_task(1, "test:raise", given))
        assert (outcome.error, outcome.cause, outcome.output) == (error, cause, UNSET)
        assert (await stage.outcome(run_task(2, given="still alive"))).output == encode("still alive")


async def test_errors_and_causes_are_cut_to_what_the_wire_takes(stage: Stage) -> None:
    async with stage.working():
        outcome = await stage.outcome(run_task(1, "test:raise", "long"))
    assert outcome.error == "E" * 256
    assert outcome.cause == "c" * 4096


async def test_an_output_without_a_json_form_or_too_long_is_a_failure(stage: Stage) -> None:
    async with stage.working():
        assert (await stage.outcome(run_task(1, "test:answer", "object"))).error == "Engine.InvalidOutput"
        assert (await stage.outcome(run_task(2, "test:answer", 998))).output == encode("x" * 998)
        too_long = await stage.outcome(run_task(3, "test:answer", 999))
        assert too_long.error == "States.DataLimitExceeded"
        assert "1001 bytes, over the limit of 1000" in too_long.cause


@pytest.mark.parametrize("resource", ["test:broken", "no-such-node"])
async def test_a_node_type_that_cannot_be_had_is_a_failure(stage: Stage, resource: str) -> None:
    async with stage.working():
        outcome = await stage.outcome(run_task(1, resource))
    assert outcome.error == "Engine.NodeUnavailable"
    assert resource in outcome.cause


async def test_an_attempt_ends_at_its_timeout(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.working():
        await stage.give(run_task(1, "test:gate", timeout_seconds=30.0), run_task(2, "test:gate", timeout_seconds=90.0))
        await trio.sleep(31)
        (outcome,) = await stage.told_history()
        assert outcome == TaskOutcome(ref(1), "daemon", timed_out=TimeoutKind.START_TO_CLOSE, ran_seconds=30.0)
        assert Gate.cancelled == 1
        assert await stage.freed() == [1]


@pytest.mark.parametrize(
    ("beats", "kind", "ran"), [(4, TimeoutKind.HEARTBEAT, 6.5), (100, TimeoutKind.START_TO_CLOSE, 10.0)]
)
async def test_a_node_that_shows_no_progress_ends_at_its_heartbeat(
    stage: Stage, autojump_clock: MockClock, beats: int, kind: TimeoutKind, ran: float
) -> None:
    message = run_task(1, "test:beat", beats, timeout_seconds=10.0)
    assert message.spec is not None
    spec = msgspec.structs.replace(message.spec, heartbeat_seconds=2.5)
    async with stage.working():
        await stage.give(RunTask(ref(1), spec))
        await trio.sleep(11)
        (outcome,) = await stage.told_history()
    assert outcome == TaskOutcome(ref(1), "daemon", timed_out=kind, ran_seconds=ran)


async def test_what_a_node_tells_beside_its_output_is_reported(stage: Stage) -> None:
    usage = Usage(requests=1, input_tokens=3, output_tokens=5)
    async with stage.working():
        outcome = await stage.outcome(run_task(1, "test:tell", "well"))
        assert (outcome.output, outcome.usage) == (encode("well"), usage)
        assert outcome.log == "x" * 16 * 1024
        failure = await stage.outcome(run_task(2, "test:tell", "fail"))
    assert (failure.error, failure.retry_after_seconds, failure.log) == ("Acme.Busy", 7.5, "so far\n")
    assert failure.usage == usage


async def test_matching_is_told_how_the_destinations_did(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.working():
        await stage.told_matching()
        for number, (given, seconds, resource) in enumerate(
            [
                ("well", 60.0, "test:tell"),
                ("fail", 60.0, "test:tell"),
                (None, 1.0, "test:gate"),
                ("defect", 60.0, "test:raise"),
                ("not called", 60.0, "test:raise"),
                ("failure", 60.0, "test:raise"),
            ],
            1,
        ):
            message = run_task(number, resource, given, seconds)
            assert message.spec is not None
            await stage.give(RunTask(ref(number), msgspec.structs.replace(message.spec, destination="shop:80")))
            await trio.sleep(2)
        told = [message for message in await stage.told_matching() if isinstance(message, TasksFinished)]
    assert [(each.tasks, each.reports) for each in told] == [
        ([ref(1)], [DestinationReport(ref(1), "shop:80", True)]),
        ([ref(2)], [DestinationReport(ref(2), "shop:80", False)]),
        ([ref(3)], [DestinationReport(ref(3), "shop:80", False)]),
        ([ref(4)], []),
        ([ref(5)], []),
        ([ref(6)], [DestinationReport(ref(6), "shop:80", True)]),
    ], "a defect of the node type tells nothing of the destination, nor does a call that was never made"


# --- tasks that nobody wants any more ----------------------------------------------------------------------------


@pytest.mark.parametrize("resource", ["test:gate", "test:clean"])
async def test_a_cancelled_task_reports_nothing_and_frees_its_slot(stage: Stage, resource: str) -> None:
    async with stage.working() as worker:
        await stage.give(run_task(1, resource), run_task(2, "test:gate"))
        await stage.give(CancelTasks("daemon", [ref(1), ref(99)]))
        assert await stage.told_history() == []
        assert await stage.freed() == [1]
        assert worker.running == 1
        Gate.opened.set()
        assert [outcome.task for outcome in await stage.told_history()] == [ref(2)]


async def test_an_outcome_that_is_cancelled_is_not_reported_again(stage: Stage) -> None:
    async with stage.working() as worker:
        await stage.give(run_task(1))
        assert len(await stage.told_history()) == 1
        await stage.give(CancelTasks("daemon", [ref(1)]), ReportAgain())
        assert await stage.told_history() == []
        assert worker.unrecorded == 0
        assert await stage.freed() == [1]


# --- tasks without a spec ----------------------------------------------------------------------------------------


async def test_a_spec_that_is_missing_is_asked_for_until_it_comes(stage: Stage, autojump_clock: MockClock) -> None:
    message = run_task(1, given="loaded")
    assert message.spec is not None
    asked: list[TaskRef] = []

    async def history() -> None:
        answers: list[Refused | LoadTaskResult] = [
            Refused(ErrorStatus.UNAVAILABLE, "not yet"),
            LoadTaskResult(spec=message.spec),  # type: ignore[arg-type]
        ]
        while answers:
            for request in await stage.history.receive():
                assert isinstance(request, Request)
                assert isinstance(request.call, LoadTask)
                assert request.caller.tenant == "tenant"
                asked.append(request.call.task)
                answer = answers.pop(0)
                request.refuse(answer) if isinstance(answer, Refused) else request.answer(answer)

    async with stage.working(), trio.open_nursery() as nursery:
        assert stage.worker.offer(RunTask(ref(1)))
        nursery.start_soon(history)
        await trio.sleep(1)
        assert [outcome.output for outcome in await stage.told_history()] == [encode("loaded")]
    assert asked == [ref(1), ref(1)]


async def test_a_task_that_is_over_is_dropped(stage: Stage) -> None:
    async with stage.working() as worker:
        await stage.give(RunTask(ref(1)))
        (request,) = await stage.history.receive()
        assert isinstance(request, Request)
        request.refuse(Refused(ErrorStatus.NOT_FOUND, "over"))
        assert await stage.freed() == [1]
        assert await stage.told_history() == []
        assert (worker.running, worker.unrecorded) == (0, 0)


async def test_a_task_is_cancelled_while_its_spec_is_asked_for(stage: Stage) -> None:
    async with stage.working() as worker:
        await stage.give(RunTask(ref(1)))
        await stage.give(CancelTasks("daemon", [ref(1)]))
        assert worker.running == 0
        assert await stage.freed() == [1]


# --- restarts of the others --------------------------------------------------------------------------------------


async def test_a_restarted_matching_is_attached_to_again_and_its_repeats_are_ignored(stage: Stage) -> None:
    async with stage.working(slots=3) as worker:
        await stage.give(run_task(1, "test:gate"), run_task(2))
        (first, *_) = await stage.told_matching()
        assert [outcome.task for outcome in await stage.told_history()] == [ref(2)]
        await stage.give(Announce(), run_task(1, "test:gate"), run_task(2))
        assert await stage.told_matching() == [first]
        assert isinstance(first, AttachWorker)
        assert len(Gate.calls) == 1
        assert worker.running == 1
        # The slots that the new Matching counts for its repeats come free as well, each once.
        await stage.give(OutcomesRecorded("daemon", [ref(2)]))
        assert await stage.freed() == [2]
        Gate.opened.set()
        assert await stage.freed() == [1]
        assert [outcome.task for outcome in await stage.told_history()] == [ref(1)]


async def test_a_restarted_history_gets_every_unrecorded_outcome_again(stage: Stage) -> None:
    async with stage.working():
        await stage.give(run_task(1), run_task(2), run_task(3))
        first = await stage.told_history()
        await stage.give(OutcomesRecorded("daemon", [ref(2)]), ReportAgain())
        assert await stage.told_history() == [outcome for outcome in first if outcome.task != ref(2)]
        assert sorted(await stage.freed()) == [1, 2, 3]


async def test_what_stays_unrecorded_is_reported_again_in_time(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.working():
        await stage.give(run_task(1))
        assert len(await stage.told_history()) == 1
        await trio.sleep(3 * REPORT_AGAIN_SECONDS)
        again = await stage.told_history()
        assert {outcome.task for outcome in again} == {ref(1)}
        await stage.give(OutcomesRecorded("daemon", [ref(1)]))
        await trio.sleep(3 * REPORT_AGAIN_SECONDS)
        assert await stage.told_history() == []


async def test_a_new_incarnation_follows_a_restart(stage: Stage) -> None:
    incarnations = []
    for _ in range(2):
        async with stage.working():
            (attach,) = await stage.told_matching()
            assert isinstance(attach, AttachWorker)
            incarnations.append(attach.incarnation)
            await stage.give(run_task(1, "test:gate"))
    assert incarnations == [1, 2]
    assert Gate.cancelled == 1
    assert await stage.told_history() == []


# --- a slow History ----------------------------------------------------------------------------------------------


async def test_no_slot_is_freed_before_its_outcome_is_on_the_link() -> None:
    stage = Stage(history_room=1)
    async with stage.working() as worker:
        await stage.told_matching()
        await stage.give(run_task(1), run_task(2), run_task(3))
        freed = await stage.freed()
        assert len(freed) == 1
        assert worker.unrecorded == 3
        seen = [outcome.task.event_id for outcome in await stage.told_history()]
        assert seen == freed
        while len(seen) < 3:
            seen += [outcome.task.event_id for outcome in await stage.told_history()]
        assert sorted(seen) == [1, 2, 3]
        assert await stage.freed() == seen[1:]


async def test_a_full_link_of_a_dead_history_does_not_gather_repeats(autojump_clock: MockClock) -> None:
    stage = Stage(history_room=1)
    async with stage.working():
        await stage.give(run_task(1), run_task(2))
        await trio.sleep(100 * REPORT_AGAIN_SECONDS)
        repeats: Counter[TaskRef] = Counter()
        for _ in range(10):
            repeats.update(outcome.task for outcome in await stage.told_history())
    assert set(repeats) == {ref(1), ref(2)}
    assert max(repeats.values()) <= 2


async def test_outcomes_that_wait_for_room_are_dropped_when_they_are_cancelled() -> None:
    stage = Stage(history_room=1)
    async with stage.working() as worker:
        await stage.give(*[run_task(number) for number in range(4)])
        await stage.give(CancelTasks("daemon", [ref(number) for number in range(4)]))
        assert worker.unrecorded == 0
        assert sorted(await stage.freed()) == [0, 1, 2, 3]
        told = [await stage.told_history() for _ in range(4)]
        # One was on the link and one just being sent; nothing of the others, and no slot comes free twice.
        assert [len(outcomes) for outcomes in told] == [1, 1, 0, 0]
        assert await stage.freed() == []


async def test_a_history_that_restarts_often_gets_each_outcome_once_a_time() -> None:
    stage = Stage(history_room=1)
    async with stage.working():
        await stage.give(*[run_task(number) for number in range(4)])
        await stage.give(ReportAgain(), ReportAgain(), ReportAgain())
        counts: Counter[TaskRef] = Counter()
        for _ in range(20):
            counts.update(outcome.task for outcome in await stage.told_history())
    assert set(counts) == {ref(number) for number in range(4)}
    assert max(counts.values()) == 2


async def test_slots_are_held_back_while_too_much_is_unrecorded(stage: Stage) -> None:
    async with stage.working(slots=2):
        await stage.told_matching()
        for number in range(6):
            await stage.give(run_task(number))
        assert await stage.freed() == [0, 1, 2, 3]
        await stage.give(OutcomesRecorded("daemon", [ref(0)]))
        assert await stage.freed() == []
        await stage.give(OutcomesRecorded("daemon", [ref(1)]))
        assert await stage.freed() == [4, 5]


# --- draining ----------------------------------------------------------------------------------------------------


async def test_a_drain_takes_no_more_and_waits_for_what_runs_to_be_recorded(stage: Stage) -> None:
    drained = trio.Event()
    async with stage.working() as worker, trio.open_nursery() as nursery:

        async def drain() -> None:
            await worker.drain()
            drained.set()

        await stage.give(run_task(1, "test:gate"))
        await stage.told_matching()
        nursery.start_soon(drain)
        (attach,) = await stage.told_matching()
        assert isinstance(attach, AttachWorker)
        assert attach.slots == 0
        await stage.give(run_task(2))
        assert await stage.told_history() == []
        Gate.opened.set()
        assert [outcome.task for outcome in await stage.told_history()] == [ref(1)]
        assert not drained.is_set()
        await stage.give(OutcomesRecorded("daemon", [ref(1)]))
        assert drained.is_set()


async def test_a_drain_does_not_wait_for_ever(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.working(drain_seconds=20.0) as worker:
        await stage.give(run_task(1, "test:gate", timeout_seconds=3600.0), run_task(2))
        started = trio.current_time()
        await worker.drain()
        assert trio.current_time() - started == pytest.approx(25.0)
        assert (worker.running, worker.unrecorded) == (1, 1)


async def test_a_drain_of_an_idle_worker_returns_at_once(stage: Stage, autojump_clock: MockClock) -> None:
    async with stage.working() as worker:
        started = trio.current_time()
        await worker.drain()
        assert trio.current_time() == started
