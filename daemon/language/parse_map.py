"""Reading and compiling a Map state."""

from __future__ import annotations

from typing import Protocol

from daemon.language.causes import of_items
from daemon.language.definition import Machine, Map
from daemon.language.evaluation import Expression
from daemon.language.fields import MAX_COUNT, Fields
from daemon.language.graph import Graph
from daemon.language.parse_distribution import distribution, refuse_outside
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
from daemon.language.query import RESULT, is_query
from daemon.language.template import placed


class Nested(Protocol):
    """Reads a machine inside a state: its fields, the further fields it may have, what it is called. `isolated`: it
    sees none of the variables outside."""

    def __call__(self, fields: Fields, more: tuple[str, ...], what: str, *, isolated: bool = False) -> Machine: ...


def parse_map(fields: Fields, name: str, graph: Graph, nested: Nested) -> Map | None:
    following, end = transition(fields, name, graph)
    distributed = _is_distributed(fields)
    if not distributed:
        refuse_outside(fields)
    processor = _processor(fields, nested, distributed)
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
        output=template(fields, "Output", RESULT) if fields.jsonata else None,
        assign=assignment(fields, RESULT),
        parameters=template(fields, "ItemSelector" if "ItemSelector" in fields else "Parameters"),
        selector=template(fields, "ResultSelector"),
        place=result_path(fields),
        retry=retriers(fields),
        catch=catchers(fields, graph, name),
        processor=processor or Machine(start_at="", states={}),
        items=_items(fields),
        items_text=_items_text(fields),
        concurrency=quantity(fields, "MaxConcurrency", 0, MAX_COUNT),
        distribution=distribution(fields) if distributed else None,
    )
    return state if processor is not None else None


def _items(fields: Fields) -> Expression | None:
    """Items, or ItemsPath as it is in JSONPath."""
    if fields.jsonata:
        return template(fields, "Items")
    path = reference(fields, "ItemsPath")
    return placed(path.read, of_items()) if path is not None else None


def _items_text(fields: Fields) -> str:
    written = fields.values.get("Items" if fields.jsonata else "ItemsPath", "$")
    if not isinstance(written, str):
        return ""
    return written[2:-2].strip() if fields.jsonata and is_query(written) else written


def _is_distributed(fields: Fields) -> bool:
    processor = fields.values.get("ItemProcessor", fields.values.get("Iterator"))
    config = processor.get("ProcessorConfig") if isinstance(processor, dict) else None
    return isinstance(config, dict) and config.get("Mode") == "DISTRIBUTED"


def _processor(fields: Fields, nested: Nested, distributed: bool) -> Machine | None:
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
        if mode not in (None, "INLINE", "DISTRIBUTED"):
            hint = config.findings.suggest(mode, ("INLINE", "DISTRIBUTED"))
            config.fault("Mode", f'must be "INLINE" or "DISTRIBUTED", not "{mode}"{hint}')
        execution = config.text("ExecutionType")
        if execution is not None and not distributed:
            config.fault("ExecutionType", "belongs to distributed Map states")
        elif execution not in (None, "STANDARD", "EXPRESS"):
            config.fault("ExecutionType", f'must be "STANDARD" or "EXPRESS", not "{execution}"')
    return nested(processor, ("ProcessorConfig",), "an item processor", isolated=distributed)
