"""What must have happened: how each order has to end, and what the shop may have performed for it.

Pure: from the orders file, how the executions ended, and the shop's ledger, to a list of what is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from enum import Enum
from pathlib import Path

import msgspec

ORDERS_FILE = Path(__file__).with_name("orders.json")
DEFINITION_FILE = Path(__file__).with_name("order.asl.json")
LARGE_CENTS = 100_000


class Ending(str, Enum):
    FULFILLED = "fulfilled"
    CARD_DECLINED = "CardDeclined"
    OUT_OF_STOCK = "OutOfStock"


class Line(msgspec.Struct, frozen=True):
    sku: str


class Card(msgspec.Struct, frozen=True):
    token: str


class Order(msgspec.Struct, frozen=True):
    """What the verdict needs of an order; `raw` is the whole of it, as the workflow gets it."""

    id: str
    lines: list[Line]
    total_cents: int
    card: Card
    raw: msgspec.Raw = msgspec.Raw()

    @property
    def ending(self) -> Ending:
        if any(line.sku.endswith("-DISC") for line in self.lines):
            return Ending.OUT_OF_STOCK
        if self.card.token.startswith("tok_declined"):
            return Ending.CARD_DECLINED
        return Ending.FULFILLED


class Performed(msgspec.Struct, frozen=True):
    """An entry of the shop's ledger: one idempotency key, performed once and asked for `repeats` times more."""

    key: str
    kind: str
    order: str
    amount_cents: int
    sku: str
    repeats: int


class ShopReport(msgspec.Struct, frozen=True):
    """What `GET /ledger` answers."""

    performed: list[Performed]
    faults: dict[str, int]


def load_orders(count: int | None = None) -> list[Order]:
    """The first `count` orders of the file, or all of them."""
    raws = msgspec.json.decode(ORDERS_FILE.read_bytes(), type=list[msgspec.Raw])
    orders = [msgspec.structs.replace(msgspec.json.decode(raw, type=Order), raw=raw.copy()) for raw in raws]
    return orders[:count]


def load_definition() -> msgspec.Raw:
    """The workflow's document, as `RegisterWorkflow` takes it."""
    return msgspec.Raw(DEFINITION_FILE.read_bytes())


def order_input(order: Order, shop_url: str) -> msgspec.Raw:
    """An execution's input."""
    return msgspec.Raw(b'{"shop":' + json.dumps(shop_url).encode() + b',"order":' + bytes(order.raw) + b"}")


def faults_found(orders: list[Order], endings: dict[str, str], shop: ShopReport) -> list[str]:
    """Everything that is not as it must be, as sentences; empty when all is well.

    `endings` has, by order, `fulfilled` or the error its execution failed with.
    """
    done: dict[str, list[Performed]] = {order.id: [] for order in orders}
    found: list[str] = []
    for entry in shop.performed:
        if entry.order in done:
            done[entry.order].append(entry)
        else:
            found.append(f"{entry.order}: {entry.kind} was performed, and nobody ordered it")
    for order in orders:
        ended = endings.get(order.id, "nothing")
        if ended != order.ending.value:
            found.append(f"{order.id}: ended as {ended}, not as {order.ending.value}")
        found.extend(f"{order.id}: {fault}" for fault in _order_faults(order, done[order.id]))
    return found


def _order_faults(order: Order, performed: list[Performed]) -> list[str]:
    found: list[str] = []
    counts = Counter(entry.kind for entry in performed)
    fulfilled = order.ending is Ending.FULFILLED
    expected = {
        "charge": int(fulfilled),
        "ship": int(fulfilled),
        "email": int(fulfilled),
        "sms": int(fulfilled),
        "release": int(not fulfilled),
        "screen": int(order.total_cents >= LARGE_CENTS and order.ending is not Ending.OUT_OF_STOCK),
    }
    for kind, count in expected.items():
        if counts[kind] != count:
            found.append(f"{kind} was performed {counts[kind]} times, not {count}")
    reserved = [entry.sku for entry in performed if entry.kind == "reserve"]
    if len(reserved) != len(set(reserved)):
        found.append(f"goods were reserved twice: {sorted(reserved)}")
    if order.ending is not Ending.OUT_OF_STOCK and set(reserved) != {line.sku for line in order.lines}:
        found.append(f"reserved were {sorted(reserved)}, not what was ordered")
    charged = sum(entry.amount_cents for entry in performed if entry.kind == "charge")
    if fulfilled and charged != order.total_cents:
        found.append(f"charged were {charged} cents, not {order.total_cents}")
    return found
