"""Definitions are refused for arguments that a node type cannot take, and load all the same once they are stored."""

import pytest
from slow_store import as_other

from enginekit.messages import calls
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus, Refused
from enginekit.node import ArgumentFault, NodeFailure

CALL = {
    "StartAt": "Call",
    "States": {"Call": {"Type": "Task", "Resource": "http", "Parameters": {"Method": "get"}, "End": True}},
}
WRONG = ["States.Call.Parameters.Method", "States.Call.Parameters.ApiEndpoint"]


def register(name, definition):
    return calls.RegisterWorkflow(name=name, definition=encode(definition))


def test_wrong_arguments_are_refused_at_registration_and_at_a_start(simulate):
    async def scenario(daemon):
        for call, result in (
            (register("w", CALL), calls.RegisterWorkflowResult),
            (calls.StartWorkflow(definition=encode(CALL)), calls.StartWorkflowResult),
        ):
            with pytest.raises(Refused, match=r"States.Call.Parameters.Method: must be one of GET, POST") as refused:
                await daemon.call(call, result)
            assert [fault["path"] for fault in refused.value.data["faults"]] == WRONG
        listed = await daemon.call(calls.ListDefinitions(), calls.ListDefinitionsResult)
        assert listed.definitions == []

    simulate(scenario)


class Vanishing:
    """A node type that needs something which is there for one tenant only, and then not at all."""

    there = True

    def check(self, arguments, tenant):
        if not self.there or tenant != "acme":
            yield ArgumentFault("Thing", f"is not there for {tenant}")

    async def run(self, call):
        raise NodeFailure("Gone", "it is not there any more")


def test_what_was_checked_loads_when_its_needs_have_vanished(simulate):
    definition = {
        "StartAt": "Rest",
        "States": {
            "Rest": {"Type": "Wait", "Seconds": 60, "Next": "Use"},
            "Use": {"Type": "Task", "Resource": "test:flaky", "Parameters": {"Thing": "x"}, "End": True},
        },
    }

    async def scenario(daemon):
        node = daemon._nodes._nodes["test:flaky"] = Vanishing()
        await daemon.call(register("w", definition), calls.RegisterWorkflowResult)
        started = await daemon.call(calls.StartWorkflow(workflow="w"), calls.StartWorkflowResult)
        node.there = False
        daemon._condition.history._definitions._checked.clear()
        daemon._condition.history._definitions._parsed.clear()
        again = await daemon.call(calls.StartWorkflow(workflow="w"), calls.StartWorkflowResult)
        for run in (started, again):
            closed = await daemon.closed(run)
            assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "Gone")
        with pytest.raises(Refused, match=r"States.Use.Parameters.Thing: is not there for acme"):
            await daemon.call(register("x", definition), calls.RegisterWorkflowResult)

    simulate(scenario)


def test_what_one_tenant_may_use_another_may_not(simulate):
    definition = {
        "StartAt": "Use",
        "States": {"Use": {"Type": "Task", "Resource": "test:flaky", "Parameters": {}, "End": True}},
    }

    async def scenario(daemon):
        daemon._nodes._nodes["test:flaky"] = Vanishing()
        await daemon.call(register("w", definition), calls.RegisterWorkflowResult)
        with pytest.raises(Refused, match="is not there for other"):
            await as_other(daemon, register("w", definition), calls.RegisterWorkflowResult)

    simulate(scenario)
