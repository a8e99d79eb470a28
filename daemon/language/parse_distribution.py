"""Reading and compiling what a Map of Mode DISTRIBUTED has: where its items come from, how they are batched, how many
may fail, where the results go."""

from __future__ import annotations

from typing import Final

from daemon.language.causes import not_in_range, not_in_range_at
from daemon.language.definition import (
    Batcher,
    Distribution,
    ItemFormat,
    Quantity,
    Reader,
    Transformation,
    Writer,
)
from daemon.language.evaluation import Expression
from daemon.language.fields import MAX_COUNT, Fields
from daemon.language.parse_fields import looked_up, quantity, query, template
from daemon.language.template import constant
from daemon.language.values import kind
from enginekit.messages.json import JSON

FIELDS: Final = (
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "Label",
    "ToleratedFailureCount",
    "ToleratedFailureCountPath",
    "ToleratedFailurePercentage",
    "ToleratedFailurePercentagePath",
)
"""Of a Map state; only a distributed one may have them."""

MAX_LABEL: Final = 40
MAX_HEADERS: Final = 1_000
_LABEL_REFUSED: Final = frozenset(' \t\n<>{}[]?*"#%\\^|~`$&,;:/')
_DELIMITERS: Final = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}
_READS: Final = {
    "arn:aws:states:::s3:getObject": False,
    "arn:aws:states:::s3:listObjectsV2": True,
    "file:read": False,
    "file:list": True,
}
_WRITES: Final = ("arn:aws:states:::s3:putObject", "file:write")
_BATCH_BYTES: Final = 256 * 1024


def distribution(fields: Fields) -> Distribution:
    """The distributed Map's own fields."""
    items = "Items" if fields.jsonata else "ItemsPath"
    if "ItemReader" in fields and items in fields:
        fields.fault("ItemReader", f"stands beside {items}; the items come from one of them")
    return Distribution(
        label=_label(fields),
        reader=_reader(fields),
        batcher=_batcher(fields),
        writer=_writer(fields),
        tolerated_count=quantity(fields, "ToleratedFailureCount", 0, MAX_COUNT),
        tolerated_percentage=_percentage(fields),
    )


def refuse_outside(fields: Fields) -> None:
    """Note the fields that an inline Map cannot have."""
    for name in FIELDS:
        if name in fields:
            fields.fault(
                name, 'belongs to distributed Map states: give ItemProcessor a ProcessorConfig with Mode "DISTRIBUTED"'
            )


def _label(fields: Fields) -> str | None:
    label = fields.text("Label")
    if label is None:
        return None
    if not 0 < len(label) <= MAX_LABEL:
        fields.fault("Label", f"must have 1 to {MAX_LABEL} characters, not {len(label)}")
    elif any(each in _LABEL_REFUSED or not each.isprintable() for each in label):
        fields.fault("Label", "must not hold spaces, brackets, wildcards, control or special characters")
    return label


def _percentage(fields: Fields) -> Quantity:
    name = "ToleratedFailurePercentage"
    queried = query(fields, name, _percent, not_in_range(name, 0.0, 100.0))
    if queried is not None:
        return queried
    written = fields.number(name, 0, 100)
    read = None if fields.jsonata else looked_up(fields, f"{name}Path", _percent, not_in_range_at(name, 0.0, 100.0))
    if name in fields and f"{name}Path" in fields:
        fields.fault(f"{name}Path", f"stands beside {name}; only one of them can be")
    if read is not None:
        return read
    return None if written is None else constant(written)


def _percent(value: JSON) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 100:
        return float(value)
    return None


def _place(fields: Fields, needed: tuple[str, ...]) -> Expression:
    """Parameters (Arguments): an object that says which file or folder."""
    mine, other = ("Arguments", "Parameters") if fields.jsonata else ("Parameters", "Arguments")
    if other in fields:
        fields.fault(other, f"belongs to the other query language; here it is {mine}")
    given = fields.object(mine)
    if given is None:
        if mine not in fields:
            fields.findings.fault(fields.where, f"needs {mine}: {' and '.join(needed)}")
        return constant({})
    for name in needed:
        if name not in given and f"{name}.$" not in given:
            given.findings.fault(given.where, f"needs {name}")
    return template(fields, mine) or constant({})


def _needed(resource: str | None, fields: tuple[str, ...]) -> tuple[str, ...]:
    return ("Path",) if resource is not None and resource.startswith("file:") else fields


def _reader(fields: Fields) -> Reader | None:
    given = fields.object("ItemReader")
    if given is None:
        return None
    given.only(("Resource", "Parameters", "Arguments", "ReaderConfig"), "an ItemReader")
    resource = _resource(given, tuple(_READS))
    lists = _READS.get(resource or "", False)
    config = given.object("ReaderConfig")
    place = _place(given, _needed(resource, ("Bucket",) if lists else ("Bucket", "Key")))
    if config is None:
        if not lists and "ReaderConfig" not in given:
            given.findings.fault(given.where, "needs ReaderConfig with InputType, which says what is in the file")
        return Reader(format=ItemFormat.LIST, arguments=place)
    config.only(
        (
            "InputType",
            "Transformation",
            "CSVHeaderLocation",
            "CSVHeaders",
            "CSVDelimiter",
            "MaxItems",
            "MaxItemsPath",
            "ItemsPointer",
        ),
        "a reader's configuration",
    )
    sort = ItemFormat.LIST if lists else _format(config)
    headers = _headers(config, sort)
    delimiter = config.text("CSVDelimiter") or "COMMA"
    if delimiter not in _DELIMITERS:
        config.fault("CSVDelimiter", f'must be one of {", ".join(_DELIMITERS)}, not "{delimiter}"')
    if config.text("Transformation") not in (None, "NONE"):
        config.fault("Transformation", "only NONE is available: the files' contents are not loaded")
    pointer = config.text("ItemsPointer") or ""
    if pointer and not pointer.startswith("/"):
        config.fault("ItemsPointer", 'must be a JSON pointer, beginning with "/"')
    elif pointer and sort is not ItemFormat.JSON:
        config.fault("ItemsPointer", 'belongs to InputType "JSON"')
    return Reader(
        format=sort,
        arguments=place,
        max_items=quantity(config, "MaxItems", 0, MAX_COUNT),
        pointer=pointer,
        delimiter=_DELIMITERS.get(delimiter, ","),
        headers=headers,
    )


def _format(config: Fields) -> ItemFormat:
    sort = config.text("InputType")
    if sort in ("JSON", "JSONL", "CSV"):
        return ItemFormat(sort)
    if sort is None:
        if "InputType" not in config:
            config.findings.fault(config.where, 'needs InputType: "CSV", "JSON" or "JSONL"')
    elif sort in ("MANIFEST", "PARQUET"):
        config.fault("InputType", f'"{sort}" is not available: CSV, JSON and JSONL are')
    else:
        hint = config.findings.suggest(sort, ("CSV", "JSON", "JSONL"))
        config.fault("InputType", f'must be "CSV", "JSON" or "JSONL", not "{sort}"{hint}')
    return ItemFormat.JSON


def _headers(config: Fields, sort: ItemFormat) -> tuple[str, ...] | None:
    where = config.text("CSVHeaderLocation")
    if sort is not ItemFormat.CSV:
        for name in ("CSVHeaderLocation", "CSVHeaders", "CSVDelimiter"):
            if name in config:
                config.fault(name, 'belongs to InputType "CSV"')
        return None
    if where not in ("FIRST_ROW", "GIVEN"):
        if "CSVHeaderLocation" in config:
            config.fault("CSVHeaderLocation", f'must be "FIRST_ROW" or "GIVEN", not "{where}"')
        else:
            config.findings.fault(config.where, 'needs CSVHeaderLocation: "FIRST_ROW" or "GIVEN"')
        return None
    if where == "FIRST_ROW":
        if "CSVHeaders" in config:
            config.fault("CSVHeaders", 'belongs to CSVHeaderLocation "GIVEN"')
        return None
    given = config.values.get("CSVHeaders")
    if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
        config.fault("CSVHeaders", "must be an array of strings, with one at least")
        return None
    if len(given) > MAX_HEADERS:
        config.fault("CSVHeaders", f"must have {MAX_HEADERS:,} names at most")
    return tuple(str(name) for name in given)


def _batcher(fields: Fields) -> Batcher | None:
    given = fields.object("ItemBatcher")
    if given is None:
        return None
    given.only(
        (
            "MaxItemsPerBatch",
            "MaxItemsPerBatchPath",
            "MaxInputBytesPerBatch",
            "MaxInputBytesPerBatchPath",
            "BatchInput",
        ),
        "an ItemBatcher",
    )
    items = quantity(given, "MaxItemsPerBatch", 1, MAX_COUNT)
    size = quantity(given, "MaxInputBytesPerBatch", 1, _BATCH_BYTES)
    if items is None and size is None:
        given.findings.fault(given.where, "needs MaxItemsPerBatch or MaxInputBytesPerBatch")
    return Batcher(max_items=items, max_bytes=size, input=template(given, "BatchInput"))


def _writer(fields: Fields) -> Writer:
    given = fields.object("ResultWriter")
    if given is None:
        return Writer(arguments=None, transformation=Transformation.COMPACT)
    given.only(("Resource", "Parameters", "Arguments", "WriterConfig"), "a ResultWriter")
    config = given.object("WriterConfig")
    arguments = None
    if "Resource" in given or config is None:
        resource = _resource(given, _WRITES)
        arguments = _place(given, _needed(resource, ("Bucket",)))
    transformation, lines = Transformation.NONE if arguments else Transformation.COMPACT, False
    if config is not None:
        config.only(("Transformation", "OutputType"), "a writer's configuration")
        named = config.text("Transformation")
        if named in list(Transformation):
            transformation = Transformation(named)
        elif named is not None:
            config.fault("Transformation", f'must be "NONE", "COMPACT" or "FLATTEN", not "{named}"')
        output = config.text("OutputType")
        if output not in (None, "JSON", "JSONL"):
            config.fault("OutputType", f'must be "JSON" or "JSONL", not "{output}"')
        lines = output == "JSONL"
    return Writer(arguments=arguments, transformation=transformation, lines=lines)


def _resource(given: Fields, known: tuple[str, ...]) -> str | None:
    resource = given.text("Resource")
    if resource is None:
        if "Resource" not in given:
            given.findings.fault(given.where, f"needs Resource: {' or '.join(known)}")
        return None
    # The partition and region of an ARN may be anybody's.
    parts = resource.split(":")
    if parts[0] == "arn" and len(parts) > 3:
        resource = ":".join(["arn", "aws", *parts[2:3], "", *parts[4:]])
    if resource not in known:
        hint = given.findings.suggest(resource, known)
        given.fault("Resource", f"must be one of {', '.join(known)}, not {_shown(resource)}{hint}")
        return None
    return resource


def _shown(text: str) -> str:
    return f'"{text[:80]}"' if text else kind(text)
