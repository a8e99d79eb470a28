"""The registry of node types: which names there are, and what it says of those that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
import trio
import trio.testing

from daemon.nodes.registry import NodeTypeError, NodeTypes
from daemon.settings import Settings
from enginekit.messages.json import JSON
from enginekit.node import Argument, ArgumentFault, NodeCall

CALL = NodeCall(
    tenant="t",
    workflow_id="w",
    run_id="r",
    node="N",
    path="N",
    resource="acme:upper",
    input="abc",
    attempt=1,
    timeout_seconds=1.0,
    idempotency_key="k",
)


class UpperNode:
    closed = 0

    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, str)
        return call.input.upper()

    async def aclose(self) -> None:
        self.closed += 1


class NoNode:
    def run(self, call: NodeCall) -> JSON:
        return None


def broken() -> UpperNode:
    raise RuntimeError("no licence")


def installed(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "engine.nodes")


OURS = {"ai:anthropic", "ai:openai", "code:javascript", "code:python", "echo", "http"}


def types(*entries: EntryPoint) -> NodeTypes:
    return NodeTypes(Settings(), entries)


def test_the_daemons_own_are_found_by_their_files() -> None:
    assert types().names() == OURS
    assert NodeTypes(Settings()).names() >= OURS


async def test_an_installed_one_is_made_once_and_closed() -> None:
    nodes = types(installed("acme:upper", f"{__name__}:UpperNode"))
    node = nodes.get("acme:upper")
    assert await node.run(CALL) == "ABC"
    assert nodes.get("acme:upper") is node
    await nodes.aclose()
    assert isinstance(node, UpperNode)
    assert node.closed == 1


async def test_echo_answers_its_input() -> None:
    assert await types().get("echo").run(CALL) == "abc"


async def test_a_node_that_is_made_already_takes_the_place_of_ours() -> None:
    nodes = NodeTypes(Settings(), [], made={"http": UpperNode()})
    assert await nodes.get("http").run(CALL) == "ABC"
    assert nodes.names() == OURS
    with pytest.raises(NodeTypeError, match="acme:upper cannot take the place"):
        NodeTypes(Settings(), [], made={"acme:upper": UpperNode()})


def test_nothing_is_imported_before_it_is_used() -> None:
    program = (
        "import sys; from daemon.nodes.registry import NodeTypes; from daemon.settings import Settings\n"
        "nodes = NodeTypes(Settings()); assert nodes.names(); assert 'httpx2' not in sys.modules\n"
        "nodes.get('http'); assert 'httpx2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(NodeTypeError, match=r"no node type 'pdf:render' .*echo, http.*activity:pdf:render"):
        types().get("pdf:render")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module_at_all:Node", "ModuleNotFoundError"),
        (f"{__name__}:Missing", "AttributeError"),
        (f"{__name__}:broken", "RuntimeError: no licence"),
        (f"{__name__}:NoNode", "NoNode has no `async def run"),
        (f"{__name__}:CALL", "TypeError"),
    ],
)
def test_a_broken_one_is_named_when_it_is_used_and_spoils_no_other(value: str, said: str) -> None:
    nodes = types(installed("acme:upper", value))
    assert nodes.get("echo") is not None
    with pytest.raises(NodeTypeError, match=rf"'acme:upper' .*{value}.*{said}"):
        nodes.get("acme:upper")


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(NodeTypeError, match=r"'echo' is there twice: in the daemon and in .*acme_echo"):
        types(installed("echo", "acme_echo:Node"))
    with pytest.raises(NodeTypeError, match=r"'acme:a' is there twice: in .*one:A.* and in .*two:A"):
        types(installed("acme:a", "one:A"), installed("acme:a", "two:A"))


@pytest.mark.parametrize("name", ["activity:pack", "workflow:x", "signal:x", "arn:aws:x", "", "Upper", "a b", "a::b"])
def test_a_name_that_no_resource_can_have_is_refused(name: str) -> None:
    with pytest.raises(NodeTypeError, match="cannot be a resource"):
        types(installed(name, "acme:Node"))


class PickyNode(UpperNode):
    def check(self, arguments: Argument, tenant: str | None) -> Iterator[ArgumentFault]:
        if arguments == "crash":
            raise RuntimeError("a defect")
        yield ArgumentFault("a", f"must be no {arguments} of {tenant}")


def test_a_node_type_is_asked_about_arguments_if_it_has_an_opinion() -> None:
    nodes = types(
        installed("acme:picky", f"{__name__}:PickyNode"),
        installed("acme:upper", f"{__name__}:UpperNode"),
        installed("acme:broken", f"{__name__}:broken"),
    )
    assert nodes.check("acme:picky", "x", "t") == [ArgumentFault("a", "must be no x of t")]
    assert nodes.check("acme:upper", "x", "t") == []
    assert nodes.check("acme:broken", "x", "t") == []
    assert nodes.check("acme:picky", "crash", "t") == []
    assert nodes.check("not-there", "x", "t") == []


class Serving(UpperNode):
    served = 0

    async def serve(self) -> None:
        Serving.served += 1
        try:
            await trio.sleep_forever()
        finally:
            Serving.served -= 1


async def test_what_a_node_type_does_between_calls_goes_on_with_the_others() -> None:
    nodes = types(installed("acme:early", f"{__name__}:Serving"), installed("acme:late", f"{__name__}:Serving"))
    nodes.get("acme:early")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes.serve)
        await trio.testing.wait_all_tasks_blocked()
        assert Serving.served == 1
        # Made in a thread, as when a large definition is checked.
        await trio.to_thread.run_sync(nodes.get, "acme:late")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert Serving.served == 2
        nursery.cancel_scope.cancel()
    assert Serving.served == 0
    nodes.get("echo")
