"""The keys go where one looks: on the page of an execution, in a terminal that has room for one of its sides."""

from __future__ import annotations

from sitting import Sitting, access, prepared, sit

from console.pages.execution import ExecutionPage
from enginekit.client import Client

STATES = 60
LONG = {
    "StartAt": "State-0",
    "States": {
        **{f"State-{at}": {"Type": "Pass", "Next": f"State-{at + 1}"} for at in range(STATES - 1)},
        f"State-{STATES - 1}": {"Type": "Succeed"},
    },
}


async def _two(client: Client) -> None:
    for name in ("first", "second"):
        await client.start(LONG, workflow_id=name)
        await client.wait(name)


def test_in_80_columns_the_arrows_move_what_is_seen(daemon) -> None:
    prepared(daemon, _two, tenant="keys")

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("second", "SUCCEEDED")
        await sitting.press("enter")
        await sitting.sees("● State-0 ", without="State-59")
        await sitting.press("end")
        await sitting.sees("State-59", without="● State-0 ")
        await sitting.press("v")
        await sitting.sees("WorkflowStarted", 'type: "WorkflowStarted"')
        await sitting.press("down")
        await sitting.sees('type: "NodeEntered"')
        await sitting.press("enter", "down", "escape", "end")
        await sitting.sees('type: "WorkflowSucceeded"')
        await sitting.press("v", "home")
        await sitting.sees("● State-0 ")
        await sitting.press("escape")
        await sitting.sees("first", "second")

    sit(access(daemon, tenant="keys"), look, size=(80, 24))


def test_one_execution_is_opened_by_a_double_click_and_left_by_the_pages_key(daemon) -> None:
    prepared(daemon, _two, tenant="clicks")

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("first", "second", "SUCCEEDED")
        await sitting.pilot.click("#executions", offset=(5, 2), times=2)
        await sitting.sees("first  SUCCEEDED")
        assert sum(isinstance(page, ExecutionPage) for page in sitting.app.screen_stack) == 1
        await sitting.press("1")
        await sitting.sees("Circuit breakers")
        await sitting.press("3")
        await sitting.sees("first  SUCCEEDED")
        await sitting.press("3")
        await sitting.sees("first", "second", "workflow any")

    sit(access(daemon, tenant="clicks"), look, size=(100, 30))
