"""JSONata: an expression is compiled once (`compile_query`) and then evaluated within bounds.

The text is read by the library jsonata-python; what is run is this package's own: closures over a budget of steps, so
that what an expression may cost does not depend on the machine or its load, and always ends. Patterns are matched by
RE2, in linear time. Source: docs.jsonata.org; the functions that Step Functions adds: its developer guide,
"Transforming data with JSONata in Step Functions".
"""

from __future__ import annotations

from daemon.language.jsonata.built_in import BUILT_IN
from daemon.language.jsonata.query import Query, compile_query
from daemon.language.jsonata.values import UNDEFINED, Undefined

__all__ = ["BUILT_IN", "UNDEFINED", "Query", "Undefined", "compile_query"]
