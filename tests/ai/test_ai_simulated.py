"""Model calls on the whole daemon, under the mock clock and with an in-process transport: retries, usage, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import trio
from ai_bench import SECRET, Bench
from trio.testing import MockClock

from daemon.api.auth import Principal
from daemon.assembly import Daemon
from daemon.clock import TrioClock
from daemon.nodes.registry import NodeTypes
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.events import AnyEvent, Usage, decode_event
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.status import ExecutionStatus
from enginekit.methods import RESULTS, Caller

OWNER = Principal(tenant="acme", subject="tester", scopes=frozenset({"read", "write", "work"}), expires_at=None)
Answering = Callable[[httpx2.Request], httpx2.Response]


class Plane(Caller):
    """A daemon on the memory store, without sockets."""

    def __init__(self, bench: Bench, answering: Answering, folder: Path) -> None:
        settings = bench.settings("http://model.test")
        node = bench.node(transport=httpx2.MockTransport(answering))
        nodes = NodeTypes(settings, [], made={bench.resource: node})
        store = MemoryStore(2, b"k" * 32)
        self.daemon = Daemon(settings, folder, TrioClock(), store=store, nodes=nodes, seed=1, listen=False)

    async def _perform(self, params: calls.Call, timeout_seconds: float | None) -> calls.Result:
        answer = await self.daemon.gateway.call(OWNER, type(params).__name__, msgspec.json.encode(params))
        return msgspec.json.decode(answer, type=RESULTS[type(params)])

    async def closed(self, definition: JSON) -> tuple[calls.DescribeWorkflowResult, list[AnyEvent]]:
        """Run it: how it ended, and its history."""
        started = await self.call(calls.StartWorkflow(definition=encode(definition), input=encode({})))
        seen = await self.call(calls.WaitWorkflow(workflow_id=started.workflow_id, wait_seconds=3600))
        page = await self.call(calls.GetHistory(workflow_id=started.workflow_id, limit=1000))
        return seen, [decode_event(bytes(event)) for event in page.events]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.daemon.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def plane(bench: Bench, answering: Answering, folder: Path):
    made = Plane(bench, answering, folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.daemon.run)
        yield made
        made.daemon.drain()


def asking(bench: Bench, **fields: JSON) -> dict[str, JSON]:
    state = {"Type": "Task", "Resource": bench.resource, "Parameters": {"Model": "m", "Prompt": "Hi"}, "End": True}
    return {"StartAt": "Ask", "States": {"Ask": {**state, **fields}}}


class Script:
    """Answers in turn."""

    def __init__(self, *answers: httpx2.Response | list[bytes]) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.keys: set[str] = set()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.times.append(trio.current_time())
        self.keys.add(request.headers["Idempotency-Key"])
        answer = self.answers.pop(0)
        if isinstance(answer, list):
            return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=b"".join(answer))
        return answer


async def test_rate_limits_and_overload_pass_by_themselves(
    autojump_clock: MockClock, bench: Bench, tmp_path: Path
) -> None:
    """No Retry in the state: engine.toml's. Each pause is at least what the server asked for."""
    script = Script(
        httpx2.Response(429, headers={"Retry-After": "120"}, json={"error": {"message": "slow down"}}),
        httpx2.Response(529, headers={"retry-after-ms": "300500"}, json={"error": {"message": "too much"}}),
        bench.events("So"),
    )
    async with plane(bench, script, tmp_path) as here:
        seen, history = await here.closed(asking(bench))
        assert seen.status is ExecutionStatus.SUCCEEDED
        assert seen.usage == Usage(requests=1, input_tokens=11, output_tokens=5)
        failed = [event for event in history if isinstance(event, ev.TaskFailed)]
        assert [(one.error, one.retry_after_seconds) for one in failed] == [
            ("Ai.RateLimited", 120.0),
            ("Ai.Overloaded", 300.5),
        ]
        first, second, third = script.times
        assert second - first >= 120
        assert third - second >= 300.5
        assert len(script.keys) == 1
        provider = {"provider": bench.vendor, "model": "m"}
        assert here.sample("engine_model_calls_total", **provider, result="failed") == 2
        assert here.sample("engine_model_calls_total", **provider, result="ok") == 1
        assert here.sample("engine_model_tokens_total", **provider, direction="input") == 11
        assert here.sample("engine_model_tokens_total", **provider, direction="output") == 5


async def test_usage_adds_up_over_states_and_failed_attempts(
    autojump_clock: MockClock, bench: Bench, tmp_path: Path
) -> None:
    schema: JSON = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    parameters: JSON = {"Model": "m", "Prompt": "Hi", "ResponseSchema": schema}
    definition = asking(
        bench,
        Parameters=parameters,
        Retry=[{"ErrorEquals": ["Ai.InvalidOutput"], "IntervalSeconds": 1}],
        Next="Again",
    )
    states = definition["States"]
    assert isinstance(states, dict)
    assert isinstance(states["Ask"], dict)
    del states["Ask"]["End"]
    states["Again"] = {**states["Ask"], "End": True}
    del states["Again"]["Next"]
    script = Script(bench.events("no JSON"), bench.events('{"n": 1}'), bench.events('{"n": 2}'))
    async with plane(bench, script, tmp_path) as here:
        seen, history = await here.closed(definition)
        assert seen.status is ExecutionStatus.SUCCEEDED
        assert decode(seen.output)["Object"] == {"n": 2}
        assert seen.usage == Usage(requests=3, input_tokens=33, output_tokens=15)
        (failed,) = [event for event in history if isinstance(event, ev.TaskFailed)]
        assert failed.usage == Usage(requests=1, input_tokens=11, output_tokens=5)


class Slow(httpx2.AsyncByteStream):
    """An event every so many seconds."""

    def __init__(self, events: list[bytes], seconds: float) -> None:
        self._events = events
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            await trio.sleep(self._seconds)
            yield event


async def test_a_long_answer_beats_and_one_that_stalls_does_not(
    autojump_clock: MockClock, bench: Bench, tmp_path: Path
) -> None:
    events = bench.events("An answer that takes its time, and is worth it")

    def answer(request: httpx2.Request) -> httpx2.Response:
        seconds = 9.0 if b"patience" in request.content else 11.0
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Slow(events, seconds))

    async with plane(bench, answer, tmp_path) as here:
        patient: JSON = {"Model": "m", "Prompt": "patience"}
        seen, history = await here.closed(asking(bench, Parameters=patient, HeartbeatSeconds=10))
        assert seen.status is ExecutionStatus.SUCCEEDED
        assert (history[-1].time - history[0].time).total_seconds() >= 9 * len(events)
        seen, _ = await here.closed(asking(bench, HeartbeatSeconds=10))
        assert (seen.status, seen.error) == (ExecutionStatus.FAILED, "States.HeartbeatTimeout")


async def test_a_wrong_key_is_not_tried_again(autojump_clock: MockClock, bench: Bench, tmp_path: Path) -> None:
    script = Script(httpx2.Response(401, json={"error": {"message": f"no such key: {SECRET}"}}))
    async with plane(bench, script, tmp_path) as here:
        seen, history = await here.closed(asking(bench))
        assert (seen.status, seen.error) == (ExecutionStatus.FAILED, "Ai.Authentication")
        assert SECRET not in repr(seen) + repr(history)


async def test_models_beyond_a_number_are_counted_together(
    autojump_clock: MockClock, bench: Bench, tmp_path: Path
) -> None:
    script = Script(*[bench.events("So")] * 120)
    async with plane(bench, script, tmp_path) as here:
        for number in range(120):
            await here.closed(asking(bench, Parameters={"Model": f"m{number}", "Prompt": "Hi"}))
        labels = {"provider": bench.vendor, "result": "ok"}
        assert here.sample("engine_model_calls_total", **labels, model="m99") == 1
        assert here.sample("engine_model_calls_total", **labels, model="m100") is None
        assert here.sample("engine_model_calls_total", **labels, model="other") == 20
