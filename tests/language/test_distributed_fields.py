"""The fields of a distributed Map: what they may hold, and what is said of what they may not."""

from __future__ import annotations

import json

import pytest

from daemon.language import InvalidDefinition, Map, parse_definition

READER = {
    "Resource": "arn:aws:states:::s3:getObject",
    "Parameters": {"Bucket": "b", "Key.$": "$.k"},
    "ReaderConfig": {"InputType": "JSON"},
}
CSV = {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}
WRITER = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "b"}}


def definition(mode="DISTRIBUTED", language=None, **more):
    processor = {
        "ProcessorConfig": {"Mode": mode} if isinstance(mode, str) else mode,
        "StartAt": "P",
        "States": {"P": {"Type": "Pass", "End": True}},
    }
    state = {"Type": "Map", "ItemProcessor": processor, "End": True, **more}
    top = {"StartAt": "M", "States": {"M": state}}
    return {**top, "QueryLanguage": language} if language else top


def parsed(**more) -> Map:
    state = parse_definition(json.dumps(definition(**more))).states["M"]
    assert isinstance(state, Map)
    return state


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"mode": {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}},
        {"Label": "orders", "MaxConcurrency": 10, "ToleratedFailureCount": 0, "ToleratedFailurePercentage": 2.5},
        {"MaxConcurrencyPath": "$.c", "ToleratedFailureCountPath": "$.n", "ToleratedFailurePercentagePath": "$.p"},
        {"ItemReader": READER},
        {"ItemReader": {**READER, "ReaderConfig": {"InputType": "JSONL", "MaxItems": 5}}},
        {"ItemReader": {**READER, "ReaderConfig": {"InputType": "JSON", "MaxItemsPath": "$.m", "ItemsPointer": "/a"}}},
        {"ItemReader": {**READER, "ReaderConfig": {**CSV, "CSVDelimiter": "TAB"}}},
        {
            "ItemReader": {
                **READER,
                "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN", "CSVHeaders": ["a", "b"]},
            }
        },
        {"ItemReader": {"Resource": "arn:aws-cn:states:::s3:listObjectsV2", "Parameters": {"Bucket": "b"}}},
        {"ItemReader": {"Resource": "file:list", "Parameters": {"Path": "in"}}},
        {"ItemBatcher": {"MaxItemsPerBatch": 10, "BatchInput": {"a.$": "$.a"}}},
        {"ItemBatcher": {"MaxInputBytesPerBatchPath": "$.b"}},
        {"ResultWriter": WRITER},
        {"ResultWriter": {"WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSON"}}},
        {"ResultWriter": {**WRITER, "WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSONL"}}},
        {
            "language": "JSONata",
            "Items": "{% $states.input.items %}",
            "MaxConcurrency": "{% $states.input.c %}",
            "ToleratedFailurePercentage": "{% $states.input.p %}",
            "ItemBatcher": {"MaxItemsPerBatch": "{% 5 %}", "BatchInput": {"a": "{% $states.input.a %}"}},
            "ResultWriter": {"Resource": "file:write", "Arguments": {"Path": "{% $states.input.out %}"}},
        },
    ],
)
def test_what_a_distributed_map_may_have(more):
    assert parsed(**more).distribution is not None


def test_an_inline_map_has_none_of_it():
    assert parsed(mode="INLINE").distribution is None


@pytest.mark.parametrize(
    ("more", "path", "says"),
    [
        ({"mode": "INLINE", "Label": "x"}, "States.M.Label", 'Mode "DISTRIBUTED"'),
        ({"mode": "INLINE", "ItemReader": READER}, "States.M.ItemReader", 'Mode "DISTRIBUTED"'),
        ({"mode": "DISTRBUTED"}, "States.M.ItemProcessor.ProcessorConfig.Mode", 'did you mean "DISTRIBUTED"'),
        (
            {"mode": {"Mode": "DISTRIBUTED", "ExecutionType": "FAST"}},
            "States.M.ItemProcessor.ProcessorConfig.ExecutionType",
            '"STANDARD" or "EXPRESS"',
        ),
        ({"Label": "x" * 41}, "States.M.Label", "1 to 40 characters"),
        ({"Label": "a b"}, "States.M.Label", "must not hold"),
        ({"ToleratedFailureCount": -1}, "States.M.ToleratedFailureCount", "from 0"),
        ({"ToleratedFailurePercentage": 101}, "States.M.ToleratedFailurePercentage", "from 0 to 100"),
        (
            {"ToleratedFailurePercentage": 1, "ToleratedFailurePercentagePath": "$.p"},
            "States.M.ToleratedFailurePercentagePath",
            "only one of them",
        ),
        ({"ItemReader": READER, "ItemsPath": "$.x"}, "States.M.ItemReader", "stands beside ItemsPath"),
        (
            {"ItemReader": {**READER, "Resource": "arn:aws:states:::s3:getObjct"}},
            "States.M.ItemReader.Resource",
            "mean",
        ),
        ({"ItemReader": {**READER, "Parameters": {"Bucket": "b"}}}, "States.M.ItemReader.Parameters", "needs Key"),
        ({"ItemReader": {"Resource": "file:read"}}, "States.M.ItemReader", "needs Parameters"),
        ({"ItemReader": {**READER, "ReaderConfig": {}}}, "States.M.ItemReader.ReaderConfig", "needs InputType"),
        (
            {"ItemReader": {**READER, "ReaderConfig": {"InputType": "PARQUET"}}},
            "States.M.ItemReader.ReaderConfig.InputType",
            "not available",
        ),
        (
            {"ItemReader": {**READER, "ReaderConfig": {"InputType": "CSV"}}},
            "States.M.ItemReader.ReaderConfig",
            "needs CSVHeaderLocation",
        ),
        (
            {"ItemReader": {**READER, "ReaderConfig": {"InputType": "JSON", "CSVHeaders": ["a"]}}},
            "States.M.ItemReader.ReaderConfig.CSVHeaders",
            'belongs to InputType "CSV"',
        ),
        (
            {"ItemReader": {**READER, "ReaderConfig": {**CSV, "CSVDelimiter": ","}}},
            "States.M.ItemReader.ReaderConfig.CSVDelimiter",
            "COMMA",
        ),
        (
            {"ItemReader": {**READER, "ReaderConfig": {"InputType": "JSON", "MaxItem": 5}}},
            "States.M.ItemReader.ReaderConfig.MaxItem",
            'did you mean "MaxItems"',
        ),
        ({"ItemBatcher": {}}, "States.M.ItemBatcher", "needs MaxItemsPerBatch"),
        ({"ItemBatcher": {"MaxItemsPerBatch": 0}}, "States.M.ItemBatcher.MaxItemsPerBatch", "from 1"),
        ({"ResultWriter": {}}, "States.M.ResultWriter", "needs Resource"),
        ({"ResultWriter": {"Resource": WRITER["Resource"]}}, "States.M.ResultWriter", "needs Parameters"),
        (
            {"ResultWriter": {**WRITER, "WriterConfig": {"Transformation": "SQUASH"}}},
            "States.M.ResultWriter.WriterConfig.Transformation",
            '"FLATTEN"',
        ),
        (
            {"language": "JSONata", "ItemReader": READER},
            "States.M.ItemReader.Parameters",
            "belongs to the other query language",
        ),
        ({"language": "JSONata", "ItemsPath": "$.x"}, "States.M.ItemsPath", "belongs to JSONPath"),
    ],
)
def test_what_it_may_not_have_is_said_where_it_stands(more, path, says):
    with pytest.raises(InvalidDefinition) as invalid:
        parsed(**more)
    assert any(fault.path == path and says in fault.message for fault in invalid.value.faults), invalid.value.faults


def test_the_variables_outside_are_not_seen_in_its_processor():
    top = definition(ItemSelector={"a.$": "$x"})
    top["StartAt"] = "A"
    top["States"]["A"] = {"Type": "Pass", "Assign": {"x": 1}, "Next": "M"}
    parse_definition(json.dumps(top))
    top["States"]["M"]["ItemProcessor"]["States"]["P"]["Parameters"] = {"a.$": "$x"}
    with pytest.raises(InvalidDefinition, match='no state in reach assigns "\\$x"'):
        parse_definition(json.dumps(top))
