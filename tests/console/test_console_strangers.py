"""What a workflow says is a stranger's text: nothing in it may steer the operator's terminal."""

from __future__ import annotations

import unicodedata

from sitting import Sitting, access, prepared, sit

from console.words import safe
from enginekit.client import Client
from enginekit.messages.calls import FailTask, PollTask, RegisterWorkflow
from enginekit.messages.json import encode

STEERING = "\x1b]0;mine\x07\x1b[2J\x1b[31mred\x1b[0m\t\r\n\x9b31m\u202eesrever"
WORK = {
    "StartAt": "Look 看",
    "States": {
        "Look 看": {"Type": "Pass", "Result": {f"key {STEERING}": STEERING}, "ResultPath": "$.told", "Next": "Ask"},
        "Ask": {"Type": "Task", "Resource": "activity:stranger", "End": True},
    },
}


def obeyed(seen: str) -> set[str]:
    """What a terminal would not show, but do."""
    return {each for each in seen if unicodedata.category(each) in ("Cc", "Cf")} - {"\n"}


def test_nothing_that_steers_a_terminal_is_shown(daemon) -> None:
    async def prepare(client: Client) -> None:
        await client.call(RegisterWorkflow(name="strange", definition=encode(WORK)))
        await client.start("strange", workflow_id="strange", labels={"who": STEERING})
        (task,) = (await client.call(PollTask(queue="stranger", worker_id="w"))).tasks
        await client.call(FailTask(token=task.token, error=f"Evil {STEERING}", cause=f"for {STEERING}"))
        await client.wait("strange")

    prepared(daemon, prepare, tenant="strange")

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        assert not obeyed(await sitting.sees("strange", "FAILED", "Evil"))
        await sitting.press("enter")
        assert not obeyed(await sitting.sees("Evil", "WorkflowFailed"))
        await sitting.press(*["down"] * 2)
        for _ in range(8):
            await sitting.press("down")
            assert not obeyed(await sitting.sees("Look 看"))
        await sitting.press("4")
        assert not obeyed(await sitting.sees("strange", "Evil"))
        await sitting.press("enter")
        assert not obeyed(await sitting.sees("Attempts", r"for \x1b]0;mine"))
        await sitting.press("escape", "r")
        assert not obeyed(await sitting.sees("Redrive strange?", "failed with Evil"))

    sit(access(daemon, tenant="strange"), look, size=(160, 50))


def test_a_strangers_text_is_made_safe_and_everybody_elses_stays() -> None:
    assert safe("看 Überprüfung 🚚 1") == "看 Überprüfung 🚚 1"
    assert safe("a\tb\x1b[2Jc\x9bd\u202ee\nf") == r"a\x09b\x1b[2Jc\x9bd\x202ee f"
    assert safe("a\nb\r", lines=True) == "a\nb\\x0d"
