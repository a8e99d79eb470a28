"""Which arguments the code nodes take, told of a definition as of a task; and the syntax of literal Python."""

from __future__ import annotations

import pytest
from sandbox_calls import call

from daemon.nodes.sandbox.arguments import faults_in
from daemon.nodes.sandbox.node import CodeNode
from daemon.settings import CodeSettings
from enginekit.node import COMPUTED, Argument, NodeFailure

SETTINGS = CodeSettings(source_bytes=100)


def told(arguments: Argument, language: str = "javascript") -> list[str]:
    node = CodeNode(language, SETTINGS)
    return [f"{fault.path}: {fault.message}" for fault in node.check(arguments, "acme")]


@pytest.mark.parametrize(
    "arguments",
    [
        COMPUTED,
        {"Source": COMPUTED},
        {"Source": "1", "Input": {"any": ["thing", COMPUTED]}},
        {"Source": "1", "TimeoutMilliseconds": 1, "MemoryBytes": 1 << 20, "OutputBytes": 1},
        {"Source": "1", "TimeoutMilliseconds": COMPUTED, "MemoryBytes": None},
    ],
)
def test_arguments_without_a_fault(arguments: Argument) -> None:
    assert told(arguments) == []


def test_every_fault_is_told() -> None:
    arguments: Argument = {
        "Sauce": "1",
        "TimeoutMilliseconds": 60_001,
        "MemoryBytes": 1.5,
        "OutputBytes": True,
    }
    assert told(arguments) == [
        "Sauce: is not a field of code:javascript "
        "(there are Source, Input, TimeoutMilliseconds, MemoryBytes, OutputBytes)",
        "Source: must be the text of a program in javascript",
        "TimeoutMilliseconds: must be a whole number from 1 to 60000 (code.timeout_limit_milliseconds)",
        "MemoryBytes: must be a whole number from 1048576 to 268435456 (code.memory_limit_bytes)",
        "OutputBytes: must be a whole number from 1 to 262144 (code.output_limit_bytes)",
    ]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("1", ": must be an object with Source"),
        ({"Source": "  \n"}, "Source: must be the text of a program in javascript"),
        ({"Source": "é" * 51}, "Source: has 102 bytes, over the limit of 100 (code.source_bytes)"),
        ({"Source": "1\0"}, "Source: must not have NUL characters"),
    ],
)
def test_a_fault(arguments: Argument, fault: str) -> None:
    assert told(arguments) == [fault]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = (", "Source: is not Python: '(' was never closed (line 1, column 5)"),
        ("if x\n  1", "Source: is not Python: expected ':' (line 1, column 5)"),
        ("return = 5", "Source: is not Python: invalid syntax (line 1, column 8)"),
        # What is right for the sandbox, or may be right for a newer Python than this one.
        ("return input", None),
        ("await main()", None),
        ("f'{x['a']}' + (", None),
        ("type X = (", None),
        ("def f[T](x): (", None),
        ("try: x\nexcept A, B: (", None),
        ("'\\d' + (", None),
        ("(" * 100, None),
    ],
)
def test_the_syntax_of_literal_python(source: str, fault: str | None) -> None:
    if source.startswith("(" * 100):
        assert len(told({"Source": source}, "python")) <= 1
    else:
        assert told({"Source": source}, "python") == ([] if fault is None else [fault])


async def test_a_task_with_wrong_arguments_runs_nothing() -> None:
    node = CodeNode("python", CodeSettings())
    with pytest.raises(NodeFailure, match=r"Code\.InvalidArguments: Source: must be the text of a program in python"):
        await node.run(call(5))
    with pytest.raises(NodeFailure, match=r"Code\.InvalidArguments: TimeoutMilliseconds: must be a whole number"):
        await node.run(call("1", TimeoutMilliseconds="5"))


def test_what_a_task_leaves_out_comes_from_the_settings() -> None:
    node = CodeNode("python", CodeSettings(timeout_milliseconds=7, memory_bytes=1 << 21, output_bytes=9))
    job = node._job(call("1", OutputBytes=3))
    assert (job.milliseconds, job.memory_bytes, job.output_bytes) == (7, 1 << 21, 3)
    assert list(faults_in({"Source": "1"}, CodeSettings(), "python")) == []
