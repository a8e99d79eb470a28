"""One step of a run while it is decided: the events so far, and the state as they leave it.

Every event goes through `emit`, which numbers it, encodes it once and evolves the state, so that what is decided next
sees what was decided before, and live and replayed states cannot differ.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypedDict

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.execution.commands import Environment
from daemon.execution.evolve import begin, evolve
from daemon.execution.state import Branch, Node, Payload, Run
from daemon.execution.tokens import CALLBACK
from daemon.language import Machine, Map, Meter, Parallel, Plan, Scope, State, StateError, map_items, too_large
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, NotJSON, decode, encode, size


class Child(NamedTuple):
    """A run to be started for items of a distributed Map (`mapping`): with which run_id, of which Map state's
    processor, with what input."""

    mapping: int
    number: int
    run_id: str
    machine: str
    input: Raw


class ItemResult(NamedTuple):
    """A result to be kept as a row until it is written to a file."""

    mapping: int
    number: int
    status: str
    data: Raw


class ReadItems(NamedTuple):
    """Items are wanted: `limit` of them, after `position`; `taken` were read before."""

    mapping: int
    plan: Plan
    position: str
    taken: int
    limit: int


class WriteResults(NamedTuple):
    """All results are there, and are to be written to files."""

    mapping: int
    plan: Plan
    node: str


class Decision(msgspec.Struct, kw_only=True):
    """What came of a command: events by their bytes, and what the commit obliges us to do.

    `scheduled` tasks are to be offered; `started` ones were taken by another process's worker; `returned` ones wait
    again; `removed` ones are over, those in `canceled` without their worker knowing; `probes` have waited too long
    unless the daemon's Worker has them. `unfinished`: the step was cut short, Proceed. Of distributed Maps: `children`
    are runs to start, `stopped` runs to cancel (each by its Map, index and run_id), `results` are kept as rows, `files`
    are to be read or written, and asked for again by every Proceed until that is reported. `children_due`: tasks whose
    child execution is to be started, or ended by this policy. `dead_letter`: the entry of the node whose task is kept
    as one. `redriven`: the run, which had closed, is open again. `silent`: kind, queue, worker and task of each lease
    that lapsed. `retired`: of the removed, those that Matching may know (it forgets what a worker in another process
    starts). `called_off`: of the canceled, those of nodes that a worker in another process has, by that worker.
    """

    first_event_id: int
    events: list[bytes] = []
    scheduled: list[int] = []
    started: list[int] = []
    returned: list[int] = []
    removed: list[int] = []
    canceled: list[int] = []
    silent: list[tuple[ev.TaskKind, str, str, int]] = []
    retired: list[int] = []
    called_off: dict[str, list[int]] = {}
    probes: list[int] = []
    unfinished: bool = False
    children: list[Child] = []
    stopped: list[tuple[int, int, str]] = []
    results: list[ItemResult] = []
    files: list[ReadItems | WriteResults] = []
    children_due: dict[int, str] = {}
    dead_letter: int | None = None
    redriven: bool = False


class About(TypedDict):
    """What every event about a node begins with."""

    id: int
    time: datetime
    node: str
    path: str
    entry: int


class Step:
    """Collects one decision about one run."""

    __slots__ = ("_opened", "decision", "env", "meter", "run", "spreads", "transitions")

    def __init__(self, run: Run, env: Environment, *, spreads: bool = False) -> None:
        """`spreads`: runs for items may be started in it."""
        self.run = run
        self.env = env
        self.spreads = spreads
        self.meter = Meter()
        self.transitions = 0
        self._opened: list[Payload] = []
        self.decision = Decision(first_event_id=run.last_event_id + 1)

    @classmethod
    def first(cls, event: ev.WorkflowStarted, env: Environment) -> Step:
        data = ev.encode_event(event)
        step = cls.__new__(cls)
        step.run = begin(event, len(data))
        step.env = env
        step.meter = Meter()
        step.spreads = False
        step.transitions = 0
        step._opened = []
        step.decision = Decision(first_event_id=1)
        step.decision.events.append(data)
        return step

    @property
    def next_id(self) -> int:
        return self.run.last_event_id + 1

    def about(self, node: Node) -> About:
        """The next event is about this node. The events of every transition spell it out: unpacking
        costs more than making them does."""
        return {
            "id": self.run.last_event_id + 1,
            "time": self.env.now,
            "node": node.name,
            "path": node.path,
            "entry": node.entry,
        }

    @property
    def spent(self) -> bool:
        limits = self.env.limits
        return (
            self.transitions >= limits.step_transitions
            or len(self.decision.events) >= limits.step_events
            or self.meter.spent >= limits.step_values
            or len(self.decision.children) >= limits.step_children
        )

    def hands_over(self) -> bool:
        """Whether another transition is too many for this step, which then is unfinished; else it is counted."""
        if self.spent:
            self.decision.unfinished = True
            return True
        self.transitions += 1
        return False

    def value(self, payload: Payload) -> JSON:
        """What the payload holds."""
        held = payload.held
        if held is None:
            self._opened.append(payload)
            held = payload.held = (decode(payload.raw),)
        return held[0]

    def want(self, file: ReadItems | WriteResults) -> None:
        """Something is to be read or written outside before the run goes on."""
        self.decision.files.append(file)
        self.decision.unfinished = True

    def end(self) -> Decision:
        """The decision. What was to be given back or asked about, and ended later in this step, is nobody's business
        any more, and a run that has closed in it has nothing more to do; values are forgotten, except those that a Map
        still takes items from."""
        decision, run = self.decision, self.run
        if run.status.closed:
            decision.unfinished = False
            decision.files = []
        if not run.filling:
            for payload in self._opened:
                payload.held = None
        else:
            filling = [run.nodes[entry] for entry in run.filling]
            kept = {id(node.input) for node in filling} | {id(node.fan.input) for node in filling if node.fan}
            for payload in self._opened:
                if id(payload) not in kept:
                    payload.held = None
        if decision.returned or decision.probes:
            decision.returned = [task for task in decision.returned if task in run.tasks]
            decision.probes = [task for task in decision.probes if task in run.tasks]
        return decision

    def emit(self, event: ev.AnyEvent) -> None:
        data = ev.encode_event(event)
        evolve(self.run, event, len(data))
        self.decision.events.append(data)

    # --- the definition behind the state ------------------------------------------------------------------------

    def machine(self, branch: Branch) -> Machine:
        """The states that this branch walks."""
        if not branch.parent:
            return self.env.definition
        parent = self.run.nodes[branch.parent]
        state = self.state(parent)
        if isinstance(state, Map):
            return state.processor
        assert isinstance(state, Parallel)
        return state.branches[branch.index]

    def state(self, node: Node) -> State:
        return self.machine(self.run.branches[node.branch]).states[node.name]

    # --- evaluation ---------------------------------------------------------------------------------------------

    def scope(self, node: Node, task_id: int | None = None) -> Scope:
        """For one evaluation; `task_id` is the task that is about to be scheduled and will wait for its token."""
        env = self.env
        return Scope(
            context=lambda: self._context(node, task_id),
            random=env.random,
            uuid=env.uuid,
            now=env.now,
            variable=lambda name: self._variable(node, name),
            meter=self.meter,
        )

    def _variable(self, node: Node, name: str) -> JSON:
        """A variable as the node sees it. Raises KeyError."""
        run = self.run
        branch = run.branches[node.branch]
        while name not in branch.variables and branch.parent:
            branch = run.branches[run.nodes[branch.parent].branch]
        return decode(branch.variables[name])

    def _context(self, node: Node, task_id: int | None) -> dict[str, JSON]:
        """The context object, `$$`. Source: Step Functions developer guide, "Accessing execution data from the
        Context object"."""
        run = self.run
        name = run.workflow if run.workflow is not None else run.definition_hash
        context: dict[str, JSON] = {
            "Execution": {
                "Id": run.ref.run_id,
                "Name": run.ref.workflow_id,
                "Input": self.value(run.input),
                "RoleArn": "",
                "StartTime": text_of(run.started_at),
                "RedriveCount": run.redrives,
            },
            "StateMachine": {"Id": name, "Name": name},
            "State": {
                "Name": node.name,
                "EnteredTime": text_of(node.entered_at),
                "RetryCount": sum(node.retries.values()),
            },
        }
        if task_id is not None:
            context["Task"] = {"Token": self.env.token(task_id, CALLBACK)}
        branch = run.branches[node.branch]
        while branch.parent:
            parent = run.nodes[branch.parent]
            if parent.kind == "Map":
                context["Map"] = {"Item": {"Index": branch.index, "Value": self._item(parent, branch.index)}}
                break
            branch = run.branches[parent.branch]
        return context

    def _item(self, node: Node, index: int) -> JSON:
        """One item of an inline Map."""
        state, fan = self.state(node), node.fan
        assert isinstance(state, Map)
        assert fan is not None
        if fan.input is not None:
            items = self.value(fan.input)
        else:
            items = map_items(state, self.value(node.input), self.scope(node))
        assert isinstance(items, list)
        return items[index]

    # --- variables ----------------------------------------------------------------------------------------------

    def assigned(self, node: Node, values: dict[str, JSON] | None) -> Raw | UnsetType:
        """The variables that a node assigns, for its event.

        Raises StateError States.DataLimitExceeded where the run would then hold more than it may in variables.
        """
        if not values:
            return UNSET
        limit = self.env.limits.variable_bytes
        held = sum(
            len(value)
            for branch in self.run.branches.values()
            for name, value in branch.variables.items()
            if branch.key != node.branch or name not in values
        )
        raw = self.encoded(values, "The object of its variables")
        if held + size(raw) > limit:
            raise StateError(
                "States.DataLimitExceeded",
                f"The execution's variables have {held + size(raw):,} bytes in all; at most {limit:,} are allowed.",
            )
        return raw

    # --- payloads -----------------------------------------------------------------------------------------------

    def place(
        self, value: JSON, *held: Payload | None, what: str = "", result_of: str = ""
    ) -> tuple[Raw | UnsetType, int]:
        """The value for a new event: as a reference where one of these holds it already, else inline. For the cause of
        its failure, `what` it is, or which state it is the `result_of`.

        Raises StateError States.DataLimitExceeded.
        """
        for payload in held:
            if payload is not None and payload.held is not None and payload.held[0] is value:
                return UNSET, payload.event_id
        raw = self.encoded(value, what, result_of=result_of)
        for payload in held:
            if payload is not None and payload.raw == raw:
                return UNSET, payload.event_id
        return raw, 0

    def encoded(self, value: JSON, what: str = "", *, result_of: str = "") -> Raw:
        """The value as bytes. Raises StateError, whose cause names `what` it is, or the state it is the `result_of`."""
        try:
            raw = encode(value)
        except NotJSON as error:
            raise StateError("States.Runtime", f"{what or 'Its output'} cannot be written as JSON: {error}") from error
        self.check_size(raw, what, result_of=result_of)
        return raw

    def check_size(self, raw: Raw, what: str = "", *, result_of: str = "") -> None:
        limit = self.env.limits.payload_bytes
        if size(raw) > limit:
            if result_of:
                raise too_large(result_of)
            raise StateError(
                "States.DataLimitExceeded", f"{what} has {size(raw):,} bytes; at most {limit:,} are allowed."
            )


def text_of(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
