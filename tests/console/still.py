"""A console that shows a fixed state at a fixed time, for pictures that are always the same. No daemon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from console.app import ConsoleApp
from console.source import Source
from console.state import Choice, ConsoleState, Executions, Link, Opened, Queues, Services, Standing
from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages import events as ev
from enginekit.messages.calls import Call, Result
from enginekit.messages.json import encode
from enginekit.messages.status import BreakerState, ExecutionStatus

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


ORDER = {
    "StartAt": "Reserve",
    "States": {
        "Reserve": {"Type": "Task", "Resource": "http", "Next": "Check"},
        "Check": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.amount", "NumericGreaterThan": 100, "Next": "Approve"}],
            "Default": "Ship",
        },
        "Approve": {
            "Type": "Task",
            "Resource": "signal:approved",
            "Next": "Ship",
            "Catch": [{"ErrorEquals": ["States.Timeout"], "Next": "Refund"}],
        },
        "Ship": {
            "Type": "Map",
            "ItemProcessor": {"StartAt": "Pack", "States": {"Pack": {"Type": "Task", "Resource": "echo", "End": True}}},
            "End": True,
        },
        "Refund": {"Type": "Task", "Resource": "http", "End": True},
    },
}
STATUSES = [ExecutionStatus.RUNNING, ExecutionStatus.SUCCEEDED, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED]


def _execution(number: int) -> calls.ExecutionSummary:
    status = STATUSES[number % 4]
    return calls.ExecutionSummary(
        workflow_id=f"order-{1000 - number}",
        run_id=f"run-{1000 - number}",
        workflow="order" if number % 3 else None,
        version=4 if number % 3 else None,
        status=status,
        error="Shop.Down" if status is ExecutionStatus.FAILED else None,
        labels={},
        started_at=ago(number * 7 + 2),
        closed_at=ago(number * 7) if status.closed else None,
    )


def _daemon() -> calls.DescribeDaemonResult:
    names = ("store", "history", "matching", "timer", "worker", "frontend")
    return calls.DescribeDaemonResult(
        engine="0.1.0",
        python="3.11",
        trio="0.35",
        pid=4711,
        started_at=ago(7500),
        services=[
            calls.ServiceView(
                name=name,
                state="BACKOFF" if name == "worker" else "RUNNING",
                restarts=2 if name == "worker" else 0,
                uptime_seconds=0 if name == "worker" else 7500,
                last_error="KeyError: 'shop'" if name == "worker" else None,
            )
            for name in names
        ],
        shards=[calls.ShardView(shard=number, epoch=1) for number in range(4)],
        store=calls.StoreView(kind="sqlite", state="READY", schema_version=2),
        breakers=[
            calls.BreakerView(
                destination="http shop.example:443",
                state=BreakerState.OPEN,
                since=ago(95),
                failure_rate=0.83,
                waiting=37,
                next_probe_at=NOW + timedelta(seconds=25),
            ),
            calls.BreakerView(
                destination="ai openai", state=BreakerState.CLOSED, since=ago(7500), failure_rate=0.04, waiting=0
            ),
        ],
    )


def _queue(name: str, kind: str, depth: int, pollers: int, rate: float) -> calls.QueueView:
    return calls.QueueView(
        queue=name, kind=kind, depth=depth, oldest_seconds=depth / 3, pollers=pollers, dispatched=9000, rate=rate
    )


def _events() -> tuple[ev.AnyEvent, ...]:
    def at(number: int) -> dict[str, object]:
        return {"id": number, "time": ago(200 - number)}

    def node(number: int, name: str, entry: int) -> dict[str, object]:
        return {**at(number), "node": name, "path": name, "entry": entry}

    given = Raw(b'{"amount":250,"items":[{"sku":"A1","count":2},{"sku":"B7","count":1}],"customer":{"name":"Ada"}}')
    return (
        ev.WorkflowStarted(
            **at(1), tenant="default", workflow_id="order-1000", run_id="run-1000", workflow="order", version=4,
            definition_hash="2f1c", next="Reserve", input=given, by="shop",
        ),
        ev.NodeEntered(**node(2, "Reserve", 2), kind="Task", input_ref=1),
        ev.TaskScheduled(
            **node(3, "Reserve", 2), kind=ev.TaskKind.NODE, resource="http", queue="http", attempt=1, input_ref=1,
            timeout_seconds=60, schedule_to_start_seconds=60,
        ),
        ev.TaskFailed(**node(4, "Reserve", 2), task=3, error="Http.503", cause="the shop is closed"),
        ev.TaskRetryScheduled(**node(5, "Reserve", 2), attempt=2, at=ago(194), retrier=0, error="Http.503"),
        ev.TaskScheduled(
            **node(6, "Reserve", 2), kind=ev.TaskKind.NODE, resource="http", queue="http", attempt=2, input_ref=1,
            timeout_seconds=60, schedule_to_start_seconds=60,
        ),
        ev.TaskCompleted(**node(7, "Reserve", 2), task=6, output=Raw(b'{"amount":250,"reservation":"r-17"}')),
        ev.NodeExited(**node(8, "Reserve", 2), next="Check", output_ref=7),
        ev.NodeEntered(**node(9, "Check", 9), kind="Choice", input_ref=7),
        ev.NodeExited(**node(10, "Check", 9), next="Approve", output_ref=7),
        ev.NodeEntered(**node(11, "Approve", 11), kind="Task", input_ref=7),
        ev.TaskScheduled(
            **node(12, "Approve", 11), kind=ev.TaskKind.SIGNAL, resource="signal:approved", queue="approved", attempt=1,
            input_ref=7, timeout_seconds=7200, schedule_to_start_seconds=7200,
        ),
    )  # fmt: skip


def state() -> ConsoleState:
    """A daemon with some trouble."""
    executions = [_execution(number) for number in range(60)]
    opened = Opened(
        workflow_id="order-1000",
        run_id="run-1000",
        definition=encode(ORDER),
        events=_events(),
        seen=calls.DescribeWorkflowResult(
            workflow_id="order-1000",
            run_id="run-1000",
            workflow="order",
            version=4,
            status=ExecutionStatus.RUNNING,
            input=Raw(b"{}"),
            started_at=ago(199),
            history_length=12,
            nodes=[
                calls.NodeView(
                    node="Approve",
                    path="Approve",
                    kind="Task",
                    state="awaiting_signal",
                    entered_at=ago(189),
                    attempt=1,
                    queue="approved",
                    deadline=NOW + timedelta(seconds=7011),
                )
            ],
            nodes_total=1,
        ),
    )
    waves = tuple(float(number * 7 % 23) for number in range(40))
    return ConsoleState(
        link=Link(standing=Standing.LIVE, as_of=NOW.timestamp(), engine="0.1.0", tenant="default"),
        services=Services(
            daemon=_daemon(),
            rates={("history", "commits"): waves, ("matching", "tasks"): waves[::-1], ("frontend", "calls"): waves},
        ),
        queues=Queues(
            queues={
                ("node", "http"): _queue("http", "node", 37, 1, 12.5),
                ("activity", "pack"): _queue("pack", "activity", 412, 0, 0),
                ("activity", "mail"): _queue("mail", "activity", 0, 8, 140),
            },
            rates={("node", "http"): waves, ("activity", "mail"): waves[::-1]},
        ),
        executions=Executions(
            order=[each.run_id for each in executions],
            by_run={each.run_id: each for each in executions},
            next_page="older",
        ),
        opened=opened,
    )


def split() -> ConsoleState:
    """Of an engine of many processes: one waits for its store, one is silent."""
    seen = _daemon()
    store = calls.StoreView(kind="postgresql", state="READY", schema_version=1)

    def process(role: str, number: int, **more: object) -> calls.ProcessView:
        return calls.ProcessView(
            process=f"host.{number}", roles=[role], engine="0.1.0", host="node-7", pid=number, started_at=ago(7500),
            services=[calls.ServiceView(name=role, state="RUNNING", restarts=number % 2, uptime_seconds=7500)],
            store=store, **more,
        )  # fmt: skip

    processes = [
        process("frontend", 4711),
        process("history", 4712, shards=seen.shards),
        process("matching", 4714, partitions=[0, 1, 2, 3], waiting_for=["store"]),
        process("worker", 4716, silent_since=ago(42)),
    ]
    services = replace(state().services, daemon=replace(seen, processes=processes, store=store))
    return replace(state(), services=services)


def lost() -> ConsoleState:
    seen = state()
    link = replace(seen.link, standing=Standing.LOST, as_of=NOW.timestamp() - 12, problem="the connection was lost")
    return replace(seen, link=link)


def refused() -> ConsoleState:
    problem = "UNAUTHENTICATED: the token has expired: get a new one"
    return ConsoleState(link=Link(standing=Standing.REFUSED, problem=problem))


def _letter(number: int) -> dict[str, object]:
    return {
        "id": f"00000000-0000-0000-0000-00000000000{number}/14",
        "workflow_id": f"order-{990 - number}",
        "run_id": f"run-{990 - number}",
        "workflow": "order",
        "version": 4,
        "node": "Reserve",
        "path": "Reserve",
        "resource": "http",
        "error": "Http.503",
        "cause": "the shop is closed",
        "attempts": 3,
        "at": ago(number * 40 + 60),
    }


class Still(Source):
    """Answers what the pages ask for; nothing can be done."""

    def __init__(self, seen: ConsoleState) -> None:
        self._state = seen

    @property
    def state(self) -> ConsoleState:
        return self._state

    def now(self) -> float:
        return NOW.timestamp()

    def choose(self, choice: Choice) -> None:
        self._state = replace(self._state, executions=replace(self._state.executions, choice=choice))

    def read_on(self) -> None:
        pass

    def look_at(self, workflow_id: str, run_id: str) -> None:
        pass

    def look_away(self) -> None:
        pass

    def try_again(self) -> None:
        pass

    async def _perform(self, params: Call, timeout_seconds: float | None) -> Result:
        if isinstance(params, dead_letters.ListDeadLetters):
            letters = [dead_letters.DeadLetterSummary(**_letter(number)) for number in range(1, 6)]
            return dead_letters.ListDeadLettersResult(dead_letters=letters)
        if isinstance(params, dead_letters.GetDeadLetter):
            failures = [
                ev.Failure(
                    attempt=number, scheduled_at=ago(100), failed_at=ago(99 - number), error="Http.503", cause="closed"
                )
                for number in (1, 2, 3)
            ]
            given = Raw(b'{"Method":"GET","Headers":{"Accept":["application/json"]}}')
            return dead_letters.GetDeadLetterResult(**_letter(1), input=given, failures=failures)
        if isinstance(params, schedules.ListSchedules):
            found = [
                schedules.ScheduleSummary(
                    schedule_id=name, cron=cron, time_zone="Europe/Berlin", workflow="report", version=None,
                    overlap=schedules.Overlap.SKIP, paused=paused, note="", next_at=NOW + timedelta(hours=13.5),
                    last_at=ago(37_800), last_error=None,
                )
                for name, cron, paused in (("nightly", "30 2 * * *", False), ("weekly", "0 6 * * 1", True))
            ]  # fmt: skip
            return schedules.ListSchedulesResult(schedules=found)
        assert isinstance(params, schedules.DescribeSchedule)
        return schedules.DescribeScheduleResult(
            schedule_id="nightly", cron="30 2 * * *", time_zone="Europe/Berlin", workflow="report", version=None,
            input=Raw(b"{}"), labels={}, overlap=schedules.Overlap.SKIP, catch_up_seconds=86400, paused=False, note="",
            created_at=ago(900_000), created_by="ada", next_at=NOW + timedelta(hours=13.5),
            upcoming=[NOW + timedelta(hours=13.5 + 24 * number) for number in range(params.upcoming)],
            buffered_at=None,
            last_run=schedules.ScheduledRun(at=ago(37_800), workflow_id="nightly/2026-03-01", run_id="r"),
            started=10, skipped=1, missed=0, failed=0, last_error=None, last_error_at=None,
        )  # fmt: skip


def still(seen: ConsoleState) -> ConsoleApp:
    """The console of this state."""
    return ConsoleApp(Still(seen), beat_seconds=None)
