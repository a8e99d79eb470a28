"""Reading and compiling a Map state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from daemon.language.definition import Machine, Map
from daemon.language.errors import RUNTIME
from daemon.language.evaluation import Expression
from daemon.language.fields import MAX_COUNT, Fields
from daemon.language.graph import Graph
from daemon.language.parse_fields import (
    assignment,
    catchers,
    quantity,
    reference,
    result_path,
    retriers,
    selection,
    template,
    transition,
)
from daemon.language.template import placed

Nested: TypeAlias = Callable[[Fields, tuple[str, ...], str], Machine]
"""Reads a machine inside a state: its fields, the further fields it may have, what it is called."""


DISTRIBUTED: Final = "distributed Map states are not available in this version; only inline ones are"
_DISTRIBUTED: Final = (
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "Label",
    "ToleratedFailureCount",
    "ToleratedFailureCountPath",
    "ToleratedFailurePercentage",
    "ToleratedFailurePercentagePath",
)


def parse_map(fields: Fields, name: str, graph: Graph, nested: Nested) -> Map | None:
    following, end = transition(fields, name, graph)
    for refused in _DISTRIBUTED:
        if refused in fields:
            fields.fault(refused, DISTRIBUTED)
    processor = _processor(fields, nested)
    if "ItemSelector" in fields and "Parameters" in fields:
        fields.fault("Parameters", "is the older name of ItemSelector; only one of them can be")
    state = Map(
        name=name,
        where=fields.where,
        jsonata=fields.jsonata,
        next=following,
        end=end,
        input_path=selection(fields, "InputPath"),
        output_path=selection(fields, "OutputPath"),
        output=template(fields, "Output"),
        assign=assignment(fields),
        parameters=template(fields, "ItemSelector" if "ItemSelector" in fields else "Parameters"),
        selector=template(fields, "ResultSelector"),
        place=result_path(fields),
        retry=retriers(fields),
        catch=catchers(fields, graph, name),
        processor=processor or Machine(start_at="", states={}),
        items=_items(fields),
        concurrency=quantity(fields, "MaxConcurrency", 0, MAX_COUNT),
    )
    return state if processor is not None else None


def _items(fields: Fields) -> Expression | None:
    """Items, or ItemsPath as it is in JSONPath."""
    if fields.jsonata:
        return template(fields, "Items")
    path = reference(fields, "ItemsPath")
    return placed(path.read, fields.path("ItemsPath"), RUNTIME) if path is not None else None


def _processor(fields: Fields, nested: Nested) -> Machine | None:
    """ItemProcessor, or Iterator as it was called."""
    if "ItemProcessor" in fields and "Iterator" in fields:
        fields.fault("Iterator", "is the older name of ItemProcessor; only one of them can be")
    name = "ItemProcessor" if "ItemProcessor" in fields else "Iterator"
    if name not in fields:
        fields.findings.fault(fields.where, "needs ItemProcessor, the machine that runs for every item")
    processor = fields.object(name)
    if processor is None:
        return None
    config = processor.object("ProcessorConfig")
    if config is not None:
        config.only(("Mode", "ExecutionType"), "a processor's configuration")
        mode = config.text("Mode")
        if mode == "DISTRIBUTED":
            config.fault("Mode", DISTRIBUTED)
        elif mode not in (None, "INLINE"):
            config.fault("Mode", f'must be "INLINE", not "{mode}"')
        elif "ExecutionType" in config:
            config.fault("ExecutionType", "belongs to distributed Map states")
    return nested(processor, ("ProcessorConfig",), "an item processor")
