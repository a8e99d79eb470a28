"""Paths: what they lead to, what they fail with, and that their work is bounded."""

from __future__ import annotations

import pytest
from language_machines import CONTEXT, SCOPE

from daemon.language.errors import Failed, Malformed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonpath import compile_path
from enginekit.messages.json import JSON

STORE: JSON = {
    "store": {
        "book": [
            {"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95},
            {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99},
            {"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553", "price": 8.99},
            {"category": "fiction", "author": "J. R. R. Tolkien", "title": "The Lord", "isbn": "0-395", "price": 22.99},
        ],
        "bicycle": {"color": "red", "price": 19.95},
    },
    "expensive": 10,
}
DATA: JSON = {
    "foo": 123,
    "bar": ["a", "b", "c"],
    "car": {"cdr": True},
    "numbers": [3, 1, 2],
    "mixed": [1, "1", True, None, {"x": 1}, [1]],
    "nothing": None,
    "empty": [],
    "odd names": {"a.b": 1, "it's": 2, 'say "x"': 3, "foo@bar": {"baz[[": {"?pretty": 4}}, "Ж中": 5},
    "text": "hello",
}


def read(path: str, value: JSON) -> JSON:
    return compile_path(path).read(value, Evaluation(SCOPE))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.foo", 123),
        ("$.bar", ["a", "b", "c"]),
        ("$.car.cdr", True),
        ("$.bar[0]", "a"),
        ("$.bar[-1]", "c"),
        ("$['car']['cdr']", True),
        ('$["foo"]', 123),
        ("$.nothing", None),
        ("$.bar[0:2]", ["a", "b"]),
        ("$.bar[1:]", ["b", "c"]),
        ("$.bar[:-1]", ["a", "b"]),
        ("$.bar[-2:]", ["b", "c"]),
        ("$.bar[::2]", ["a", "c"]),
        ("$.bar[7:9]", []),
        ("$.bar[0,2]", ["a", "c"]),
        ("$.bar[0,9]", ["a"]),
        ("$.bar[*]", ["a", "b", "c"]),
        ("$.car.*", [True]),
        ("$.foo.*", []),
        ("$['foo','text']", {"foo": 123, "text": "hello"}),
        ("$['foo','none']", {"foo": 123}),
        ("$['car','odd names'].cdr", [True]),
        ("$['odd names']['a.b']", 1),
        (r"$['odd names']['it\'s']", 2),
        ("""$["odd names"]["it's"]""", 2),
        ("$['odd names'].a\\.b", 1),
        ("$['odd names'].foo\\@bar.baz\\[\\[.\\?pretty", 4),
        ("$['odd names'].Ж中", 5),
        ("$['odd names'].\\u0416\\u4e2d", 5),
        ("$.bar.length()", 3),
        ("$.car.keys()", ["cdr"]),
        ("$.numbers.sum()", 6.0),
        ("$.numbers.min()", 1.0),
        ("$.numbers.max()", 3.0),
        ("$.numbers.avg()", 2.0),
        ("$.numbers.first()", 3),
        ("$.numbers.last()", 2),
        ("$.numbers.index(1)", 1),
        ("$.text.length()", 5),
        ("$.numbers.append(9)", [3, 1, 2, 9]),
        ("$.bar.concat('!')", "abc!"),
        ("$.mixed[?(@ == 1)]", [1, "1"]),
        ("$.mixed[?(@ == true)]", [True]),
        ("$.mixed[?(@ == null)]", [None]),
        ("$.mixed[?(@.x)]", [{"x": 1}]),
        ("$.mixed[?(!@.x)]", [1, "1", True, None, [1]]),
        ("$.mixed[?(@ == [1])]", [[1]]),
        ("$.numbers[?(@ >= 2)]", [3, 2]),
        ("$.numbers[?(2 <= @)]", [3, 2]),
        ("$.numbers[?(@ < 2 || @ > 2)]", [3, 1]),
        ("$.numbers[?((@ < 2 || @ > 2) && @ != 1)]", [3]),
        ("$.bar[?(@ in ['a', 'c'])]", ["a", "c"]),
        ("$.bar[?(@ nin $.bar[0:1])]", ["b", "c"]),
        ("$.bar[?(@ contains 'b')]", ["b"]),
        ("$.empty[?(@.x == 1)]", []),
        ("$.car[?(@.cdr == true)]", [{"cdr": True}]),
        ("$[?(@.bar size 3)].foo", [123]),
        ("$[?(@.empty empty true)].foo", [123]),
    ],
)
def test_what_a_path_leads_to(path: str, found: JSON) -> None:
    assert read(path, DATA) == found


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.store.book[*].author", ["Nigel Rees", "Evelyn Waugh", "Herman Melville", "J. R. R. Tolkien"]),
        ("$..author", ["Nigel Rees", "Evelyn Waugh", "Herman Melville", "J. R. R. Tolkien"]),
        ("$.store..price", [8.95, 12.99, 8.99, 22.99, 19.95]),
        ("$..book[2].title", ["Moby Dick"]),
        ("$..book[-1:].title", ["The Lord"]),
        ("$..book[0,1].title", ["Sayings of the Century", "Sword of Honour"]),
        ("$..book[?(@.isbn)].title", ["Moby Dick", "The Lord"]),
        ("$.store.book[?(@.price < 10)].title", ["Sayings of the Century", "Moby Dick"]),
        ("$.store.book[?(@.price < 10 && @.category == 'fiction')].title", ["Moby Dick"]),
        ("$..book[?(@.price <= $.expensive)].price", [8.95, 8.99]),
        ("$.store.book[?(@.category == 'fiction' && @['price'] > 20)].author", ["J. R. R. Tolkien"]),
        ("$..book.length()", 1),
        ("$.store.book.length()", 4),
        ("$..price.max()", 22.99),
        ("$..missing", []),
        ("$.store.book[*].missing", []),
        ("$.store.book[*]['title','isbn']", None),
        ("$..[?(@.color)].color", ["red"]),
    ],
)
def test_the_book_store(path: str, found: JSON) -> None:
    answer = read(path, STORE)
    if found is None:
        assert answer == [
            {"title": "Sayings of the Century"},
            {"title": "Sword of Honour"},
            {"title": "Moby Dick", "isbn": "0-553"},
            {"title": "The Lord", "isbn": "0-395"},
        ]
    else:
        assert answer == found


def test_descending_finds_parents_before_children() -> None:
    assert read("$..a", {"a": {"a": 1}, "b": [{"a": 2}]}) == [{"a": 1}, 1, 2]
    assert read("$..*", {"a": [1], "b": 2}) == [[1], 2, 1]


def test_a_filter_compares_one_and_true_as_different() -> None:
    assert read("$[?(@ == 1)]", [1, 1.0, True, "1", "1.0", "one"]) == [1, 1.0, "1", "1.0"]


def test_the_context_object() -> None:
    assert read("$$.Execution.Id", {}) == "run-1"
    assert read("$$", {}) == CONTEXT
    assert read("$$.Execution.Input[?(@.order == 7)].order", {}) == [7]
    assert read("$[?(@ == $$.Execution.Input.order)]", [6, 7]) == [7]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("$.none", "No results for path: $['none']"),
        ("$.car.none", "No results for path: $['car']['none']"),
        ("$.foo.none", "No results for path: $['foo']['none']"),
        ("$.bar[3]", "No results for path: $['bar'][3]"),
        ("$.bar[-4]", "No results for path: $['bar'][-4]"),
        ("$.text[0]", 'Filter: [0] can only be applied to arrays. Current context is: "hello"'),
        ("$.mixed[4].y", "No results for path: $['mixed'][4]['y']"),
        ("$$.None", "No results for path: $['None']"),
        ("$.none[*]", "No results for path: $['none']"),
        ("$.foo[0:1]", "it wants items of an array, and there is a number"),
        (
            "$.foo[?(@.x)]",
            "a filter applies to an array or an object, and there is a number",
        ),
        ("$.bar['x','y']", "it wants fields of an object, and there is an array"),
        (
            "$.foo.length()",
            '"$.foo.length()" cannot be worked out: length() wants an array, an object or a string, not a number',
        ),
        ("$.bar.sum()", '"$.bar.sum()" cannot be worked out: sum() wants an array with numbers in it'),
        ("$.empty.first()", '"$.empty.first()" cannot be worked out: first(): the array has 0 items'),
    ],
)
def test_why_a_path_finds_nothing(path: str, reason: str) -> None:
    with pytest.raises(Failed) as failed:
        read(path, DATA)
    assert failed.value.reason == reason


def test_what_lacks_on_the_way_is_told_from_what_lacks_at_the_end() -> None:
    with pytest.raises(Failed) as failed:
        read("$.car.none.more", DATA)
    assert failed.value.reason == "Missing property in path $['car']['none']"


@pytest.mark.parametrize(
    ("path", "reason", "position"),
    [
        ("", 'a path begins with "$", not with the end', 1),
        ("foo", 'a path begins with "$", not with "f"', 1),
        ("$.", "expected a name, found the end", 3),
        ("$..", "expected a name, found the end", 4),
        ("$1foo", 'expected ".", "[" or the end of the path, found "1"', 2),
        ("$.a b", "write a name that holds ' ' as ['name'], or a backslash before it", 4),
        ("$.a[", "expected a quoted name, a number, a slice, * or a ?(filter) in brackets, found the end", 5),
        ("$.a[x]", 'expected a quoted name, a number, a slice, * or a ?(filter) in brackets, found "x"', 5),
        ("$['a", "the quote that opens here is never closed", 3),
        ("$.a[1", 'expected "]" to close the bracket, found the end', 6),
        ("$.a[1:2:0]", "a slice is [start:end] or [start:end:step], its step not 0", 10),
        ("$.a[99999999999]", "the number is too large", 5),
        ("$.a\\", "the backslash at the end escapes nothing", 4),
        ("$.a[?(@.b =~ x)]", 'expected "/" before a regular expression, found "x"', 14),
        ("$.a[?(@.b like 'x')]", '"like" is not an operator of filters', 11),
        ("$.a[?(@.b == )]", 'expected a quoted text, a number, true, false, null or a path, found ")"', 14),
        ("$.a[?(@.b == 1]", 'expected ")" at the end of the filter, found "]"', 15),
        (
            "$.a.nope()",
            'no path function "nope" (there are append, avg, concat, first, index, keys, last, length, max, '
            "min, size, stddev, sum)",
            5,
        ),
        ("$.a.length().b", "a function ends a path: nothing but another function may follow it", 15),
        ("$" + ".a" * 101, "a path has 100 steps at most", 202),
        ("$[?(" + "(" * 30 + "@.a" + ")" * 31 + "]", "nested more than 20 levels deep", 25),
    ],
)
def test_what_is_wrong_with_a_path(path: str, reason: str, position: int) -> None:
    with pytest.raises(Malformed) as malformed:
        compile_path(path)
    assert (malformed.value.reason, malformed.value.position) == (reason, position)


@pytest.mark.parametrize(
    "path",
    [
        "$.store.book",
        "$.store\\.book",
        "$.\\stor\\e.boo\\k",
        "$.store.book.title",
        "$.foo.\\.bar",
        "$.&Ж中",
        "$.foo\\@bar.baz\\[\\[.\\?pretty",
        "$.ledgers.branch[0].pending.count",
        "$.ledgers[0][22][315].foo",
        "$['store']['book']",
        "$['store'][0]['book']",
    ],
)
def test_the_specification_s_reference_paths(path: str) -> None:
    assert compile_path(path).reference is not None


@pytest.mark.parametrize(
    "path", ["$.a[*]", "$..a", "$.a[0:1]", "$.a[0,1]", "$.a[?(@.b)]", "$['a','b']", "$.a.length()"]
)
def test_what_is_no_reference_path(path: str) -> None:
    assert compile_path(path).reference is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.a[?(@ in $.a)]", {"a": list(range(20_000))}),
        ("$.a[?($.b == $.c)]", {"a": [1] * 1_000, "b": [[1]] * 1_000, "c": [[1]] * 1_000}),
        ("$.a[?($.s == $.t)]", {"a": [1] * 30_000, "s": "x" * 100_000, "t": "xy"[:1] * 100_000}),
        ("$.a[?($..b)]", {"a": [{"b": 1}] * 1_000}),
        ("$..*", [[1] * 1_000] * 1_000),
    ],
)
def test_work_without_bound_is_stopped(path: str, value: JSON) -> None:
    with pytest.raises(Failed) as failed:
        read(path, value)
    assert failed.value.error == "States.Runtime"
    assert "looks at more than 250,000 values" in failed.value.reason


def test_a_whole_large_payload_can_be_searched() -> None:
    assert len(read("$..x", [{"x": number} for number in range(30_000)])) == 30_000  # type: ignore[arg-type]


def test_what_repeats_itself_cannot_grow_without_bound() -> None:
    value: JSON = "x" * 1_000
    for _ in range(800):
        value = [value, "y" * 100]
    with pytest.raises(Failed) as failed:
        read("$..*", value)
    assert failed.value.error == "States.DataLimitExceeded"
