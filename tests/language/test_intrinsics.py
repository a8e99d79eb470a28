"""Intrinsic functions: what each answers, what it refuses, and how large things may get."""

from __future__ import annotations

import hashlib

import pytest
from language_machines import SCOPE, UUID, faults, machine, state

from daemon.language import Pass, Scope, StateError, arguments
from enginekit.messages.json import JSON

INPUT: JSON = {
    "name": "Arnav",
    "template": "Hello, my name is {}.",
    "escaped": '{"foo": "bar"}',
    "object": {"foo": "bar"},
    "Id": 123456,
    "array": [1, 2, 3, 4, 5, 6, 7, 8, 9],
    "repeated": [1, 2, 3, 3, 3, 3, 4, "1", True, 1.0, {"a": 1}, {"a": 1.0}, [1], [True], None, None],
    "one": {"a": {"a1": 1, "a2": 2}, "b": 2},
    "two": {"a": {"a3": 1, "a4": 2}, "c": 3},
    "csv": "1,2,3,4,5",
    "odd": "This.is+a,test=string",
    "step": 1.5,
    "price": 12.5,
    "flag": False,
    "none": None,
    "big": "x" * 10_001,
}


def evaluated(expression: str, scope: Scope = SCOPE) -> JSON:
    made = arguments(state(Pass, {"Parameters": {"value.$": expression}}), INPUT, scope)
    assert isinstance(made, dict)
    return made["value"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("States.Format('Hello, my name is {}.', $.name)", "Hello, my name is Arnav."),
        ("States.Format($.template, $.name)", "Hello, my name is Arnav."),
        ("States.Format('{} {} {} {}', $.Id, $.price, $.flag, $.none)", "123456 12.5 false null"),
        ("States.Format('no places')", "no places"),
        (r"States.Format('\{\} \'{}\' \\', 1)", r"{} '1' \ ".rstrip()),
        ("States.Format('{}', $$.Execution.Id)", "run-1"),
        ("States.Format('{}{}', 'a', States.Format('{}', -1.5))", "a-1.5"),
        ("States.StringToJson($.escaped)", {"foo": "bar"}),
        ("States.JsonToString($.object)", '{"foo":"bar"}'),
        ("States.Array()", []),
        ("States.Array($.Id)", [123456]),
        ("States.Array('a', 1, true, null, $.none, $.object)", ["a", 1, True, None, None, {"foo": "bar"}]),
        ("States.ArrayPartition($.array, 4)", [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        ("States.ArrayContains($.array, 5)", True),
        ("States.ArrayContains($.array, 5.0)", True),
        ("States.ArrayContains($.array, true)", False),
        ("States.ArrayContains($.repeated, $.none)", True),
        ("States.ArrayRange(1, 9, 2)", [1, 3, 5, 7, 9]),
        ("States.ArrayRange(9, 1, -4)", [9, 5, 1]),
        ("States.ArrayRange(1, 0, 1)", []),
        ("States.ArrayRange(0, 3, $.step)", [0, 1, 2, 3]),
        ("States.ArrayGetItem($.array, 5)", 6),
        ("States.ArrayLength($.array)", 9),
        ("States.ArrayUnique($.repeated)", [1, 2, 3, 4, "1", True, {"a": 1}, [1], [True], None]),
        ("States.Base64Encode($.name)", "QXJuYXY="),
        ("States.Base64Decode('QXJuYXY=')", "Arnav"),
        ("States.Hash('input data', 'SHA-1')", "aaff4a450a104cd177d28d18d74485e8cae074b7"),
        ("States.Hash('a', 'MD5')", hashlib.md5(b"a").hexdigest()),
        ("States.Hash('a', 'SHA-256')", hashlib.sha256(b"a").hexdigest()),
        ("States.Hash('a', 'SHA-384')", hashlib.sha384(b"a").hexdigest()),
        ("States.Hash('a', 'SHA-512')", hashlib.sha512(b"a").hexdigest()),
        ("States.JsonMerge($.one, $.two, false)", {"a": {"a3": 1, "a4": 2}, "b": 2, "c": 3}),
        ("States.MathRandom(1, 999)", 500),
        ("States.MathAdd(111, -1)", 110),
        ("States.MathAdd(1.4, 2.5)", 4),
        ("States.StringSplit($.csv, ',')", ["1", "2", "3", "4", "5"]),
        ("States.StringSplit($.odd, '.+,=')", ["This", "is", "a", "test", "string"]),
        ("States.StringSplit('a,,b', ',')", ["a", "b"]),
        ("States.StringSplit('a^]-b', '^]-')", ["a", "b"]),
        ("States.UUID()", UUID),
        (
            "States.Format('{}.{}', States.ArrayGetItem(States.StringSplit(States.ArrayGetItem("
            "States.StringSplit('arn/x/1.2.3', '/'), 2), '.'), 0), 'y')",
            "1.y",
        ),
        ("States.ArrayLength($.array[?(@ > 3)])", 6),
        ("States.Array($.array[0,1], $['name'])", [[1, 2], "Arnav"]),
    ],
)
def test_what_a_function_answers(expression: str, value: JSON) -> None:
    answer = evaluated(expression)
    assert (answer, repr(answer)) == (value, repr(value))


def test_a_seeded_random_number_is_the_same_every_time_and_within_its_bounds() -> None:
    def never() -> float:
        raise AssertionError("a seeded number needs no randomness")

    scope = Scope(context=SCOPE.context, random=never, uuid=SCOPE.uuid, now=SCOPE.now)
    numbers = [evaluated(f"States.MathRandom(0, 10, {seed})", scope) for seed in range(200)]
    assert numbers == [evaluated(f"States.MathRandom(0, 10, {seed})", scope) for seed in range(200)]
    assert set(numbers) == set(range(10))


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999999999999])
def test_a_random_number_is_from_its_start_to_before_its_end(fraction: float) -> None:
    scope = Scope(context=SCOPE.context, random=lambda: fraction, uuid=SCOPE.uuid, now=SCOPE.now)
    assert evaluated("States.MathRandom(-1, 2)", scope) == int(fraction * 3) - 1


@pytest.mark.parametrize(
    "expression",
    [
        "States.Format($.Id, 1)",
        "States.StringToJson($.Id)",
        "States.ArrayPartition($.array, 0)",
        "States.ArrayPartition($.array, 0.6)",
        "States.ArrayLength($.name)",
        "States.ArrayGetItem($.array, 9)",
        "States.ArrayGetItem($.array, -1)",
        "States.ArrayRange(0, 1000, 1)",
        "States.ArrayRange(1, 2, 0)",
        "States.ArrayRange(1, 2, 0.49)",
        "States.Base64Encode($.big)",
        "States.Base64Decode($.array)",
        "States.Hash('a', 'SHA-2')",
        "States.JsonMerge($.one, $.two, true)",
        "States.JsonMerge($.one, $.name, false)",
        "States.MathRandom(5, 5)",
        "States.MathRandom(1.4, 1.6)",
        "States.MathAdd('1', 2)",
        "States.MathAdd(true, 2)",
        "States.MathAdd(9223372036854775807, 1)",
        "States.StringSplit($.array, ',')",
    ],
)
def test_what_a_function_refuses(expression: str) -> None:
    assert refusal(expression) == f"Invalid arguments in {expression.partition('(')[0]}"


def test_of_a_template_and_of_what_is_no_json_more_is_said() -> None:
    places = "Invalid arguments in States.Format: number of arguments do not match the occurrences of {}."
    assert refusal("States.Format($.template)") == places
    text = "Cannot convert String to Json in States.StringToJson, caused by: not a JSON document: "
    assert refusal("States.StringToJson($.name)").startswith(text)


def refusal(expression: str) -> str:
    """Why the function failed, in its error's cause."""
    with pytest.raises(StateError) as raised:
        evaluated(expression)
    assert (raised.value.error, raised.value.documented) == ("States.Runtime", "States.IntrinsicFailure")
    before, of, why = raised.value.cause.partition(f"{expression}. ")
    assert (before, bool(of)) == ("There was an error while evaluating the intrinsic function: ", True)
    return why


@pytest.mark.parametrize(
    ("text", "bytes_of_it"),
    [
        ("", ""),
        ("=", ""),
        ("a", ""),
        ("YQ", "a"),
        ("Y-_/", "c\ufffd\ufffd"),
        ("/w==", "\ufffd"),
        ("YQ==YQ==", "a"),
        ("\u00e9YQ", "a"),
    ],
)
def test_what_is_decoded_of_what_is_hardly_base64(text: str, bytes_of_it: str) -> None:
    assert evaluated(f"States.Base64Decode('{text}')") == bytes_of_it


def test_a_path_in_a_function_that_leads_nowhere_names_the_path() -> None:
    with pytest.raises(StateError) as raised:
        evaluated("States.Format('{}', $.nobody)")
    assert (raised.value.error, raised.value.documented) == ("States.Runtime", None)
    assert raised.value.cause.startswith(
        "The function 'States.Format('{}', $.nobody)' had the following error: The JsonPath argument for the field "
        "'$.nobody' could not be found in the input '{"
    )


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("States.Nope()", 'no intrinsic function "States.Nope" (character 1)'),
        ("States.Formt('')", 'no intrinsic function "States.Formt", did you mean "States.Format"? (character 1)'),
        ("States.UUID", 'expected "(" after States.UUID, found the end (character 12)'),
        ("States.UUID(1)", "States.UUID takes 0 arguments, not 1 (character 1)"),
        ("States.ArrayLength()", "States.ArrayLength takes 1 argument, not 0 (character 1)"),
        ("States.MathRandom(1)", "States.MathRandom takes 2 or 3 arguments, not 1 (character 1)"),
        ("States.Format()", "States.Format takes at least 1 arguments, not 0 (character 1)"),
        ("States.Format('{}')", "the template has 1 places {} and 0 values are given for them (character 1)"),
        ("States.Array('a)", "the quote that opens here is never closed (character 14)"),
        (r"States.Array('\a')", r"a backslash may stand before ' { } and \ only (character 15)"),
        ('States.Array("a")', "text in an intrinsic function stands in single quotes (character 14)"),
        ("States.Array(1 2)", 'expected "," or a closing bracket between arguments, found "2" (character 16)'),
        (
            "States.Array($.a[)",
            'expected a quoted name, a number, a slice, * or a ?(filter) in brackets, found ")" (character 18)',
        ),
        ("States.Array() x", 'unexpected "x" after the function (character 16)'),
        ("States.Array(1e999)", "the number is too large (character 14)"),
        ("States.Array(" * 11 + ")" * 11, "intrinsic functions may nest 10 deep (character 131)"),
    ],
)
def test_what_is_wrong_with_an_expression(expression: str, fault: str) -> None:
    definition = machine({"X": {"Type": "Pass", "Parameters": {"v.$": expression}, "End": True}})
    assert faults(definition) == [f'States.X.Parameters.v.$: "{_short(expression)}": {fault}']


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def test_a_range_may_hold_a_thousand_numbers() -> None:
    assert evaluated("States.ArrayRange(1, 1000, 1)") == list(range(1, 1001))


def test_a_field_that_is_neither_a_path_nor_a_function() -> None:
    definition = machine({"X": {"Type": "Pass", "Parameters": {"v.$": "Arnav"}, "End": True}})
    assert faults(definition) == [
        'States.X.Parameters.v.$: "Arnav" is neither a path (beginning with "$") nor an intrinsic function'
    ]


@pytest.mark.parametrize(
    "parts",
    [
        ["States.JsonToString($)"] * 200,
        ["States.Format('{}{}{}{}', $.s, $.s, $.s, $.s)"] * 50,
        ["States.StringSplit($.s, 'y')"] * 500,
    ],
    ids=["JsonToString", "Format", "StringSplit"],
)
def test_many_calls_cannot_build_without_bound(parts: list[str]) -> None:
    pass_state = state(Pass, {"Parameters": {"v.$": f"States.Array({', '.join(parts)})"}})
    with pytest.raises(StateError) as raised:
        arguments(pass_state, {"s": "x" * 200_000}, SCOPE)
    assert raised.value.error in ("States.Runtime", "States.DataLimitExceeded")


def test_a_template_of_many_references_cannot_build_without_bound() -> None:
    pass_state = state(Pass, {"Parameters": {f"v{number}.$": "$" for number in range(100)}})
    with pytest.raises(StateError) as raised:
        arguments(pass_state, {"s": "x" * 200_000}, SCOPE)
    assert raised.value.error == "States.DataLimitExceeded"
