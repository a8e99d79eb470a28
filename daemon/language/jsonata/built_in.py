"""The functions of the language, by name: what an expression finds behind `$sum` where nothing else is bound to it.

Each is a plain function of the run and the checked arguments; the signature says which those are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from daemon.language.jsonata import (
    array_functions,
    extra_functions,
    number_functions,
    object_functions,
    text_functions,
    time_functions,
)
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.signatures import read_signature
from daemon.language.jsonata.values import UNDEFINED, Function, Value


class Entry(NamedTuple):
    """A function's signature, its work, and how many arguments it takes from a function that calls it for each item."""

    signature: str
    work: Callable[..., Value]
    arity: int


def _entries() -> dict[str, Entry]:
    made: dict[str, Entry] = {}
    for module in (
        text_functions,
        number_functions,
        array_functions,
        object_functions,
        time_functions,
        extra_functions,
    ):
        table: dict[str, tuple[str, Callable[..., Value], int]] = module.TABLE
        made.update({name: Entry(*entry) for name, entry in table.items()})
    return made


_LENIENT: Final = frozenset(
    {
        "append",
        "hash",
        "lookup",
        "partition",
        "power",
        "range",
        "substring",
        "substringAfter",
        "substringBefore",
        "zip",
    }
)
"""What makes something even of a later argument that has no value."""


def _maker(name: str, entry: Entry) -> Callable[[Run], Function]:
    signature = read_signature(entry.signature, name)
    work = entry.work
    strict = name not in _LENIENT and signature.several

    def make(run: Run) -> Function:
        def call(arguments: list[Value], context: Value) -> Value:
            run.spend(1)
            checked = signature.checked(arguments, context)
            if strict and checked and checked[0] is not UNDEFINED:
                signature.demand(checked)
            return work(run, *checked)

        return Function(name, entry.arity, call)

    return make


BUILT_IN: Final[Mapping[str, Callable[[Run], Function]]] = {
    name: _maker(name, entry) for name, entry in _entries().items()
}
