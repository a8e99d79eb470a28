"""The text of a definition: JSON and YAML, and everything about either that is refused."""

from __future__ import annotations

import json

import pytest
from language_machines import faults

from daemon.language import InvalidDefinition, Pass, parse_definition
from daemon.language.source import load
from enginekit.messages.json import JSON

YAML = """
# An order
Comment: ships on 2026-03-14
StartAt: Wait here
States:
  Wait here:
    Type: Wait
    Timestamp: 2026-03-14T01:59:00Z
    Next: Go
  Go:
    Type: Pass
    Result: {yes: yes, on: "on", none: ~, empty: , n: 012, f: 1.5, e: 1e3, t: true, day: 2026-03-14, x: 0x10, i: .inf}
    End: true
"""


def test_yaml_and_json_are_the_same_definition() -> None:
    definition = parse_definition(YAML)
    assert definition.comment == "ships on 2026-03-14"
    go = definition.states["Go"]
    assert isinstance(go, Pass)
    assert go.result == {
        "yes": "yes", "on": "on", "none": None, "empty": None, "n": 12, "f": 1.5, "e": 1000.0, "t": True,
        "day": "2026-03-14", "x": "0x10", "i": ".inf",
    }  # fmt: skip
    assert parse_definition(json.dumps(load(YAML).value)).states.keys() == definition.states.keys()
    assert parse_definition(YAML.encode()).comment == definition.comment
    assert parse_definition(b"\xef\xbb\xbf" + YAML.encode()).comment == definition.comment


def test_anchors_and_aliases() -> None:
    assert load("a: &x [1, {b: 2}]\nc: *x\nd: [*x]").value == {
        "a": [1, {"b": 2}],
        "c": [1, {"b": 2}],
        "d": [[1, {"b": 2}]],
    }


def test_explicit_tags_and_quotes_make_text() -> None:
    assert load("a: !!str 1\nb: '1'\nc: ! 1\nd: !!int 1\ne: |\n  1\nf: !!float 1").value == {
        "a": "1", "b": "1", "c": "1", "d": 1, "e": "1\n", "f": 1,
    }  # fmt: skip


def _bomb() -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["the definition is empty"]),
        (" \n", ["the definition is empty"]),
        ("{", ["not valid JSON: Expecting property name enclosed in double quotes (line 1, column 2)"]),
        ('{"a": 1,}', None),
        ('{"a": NaN}', ["not valid JSON: NaN is not a JSON number"]),
        ('{"a": 1e999}', ["not valid JSON: the number 1e999 is too large"]),
        ('{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}', ["b.c: this name is there twice", "a: this name is there twice"]),
        ('{"a": [{"b": 1, "b": 1}]}', ["a[0].b: this name is there twice"]),
        ('{"a": "\\ud800"}', ["a: the text holds half of a surrogate pair"]),
        ('{"\\ud800": 1}', ["a name holds half of a surrogate pair"]),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", None),
        ("[" * 100_000, ["the definition nests more than 100 levels deep"]),
        ("[1]", ["a definition is an object with StartAt and States, not an array"]),
        ("just text", ["a definition is an object with StartAt and States, not a string"]),
        ("a: 1\nb: 2\na: 3", ["a: this name is there twice"]),
        ("a: [1, 2", None),
        ("a: *x", ['a: no anchor "x" stands before this alias']),
        ("a: &x [*x]", ['a[0]: no anchor "x" stands before this alias']),
        ("a: 1\n---\nb: 2", ["the YAML text holds more than one document"]),
        ("? [a]\n: 1", ["a key of a YAML mapping must be plain text"]),
        ("a: !!python/object:os.system x",
         ['a: the YAML tag "tag:yaml.org,2002:python/object:os.system" is not supported']),
        ("a: !Sub x", ['a: the YAML tag "!Sub" is not supported']),
        ("a: &x {b: 1}\nc:\n  <<: *x", ["c.<<: merge keys are not supported; write the fields out"]),
        ("a:\n" + "".join("  " * n + "- \n" for n in range(1, 150)), None),
        (_bomb(), ["the definition holds more than 200,000 values, its aliases counted for what they stand for"]),
        ("a: " + "x" * 1024 * 1024, ["the definition is longer than 1,048,576 bytes"]),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, wanted: list[str] | None) -> None:
    found = faults(text)
    assert len(found) >= 1
    if wanted is not None:
        assert found[: len(wanted)] == wanted


def test_what_is_there_twice_hides_no_other_fault() -> None:
    wanted = [
        "StartAt: this name is there twice",
        "States.A.Comment: this name is there twice",
        'StartAt: no state named "B"',
        "States.A.Next: must be a string, not a number",
        "Extra: a definition has no such field",
    ]
    as_json = """{"StartAt": "A", "StartAt": "B", "Extra": 1,
        "States": {"A": {"Type": "Pass", "Comment": "x", "Comment": "y", "Next": 5}}}"""
    as_yaml = "StartAt: A\nStartAt: B\nExtra: 1\nStates:\n  A: {Type: Pass, Comment: x, Comment: y, Next: 5}"
    assert sorted(faults(as_json)) == sorted(faults(as_yaml)) == sorted(wanted)


def test_what_is_not_text_is_refused() -> None:
    for data, message in ((b"\xff\xfe{", "not UTF-8"), (b" " * (1024 * 1024 + 1), "1,048,576 is the limit")):
        with pytest.raises(InvalidDefinition) as raised:
            parse_definition(data)
        assert message in str(raised.value)


def test_half_a_surrogate_pair_in_yaml_is_refused() -> None:
    for text in ("a: \ud800", 'a: "\\ud800"'):
        with pytest.raises(InvalidDefinition):
            parse_definition(text)


def test_numbers_of_any_length_are_read_or_refused() -> None:
    found: JSON = load('{"a": ' + "9" * 400 + "}").value
    assert isinstance(found, dict)
    assert len(faults('{"a": ' + "9" * 5_000 + "}")) == 1
