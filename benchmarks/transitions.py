"""What a transition costs in the pure core: `make transitions`.

For a Pass state that is entering and leaving it. For a Task it is more: its outcome is decided and evolved, up to the
next task, so that one node is done and the next is scheduled (five events), as it is in production but for the store.
Small payloads; the median of many. Prints figures; asserts nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from datetime import UTC, datetime

from daemon.execution.commands import Environment, Limits, Proceed, RecordOutcome, Start, TaskDefaults
from daemon.execution.decide import decide, start
from daemon.language import Definition, parse_definition
from enginekit.messages.json import JSON, encode
from enginekit.messages.links import RunRef

NODES = 400
ROUNDS = 15
NOW = datetime(2026, 1, 1, tzinfo=UTC)
INPUT: JSON = {"order": {"id": "o-17", "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 1}]}, "customer": "c-9"}
OUTPUT = encode({"ok": True, "reservation": {"id": "r-5", "until": "2026-01-02T00:00:00Z"}})

DEFAULTS = TaskDefaults(
    timeout_seconds=300,
    schedule_to_start_seconds=3600,
    lease_seconds=30,
    returns=2,
    retry_attempts=3,
    retry_interval_seconds=1,
    retry_backoff_rate=2,
    retry_max_delay_seconds=30,
    retry_after_limit_seconds=3600.0,
)
PLAIN: dict[str, JSON] = {"Type": "Task", "Resource": "echo"}
DATA: dict[str, JSON] = {
    "Parameters": {"id.$": "$.order.id", "first.$": "$.order.lines[0].sku", "kind": "reserve"},
    "ResultPath": "$.result",
}
PATHS: dict[str, JSON] = {**PLAIN, **DATA}
PASSES: dict[str, JSON] = {"Type": "Pass", **DATA}
QUERIES: dict[str, JSON] = {
    **PLAIN,
    "Arguments": {
        "id": "{% $states.input.order.id %}",
        "first": "{% $states.input.order.lines[0].sku %}",
        "kind": "reserve",
    },
    "Output": "{% $merge([$states.input, {'result': $states.result}]) %}",
}


def definition(state: dict[str, JSON], language: str) -> Definition:
    """As many of the state as there are nodes, one after the other."""
    states: dict[str, JSON] = {f"S{number}": {**state, "Next": f"S{number + 1}"} for number in range(NODES)}
    states[f"S{NODES}"] = {"Type": "Succeed"}
    return parse_definition(json.dumps({"QueryLanguage": language, "StartAt": "S0", "States": states}))


def microseconds(machine: Definition) -> list[float]:
    """Of every transition of one run."""
    env = Environment(
        definition=machine,
        now=NOW,
        by=None,
        random=lambda: 0.5,
        uuid=lambda: "",
        token=lambda event_id, returns: "",
        run_id=lambda: "",
        limits=Limits(),
        defaults=DEFAULTS,
    )
    run, decision = start(
        Start(
            run=RunRef("acme", "bench", "run"),
            workflow="bench",
            version=1,
            definition_hash="",
            input=encode(INPUT),
            labels={},
            request_id=None,
            timeout_seconds=None,
        ),
        env,
    )
    taken: list[float] = []
    while decision.unfinished:
        begun, before = time.perf_counter(), run.last_event_id
        decision = decide(run, Proceed(), env)
        # A Pass state is two events, which its NodeEntered and NodeExited are.
        taken.append((time.perf_counter() - begun) * 1e6 / ((run.last_event_id - before) / 2))
    while run.tasks:
        outcome = RecordOutcome(task=next(iter(run.tasks)), worker="w", output=OUTPUT)
        begun = time.perf_counter()
        decide(run, outcome, env)
        taken.append((time.perf_counter() - begun) * 1e6)
    return taken


def main() -> None:
    rows = [
        ("a Task, no data processing", PLAIN, "JSONPath"),
        ("a Pass, Parameters and ResultPath", PASSES, "JSONPath"),
        ("a Task, Parameters and ResultPath", PATHS, "JSONPath"),
        ("a Task, Arguments and Output", QUERIES, "JSONata"),
    ]
    machines = [(name, language, definition(state, language)) for name, state, language in rows]
    found: dict[str, list[float]] = {name: [] for name, _, _ in machines}
    for _ in range(ROUNDS):
        for name, _, machine in machines:
            found[name] += microseconds(machine)
    base = statistics.median(found["a Task, no data processing"])
    print(f"{'a transition of':44}{'median':>10}{'99 %':>10}   ratio")
    for name, language, _ in machines:
        median = statistics.median(found[name])
        high = statistics.quantiles(found[name], n=100)[98]
        print(f"{f'{name} ({language})':44}{median:8.1f}µs{high:8.1f}µs   {median / base:.2f}")


if __name__ == "__main__":
    main()
