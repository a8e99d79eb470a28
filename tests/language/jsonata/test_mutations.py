"""Expressions with parts taken out, put in and exchanged: each is refused, or evaluates, or fails with a reason."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from jsonata_oracle import SCOPE
from test_expressions import DOCUMENT

from daemon.language.errors import Failed, Malformed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonata import UNDEFINED, compile_query
from daemon.language.jsonata.query import STUMBLED
from enginekit.messages.json import encode

_EXPRESSIONS = [each for each in (Path(__file__).parent / "expressions.txt").read_text().splitlines() if each]
_TOKEN = re.compile(r"""\w+|"[^"]*"|/[^/]+/i?|~>|:=|\.\.|\?\?|\?:|\*\*|!=|<=|>=|.""")
_TOKENS = sorted({token for each in _EXPRESSIONS for token in _TOKEN.findall(each)})


@st.composite
def mutated(draw: st.DrawFn) -> str:
    tokens: list[str] = _TOKEN.findall(draw(st.sampled_from(_EXPRESSIONS)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(tokens)))
        put = draw(
            st.sampled_from([[], [draw(st.sampled_from(_TOKENS))], _TOKEN.findall(draw(st.sampled_from(_EXPRESSIONS)))])
        )
        tokens[place : place + draw(st.integers(0, 1))] = put
    return "".join(tokens)


@given(mutated())
def test_a_mutated_expression_never_stumbles(expression: str) -> None:
    def bind(name: str) -> object:
        return DOCUMENT if name == "v" else UNDEFINED

    refused: Malformed | Failed | None = None
    found: object = UNDEFINED
    try:
        found = compile_query(expression).evaluate(bind, Evaluation(SCOPE))  # type: ignore[arg-type]
    except (Malformed, Failed) as error:
        refused = error
    if isinstance(refused, Malformed):
        assert 1 <= refused.position <= max(1, len(expression))
    elif isinstance(refused, Failed):
        assert refused.error in ("States.QueryEvaluationError", "States.DataLimitExceeded")
        assert not refused.reason.startswith(STUMBLED), refused.reason
    elif found is not UNDEFINED:
        encode(found)  # type: ignore[arg-type]
