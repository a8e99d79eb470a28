"""The language, expression by expression, beside the library's own evaluator.

`expressions.txt` has them, one a line, about `$v`, the document below. Where the library departs from what
docs.jsonata.org says, or stumbles, the table says what is right and why.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonata_oracle import Outcome, ours, theirs

from enginekit.messages.json import JSON

DOCUMENT: JSON = {
    "Account": {
        "Name": "Firefly",
        "Order": [
            {
                "OrderID": "o103",
                "Product": [
                    {
                        "ProductID": 858383,
                        "Name": "Bowler Hat",
                        "Price": 34.45,
                        "Quantity": 2,
                        "Description": {"Colour": "Purple", "Width": 300, "Weight": 0.75},
                    },
                    {
                        "ProductID": 858236,
                        "Name": "Trilby hat",
                        "Price": 21.67,
                        "Quantity": 1,
                        "Description": {"Colour": "Orange", "Width": 300, "Weight": 0.6},
                    },
                ],
            },
            {
                "OrderID": "o104",
                "Product": [
                    {
                        "ProductID": 858383,
                        "Name": "Bowler Hat",
                        "Price": 34.45,
                        "Quantity": 4,
                        "Description": {"Colour": "Purple", "Width": 300, "Weight": 0.75},
                    },
                    {
                        "ProductID": 345664,
                        "Name": "Cloak",
                        "Price": 107.99,
                        "Quantity": 1,
                        "Description": {"Colour": "Black", "Width": 30, "Weight": 2},
                    },
                ],
            },
        ],
    },
    "a": {
        "b": [1, 2, 3],
        "c": None,
        "d": "text",
        "e": True,
        "f": {},
        "g": [],
        "h": [[1, 2], [3]],
        "i": [{"x": 1, "y": "p"}, {"x": 2}, {"y": "q"}],
        "j": {"k": {"l": 5}},
    },
    "nest": [{"n": [{"m": [1, 2]}, {"m": 3}]}, {"n": {"m": 4}}],
    "nums": [5, 3, 9, 1],
    "strs": ["b", "a", "c"],
    "n": 42,
    "f": 1.5,
    "s": "hello world",
    "empty": "",
    "t": True,
    "nul": None,
    "phones": [
        {"type": "home", "number": "1"},
        {"type": "office", "number": "2"},
        {"type": "office", "number": "3"},
    ],
}

# What the library does not do as documented: its own outcome is not compared there.
DIFFERENT: dict[str, Outcome] = {
    "1 - 2 * 3 / 4 % 3": Outcome(-0.5, None),  # the remainder is of numbers, not of whole numbers
    "7.5 % 2": Outcome(1.5, None),
    "1/0": Outcome("Infinity", None),  # as the reference service writes it; the library raises Python's errors
    "5 % 0": Outcome("NaN", None),
    "$power(-2,0.5)": Outcome(None, "D3061"),
    "$power(10,1000)": Outcome(None, "D3061"),
    '$number("abc")': Outcome(None, "D3030"),
    '$number("")': Outcome(None, "D3030"),
    '$number(" 5")': Outcome(None, "D3030"),  # white space belongs to no number
    '$number("1e1000")': Outcome(None, "D3030"),
    '$number("0b11")': Outcome(3, None),
    '$sort([1,"a"])': Outcome(None, "D3070"),
    '$toMillis("bad")': Outcome(None, "D3110"),
    '$replace("abc","","x")': Outcome(None, "Second argument of replace function cannot be an empty string"),
    "$string(123456789012345680000)": Outcome("123456789012346000000", None),  # as JavaScript prints it
    '$distinct([1,1,"1",true,1,null,null])': Outcome([1, "1", True, None], None),  # true is not 1
    r'$split("a1b2",/(\d)/)': Outcome(["a", "b", ""], None),  # what the groups find is not among the parts
    "$string(1234567890123456)": Outcome("1234567890123456", None),
    "$string([0.1+0.2])": Outcome("[0.3]", None),
    '$string(["é😀"])': Outcome('["é😀"]', None),
    '$replace("aaa",/a/,function($m){$m.match & $m.index})': Outcome("a0a1a2", None),
    "$v.a.b[-0.5]": Outcome(3, None),  # rounded down
    '$number("0o17")': Outcome(15, None),
    '$toMillis("2017-10")': Outcome(1506816000000, None),
    '/a(b)(c)?/("ab").groups': Outcome(["b", None], None),
    # A function is no JSON value: nothing could be passed on.
    "(function($x){$x})": Outcome(None, "returned an unsupported result type."),
    "$sum": Outcome(None, "returned an unsupported result type."),
    '/b/("abc")': Outcome(None, "returned an unsupported result type."),
}
EXPRESSIONS = (Path(__file__).parent / "expressions.txt").read_text().splitlines()


def _outcome(expression: str) -> Outcome:
    return DIFFERENT[expression] if expression in DIFFERENT else theirs(expression, v=DOCUMENT)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression(expression: str) -> None:
    assert ours(expression, v=DOCUMENT) == _outcome(expression)


def test_every_difference_is_an_expression_of_the_table() -> None:
    assert set(DIFFERENT) <= set(EXPRESSIONS)
