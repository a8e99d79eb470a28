"""From text to a Definition: machines and states are read, checked and compiled in one pass that finds every fault."""

from __future__ import annotations

from typing import Final

from daemon.language.definition import Definition, InvalidDefinition, Machine, State, StateKind
from daemon.language.fields import LONGEST_SECONDS, ArgumentCheck, Fields, Findings
from daemon.language.graph import Graph
from daemon.language.parse_states import parse_state
from daemon.language.source import load
from daemon.language.values import kind
from daemon.language.variables import VariableScope

MAX_NAME: Final = 80
_TOP: Final = ("Comment", "StartAt", "States", "Version", "TimeoutSeconds", "QueryLanguage")
_BRANCH: Final = ("Comment", "StartAt", "States", "QueryLanguage")


def parse_definition(
    text: str | bytes, node_types: frozenset[str] | None = None, check: ArgumentCheck | None = None
) -> Definition:
    """Read a definition, in JSON or YAML. `node_types` are those installed, `check` asks one of them about the
    arguments of a task; None leaves them unchecked.

    Raises InvalidDefinition with every fault found.
    """
    value, faults = load(text)
    findings = Findings(node_types, check)
    for path, message in faults:
        findings.fault(path, message)
    if not isinstance(value, dict):
        findings.fault("", f"a definition is an object with StartAt and States, not {kind(value)}")
        raise InvalidDefinition(findings.all_faults())
    fields = Fields(findings, "", value)
    version = fields.text("Version")
    if version not in (None, "1.0"):
        fields.fault("Version", f'only version "1.0" of the language is known, not "{version}"')
    timeout = fields.whole("TimeoutSeconds", 1, LONGEST_SECONDS)
    machine = _machine(fields, _TOP, "a definition")
    findings.variables.check(findings.fault, findings.suggest)
    if findings.faults:
        raise InvalidDefinition(findings.all_faults())
    return Definition(
        start_at=machine.start_at,
        states=machine.states,
        comment=fields.text("Comment"),
        version=version,
        timeout_seconds=timeout,
        warnings=tuple(findings.warnings),
    )


def _machine(fields: Fields, names: tuple[str, ...], what: str, *, isolated: bool = False) -> Machine:
    """`isolated`: the variables of outside are not seen in it."""
    fields.only(names, what)
    fields.text("Comment")
    query_language(fields)
    findings = fields.findings
    outer = findings.variables
    findings.variables = VariableScope(outer, isolated=isolated)
    try:
        return _states(fields)
    finally:
        findings.variables = outer


def _states(fields: Fields) -> Machine:
    start = fields.text("StartAt")
    states = fields.object("States")
    for name in ("StartAt", "States"):
        if name not in fields:
            fields.findings.fault(fields.where, f"needs {name}")
    if states is None:
        return Machine(start_at="", states={})
    if not states.values:
        fields.fault("States", "must have one state at least")
    graph = Graph(fields.findings, list(states.values))
    if start is not None and states.values:
        graph.link(None, fields.path("StartAt"), start)
    made: dict[str, State] = {}
    for name in states.values:
        _check_name(fields.findings, states.path(name), name)
        state = states.object(name)
        if state is not None:
            state.jsonata = fields.jsonata
            state.place = ""
        parsed = _state(state, name, graph) if state is not None else None
        if parsed is None:
            graph.unknown()
        else:
            made[name] = parsed
    graph.check(fields.where, start)
    return Machine(start_at=start or "", states=made)


def _check_name(findings: Findings, path: str, name: str) -> None:
    if not name:
        findings.fault(path, "a state needs a name")
    elif len(name) > MAX_NAME:
        findings.fault(path, f"the name of a state has {MAX_NAME} characters at most, and this one has {len(name)}")
    if name in findings.names:
        findings.fault(path, f"there is another state of this name at {findings.names[name]}; names must be unique")
    else:
        findings.names[name] = path


def query_language(fields: Fields) -> None:
    """QueryLanguage, of a machine or a state: what it does not say, it has from the machine around it."""
    language = fields.text("QueryLanguage")
    if language == "JSONata":
        fields.jsonata = True
    elif language == "JSONPath":
        if fields.jsonata:
            fields.fault(
                "QueryLanguage", "must be JSONata here, since the definition is; only the other way round mixes"
            )
        fields.jsonata = False
    elif language is not None:
        hint = fields.findings.suggest(language, ("JSONPath", "JSONata"))
        fields.fault("QueryLanguage", f'must be "JSONPath" or "JSONata", not "{language}"{hint}')


def _state(fields: Fields, name: str, graph: Graph) -> State | None:
    fields.text("Comment")
    query_language(fields)
    written = fields.text("Type")
    if written is None:
        if "Type" not in fields:
            near = next((name for name in fields.values if name.lower() == "type"), None)
            hint = "" if near is None else f' ("{near}" is written with a capital T)'
            fields.findings.fault(fields.where, f"needs a Type: {', '.join(sort.value for sort in StateKind)}{hint}")
        _check_links(fields, name, graph)
        return None
    sort = next((each for each in StateKind if each.value == written), None)
    if sort is None:
        hint = fields.findings.suggest(written, [each.value for each in StateKind])
        fields.fault("Type", f'no type of state is "{written}"{hint}')
        _check_links(fields, name, graph)
        return None
    return parse_state(sort, fields, name, graph, _nested)


def _check_links(fields: Fields, name: str, graph: Graph) -> None:
    """Where a state of no known type leads: Next and Default mean the same in every type that has them."""
    for field in ("Next", "Default"):
        target = fields.values.get(field)
        if isinstance(target, str):
            graph.link(name, fields.path(field), target)


def _nested(fields: Fields, more: tuple[str, ...], what: str, *, isolated: bool = False) -> Machine:
    return _machine(fields, (*_BRANCH, *more), what, isolated=isolated)
