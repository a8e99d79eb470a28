"""The task queues: how many tasks wait, how long the oldest has, who polls, how fast they go."""

from __future__ import annotations

from textual.app import ComposeResult

from console import colours
from console.cells import Cell
from console.pages.page import Page
from console.state import ConsoleState
from console.widgets.table import Column, VirtualTable
from console.words import rate, span, sparkline
from enginekit.messages.calls import QueueView

SPARK = 14


class QueuesPage(Page):
    NAME = "Queues"
    HELP = (
        "Every task queue: `depth` are the tasks that wait in it, `oldest` how long the first of them has waited, "
        "`pollers` the workers that would take one at once, `rate` the tasks handed out a second. "
        "A queue that is deep and has no poller is red: no worker serves it."
    )

    def compose_body(self) -> ComposeResult:
        yield VirtualTable(
            [
                Column("queue", 0),
                Column("kind", 8),
                Column("depth", 8, True),
                Column("oldest", 9, True),
                Column("pollers", 7, True),
                Column("rate", 8, True),
                Column("", SPARK),
            ],
            empty="no queue has had a task yet",
            id="queues",
        )

    def show(self, state: ConsoleState, now: float) -> None:
        names = sorted(state.queues.queues, key=lambda name: (name[1], name[0]))

        def cells(row: int) -> list[Cell]:
            return _queue(state.queues.queues[names[row]], state.queues.rates.get(names[row], ()))

        self.query_one(VirtualTable).show([f"{kind} {queue}" for kind, queue in names], cells)


def _queue(each: QueueView, rates: tuple[float, ...]) -> list[Cell]:
    unserved = colours.BAD if each.depth and not each.pollers else ""
    return [
        (each.queue, "bold"),
        (each.kind, colours.QUIET),
        (f"{each.depth:,}", unserved),
        (span(each.oldest_seconds) if each.depth else "", unserved),
        (f"{each.pollers:,}", unserved),
        (rate(each.rate), ""),
        (sparkline(rates, SPARK), colours.BUSY),
    ]
