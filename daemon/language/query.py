"""JSONata in the fields of a state: `{% … %}`, alone or anywhere in a template.

What an expression sees: `$states.input` (the state's raw input), `.result`, `.errorOutput`, `.context`, and the
variables in scope. One that finds nothing is an error, as in the reference service: a field cannot be left out.
Source: Step Functions developer guide, "Transforming data with JSONata in Step Functions".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from daemon.language.causes import NOTHING, of_query
from daemon.language.errors import QUERY_EVALUATION_ERROR, Failed, Malformed
from daemon.language.evaluation import ABSENT, Evaluation, Expression
from daemon.language.fields import Findings
from daemon.language.jsonata import BUILT_IN, UNDEFINED, Query, Undefined, compile_query
from daemon.language.template import Template, looks_like_path, placed
from daemon.language.variables import RESERVED
from enginekit.messages.json import JSON

_PARTS: Final = re.compile(r"\$states\s*\.\s*`?(\w+)`?")
_EXPENSIVE: Final = "context"


def is_query(text: str) -> bool:
    """Whether a string is an expression: delimiters at both of its ends."""
    return len(text) >= 4 and text.startswith("{%") and text.endswith("%}")


RESULT: Final = "result"
ERROR_OUTPUT: Final = "errorOutput"
_ALWAYS: Final = ("input", "context")


def compile_text(text: str, where: str, label: str, findings: Findings, also: str | None = None) -> Expression | None:
    """Compile `{% … %}`. `label` is where it stands in its state, `also` what `$states` has here beside the
    input and the context: RESULT, ERROR_OUTPUT.

    None when it was reported.
    """
    inner = text[2:-2]
    if not findings.room_for(inner, where):
        return None
    try:
        query = compile_query(inner)
    except Malformed as malformed:
        findings.count_patterns(inner.count("/") // 2, where)
        findings.fault(where, f'"{_short(text)}": {malformed.reason} (character {malformed.position + 2})')
        return None
    findings.variables.refer(query.variables, where, BUILT_IN)
    findings.count_patterns(query.patterns, where)
    _check_parts(query, where, findings, (*_ALWAYS, also) if also is not None else _ALWAYS)
    return placed(_reader(query), of_query(query.text.strip(), label))


def _check_parts(query: Query, where: str, findings: Findings, there: tuple[str, ...]) -> None:
    """Note what an expression reads of `$states` that is not there in this field."""
    for name, part in sorted(query.parts):
        if name != RESERVED or part in there:
            continue
        if part == RESULT:
            findings.fault(where, "$states.result is there in Output and Assign of Task, Parallel and Map states only")
        elif part == ERROR_OUTPUT:
            findings.fault(where, "$states.errorOutput is there in Output and Assign of a catcher only")
        else:
            findings.warn(where, f'$states has no "{part[:80]}"{findings.suggest(part, there)}')


def compile_query_template(
    value: JSON, where: str, label: str, findings: Findings, also: str | None = None
) -> Expression:
    """Compile any JSON in which strings may be expressions."""
    return QueryTemplate(findings, label, also).expression(value, where, QUERY_EVALUATION_ERROR)


class QueryTemplate(Template):
    """JSONata: the strings between `{%` and `%}` are computed."""

    def __init__(self, findings: Findings, label: str, also: str | None) -> None:
        super().__init__(findings, label)
        self._also = also

    def text(self, value: str, where: str) -> Expression | None:
        if is_query(value):
            self.leaves += 1
            return compile_text(value, where, self.label, self.findings, self._also)
        if value.startswith("{%") or value.endswith("%}"):
            self.findings.warn(where, "is text, not an expression: one begins with {% and ends with %}")
        elif looks_like_path(value):
            self.findings.warn(where, "is text: this state is JSONata, where an expression stands in {% %}")
        return None


def _reader(query: Query) -> Callable[[JSON, Evaluation], JSON]:
    # Building the context object costs more than most expressions: only those that may look at it have it built.
    named = _PARTS.findall(query.text)
    whole = len(named) < query.text.count(f"${RESERVED}")
    with_context = whole or _EXPENSIVE in named

    def read(value: JSON, evaluation: Evaluation) -> JSON:
        def bind(name: str) -> JSON | Undefined:
            if name == RESERVED:
                return _states(value, evaluation, with_context)
            found = evaluation.find(name)
            return UNDEFINED if found is ABSENT else found

        found = query.evaluate(bind, evaluation)
        if found is UNDEFINED:
            raise Failed(NOTHING)
        return found

    return read


def _states(value: JSON, evaluation: Evaluation, with_context: bool) -> dict[str, JSON]:
    states: dict[str, JSON] = {"input": value}
    if evaluation.result is not ABSENT:
        states["result"] = evaluation.result
    if evaluation.error_output is not ABSENT:
        states["errorOutput"] = evaluation.error_output
    if with_context:
        states["context"] = evaluation.context()
    return states


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
