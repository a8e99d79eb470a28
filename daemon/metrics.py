"""What the daemon counts, for `/metrics`: every counter, gauge and histogram, each with a method a service calls.

One instance a process, over a registry that is passed in. Labels come from small closed sets only (a method, a
status, a kind), never from what a caller sent, and their children are looked up once and kept: a count is cheap. The
one exception are the names of language models: the first MODELS of them, and `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from enginekit.messages.events import TaskKind, Usage
from enginekit.messages.status import BreakerState, ErrorStatus, ExecutionStatus
from enginekit.messages.subscriptions import ServiceRate

OK: Final = "OK"
MODELS: Final = 100
OTHER: Final = "other"
_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HOURS: Final = (600.0, 3600.0, 7200.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)
_SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


_RATES: Final[dict[str, tuple[str, str]]] = {
    "engine_rpc_calls_total": ("frontend", "calls"),
    "engine_executions_started_total": ("history", "starts"),
    "engine_executions_closed_total": ("history", "ends"),
    "engine_events_total": ("history", "events"),
    "engine_commits_total": ("history", "commits"),
    "engine_wake_ups_total": ("timer", "wake-ups"),
    "engine_tasks_dispatched_total": ("matching", "tasks"),
    "engine_node_tasks_total": ("worker", "tasks"),
}
"""Which counter says how busy which service is."""


class Meter:
    """How busy the services are: what they did a second since `rates` was asked last. One for each who asks."""

    def __init__(self, metrics: Metrics, now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._now = now
        self._at = now()
        self._totals = metrics.totals()

    def rates(self) -> list[ServiceRate]:
        at, totals = self._now(), self._metrics.totals()
        seconds = max(at - self._at, 0.001)
        rates = [
            ServiceRate(service=service, what=what, per_second=round((total - self._totals[name]) / seconds, 2))
            for name, total in totals.items()
            for service, what in (_RATES[name],)
        ]
        self._at, self._totals = at, totals
        return rates


class Metrics:
    """The daemon's metrics, all prefixed `engine_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._calls = Counter(
            "engine_rpc_calls", "Calls answered, by method and status.", ["method", "status"], registry=registry
        )
        self._call_children: dict[tuple[str, str], Counter] = {}
        self._seconds = Histogram(
            "engine_rpc_seconds",
            "Time from a call to its answer, long polls left out.",
            buckets=_FAST,
            registry=registry,
        )
        self._connections = Gauge("engine_rpc_connections", "WebSocket connections open.", registry=registry)
        self._ended = Counter(
            "engine_rpc_connections_ended", "WebSocket connections ended, by why.", ["reason"], registry=registry
        )
        self._dispatched = Counter(
            "engine_tasks_dispatched", "Tasks handed to a worker, by kind.", ["kind"], registry=registry
        )
        self._returned = Counter(
            "engine_tasks_undelivered", "Tasks given back because their poll's answer was lost.", registry=registry
        )
        self._started = Counter("engine_executions_started", "Executions started.", registry=registry)
        self._closed = Counter(
            "engine_executions_closed", "Executions closed, by status.", ["status"], registry=registry
        )
        self._commits = Counter("engine_commits", "Batches committed to the store.", registry=registry)
        self._commit_failures = Counter(
            "engine_commit_failures", "Batches whose commit failed or whose outcome is unknown.", registry=registry
        )
        self._commit_seconds = Histogram(
            "engine_commit_seconds", "Time one commit took.", buckets=_FAST, registry=registry
        )
        self._commit_transitions = Histogram(
            "engine_commit_transitions", "Transitions in one commit.", buckets=_SIZES, registry=registry
        )
        self._breakers = Gauge(
            "engine_breakers", "Circuit breakers that are not closed, by state.", ["state"], registry=registry
        )
        self._breaker_changes = Counter(
            "engine_breaker_changes", "Circuit breakers that came into a state.", ["state"], registry=registry
        )
        self._events = Counter("engine_events", "Events written.", registry=registry)
        self._limited = Counter(
            "engine_rpc_limited", "Calls refused because their tenant asks for more than it may.", registry=registry
        )
        self._dead_letters = Counter(
            "engine_dead_letters", "Tasks that failed for good and made their execution fail.", registry=registry
        )
        self._wake_ups = Counter("engine_wake_ups", "Executions woken because their time had come.", registry=registry)
        self._node_tasks = Counter(
            "engine_node_tasks", "Attempts that the daemon's Worker has ended.", registry=registry
        )
        self._model_calls = Counter(
            "engine_model_calls",
            "Calls of language models, by provider, model and how they ended (ok, failed, timed_out).",
            ["provider", "model", "result"],
            registry=registry,
        )
        self._model_tokens = Counter(
            "engine_model_tokens",
            "Tokens of language models, by provider, model and direction (input, output).",
            ["provider", "model", "direction"],
            registry=registry,
        )
        self._purged = Counter(
            "engine_executions_purged", "Executions purged, their retention over.", registry=registry
        )
        self._purge_delays = Histogram(
            "engine_executions_purge_delay_seconds",
            "Time from the end of an execution's retention to its purging.",
            buckets=_HOURS,
            registry=registry,
        )
        self._models: set[tuple[str, str]] = set()
        self._dispatched_by_kind = {kind: self._dispatched.labels(kind.value) for kind in TaskKind}
        self._closed_by_status = {
            status: self._closed.labels(status.value) for status in ExecutionStatus if status.closed
        }

    def call(self, method: str, status: ErrorStatus | None, seconds: float | None) -> None:
        """One call was answered, `status` None: with a result. `method` is a known one's name or `unknown`;
        `seconds` None: it was a long poll."""
        key = (method, OK if status is None else status.value)
        child = self._call_children.get(key)
        if child is None:
            child = self._call_children[key] = self._calls.labels(*key)
        child.inc()
        if seconds is not None:
            self._seconds.observe(seconds)

    def connection_opened(self) -> None:
        self._connections.inc()

    def connection_closed(self) -> None:
        self._connections.dec()

    def connection_ended(self, reason: str) -> None:
        """Why a connection was refused or cut (a short fixed word)."""
        self._ended.labels(reason).inc()

    def dispatched(self, kind: TaskKind, tasks: int) -> None:
        self._dispatched_by_kind[kind].inc(tasks)

    def limited(self) -> None:
        """A call was refused because its tenant asks for more than it may."""
        self._limited.inc()

    def dead_lettered(self) -> None:
        """A task failed for good, and its execution with it."""
        self._dead_letters.inc()

    def woken(self, executions: int) -> None:
        self._wake_ups.inc(executions)

    def node_task_ended(self) -> None:
        self._node_tasks.inc()

    def totals(self) -> dict[str, float]:
        """What the services have done so far, by the counter's name."""
        totals = dict.fromkeys(_RATES, 0.0)
        for metric in self.registry.collect():
            for sample in metric.samples:
                if sample.name in totals:
                    totals[sample.name] += sample.value
        return totals

    def undelivered(self, tasks: int) -> None:
        self._returned.inc(tasks)

    def execution_started(self, executions: int = 1) -> None:
        self._started.inc(executions)

    def purged(self, late: Iterable[float]) -> None:
        """Executions are on disk no more, each so many seconds after its retention was over."""
        for seconds in late:
            self._purged.inc()
            self._purge_delays.observe(seconds)

    def execution_closed(self, status: ExecutionStatus) -> None:
        self._closed_by_status[status].inc()

    def breakers(self, state: BreakerState, more: int) -> None:
        """So many more are in this state now, or fewer: whoever has breakers tells how their number changes."""
        self._breakers.labels(state.value).inc(more)

    def breaker_changed(self, state: BreakerState) -> None:
        """One has come into this state."""
        self._breaker_changes.labels(state.value).inc()

    def committed(self, transitions: int, events: int, seconds: float) -> None:
        """One batch is on disk."""
        self._commits.inc()
        self._events.inc(events)
        self._commit_transitions.observe(transitions)
        self._commit_seconds.observe(seconds)

    def commit_failed(self) -> None:
        self._commit_failures.inc()

    def model_called(self, provider: str, model: str, result: str, usage: Usage | None) -> None:
        """A call of a language model ended. `result`: `ok`, `failed` or `timed_out`."""
        if (provider, model) not in self._models:
            if len(self._models) < MODELS:
                self._models.add((provider, model))
            else:
                model = OTHER
        self._model_calls.labels(provider, model, result).inc()
        if usage is not None:
            self._model_tokens.labels(provider, model, "input").inc(usage.input_tokens)
            self._model_tokens.labels(provider, model, "output").inc(usage.output_tokens)
