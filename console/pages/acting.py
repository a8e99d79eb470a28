"""A page from which an execution can be canceled, terminated, signalled and redriven, each after a question."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, Raw
from textual import work
from textual.binding import Binding, BindingType

from console.dialogs.dialog import Dialog, Field
from console.pages.page import Page
from enginekit.messages.calls import CancelWorkflow, RedriveWorkflow, SignalWorkflow, TerminateWorkflow
from enginekit.messages.json import NULL

REASON = Field(name="reason", label="Reason (kept in the history)")


class Target(NamedTuple):
    workflow_id: str
    run_id: str


class ActingPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel"),
        Binding("t", "terminate", "Terminate", show=False),
        Binding("s", "signal", "Signal"),
        Binding("r", "redrive", "Redrive"),
    ]

    @abstractmethod
    def target(self) -> Target | None:
        """The execution that is meant."""

    @work(exclusive=True, group="acting")
    async def action_cancel(self) -> None:
        target = self.target()
        if target is None:
            return
        question = f"Cancel {target.workflow_id}?\nIts tasks are cancelled, then it ends as CANCELED."
        answer = await self.app.push_screen_wait(Dialog(question, [REASON]))
        if answer is not None:
            call = CancelWorkflow(workflow_id=target.workflow_id, run_id=target.run_id, reason=answer["reason"])
            if await self.attempt(self.source.call(call)):
                self.say(f"{target.workflow_id} is asked to end")

    @work(exclusive=True, group="acting")
    async def action_terminate(self) -> None:
        target = self.target()
        if target is None:
            return
        question = f"Terminate {target.workflow_id}?\nIt ends at once; nothing of it is run any more."
        answer = await self.app.push_screen_wait(Dialog(question, [REASON]))
        if answer is not None:
            call = TerminateWorkflow(workflow_id=target.workflow_id, run_id=target.run_id, reason=answer["reason"])
            if await self.attempt(self.source.call(call)):
                self.say(f"{target.workflow_id} is terminated")

    @work(exclusive=True, group="acting")
    async def action_signal(self) -> None:
        target = self.target()
        if target is None:
            return
        fields = [
            Field(name="name", label="Name of the signal", needed=True),
            Field(name="input", label="Input (JSON, or nothing)", json=True),
        ]
        answer = await self.app.push_screen_wait(Dialog(f"Send a signal to {target.workflow_id}", fields))
        if answer is None:
            return
        try:
            call = msgspec.convert(
                {"workflow_id": target.workflow_id, "run_id": target.run_id, "name": answer["name"]}, SignalWorkflow
            )
        except msgspec.ValidationError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        given = Raw(answer["input"].encode()) if answer["input"] else NULL
        if await self.attempt(self.source.call(msgspec.structs.replace(call, input=given))):
            self.say(f"{target.workflow_id} has the signal {answer['name']}")

    @work(exclusive=True, group="acting")
    async def action_redrive(self) -> None:
        target = self.target()
        if target is None:
            return
        question = f"Redrive {target.workflow_id}?\nIt is opened again and goes on where it stopped."
        edited = Field(
            name="input", label="Another input for the state that failed (JSON; nothing: its own)", json=True
        )
        answer = await self.app.push_screen_wait(Dialog(question, [REASON, edited]))
        if answer is not None:
            call = RedriveWorkflow(
                workflow_id=target.workflow_id,
                run_id=target.run_id,
                reason=answer["reason"],
                input=Raw(answer["input"].encode()) if answer["input"] else UNSET,
            )
            if await self.attempt(self.source.call(call)):
                self.say(f"{target.workflow_id} goes on")

    def say(self, text: str) -> None:
        self.notify(text, markup=False)
