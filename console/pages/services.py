"""Services, circuit breakers and the store."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from console import colours
from console.cells import Cell
from console.pages.page import Page
from console.state import ConsoleState
from console.widgets.table import Column, VirtualTable
from console.words import rate, since, span, sparkline, until
from enginekit.messages.calls import BreakerView, ProcessView, ServiceView

SPARK = 12


class ServicesPage(Page):
    NAME = "Services"
    HELP = (
        "What the daemon is made of: each service with its state, how often it was started again, how long it runs, "
        "and what it did in each of the last seconds. Where several processes share the work: each of them, what it "
        "waits for, and since when one is silent. Below, the circuit breakers that are open or whose calls failed."
    )

    def compose_body(self) -> ComposeResult:
        yield Static(id="daemon", classes="line", markup=False)
        yield VirtualTable(
            [
                Column("service", 9),
                Column("state", 8),
                Column("restarts", 8, True),
                Column("uptime", 10, True),
                Column("rate", 8, True),
                Column("", SPARK),
                Column("last error", 0),
            ],
            empty="nothing is known yet",
            id="services",
        )
        yield Static("Processes", classes="heading", id="processes-heading")
        yield VirtualTable(
            [
                Column("process", 0),
                Column("roles", 13),
                Column("is", 17),
                Column("up", 10, True),
                Column("restarts", 8, True),
                Column("shards", 6, True),
                Column("parts", 5, True),
            ],
            id="processes",
        )
        yield Static("Circuit breakers", classes="heading")
        yield VirtualTable(
            [
                Column("destination", 0),
                Column("state", 9),
                Column("failures", 8, True),
                Column("waiting", 7, True),
                Column("since", 14, True),
                Column("next try", 12, True),
            ],
            id="breakers",
        )

    def show(self, state: ConsoleState, now: float) -> None:
        seen = state.services.daemon
        services = seen.services if seen is not None else []
        breakers = (seen.breakers or []) if seen is not None else []
        self.query_one("#daemon", Static).update(self._daemon(state, now), layout=False)
        unknown = state.services.refused or "nothing is known yet"
        self.query_one("#services", VirtualTable).show(
            [each.name for each in services], lambda row: _service(state, services[row]), unknown
        )
        processes = seen.processes if seen is not None and len(seen.processes) > 1 else []
        table = self.query_one("#processes", VirtualTable)
        self.query_one("#processes-heading").display = table.display = bool(processes)
        table.show([each.process for each in processes], lambda row: _process(processes[row], now))
        none = "Matching did not answer" if seen is not None and seen.breakers is None else "all are closed"
        self.query_one("#breakers", VirtualTable).show(
            [each.destination for each in breakers], lambda row: _breaker(breakers[row], now), none
        )

    def _daemon(self, state: ConsoleState, now: float) -> Text:
        seen = state.services.daemon
        if seen is None:
            return Text("")
        store = seen.store
        line = Text(f"engine {seen.engine} · pid {seen.pid} · up {span(now - seen.started_at.timestamp())} · store ")
        line.append(f"{store.kind} {store.state}", colours.of_service(store.state))
        if store.restarts:
            line.append(f" ({store.restarts:,} restarts)", colours.WAITING)
        line.append(f" · {len(seen.shards)} shards")
        return line


def _service(state: ConsoleState, each: ServiceView) -> list[Cell]:
    """Its busiest count is the one that is drawn."""
    counts = [values for (service, _), values in state.services.rates.items() if service == each.name]
    busiest = max(counts, key=sum, default=())
    return [
        (each.name, "bold"),
        (each.state, colours.of_service(each.state)),
        (f"{each.restarts:,}", colours.WAITING if each.restarts else ""),
        (span(each.uptime_seconds), ""),
        (rate(busiest[-1]) if busiest else "", ""),
        (sparkline(busiest, SPARK), colours.BUSY),
        (each.last_error or "", colours.BAD),
    ]


def _process(each: ProcessView, now: float) -> list[Cell]:
    if each.silent_since is not None:
        condition, colour = f"silent for {span(now - each.silent_since.timestamp())}", colours.BAD
    elif each.drains:
        condition, colour = "draining", colours.WAITING
    elif each.waiting_for:
        condition, colour = f"waits for {', '.join(each.waiting_for)}", colours.WAITING
    else:
        condition, colour = "ready", colours.GOOD
    restarts = sum(service.restarts for service in each.services)
    return [
        (f"{each.host} {each.pid}", "bold"),
        (",".join(each.roles), ""),
        (condition, colour),
        (span(now - each.started_at.timestamp()), ""),
        (f"{restarts:,}", colours.WAITING if restarts else ""),
        (f"{len(each.shards):,}", ""),
        (f"{len(each.partitions):,}", ""),
    ]


def _breaker(each: BreakerView, now: float) -> list[Cell]:
    return [
        (each.destination, "bold"),
        (each.state.value, colours.BREAKER[each.state]),
        (f"{each.failure_rate:.0%}", ""),
        (f"{each.waiting:,}", ""),
        (since(each.since, now), ""),
        (until(each.next_probe_at, now) if each.next_probe_at else "", ""),
    ]
