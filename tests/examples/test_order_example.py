"""The example's workflow, its orders, and what it calls as promised."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from daemon.language import Map, Parallel, StateKind, Task, parse_definition
from daemon.nodes.http import HttpError
from daemon.nodes.registry import NodeTypes
from daemon.settings import Settings
from enginekit.messages import events as ev
from examples.orders.history import history_table, in_words
from examples.orders.make_orders import make_orders
from examples.orders.verdict import (
    DEFINITION_FILE,
    ORDERS_FILE,
    Ending,
    Order,
    Performed,
    ShopReport,
    faults_found,
    load_orders,
    order_input,
)

# --- the workflow ------------------------------------------------------------------------------------------------


def test_the_definition_is_valid_and_warns_of_nothing() -> None:
    definition = parse_definition(DEFINITION_FILE.read_bytes(), NodeTypes(Settings(), []).names())
    assert definition.warnings == ()


def test_it_shows_what_the_language_can() -> None:
    definition = parse_definition(DEFINITION_FILE.read_bytes())
    kinds = {state.kind for state in definition.states.values()}
    assert kinds >= {
        StateKind.MAP,
        StateKind.CHOICE,
        StateKind.TASK,
        StateKind.WAIT,
        StateKind.PARALLEL,
        StateKind.PASS,
        StateKind.FAIL,
    }


def test_every_task_rides_out_the_shops_faults() -> None:
    definition = parse_definition(DEFINITION_FILE.read_bytes())
    tasks: list[Task] = []
    machines = [dict(definition.states)]
    while machines:
        for state in machines.pop().values():
            if isinstance(state, Task):
                tasks.append(state)
            elif isinstance(state, Map):
                machines.append(dict(state.processor.states))
            elif isinstance(state, Parallel):
                machines.extend(dict(branch.states) for branch in state.branches)
    assert len(tasks) == 7
    for task in tasks:
        (retrier,) = task.retry
        assert {"States.Http.StatusCode.503", HttpError.CONNECTION_LOST.value} <= set(retrier.errors)


# --- the orders --------------------------------------------------------------------------------------------------


def test_the_file_is_what_its_program_writes() -> None:
    assert json.loads(ORDERS_FILE.read_bytes()) == make_orders()


def test_there_are_enough_of_every_kind() -> None:
    orders = load_orders(200)
    assert len(orders) == 200
    endings = Counter(order.ending for order in orders)
    assert 0.06 <= endings[Ending.CARD_DECLINED] / 200 <= 0.1
    assert endings[Ending.OUT_OF_STOCK] >= 3
    assert sum(order.total_cents >= 100_000 for order in orders) >= 10
    assert len({order.id for order in orders}) == 200


def test_an_input_holds_the_whole_order() -> None:
    (order,) = load_orders(1)
    given = msgspec.json.decode(order_input(order, "http://127.0.0.1:1"))
    assert given == {"shop": "http://127.0.0.1:1", "order": json.loads(ORDERS_FILE.read_bytes())[0]}


# --- the verdict -------------------------------------------------------------------------------------------------


def performed_for(order: Order) -> list[Performed]:
    def entry(kind: str, amount: int = 0, sku: str = "") -> Performed:
        return Performed(f"{order.id}/{kind}/{sku}", kind, order.id, amount, sku, 0)

    entries = [entry("reserve", sku=line.sku) for line in order.lines if not line.sku.endswith("-DISC")]
    if order.total_cents >= 100_000 and order.ending is not Ending.OUT_OF_STOCK:
        entries.append(entry("screen"))
    if order.ending is Ending.FULFILLED:
        return [*entries, entry("charge", order.total_cents), entry("ship"), entry("email"), entry("sms")]
    return [*entries, entry("release")]


ORDERS = load_orders()
FULFILLED = next(order for order in ORDERS if order.ending is Ending.FULFILLED and order.total_cents < 100_000)
DECLINED = next(order for order in ORDERS if order.ending is Ending.CARD_DECLINED)


def report(*performed: Performed) -> ShopReport:
    return ShopReport(performed=list(performed), faults={})


def test_all_as_it_should_be() -> None:
    performed = [entry for order in ORDERS for entry in performed_for(order)]
    assert faults_found(ORDERS, {order.id: order.ending.value for order in ORDERS}, report(*performed)) == []


def test_an_order_that_ended_in_another_way() -> None:
    shop = report(*performed_for(FULFILLED))
    assert faults_found([FULFILLED], {FULFILLED.id: "States.Timeout"}, shop) == [
        f"{FULFILLED.id}: ended as States.Timeout, not as fulfilled"
    ]
    assert faults_found([FULFILLED], {}, shop) == [f"{FULFILLED.id}: ended as nothing, not as fulfilled"]


@pytest.mark.parametrize("kind", ["charge", "ship", "email", "sms", "reserve"])
def test_something_performed_twice_or_not_at_all(kind: str) -> None:
    performed = performed_for(FULFILLED)
    one = next(entry for entry in performed if entry.kind == kind)
    again = msgspec.structs.replace(one, key="another key")
    endings = {FULFILLED.id: "fulfilled"}
    assert faults_found([FULFILLED], endings, report(*performed, again))
    assert faults_found([FULFILLED], endings, report(*[entry for entry in performed if entry is not one]))


def test_a_wrong_amount() -> None:
    performed = [
        msgspec.structs.replace(entry, amount_cents=entry.amount_cents // 2) for entry in performed_for(FULFILLED)
    ]
    (fault,) = faults_found([FULFILLED], {FULFILLED.id: "fulfilled"}, report(*performed))
    assert fault.startswith(f"{FULFILLED.id}: charged were ")


def test_a_declined_order_that_was_charged_or_kept_its_goods() -> None:
    endings = {DECLINED.id: "CardDeclined"}
    performed = performed_for(DECLINED)
    charge = Performed("k", "charge", DECLINED.id, DECLINED.total_cents, "", 0)
    assert faults_found([DECLINED], endings, report(*performed, charge))
    assert faults_found([DECLINED], endings, report(*[entry for entry in performed if entry.kind != "release"]))


def test_something_nobody_ordered() -> None:
    stray = Performed("k", "ship", "order-9999", 0, "", 0)
    (fault,) = faults_found([], {}, report(stray))
    assert fault == "order-9999: ship was performed, and nobody ordered it"


# --- the history, for people -------------------------------------------------------------------------------------


def test_history_in_words() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    where = {"node": "Charge", "path": "Each[0].Charge", "entry": 2}
    history: list[ev.AnyEvent] = [
        ev.NodeEntered(id=2, time=at, kind="Task", **where),  # type: ignore[arg-type]
        ev.TaskFailed(id=3, time=at + timedelta(seconds=1.5), task=2, error="[bold]E", cause="c", **where),  # type: ignore[arg-type]
    ]
    assert in_words(history[0]) == "node entered"
    assert in_words(history[1]) == r"[yellow]attempt failed:[/yellow] \[bold]E"
    table = history_table("t", history)
    assert [list(column.cells) for column in table.columns][:3] == [
        ["2", "3"],
        ["0.000 s", "1.500 s"],
        ["Each[0].Charge", "Each[0].Charge"],
    ]
