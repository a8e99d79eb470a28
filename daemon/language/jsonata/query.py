"""A query: what the rest of the language sees of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from daemon.language.errors import QUERY_EVALUATION_ERROR, RUNTIME, Failed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonata.built_in import BUILT_IN
from daemon.language.jsonata.compiler import Compiler
from daemon.language.jsonata.run import DEPTH, TIMEOUT, Code, Frame, Run
from daemon.language.jsonata.syntax import parse
from daemon.language.jsonata.values import UNDEFINED, Undefined, plain, settled
from daemon.language.values import encodable
from enginekit.messages.json import JSON

STUMBLED: Final = "the expression could not be evaluated:"
"""How a cause begins that only a defect of this package brings about."""


_OUT_OF_RANGE: Final = "D1001: Number out of range"
"""Where a whole number is wanted and an infinite one, or none, is given."""


class Query:
    """A compiled expression. Immutable: any number of executions may evaluate it.

    `variables` are those it refers to without binding them itself, names of the language's own functions left out;
    `parts` the fields that it reads of variables by name, `patterns` how many regular expressions it has.
    """

    __slots__ = ("_code", "_size", "parts", "patterns", "text", "variables")

    def __init__(self, text: str, code: Code, size: int, compiler: Compiler) -> None:
        self.text = text
        self.variables = frozenset(compiler.variables)
        self.parts = frozenset(compiler.parts)
        self.patterns = compiler.patterns
        self._code = code
        self._size = size

    def evaluate(self, bindings: Callable[[str], JSON | Undefined], evaluation: Evaluation) -> JSON | Undefined:
        """Its value as JSON; UNDEFINED where it finds nothing. `bindings` answers its variables.

        Raises Failed, named States.QueryEvaluationError but where what it builds is too large.
        """
        run = Run(evaluation, bindings, BUILT_IN)
        try:
            run.spend(self._size)
            found = settled(self._code(UNDEFINED, Frame(run, None, {})))
            made: JSON | Undefined = UNDEFINED if found is UNDEFINED else plain(found, run.spend)
        except RecursionError:
            raise Failed(DEPTH, QUERY_EVALUATION_ERROR) from None
        except OverflowError:
            raise Failed(_OUT_OF_RANGE, QUERY_EVALUATION_ERROR) from None
        except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError) as error:
            if "float NaN" in str(error):
                raise Failed(_OUT_OF_RANGE, QUERY_EVALUATION_ERROR) from None
            # A defect of ours, whose price must not be the execution: it fails in the field that has the expression.
            raise Failed(f"{STUMBLED} {type(error).__name__}: {error}"[:500], QUERY_EVALUATION_ERROR) from error
        except Failed as failed:
            if failed.error == RUNTIME:
                raise Failed(f"{TIMEOUT} ({failed.reason})", QUERY_EVALUATION_ERROR) from None
            if not failed.error:
                raise Failed(failed.reason, QUERY_EVALUATION_ERROR) from None
            raise
        finally:
            run.forget()
        if isinstance(made, str) and not encodable(made):
            raise Failed("its result holds half of a surrogate pair", QUERY_EVALUATION_ERROR)
        return made


def compile_query(text: str) -> Query:
    """Compile an expression. Raises Malformed with the place of what is wrong."""
    tree = parse(text)
    compiler = Compiler(frozenset(BUILT_IN))
    code = compiler.compile(tree)
    return Query(text, code, tree.size, compiler)
