"""A run driven by hand: commands in, events out, the clock and chance in the test's hands."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Raw

from daemon.execution import snapshot
from daemon.execution.commands import (
    Command,
    Environment,
    Limits,
    Proceed,
    Pulse,
    RecordOutcome,
    Start,
    TaskDefaults,
    Wake,
)
from daemon.execution.deadlines import next_wake
from daemon.execution.decide import decide, start
from daemon.execution.evolve import replay
from daemon.execution.state import Node, Run, Task
from daemon.execution.step import Decision
from daemon.language import parse_definition
from enginekit.messages import events as ev
from enginekit.messages.events import ParentTask
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.links import RunRef

DEFAULTS = TaskDefaults(
    timeout_seconds=300,
    schedule_to_start_seconds=3600,
    lease_seconds=30,
    returns=2,
    retry_attempts=3,
    retry_interval_seconds=1,
    retry_backoff_rate=2,
    retry_max_delay_seconds=30,
    retry_after_limit_seconds=3600.0,
)


class Drive:
    """One run of a definition. After every decision the stored bytes are replayed and must give the live state."""

    def __init__(
        self,
        definition: dict[str, JSON],
        data: JSON = None,
        limits: Limits | None = None,
        seed: int = 0,
        parent_task: ParentTask | None = None,
    ):
        self.definition = parse_definition(json.dumps(definition))
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.chance = random.Random(seed)
        self.limits = limits or Limits()
        self.stored: list[bytes] = []
        self.pulse = Pulse(since=self.now)
        self.steps = 0
        self.offered: list[int] = []
        self.decisions: list[Decision] = []
        self.run, decision = start(
            Start(
                run=RunRef("acme", "order-1", "run-1"),
                workflow="orders",
                version=1,
                definition_hash="abc",
                input=encode({} if data is None else data),
                labels={},
                request_id=None,
                timeout_seconds=None,
                parent_task=parent_task,
            ),
            self.environment(),
        )
        self._keep(decision)

    def environment(self) -> Environment:
        return Environment(
            definition=self.definition,
            now=self.now,
            by="tester",
            random=self.chance.random,
            uuid=lambda: str(self.chance.getrandbits(64)),
            run_id=lambda: f"child-{self.chance.getrandbits(64):016x}",
            token=lambda event_id, returns: f"token-{event_id}-{returns}",
            limits=self.limits,
            defaults=DEFAULTS,
        )

    def do(self, command: Command) -> Decision:
        decision = decide(self.run, command, self.environment())
        self._keep(decision)
        return decision

    def _keep(self, decision: Decision) -> None:
        assert decision.first_event_id == len(self.stored) + 1
        self.stored += decision.events
        self.offered += decision.scheduled
        self.decisions.append(decision)
        self.steps += 1
        decoded = [(ev.decode_event(data), len(data)) for data in self.stored]
        assert [event.id for event, _ in decoded] == list(range(1, len(decoded) + 1))
        assert snapshot.dump(replay(decoded)) == snapshot.dump(self.run)
        assert snapshot.dump(snapshot.load(snapshot.dump(self.run))) == snapshot.dump(self.run)
        assert not (self.run.status.closed and (decision.unfinished or decision.files))
        if decision.unfinished:
            self.do(Proceed())

    @property
    def events(self) -> list[ev.AnyEvent]:
        return [ev.decode_event(data) for data in self.stored]

    @property
    def types(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def output(self) -> JSON:
        assert self.run.output is not None, (self.run.status, self.run.error, self.run.cause)
        return decode(self.run.output.raw)

    def task(self, path: str) -> tuple[Node, Task]:
        for node in self.run.nodes.values():
            if node.path == path and node.task is not None:
                return node, node.task
        raise AssertionError(f"no task at {path}; tasks at {[node.path for node in self.run.nodes.values()]}")

    def complete(self, path: str, output: JSON) -> None:
        self.do(RecordOutcome(task=self.task(path)[1].id, worker="w", output=encode(output)))

    def fail(self, path: str, error: str, cause: str = "") -> None:
        self.do(RecordOutcome(task=self.task(path)[1].id, worker="w", error=error, cause=cause))

    def advance(self, seconds: float) -> None:
        """Time passes; what is due on the way is done when it is due."""
        end = self.now + timedelta(seconds=seconds)
        while (at := next_wake(self.run, self.pulse)) is not None and at <= end:
            self.now = max(self.now, at)
            decision = self.do(Wake(pulse=self.pulse))
            self.pulse.probed.update(decision.probes)
            self.pulse.forget(decision.removed + decision.returned)
            if not decision.events and not decision.probes:
                break
        self.now = end

    def work(self, worker: Callable[[Run, Node, Task], JSON]) -> None:
        """Run every task until nothing but time is waited for. A worker that raises KeyError fails the task by it."""
        while self.run.tasks:
            node = self.run.nodes[next(iter(self.run.tasks.values()))]
            assert node.task is not None
            try:
                output = encode(worker(self.run, node, node.task))
            except KeyError as error:
                self.do(RecordOutcome(task=node.task.id, worker="w", error=error.args[0]))
            else:
                self.do(RecordOutcome(task=node.task.id, worker="w", output=Raw(bytes(output))))


@pytest.fixture(scope="session")
def drive() -> type[Drive]:
    return Drive
