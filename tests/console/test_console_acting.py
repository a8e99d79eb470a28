"""Looking into executions and acting on them, on a real daemon: by the keys, after a question."""

from __future__ import annotations

from sitting import Sitting, access, prepared, sit

from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode
from enginekit.messages.schedules import CreateSchedule

APPROVAL = {
    "StartAt": "Check",
    "States": {
        "Check": {"Type": "Task", "Resource": "echo", "Next": "Big"},
        "Big": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.amount", "NumericGreaterThan": 100, "Next": "Approve"}],
            "Default": "Done",
        },
        "Approve": {"Type": "Task", "Resource": "signal:approved", "TimeoutSeconds": 7200, "Next": "Done"},
        "Done": {"Type": "Succeed"},
    },
}
BROKEN = {
    "StartAt": "Convert",
    "States": {
        "Convert": {
            "Type": "Task",
            "Resource": "http",
            "Parameters": {"Method": "GET", "ApiEndpoint": "http://10.9.9.9:9/"},
            "End": True,
        }
    },
}


async def _executions(client) -> None:
    await client.call(RegisterWorkflow(name="approval", definition=encode(APPROVAL)))
    await client.start("approval", workflow_id="big", input={"amount": 500, "who": {"name": "Ada", "roles": ["buyer"]}})
    await client.start("approval", workflow_id="other", input={"amount": 500})


def test_an_execution_is_opened_signalled_and_ends_before_our_eyes(daemon) -> None:
    prepared(daemon, _executions)

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("big", "RUNNING")
        await sitting.press("slash", *"big", "enter", "enter")
        await sitting.sees("Check", "◆ Big", "if $.amount NumericGreaterThan 100 → Approve", "otherwise → Done")
        await sitting.sees("awaiting signal", "waits for the signal approved", "in 1 h 5", "WorkflowStarted")
        await sitting.sees("▶ who {2}", without="Ada")
        await sitting.press("enter", "end", "up", "enter")  # into the JSON of the first event, and unfold a part of it
        await sitting.sees("▼ who {2}", 'name: "Ada"')
        await sitting.press("escape")
        await sitting.press("s", *"approved", "tab", *'{"by":"Bob"}', "ctrl+s")
        await sitting.sees("SUCCEEDED", "SignalReceived", "WorkflowSucceeded")
        await sitting.press("escape", "x")
        await sitting.sees("other", "big", "approval")

    sit(access(daemon), look, size=(160, 50))


def test_cancel_and_terminate_ask_first(daemon) -> None:
    async def prepare(client) -> None:
        await client.start("approval", workflow_id="unwanted", input={"amount": 500})
        await client.start("approval", workflow_id="hopeless", input={"amount": 500})

    prepared(daemon, prepare)

    async def look(sitting: Sitting) -> None:
        await sitting.press("3", "slash", *"unwanted", "enter")
        await sitting.sees("unwanted", "1 of")
        await sitting.press("c")
        await sitting.sees("Cancel unwanted?")
        await sitting.press("escape")
        await sitting.sees("RUNNING", without="Cancel unwanted?")
        await sitting.press("c", *"no need", "enter")
        await sitting.sees("CANCELED")
        await sitting.press("x", "slash", *"hopeless", "enter")
        await sitting.sees("hopeless", "1 of")
        await sitting.press("enter", "t", "enter")
        await sitting.sees("hopeless", "TERMINATED", "stopped")

    sit(access(daemon), look, size=(100, 30))


def test_dead_letters_are_shown_redriven_and_discarded(daemon) -> None:
    async def prepare(client) -> None:
        await client.call(RegisterWorkflow(name="broken", definition=encode(BROKEN)))
        for number in range(4):
            started = await client.start("broken", workflow_id=f"broken-{number}", input={"n": number})
            await client.wait(started.workflow_id, started.run_id)

    prepared(daemon, prepare)

    async def look(sitting: Sitting) -> None:
        await sitting.press("4")
        await sitting.sees("4 ·", "broken-3", "Convert")
        await sitting.press("enter")
        await sitting.sees("Attempts", "Input", "Method")
        await sitting.press("escape", "e")
        await sitting.sees("with another input?", "10.9.9.9:9")
        await sitting.press("escape", "d")
        await sitting.sees("Discard the dead letter of broken-3?")
        await sitting.press("enter")
        await sitting.sees("3 ·", without="broken-3")
        await sitting.press("slash", *"broken", "enter")
        await sitting.sees("workflow broken", "3 ·")
        await sitting.press("r", "enter")
        await sitting.sees("broken-2 goes on")
        await sitting.press("D")
        await sitting.sees("Discard ", " dead letters?")
        await sitting.press("enter")
        await sitting.sees("0 ·", "none")

    sit(access(daemon), look, size=(120, 30))


def test_schedules_have_their_next_firings_and_are_paused(daemon) -> None:
    async def prepare(client) -> None:
        await client.call(CreateSchedule(schedule_id="nightly", cron="30 2 * * *", workflow="approval"))

    prepared(daemon, prepare)

    async def look(sitting: Sitting) -> None:
        await sitting.press("5")
        await sitting.sees("nightly", "30 2 * * *", "02:30:00 UTC", "overlap skip")
        await sitting.press("p", "enter")
        await sitting.sees("paused")

    sit(access(daemon), look, size=(80, 24))


def test_help_and_the_palette_have_everything(daemon) -> None:
    async def look(sitting: Sitting) -> None:
        await sitting.press("3", "question_mark")
        await sitting.sees("Executions, newest first", "Terminate", "Dead letters", "Workflow", "Quit")
        await sitting.press("escape", "ctrl+p", *"schedules", "enter")
        await sitting.sees("Next firings")
        await sitting.press("ctrl+p", *"pause", "enter")
        await sitting.sees("Resume nightly?")

    sit(access(daemon), look, size=(80, 24))
