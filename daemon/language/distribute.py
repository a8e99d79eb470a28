"""A distributed Map's plan, worked out once when it begins, and the inputs of the runs that its items are given to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, cast

import msgspec

from daemon.language.definition import ItemFormat, Map, Quantity, Reader, Transformation
from daemon.language.errors import RUNTIME, StateError
from daemon.language.evaluate import item_scope, map_concurrency, map_items
from daemon.language.evaluation import Evaluation, Scope
from daemon.language.values import kind
from enginekit.messages.json import JSON, decode, encode, size

STATE_DATA: Final = "STATE_DATA"
"""`$$.Map.Item.Source` of items that come from the state's input."""


class ReadPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which file or folder to read, and how. `place` has `Bucket`, `Key` and `Prefix`, or `Path`."""

    format: ItemFormat
    place: dict[str, str]
    max_items: int | None = None
    pointer: str = ""
    delimiter: str = ","
    headers: tuple[str, ...] | None = None


class WritePlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where to write the results, as JSON arrays or as `lines`."""

    place: dict[str, str]
    lines: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a distributed Map goes by, in numbers: fixed in the event that begins it."""

    concurrency: int = 0
    transformation: Transformation = Transformation.COMPACT
    lines: bool = False
    tolerated_count: int | None = None
    tolerated_percentage: float | None = None
    batch_items: int | None = None
    batch_bytes: int | None = None
    batched: bool = False
    batch_input: str | None = None
    """As JSON: a plan is stored in several encodings."""
    read: ReadPlan | None = None
    write: WritePlan | None = None

    def exceeded(self, failed: int, total: int | None) -> bool:
        """Whether so many failed items of so many (where that is known) are too many. Without a threshold one is."""
        if self.tolerated_count is None and self.tolerated_percentage is None:
            return failed > 0
        if self.tolerated_count is not None and failed > self.tolerated_count:
            return True
        percentage = self.tolerated_percentage
        return percentage is not None and bool(total) and failed * 100 > percentage * cast(int, total)


class Items(NamedTuple):
    """A Map's items out of its input. `keyed`: they were an object's, and each is now its Key and its Value."""

    values: list[JSON]
    keyed: bool


class Unit(NamedTuple):
    """What one run is given: its input, and how many items that is."""

    input: JSON
    items: int


def plan_of(state: Map, raw: JSON, scope: Scope) -> Plan:
    """Raises StateError."""
    distribution = state.distribution
    assert distribution is not None
    evaluation = Evaluation(scope)
    value = raw if state.input_path is None else state.input_path(raw, evaluation)

    def number(quantity: Quantity) -> int | None:
        return cast("int | None", quantity(value, evaluation) if callable(quantity) else quantity)

    reader, batcher, writer = distribution.reader, distribution.batcher, distribution.writer
    given = None
    if batcher is not None and batcher.input is not None:
        given = bytes(encode(batcher.input(value, evaluation))).decode()
    return Plan(
        concurrency=map_concurrency(state, raw, scope),
        transformation=writer.transformation,
        lines=writer.lines,
        tolerated_count=number(distribution.tolerated_count),
        tolerated_percentage=cast("float | None", number(distribution.tolerated_percentage)),
        batched=batcher is not None,
        batch_items=None if batcher is None else number(batcher.max_items),
        batch_bytes=None if batcher is None else number(batcher.max_bytes),
        batch_input=given,
        read=None if reader is None else _read_plan(state, reader, value, evaluation, number),
        write=None
        if writer.arguments is None
        else WritePlan(place=_place("ResultWriter", writer.arguments(value, evaluation)), lines=writer.lines),
    )


def _read_plan(
    state: Map, reader: Reader, value: JSON, evaluation: Evaluation, number: Callable[[Quantity], int | None]
) -> ReadPlan:
    return ReadPlan(
        format=reader.format,
        place=_place("ItemReader", reader.arguments(value, evaluation)),
        max_items=number(reader.max_items),
        pointer=reader.pointer,
        delimiter=reader.delimiter,
        headers=reader.headers,
    )


def _place(where: str, made: JSON) -> dict[str, str]:
    if not isinstance(made, dict):
        raise StateError(RUNTIME, f"{where}: its arguments must be an object, not {kind(made)}.")
    for name, value in made.items():
        if not isinstance(value, str):
            raise StateError(RUNTIME, f"{where}: {name} must be a string, not {kind(value)}.")
    return cast("dict[str, str]", made)


def items_of(state: Map, raw: JSON, scope: Scope) -> Items:
    """The items in the state's input, an array or an object. Raises StateError."""
    found = map_items(state, raw, scope)
    if isinstance(found, dict):
        return Items([{"Key": key, "Value": value} for key, value in found.items()], True)
    return Items(found, False)


def item_input(state: Map, raw: JSON, index: int, item: JSON, keyed: bool, source: str, scope: Scope) -> JSON:
    """One item's input: the item, or what ItemSelector makes of it. Raises StateError."""
    if state.parameters is None:
        return item
    about: dict[str, JSON] = {"Index": index, "Value": item, "Source": source}
    if keyed:
        assert isinstance(item, dict)
        about |= {"Key": item["Key"], "Value": item["Value"]}
    evaluation = Evaluation(item_scope(scope, about))
    return state.parameters(raw if state.input_path is None else state.input_path(raw, evaluation), evaluation)


def units(plan: Plan, inputs: list[JSON], most_bytes: int) -> list[Unit]:
    """The items' inputs as runs are given them: each by itself, or put together by ItemBatcher.

    A batch has `most_bytes` at most, whatever the plan says; an item that is larger stands alone.
    """
    if not plan.batched:
        return [Unit(each, 1) for each in inputs]
    base: dict[str, JSON] = {}
    if plan.batch_input is not None:
        base["BatchInput"] = decode(plan.batch_input.encode())
    limit = min(plan.batch_bytes or most_bytes, most_bytes) - size(encode({**base, "Items": []}))
    most = plan.batch_items or len(inputs)
    made: list[Unit] = []
    held: list[JSON] = []
    taken = 0
    for each in inputs:
        length = len(encode(each)) + 1
        if held and (len(held) >= most or taken + length > limit):
            made.append(Unit({**base, "Items": held}, len(held)))
            held, taken = [], 0
        held.append(each)
        taken += length
    if held:
        made.append(Unit({**base, "Items": held}, len(held)))
    return made
