"""Code in executions, on the mock clock: the interpreters run in this process, where no clock can run ahead of them."""

from __future__ import annotations

import pytest

from daemon.nodes.sandbox.inline import InlineSandbox
from daemon.nodes.sandbox.node import CodeNode
from daemon.settings import CodeSettings
from enginekit.messages import calls
from enginekit.messages.events import TaskCompleted, TaskFailed
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ExecutionStatus, Refused


def machine(**states):
    return {"StartAt": next(iter(states)), "States": states}


def inline(daemon):
    for language in ("python", "javascript"):
        node = CodeNode(language, CodeSettings(), sandbox=InlineSandbox(language))
        daemon._nodes._nodes[f"code:{language}"] = node


def task(language, source, **fields):
    return {
        "Type": "Task",
        "Resource": f"code:{language}",
        "Parameters": {"Source": source, "Input.$": "$"},
        **(fields or {"End": True}),
    }


def test_code_computes_prints_and_passes_on(simulate):
    definition = machine(
        Sum=task("python", "print('summing', len(input))\nsum(input)", Next="Double"),
        Double=task("javascript", "console.log('doubling', input); return {twice: input * 2}"),
    )

    async def scenario(daemon):
        inline(daemon)
        started = await daemon.call(
            calls.StartWorkflow(definition=encode(definition), input=encode([1, 2, 3])), calls.StartWorkflowResult
        )
        closed = await daemon.closed(started)
        assert decode(closed.output) == {"twice": 12}
        logs = [event.log for event in await daemon.events(started) if isinstance(event, TaskCompleted)]
        assert logs == ["summing 3\n", "doubling 6\n"]

    simulate(scenario)


def test_a_failure_of_code_is_caught_by_its_name_and_keeps_its_log(simulate):
    definition = machine(
        Divide=task(
            "python",
            "print('dividing')\n1 / input",
            Catch=[{"ErrorEquals": ["Code.Error"], "Next": "Tell"}],
            End=True,
        ),
        Tell={"Type": "Pass", "End": True},
    )

    async def scenario(daemon):
        inline(daemon)
        started = await daemon.call(
            calls.StartWorkflow(definition=encode(definition), input=encode(0)), calls.StartWorkflowResult
        )
        closed = await daemon.closed(started)
        assert closed.status is ExecutionStatus.SUCCEEDED
        assert decode(closed.output) == {
            "Error": "Code.Error",
            "Cause": "ZeroDivisionError: division by zero (line 2)",
        }
        (failed,) = [event for event in await daemon.events(started) if isinstance(event, TaskFailed)]
        assert failed.log == "dividing\n"

    simulate(scenario)


def test_a_literal_source_that_is_no_python_is_refused_at_registration(simulate):
    async def scenario(daemon):
        inline(daemon)
        call = calls.RegisterWorkflow(name="w", definition=encode(machine(Sum=task("python", "sum(input"))))
        with pytest.raises(Refused, match=r"States\.Sum\.Parameters\.Source: is not Python: '\(' was never closed"):
            await daemon.call(call, calls.RegisterWorkflowResult)

    simulate(scenario)
