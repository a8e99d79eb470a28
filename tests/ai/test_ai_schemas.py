"""Schemas: what may stand in one, what fits, and that judging ends, whatever somebody writes."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.nodes.ai.schemas import BadSchema, Misfit, check_schema, check_value, is_strict
from enginekit.messages.json import JSON
from tests.hypothesis_profiles import examples

# --- what fits ---------------------------------------------------------------------------------------------------

TREE: JSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"tree": {"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}},
    "$ref": "#/$defs/tree",
}


@pytest.mark.parametrize(
    ("schema", "fitting", "other"),
    [
        ({"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}, "abc", "ABC"),
        ({"type": ["integer", "null"]}, None, "1"),
        ({"enum": [1, "a", None]}, "a", "b"),
        ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], [1, 1]),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"a": 1}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [1], [1, 2]),
        ({"anyOf": [{"type": "integer"}, {"minLength": 2}]}, "ab", "a"),
        ({"not": {"type": "integer"}}, "1", 1),
        ({"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"type": "string"}}, 3, 2),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "integer"}}}, {"a": 1}, {"a": "1"}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"propertyNames": {"pattern": "^x"}}, {"x1": 1}, {"y": 1}),
        ({"additionalProperties": {"type": "integer"}, "properties": {"s": {}}}, {"s": "", "n": 1}, {"n": ""}),
        ({"multipleOf": 0.5}, 1.5, 1.2),
        (TREE, {"of": [{"of": []}, {}]}, {"of": [{"of": [1]}]}),
        ({"$schema": "https://nowhere.test/my-dialect", "type": "integer"}, 1, "1"),
    ],
)
def test_what_fits(schema: JSON, fitting: JSON, other: JSON) -> None:
    check_schema(schema)
    check_value(schema, fitting)
    with pytest.raises(Misfit):
        check_value(schema, other)


def test_a_misfit_says_where() -> None:
    schema: JSON = {"properties": {"people": {"items": {"properties": {"age": {"type": "integer"}}}}}}
    with pytest.raises(Misfit, match=r"at \$\.people\[1\]\.age: 'x' is not of type 'integer'"):
        check_value(schema, {"people": [{"age": 1}, {"age": "x"}]})


# --- what may stand in one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ([], ""),
        ({"type": "strnig"}, ".type"),
        ({"type": ["string", 1]}, ".type"),
        ({"properties": []}, ".properties"),
        ({"properties": {"a": []}}, ".properties.a"),
        ({"properties": {"a": {"items": [{}]}}}, ".properties.a.items"),
        ({"anyOf": []}, ".anyOf"),
        ({"anyOf": [{"minLength": -1}]}, ".anyOf[0].minLength"),
        ({"minimum": "1"}, ".minimum"),
        ({"exclusiveMinimum": True}, ".exclusiveMinimum"),
        ({"multipleOf": 0}, ".multipleOf"),
        ({"required": "a"}, ".required"),
        ({"required": [1]}, ".required"),
        ({"dependentRequired": {"a": "b"}}, ".dependentRequired.a"),
        ({"enum": "a"}, ".enum"),
        ({"uniqueItems": 1}, ".uniqueItems"),
        ({"pattern": "("}, ".pattern"),
        ({"pattern": "(?=a)"}, ".pattern"),
        ({"pattern": 1}, ".pattern"),
        ({"$ref": "http://169.254.169.254/schema"}, ".$ref"),
        ({"$ref": "file:///etc/passwd"}, ".$ref"),
        ({"$ref": "#/$defs/a"}, ".$ref"),
        ({"$ref": "#anchor"}, ".$ref"),
        ({"$ref": 1}, ".$ref"),
        ({"$ref": "#/enum", "enum": []}, ".$ref"),
        ({"patternProperties": {}}, ".patternProperties"),
        ({"unevaluatedProperties": False}, ".unevaluatedProperties"),
        ({"$dynamicRef": "#x"}, ".$dynamicRef"),
        ({"items": {"$id": "http://other.test/"}}, ".items.$id"),
        ({"title": "x" * 70_000}, ""),
    ],
)
def test_what_may_not_stand_in_a_schema(schema: JSON, where: str) -> None:
    with pytest.raises(BadSchema) as caught:
        check_schema(schema)
    assert caught.value.path == where


def test_names_of_properties_are_no_keywords() -> None:
    check_schema({"properties": {"patternProperties": {"type": "string"}, "$ref": {}}, "default": {"type": "strnig"}})


def test_a_schema_of_great_depth() -> None:
    deep: JSON = {}
    for _ in range(60):
        deep = {"items": deep}
    with pytest.raises(BadSchema, match="deep"):
        check_schema(deep)


def test_what_a_server_can_hold_its_model_to() -> None:
    strict: JSON = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert is_strict(strict)
    assert is_strict({**strict, "properties": {"a": strict}})
    assert not is_strict({**strict, "required": []})
    assert not is_strict({**strict, "additionalProperties": True})
    assert not is_strict({**strict, "properties": {"a": {"type": "object"}}})
    assert not is_strict({"type": "integer"})


# --- that it ends ------------------------------------------------------------------------------------------------


def doubling(levels: int) -> JSON:
    definitions: dict[str, JSON] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    definitions[f"d{levels}"] = {"type": "integer"}
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, 1),
        ({"allOf": [{"$ref": "#"}]}, 1),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, 1),
        (doubling(40), 1),
        ({"items": {"anyOf": [{"const": n} for n in range(500)]}}, [499] * 100_000),
        ({"items": {"enum": list(range(5000))}}, [4999] * 50_000),
        ({"uniqueItems": True}, [[n] for n in range(100_000)]),
    ],
)
def test_judging_ends(schema: JSON, value: JSON) -> None:
    check_schema(schema)
    with pytest.raises(Misfit, match="cannot be judged"):
        check_value(schema, value)


def test_a_pattern_that_makes_others_backtrack() -> None:
    schema: JSON = {"items": {"pattern": "^(a+)+$"}}
    check_schema(schema)
    began = time.process_time()
    with pytest.raises(Misfit, match="does not match"):
        check_value(schema, ["a" * 50_000 + "!"])
    assert time.process_time() - began < 5  # With backtracking: longer than the world will last.


KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "anyOf", "required", "enum", "$ref", "minimum", "pattern", "additionalProperties"]
)
VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["object", "string", "#", "#/items", "a", "("]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | st.sampled_from(["a"]), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYWORDS, VALUES, max_size=5), VALUES)
@settings(max_examples=examples(300), deadline=None)
def test_whatever_is_written_ends_in_one_of_three_ways(schema: JSON, value: JSON) -> None:
    """Refused; fits; does not fit. No other exception, whatever the schema."""
    json.dumps(schema)
    try:
        check_schema(schema)
    except BadSchema:
        return
    is_strict(schema)
    try:
        check_value(schema, value)
    except Misfit:
        return
