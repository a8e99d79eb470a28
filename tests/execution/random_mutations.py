"""A strategy for definitions that were valid before something in them was deleted, renamed, retyped, swapped, broken or
put out of range."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

from hypothesis import strategies as st
from random_definitions import definitions
from random_expressions import Document

Place: TypeAlias = tuple[str | int, ...]

SPARE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**30, 1e300, 100_000_000, "", "$", "$.", "$.a[", "$$", "Nowhere", "S0", "{%%}", "{% %}",
    "{% ( %}", "{% $nobody %}", "{% $states.result %}", "States.ALL", "States.Array(", "States.Nothing()", [], [[]],
    [None], {}, {"a.$": 1}, {"a.$": "$.a"}, [{}], "x" * 300, "JSONata", "JSONPath", "Fail", "Map",
    "2026-13-01T00:00:00Z", "$.a[?(@.b =~ /x/)]", "\u0000", "é",
)  # fmt: skip
BREAKS = (
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    "$",
    ".",
    "%",
    "\\",
    ",",
    "?",
    "@",
    "*",
    "~>",
    ":=",
    "/",
    "0",
    " ",
    "é",
)


def places(value: Any, path: Place = ()) -> list[Place]:
    """Every place in a document but the document itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[Place] = [] if not path else [path]
    for key, item in inner:
        found += places(item, (*path, key))
    return found


def at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


@st.composite
def mutations(draw: st.DrawFn, *, most: int = 3) -> Document:
    """A valid definition in which something was deleted, renamed, retyped, swapped, broken or put out of range."""
    document: Document = draw(definitions(cycles=draw(st.booleans())))
    for _ in range(draw(st.integers(1, most))):
        known = places(document)
        if not known:
            break
        place = draw(st.sampled_from(known))
        _mutate(draw, document, place, known)
    return document


def _mutate(draw: st.DrawFn, document: Document, place: Place, known: list[Place]) -> None:
    holder, key = at(document, place[:-1]), place[-1]
    value = holder[key]
    how = draw(st.sampled_from(("delete", "rename", "retype", "swap", "break", "number")))
    if how == "delete":
        del holder[key]
    elif how == "rename":
        if isinstance(holder, dict):
            name = draw(
                st.sampled_from((f"{key}x", str(key)[:-1], str(key).swapcase(), f"{key}.$", "", "States", "End"))
            )
            holder[name] = holder.pop(key)
        else:
            holder.insert(0, copy.deepcopy(value))
    elif how == "swap":
        alike = [
            each for each in known if type(at(document, each)) is type(value) and not isinstance(value, dict | list)
        ]
        if alike:
            other = draw(st.sampled_from(alike))
            there = at(document, other[:-1])
            holder[key], there[other[-1]] = there[other[-1]], holder[key]
    elif how == "break" and isinstance(value, str):
        cut = draw(st.integers(0, len(value)))
        piece = draw(st.sampled_from(BREAKS))
        holder[key] = draw(
            st.sampled_from((value[:cut] + piece + value[cut:], value[:cut], value[:cut] + value[cut + 1 :]))
        )
    elif how == "number" and isinstance(value, int | float):
        holder[key] = draw(st.sampled_from((-value, value + 0.5, value * 10**12, -1, 0, 2**63, 1e308, str(value))))
    else:
        holder[key] = copy.deepcopy(draw(st.sampled_from(SPARE)))
