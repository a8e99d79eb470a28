"""What is read the short way (plain paths, objects with written names) is what the long way finds.

Brackets around a step, or a name that is put together, keep an expression from the short way and mean the same.
"""

from __future__ import annotations

import pytest
from jsonata_oracle import ours

from enginekit.messages.json import JSON

INNER: list[JSON] = [
    1,
    1.0,
    "t",
    None,
    [],
    {},
    [1, 2],
    {"b": 1},
    {"b": None},
    {"b": []},
    {"b": [None]},
    {"b": [1, 2]},
    {"b": [[1, 2], [3]]},
    {"b": {"c": []}},
    {"b": [{"c": 1}, {"c": [2, 3]}]},
    {"b": [{"c": [[9]]}]},
    [{"b": {"c": 5}}, {"b": [{"c": 6}]}],
    [{"b": 1}, {"b": 2}, {"b": 3}],
    [[{"b": 1}]],
]
VALUES: list[JSON] = [
    *INNER,
    *({"a": each} for each in INNER),
    *([{"a": each}] for each in INNER),
    *([{"a": each}, {"a": {"b": 7}}] for each in INNER),
]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("$v.a", "$v.(a)"),
        ("$v.a.b", "$v.(a).(b)"),
        ("$v.a[0]", "$v.(a)[0]"),
        ("$v.a[0].b", "$v.(a)[0].(b)"),
        ("$v.a[1].b", "$v.(a)[1].(b)"),
        ("$v.a[-1].b", "$v.(a)[-1].(b)"),
        ("$v.a[1.7].b", "$v.(a)[1.7].(b)"),
        ("$v.a.b[0].c", "$v.(a).(b)[0].(c)"),
        ("$v.a.b[-2].c[0]", "$v.(a).(b)[-2].(c)[0]"),
        ("$v.(a.b[0].c)", "$v.((a).(b)[0].(c))"),
        ("{'x': $v.a, 'y': $v.a.b}", "{'' & 'x': $v.a, '' & 'y': $v.a.b}"),
        ("$v.{'x': a, 'y': b[0]}", "$v.{'' & 'x': a, '' & 'y': b[0]}"),
        ("$v.{'x': $}", "$v.{'' & 'x': $}"),
        ("$v.a.{'x': b, 'y': $.b.c}", "$v.a.{'' & 'x': b, '' & 'y': $.b.c}"),
    ],
)
def test_the_short_way_finds_what_the_long_way_does(short: str, long: str) -> None:
    for value in VALUES:
        assert ours(short, v=value) == ours(long, v=value), value
    assert any(ours(short, v=value).found is not None for value in VALUES)


def test_a_name_that_is_written_twice_is_refused() -> None:
    assert ours("{'x': 1, 'x': 2}").error == "D1009"
