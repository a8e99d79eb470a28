"""examples/agent runs as its README says: on the whole daemon, with its worker, against a local server that streams as
the vendors' do and asks for tools as a model would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from ai_bench import Bench
from model_server import Asked, ModelServer

from daemon.api.auth import Principal
from daemon.assembly import Daemon
from daemon.clock import WallClock
from daemon.language import parse_definition
from daemon.nodes.registry import NodeTypes
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages.events import Usage
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.status import ExecutionStatus
from enginekit.methods import RESULTS, Caller
from enginekit.worker import Worker
from examples.agent.tools import Shop

FILE = Path(__file__).resolve().parents[2] / "examples" / "agent" / "agent.yaml"
OWNER = Principal(tenant="acme", subject="tester", scopes=frozenset({"read", "write", "work"}), expires_at=None)

Turn = tuple[str, list[tuple[str, str, str]]]
"""What the model says, and what it asks for: id, name, input."""


class Model:
    """A model that says one thing after the other, and keeps what it was told."""

    def __init__(self, bench: Bench, turns: Callable[[int], Turn]) -> None:
        self._bench = bench
        self._turns = turns
        self.heard: list[list[dict[str, JSON]]] = []

    async def __call__(self, asked: Asked) -> None:
        assert isinstance(asked.body, dict)
        self.heard.append([message for message in asked.body["messages"] if message["role"] != "system"])
        await asked.answer(self._bench.events(*self._turns(len(self.heard))))

    def results(self, turn: int) -> dict[str, str]:
        """What it was told of the tools, by id, before it spoke for the so-many-th time."""
        told: dict[str, str] = {}
        for message in self.heard[turn - 1]:
            content = message["content"]
            if message["role"] == "tool":
                told[str(message["tool_call_id"])] = str(content)
            elif isinstance(content, list):
                told |= {
                    str(part["tool_use_id"]): str(part["content"])  # type: ignore[index, call-overload]
                    for part in content
                    if part["type"] == "tool_result"  # type: ignore[index, call-overload]
                }
        return told


class Plane(Caller):
    """A daemon on the memory store, without sockets of its own; its model is on one."""

    def __init__(self, bench: Bench, url: str, folder: Path) -> None:
        self._bench = bench
        settings = bench.settings(url)
        store = MemoryStore(2, b"k" * 32)
        self.daemon = Daemon(settings, folder, WallClock(), store=store, nodes=NodeTypes(settings, []), listen=False)

    async def _perform(self, params: calls.Call, timeout_seconds: float | None) -> calls.Result:
        answer = await self.daemon.gateway.call(OWNER, type(params).__name__, msgspec.json.encode(params))
        return msgspec.json.decode(answer, type=RESULTS[type(params)])

    async def ask(self, question: str) -> calls.DescribeWorkflowResult:
        text = FILE.read_text().replace("ai:anthropic", self._bench.resource)
        await self.call(calls.RegisterWorkflow(name="agent", definition=encode(text)))
        data: JSON = {"model": "m", "question": question}
        started = await self.call(calls.StartWorkflow(workflow="agent", input=encode(data)))
        return await self.call(calls.WaitWorkflow(workflow_id=started.workflow_id, wait_seconds=60))


@asynccontextmanager
async def plane(
    bench: Bench, model: Callable[[Asked], Awaitable[None]], shop: Shop, folder: Path
) -> AsyncIterator[Plane]:
    async with trio.open_nursery() as nursery:
        made = Plane(bench, await ModelServer(nursery, model).listen(), folder)
        await nursery.start(made.daemon.run)
        nursery.start_soon(Worker(made, shop.activities(), poll_seconds=5).run)
        with trio.fail_after(120):
            yield made
        nursery.cancel_scope.cancel()


def test_the_definition_is_valid_and_warns_of_nothing(bench: Bench) -> None:
    nodes = NodeTypes(bench.settings("http://model.test"), [])
    text = FILE.read_text().replace("ai:anthropic", bench.resource)
    assert parse_definition(text, nodes.names(), lambda name, given: nodes.check(name, given, "acme")).warnings == ()


async def test_it_looks_up_refunds_and_answers(bench: Bench, tmp_path: Path) -> None:
    turns: list[Turn] = [
        (
            "Let me look.",
            [("c1", "look_up_order", '{"order": "A-1001"}'), ("c2", "look_up_order", '{"order": "A-1003"}')],
        ),
        ("", [("c3", "refund_order", '{"order": "A-1001", "reason": "not wanted"}')]),
        ("The kettle is refunded.", []),
    ]
    model = Model(bench, lambda turn: turns[turn - 1])
    shop = Shop()
    async with plane(bench, model, shop, tmp_path) as here:
        seen = await here.ask("Where are A-1001 and A-1003? Refund what you can.")
    assert seen.status is ExecutionStatus.SUCCEEDED, (seen.error, seen.cause)
    assert decode(seen.output) == {"answer": "The kettle is refunded.", "turns": 3}
    assert seen.usage == Usage(requests=3, input_tokens=33, output_tokens=15)
    assert shop.refunds == {"A-1001": "not wanted"}
    # Each turn sees all of it: question, answer, results, in order, and the ids belong together.
    assert [[message["role"] for message in heard][:1] for heard in model.heard] == [["user"]] * 3
    assert model.heard[2][: len(model.heard[1])] == model.heard[1]
    assert model.heard[1][1]["role"] == "assistant"
    assert json.loads(model.results(2)["c1"])["item"] == "kettle"
    assert json.loads(model.results(2)["c2"])["state"] == "delivered"
    assert model.results(3).keys() == {"c1", "c2", "c3"}
    assert json.loads(model.results(3)["c3"]) == {"refunded": 45}


async def test_a_tool_that_fails_or_is_not_there_is_told_to_the_model(bench: Bench, tmp_path: Path) -> None:
    turns: list[Turn] = [
        (
            "",
            [
                ("c1", "refund_order", '{"order": "A-1002", "reason": "x"}'),
                ("c2", "look_up_order", '{"order": "A-9999"}'),
                ("c3", "delete_everything", "{}"),
                ("c4", "look_up_order", ""),
            ],
        ),
        ("A person has to decide.", []),
    ]
    model = Model(bench, lambda turn: turns[turn - 1])
    shop = Shop()
    async with plane(bench, model, shop, tmp_path) as here:
        seen = await here.ask("Refund A-1002")
    assert decode(seen.output) == {"answer": "A person has to decide.", "turns": 2}
    told = model.results(2)
    assert "RefundRefused: 890 is more than 500" in told["c1"]
    assert "NoSuchOrder" in told["c2"]
    assert "There is no such tool." in told["c3"]
    assert "NoSuchOrder" in told["c4"]
    assert shop.refunds == {}


async def test_it_does_not_go_round_for_ever(bench: Bench, tmp_path: Path) -> None:
    model = Model(bench, lambda turn: ("", [(f"c{turn}", "look_up_order", '{"order": "A-1001"}')]))
    async with plane(bench, model, Shop(), tmp_path) as here:
        seen = await here.ask("Where is A-1001?")
    assert (seen.status, seen.error) == (ExecutionStatus.FAILED, "TooManyTurns")
    assert len(model.heard) == 8


async def test_a_turn_that_is_cut_off_is_asked_again_and_no_tool_runs_twice(bench: Bench, tmp_path: Path) -> None:
    turns: list[Turn] = [
        ("", [("c1", "refund_order", '{"order": "A-1001", "reason": "x"}')]),
        ("Done.", []),
    ]
    model = Model(bench, lambda turn: turns[turn - 1])
    cut = 2
    shop = Shop()
    refunds: list[JSON] = []
    refund = shop.refund_order
    shop.refund_order = lambda data: refunds.append(data) or refund(data)  # type: ignore[func-returns-value, method-assign]

    async def faulty(asked: Asked) -> None:
        nonlocal cut
        if cut and len(model.heard) == 1:
            cut -= 1
            await asked.begin()
            await asked.say(bench.events("Do")[0])
            return
        await model(asked)

    async with plane(bench, faulty, shop, tmp_path) as here:
        seen = await here.ask("Refund A-1001")
    assert decode(seen.output) == {"answer": "Done.", "turns": 2}
    assert len(refunds) == 1
    assert seen.usage is not None
    assert seen.usage.requests == 4


@pytest.mark.parametrize("order", [None, 7, "", "A-9999"])
def test_the_tools_check_what_a_model_made_up(order: JSON) -> None:
    shop = Shop()
    for tool in shop.activities().values():
        with pytest.raises(Exception, match="NoSuchOrder"):
            tool({"order": order})  # type: ignore[call-arg]
