"""JSON schemas that a definition gives: what may stand in one, and whether a value fits it.

Pure. The library `jsonschema` judges values; what is kept from it here is work without end: it counts no steps, its
patterns backtrack, and it fetches references from the network. So a schema is looked through first, keyword by
keyword, and every keyword that is applied to a value counts against a budget. The dialect is 2020-12
(json-schema.org), less the keywords in REFUSED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import re2

from enginekit.messages.json import JSON, NotJSON, encode

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMA_BYTES: Final = 64 * 1024
SCHEMA_DEPTH: Final = 50
BUDGET: Final = 50_000
"""Keywords applied to values and parts of values: about a third of a second's work at the most."""

TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
REFUSED: Final = {
    "patternProperties": "is not supported: name the properties, or use additionalProperties",
    "unevaluatedProperties": "is not supported: use additionalProperties",
    "unevaluatedItems": "is not supported: use items",
    "dependencies": "is not supported: use dependentRequired or dependentSchemas",
    "$dynamicRef": "is not supported: use $ref",
    "$recursiveRef": "is not supported: use $ref",
}

_ONE: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "$defs", "definitions", "dependentSchemas")
_COUNTS: Final = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
)
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


_ordered = msgspec.json.Encoder(order="deterministic")


class BadSchema(ValueError):
    """`path` is where in the schema, as `.properties.age.type`; `problem` a sentence without its subject."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path} {problem}")
        self.path = path
        self.problem = problem


class Misfit(Exception):
    """A value does not fit: the message says where in it and why, or that it could not be found out."""


def check_schema(schema: JSON) -> None:
    """Raises BadSchema where the value is no schema that values can be judged by here."""
    try:
        size = len(bytes(encode(schema)))
    except NotJSON as error:
        raise BadSchema("", f"is not JSON: {error}") from error
    if size > SCHEMA_BYTES:
        raise BadSchema("", f"has {size} bytes; {SCHEMA_BYTES} are the most")
    for path, part in _parts("", schema, 0):
        if isinstance(part, dict):
            _check_keywords(path, part, schema)


def check_value(schema: JSON, value: JSON, tell: Callable[[str], str] = str) -> None:
    """Raises Misfit. `schema` has passed `check_schema`. The same value always takes the same steps. `tell`: what may
    be told of a text that quotes the value."""
    left = BUDGET

    def spend(steps: int) -> None:
        nonlocal left
        left -= steps
        if left < 0:
            raise Misfit(f"it cannot be judged: it takes more than {BUDGET} steps")

    try:
        for error in _validator(spend)(schema).iter_errors(value):
            raise Misfit(f"at {tell(error.json_path)[:200]}: {_shortened(tell(error.message))}")
    except RecursionError:
        raise Misfit("it cannot be judged: the schema leads back to itself, or nests too deeply") from None


def _shortened(message: str) -> str:
    # They begin with the value and end with what is asked of it.
    return message if len(message) <= 400 else f"{message[:200]} ... {message[-200:]}"


def is_strict(schema: JSON) -> bool:
    """Whether it is one of those to which a server can hold its model from the outset: every object names all of its
    properties, needs all of them, and takes no others."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    for _, part in _parts("", schema, 0):
        if not isinstance(part, dict):
            return False
        properties, required = part.get("properties"), part.get("required", [])
        if part.get("type") != "object" and properties is None:
            continue
        if not isinstance(properties, dict) or not isinstance(required, list):
            return False
        if part.get("additionalProperties") is not False or set(properties) != set(required):
            return False
    return True


# --- what may stand in a schema ----------------------------------------------------------------------------------


def _parts(path: str, schema: JSON, depth: int) -> Iterator[tuple[str, JSON]]:
    """The schema and all schemas in it, each with where it is. Raises BadSchema."""
    if isinstance(schema, bool):
        yield path, schema
        return
    if not isinstance(schema, dict):
        raise BadSchema(path, "must be a JSON schema: an object, true or false")
    if depth > SCHEMA_DEPTH:
        raise BadSchema(path, f"is more than {SCHEMA_DEPTH} schemas deep")
    yield path, schema
    for keyword in _ONE:
        if keyword in schema and not (keyword == "additionalProperties" and schema[keyword] is False):
            yield from _parts(f"{path}.{keyword}", schema[keyword], depth + 1)
    for keyword in _SEVERAL:
        several = schema.get(keyword, [])
        if not isinstance(several, list) or (keyword in schema and not several):
            raise BadSchema(f"{path}.{keyword}", "must be a list of schemas, and not an empty one")
        for index, part in enumerate(several):
            yield from _parts(f"{path}.{keyword}[{index}]", part, depth + 1)
    for keyword in _NAMED:
        named = schema.get(keyword, {})
        if not isinstance(named, dict):
            raise BadSchema(f"{path}.{keyword}", "must be an object of schemas")
        for name, part in named.items():
            yield from _parts(f"{path}.{keyword}.{name}", part, depth + 1)


def _check_keywords(path: str, schema: dict[str, JSON], root: JSON) -> None:
    for keyword, problem in REFUSED.items():
        if keyword in schema:
            raise BadSchema(f"{path}.{keyword}", problem)
    if path and "$id" in schema:
        raise BadSchema(f"{path}.$id", "is not supported inside of a schema")
    given = schema.get("type", [])
    for name in given if isinstance(given, list) else [given]:
        if name not in TYPES:
            raise BadSchema(f"{path}.type", f"must be one of {', '.join(TYPES)}, or a list of them")
    for keyword in _COUNTS:
        value = schema.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadSchema(f"{path}.{keyword}", "must be a whole number, 0 or more")
    for keyword in _NUMBERS:
        value = schema.get(keyword, 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadSchema(f"{path}.{keyword}", "must be a number")
        if keyword == "multipleOf" and value <= 0:
            raise BadSchema(f"{path}.{keyword}", "must be more than 0")
    if not isinstance(schema.get("uniqueItems", False), bool):
        raise BadSchema(f"{path}.uniqueItems", "must be true or false")
    if not isinstance(schema.get("enum", []), list):
        raise BadSchema(f"{path}.enum", "must be a list")
    _check_names(f"{path}.required", schema.get("required", []))
    dependent = schema.get("dependentRequired", {})
    if not isinstance(dependent, dict):
        raise BadSchema(f"{path}.dependentRequired", "must be an object")
    for name, names in dependent.items():
        _check_names(f"{path}.dependentRequired.{name}", names)
    if "pattern" in schema:
        _check_pattern(f"{path}.pattern", schema["pattern"])
    if "$ref" in schema:
        _check_reference(f"{path}.$ref", schema["$ref"], root)


def _check_names(path: str, names: JSON) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadSchema(path, "must be a list of names")


def _check_pattern(path: str, pattern: JSON) -> None:
    if not isinstance(pattern, str):
        raise BadSchema(path, "must be a regular expression")
    try:
        _compiled(pattern)
    except re2.error as error:
        raise BadSchema(path, f"is not a regular expression of RE2 (which has no look-around): {error}") from error


def _check_reference(path: str, reference: JSON, root: JSON) -> None:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise BadSchema(path, 'must point into the schema itself, as "#/$defs/NAME"')
    found = root
    for part in reference[2:].split("/") if reference != "#" else []:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise BadSchema(path, f'points at nothing: there is no "{reference}"')
        found = found[name]
    if not isinstance(found, dict | bool):
        raise BadSchema(path, "points at something that is no schema")


@cache
def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    return options


def _compiled(pattern: str) -> Any:
    return re2.compile(pattern, _options())  # type: ignore[no-untyped-call]


# --- whether a value fits ----------------------------------------------------------------------------------------

Keyword = Callable[[Any, Any, Any, Any], Any]
"""A keyword of the library's: validator, the keyword's value, what it is applied to, the schema; yields errors."""


def _validator(spend: Callable[[int], None]) -> Callable[[JSON], Validator]:
    """The library's, each keyword accounted for."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    def accounted(keyword: Keyword) -> Keyword:
        def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            spend(1 + (len(value) if isinstance(value, list | dict) else 0))
            yield from keyword(validator, value, instance, schema) or ()

        return apply

    def pattern(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(instance, str):
            spend(len(instance) // 100)
            if not _compiled(value).search(instance):
                yield ValidationError(f"{instance!r} does not match {value!r}")

    def unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if value and isinstance(instance, list):
            spend(len(instance))
            if len({_ordered.encode(item) for item in instance}) < len(instance):
                yield ValidationError("some of its items are equal")

    keywords = {name: accounted(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items()}
    keywords |= {"pattern": accounted(pattern), "uniqueItems": accounted(unique)}
    made = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]
    # An empty registry: references lead nowhere but into the schema.
    return lambda schema: made(schema, registry=Registry())
