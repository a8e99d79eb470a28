"""What bounds an expression, what it is given of time and chance, and the functions that Step Functions adds."""

from __future__ import annotations

from typing import Any

import pytest
from jsonata_oracle import NOW, SCOPE, ours

from daemon.language.errors import Failed, Malformed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonata import UNDEFINED, compile_query
from daemon.language.jsonata.patterns import _shape
from enginekit.messages.json import JSON


def evaluate(expression: str, **variables: JSON) -> Any:
    return compile_query(expression).evaluate(lambda name: variables.get(name, UNDEFINED), Evaluation(SCOPE))


BUDGET = "Expression evaluation timeout: Check for infinite loop (it looks at more than 250,000 values"
MEMORY = "Expression evaluation memory limit exceeded: Check for excessive memory usage"
DEPTH = "Stack overflow error: Check for non-terminating recursive function. Consider rewriting as tail-recursive"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("($f := function($n) { $f($n + 1) }; $f(1))", BUDGET),
        ("($f := function($n) { 1 + $f($n + 1) }; $f(1))", DEPTH),
        ("($f := function($n) { $g($n) }; $g := function($n) { $f($n) }; $f(1))", BUDGET),
        ("($f := function($n) { [$g($n)] }; $g := function($n) { $f($n) }; $f(1))", DEPTH),
        ("$sum([1..9999999])", MEMORY),
        ("[1..9999999]", MEMORY),
        ("[1..99999999]", MEMORY),
        ("$range(1, 1000000000, 1)", MEMORY),
        ('$pad("a", 300000000)', BUDGET),
        ('$pad("a", -300000000, "xyz")', BUDGET),
        ("$map([1..2000], function($a) { $map([1..2000], function($b) { $a * $b }) })", BUDGET),
        ("$reduce([1..40], function($t, $n) { $t & $t }, 'ab')", BUDGET),
        ("$reduce([1..40], function($t, $n) { $append($t, $t) }, [1, 2])", BUDGET),
        ("$reduce([1..40], function($t, $n) { {'a': $t, 'b': $t} }, 1)", BUDGET),
        ("$reduce([1..40], function($t, $n) { $replace($t, 'a', 'aa') }, 'a')", BUDGET),
        ("$sort([1..200000], function($a, $b) { $a < $b })", BUDGET),
        ("$sort([1..200000])", BUDGET),
        ("$shuffle([1..200000])", BUDGET),
        ("$boolean($reduce([1..40], function($t, $n) { [[$t], [$t]] }, 0))", BUDGET),
        ("[1..9][$reduce([1..40], function($t, $n) { [[$t], [$t]] }, 0)]", BUDGET),
        ("$reduce([1..40], function($t, $n) { [[$t], [$t]] }, 0) and true", BUDGET),
        ("$string($reduce([1..40], function($t, $n) { {'a': $t, 'b': $t} }, 1))", BUDGET),
        ("$distinct([$reduce([1..40], function($t, $n) { {'a': $t, 'b': $t} }, 1), 1])", BUDGET),
        ("$contains($text & $text & $text & $text, /(a{0,50}){0,20}b/)", BUDGET),
        ("$match($text, /a.*b|a/)", BUDGET),
        ("$match($text, /[ab]*a[ab]{14}c|a/)", BUDGET),
        ("[1..700]@$a.[1..700]@$b.[$a, $b]", BUDGET),
        ("$join([1..60000].$string())", BUDGET),
        ("$match($text, /a/)", BUDGET),
        ("$split($text, /a/)", BUDGET),
        ("$string($map([1..60], function($n) { $text }))", BUDGET),
        ("$power(10, 1000000)", "D3061"),
        ("$formatInteger($power(10, 300), 'w')", "D1001"),
        ("$fromMillis(1, '[Y,1000000000]')", "$fromMillis: a width"),
        ("$fromMillis(1e18)", "D3110"),
        ("$formatNumber(1, $text)", "$formatNumber: a picture"),
        ("$toMillis($text, '[Y]')", "$toMillis: the text is longer"),
        ("$parseInteger($text, 'w')", "$parseInteger: the text is longer"),
        ("$eval('1')", "T1006: Attempted to invoke a non-function"),
        ("$hash($text & $text & $text & $text & $text & $text, 'MD5')", "$hash: the text has more"),
    ],
)
def test_an_expression_that_would_cost_too_much(expression: str, reason: str) -> None:
    with pytest.raises(Failed) as failed:
        evaluate(expression, text="a" * 50_000)
    assert failed.value.reason.startswith(reason)
    assert failed.value.error == "States.QueryEvaluationError"


def test_a_pattern_is_matched_in_linear_time() -> None:
    assert evaluate("$match($t, /(a+)+$/)", t="a" * 50_000 + "b") is UNDEFINED
    assert evaluate("$contains($t, /(x+x+)+y/)", t="x" * 50_000) is False


@pytest.mark.parametrize(
    ("pattern", "parts", "endless"),
    [
        ("abc", 3, False),
        (r"\d{4}-\d{2}", 7, False),
        (r"(a|b){3}c?", 7, False),
        (r"[^\]a-z]+,", 2, True),
        ("[]a]*", 1, True),
        ("[[:alpha:]]{2,}", 2, True),
        (r"\*\+\{", 3, False),
        ("(?:a{0,50}){0,20}b", 1001, False),
        ("(?i)a(?P<n>b*)", 2, True),
        ("(?i:ab)c", 3, False),
    ],
)
def test_the_shape_of_a_pattern_says_what_matching_it_costs(pattern: str, parts: int, endless: bool) -> None:
    assert _shape(pattern) == (parts, endless)


def test_a_long_text_may_be_split_by_a_pattern_that_ends() -> None:
    lines = "one line of some length\r\n" * 4_000
    assert evaluate(r"$count($split($t, /\r?\n/))", t=lines) == 4_001


@pytest.mark.parametrize(
    "expression",
    [
        "$pad('a', $nothing)",
        "$map([1], $nothing)",
        "$filter([1], $nothing)",
        "$reduce([1, 2], $nothing)",
        "$each({'a': 1}, $nothing)",
        "$formatNumber(1, $nothing)",
        "$formatInteger(1, $nothing)",
        "$parseInteger('1', $nothing)",
        "$contains('a', $nothing)",
        "$split('a', $nothing)",
        "$match('a', $nothing)",
        "$replace('a', /a/, $nothing)",
        "$replace('a', 'a', $nothing)",
    ],
)
def test_an_argument_without_a_value(expression: str) -> None:
    with pytest.raises(Failed, match=r'T0410: Argument [23] of function "\w+" does not match function signature'):
        evaluate(expression)


def test_without_a_first_argument_there_is_nothing() -> None:
    for expression in ("$pad($nothing, $nothing)", "$map($nothing, $nothing)", "$reduce($nothing, $nothing)"):
        assert evaluate(expression) is UNDEFINED


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("$phones#$i[type='fax']{type: $i}", {}),  # no tuples to group
        ("$phones.[$nothing]@$p.{'n': $p}", UNDEFINED),
        ("$match('aaa', /a/, 1e20).match", ["a", "a", "a"]),
    ],
)
def test_what_once_stumbled(expression: str, found: object) -> None:
    assert evaluate(expression, phones=[{"type": "home"}]) == found


@pytest.mark.parametrize(
    ("expression", "reason", "position"),
    [
        ("", "the expression is empty", 1),
        ("1 +", "S0207: unexpected end of expression", 3),
        ("$states.input.", "S0207: unexpected end of expression", 14),
        ("(1", "S0203: ", 2),
        ('"abc', "S0101: ", 4),
        ("$match(a, /(?=b)/)", "the pattern /(?=b)/ cannot be used", 11),
        (r"$match(a, /(b)\1/)", r"the pattern /(b)\1/ cannot be used", 11),
        ("$match(a, /(b{1000}){900}/)", "the pattern", 11),
        ("(" * 500 + "1" + ")" * 500, "nested more than 120 levels deep", 481),
        ("function($x)<n<n>:n>{$x}(1)", "S0201: syntax error", 16),
        ("function($x)<a<q>:n>{$x}(1)", "S0401: ", 4),
        ('function($x)<s-"$1-$2-$3":s>{$x}("a")', "S0201: ", 30),
        ("1 + /* open", "S0201: ", 11),
        ("x" * 70_000, "the expression is longer than 65,536 characters", 1),
    ],
)
def test_an_expression_that_cannot_be_read(expression: str, reason: str, position: int) -> None:
    with pytest.raises(Malformed) as malformed:
        compile_query(expression)
    assert malformed.value.reason.startswith(reason)
    assert abs(malformed.value.position - position) <= 130


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("$partition([1,2,3,4,5], 2)", [[1, 2], [3, 4], [5]]),
        ("$partition([1,2], 5)", [[1, 2]]),
        ("$range(1, 9, 2)", [1, 3, 5, 7, 9]),
        ("$range(5, 1, -2)", [5, 3, 1]),
        ("$range(-1.7, 2, 1)", [-1, 0, 1, 2]),  # fractions are dropped, towards zero
        ("$partition([1,2,3,4,5], 2.9)", [[1, 2], [3, 4], [5]]),
        ("$partition([1,2,3])", [[1, 2, 3]]),
        ("$range(0, 0, 1)", 0),
        ("$count($range(1, 100000, 1))", 100_000),
        ("$append([], $range(1, 0, 1))", []),
        ("1 / 0", "Infinity"),
        ("-1 / 0", "-Infinity"),
        ("0 / 0", "NaN"),
        ("[1 / 0]", ["Infinity"]),
        ("{'k': 1e308 * 10}", {"k": "Infinity"}),
        ("1 / 0 > 5", True),
        ("$reduce([1..2000], function($p, $n) { $p * 10 }, 1)", "Infinity"),
        ("$parseInteger('abc', '0')", "NaN"),
        ("$distinct([1..3000].{'n': $ % 2})", [{"n": 1}, {"n": 0}]),
        ('$hash("hello", "SHA-256")', "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ('$hash("hello", "MD5")', "5d41402abc4b2a76b9719d911017c592"),
        ('$parse("{\\"a\\": [1, 2.5, null]}").a', [1, 2.5, None]),
        ("$uuid()", "5f0c6a3e-1f54-4c1e-8a3c-000000000000"),
        ("$random()", 0.25),
        ("$random(42)", 0.7275636800328681),  # the reference service's own draws
        ("$random(0.9)", 0.730967787376657),
        ("$millis()", 1714979289123),
        ("$now()", "2024-05-06T07:08:09.123Z"),
        ("$now('[Y0001]-[M01]')", "2024-05"),
        ("$toMillis('03:04', '[H]:[m]')", 1714964640000),
    ],
)
def test_what_step_functions_adds_and_what_is_passed_in(expression: str, found: JSON) -> None:
    assert NOW.year == 2024
    assert evaluate(expression) == found


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("$partition([1], -1)", "D3137: Second argument must be zero or greater"),
        ('$hash("a", "CRC")', "D3137: Hash algorithm 'CRC' must be one of SHA-1, SHA-384, SHA-256, SHA-512, MD5"),
        ('$parse("{")', "D3137: Invalid JSON"),
        ("$floor(1 / 0)", "D1001: Number out of range"),
        ("$floor(0 / 0)", "D1001: Number out of range"),
        ("$split('a', 'b', -1)", "D3020: Third argument of split function must evaluate to a positive number"),
        ("1 + 'a'", 'T2002: The right side of the "+" operator must evaluate to a number'),
        ("'a' < 1", 'T2009: The values "a" and 1 either side of operator "<" must be of the same data type'),
        ("$sum(['a'])", 'T0412: Argument 1 of function "sum" must be an array of "numbers"'),
        ("$abs('x')", 'T0410: Argument 1 of function "abs" does not match function signature'),
        ('$error("no way")', "D3137: no way"),
        ('$assert(false, "must be")', "D3141: must be"),
    ],
)
def test_what_fails_with_a_reason(expression: str, reason: str) -> None:
    with pytest.raises(Failed) as failed:
        evaluate(expression)
    assert failed.value.reason.startswith(reason)


@pytest.mark.parametrize(
    "expression",
    ["$partition([1], 0)", "$partition([], 2)", "$range(1, 2, 0)", "$range(1, 2)", "$hash('a')", "$parse()"],
)
def test_what_is_nothing_as_it_is_in_the_reference_service(expression: str) -> None:
    assert evaluate(expression) is UNDEFINED


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("$states.input.a", {"states"}),
        ("$a + $b.c[$d > 1]", {"a", "b", "d"}),
        ("($x := $a; $x + $y)", {"a", "y"}),
        ("function($x) { $x + $z }(1)", {"z"}),
        ("$f := function($n) { $n = 0 ? 1 : $f($n - 1) }", set()),
        ("$sum($map($list, $double))", {"list", "double"}),
        ("$a@$i#$k.($i + $k + $o)", {"a", "o"}),
        ("$states.result.{'v': $v}", {"states", "v"}),
    ],
)
def test_the_variables_an_expression_refers_to(expression: str, names: set[str]) -> None:
    assert compile_query(expression).variables == names


def test_a_variable_hides_a_function_of_the_same_name() -> None:
    assert evaluate("$count", count=3) == 3
    assert evaluate("$count([1, 2])") == 2


def test_a_transform_changes_a_copy() -> None:
    assert ours("$v ~> |a|{'b': 2}|", v={"a": {"b": 1}}).found == {"a": {"b": 2}}
