"""Writes orders.json: 240 orders of an outdoor shop, the same ones every time.

    python -m examples.orders.make_orders > examples/orders/orders.json

About one card in twelve will be declined, and about one order in forty asks for something that is no longer made:
what the shop refuses is written in the order itself (`tok_declined_…`, `…-DISC`), so that anybody can tell from the
file how each order must end.
"""

from __future__ import annotations

import json
import random
from typing import TypeAlias

JSON: TypeAlias = "str | int | bool | list[JSON] | dict[str, JSON]"

SEED = 1918
ORDERS = 240
DECLINED_SHARE = 0.08
DISCONTINUED_SHARE = 0.025

FIRST_NAMES = ("Amara", "Bruno", "Chiara", "Daan", "Elif", "Farid", "Greta", "Hana", "Ines", "Jonas", "Kaia", "Liam")
LAST_NAMES = ("Almeida", "Becker", "Cohen", "Dubois", "Eriksen", "Fontana", "Haddad", "Jansen", "Lindqvist", "Okafor")
CITIES = (
    ("Lisbon", "PT"),
    ("Hamburg", "DE"),
    ("Lyon", "FR"),
    ("Gothenburg", "SE"),
    ("Kraków", "PL"),
    ("Utrecht", "NL"),
    ("Bologna", "IT"),
    ("Tampere", "FI"),
)
PRODUCTS = (
    ("TENT-2P", "Two-person tent", 28900),
    ("TENT-4P", "Four-person tent", 54900),
    ("BAG-45L", "Backpack, 45 litres", 13900),
    ("BAG-65L", "Backpack, 65 litres", 18900),
    ("SLEEP-M5", "Sleeping bag, -5 °C", 17900),
    ("MAT-AIR", "Air mattress", 8900),
    ("STOVE-G", "Gas stove", 5900),
    ("POT-SET", "Set of pots", 4500),
    ("LAMP-HD", "Head torch", 3900),
    ("BOOT-MID", "Hiking boots", 15900),
    ("JACKET-R", "Rain jacket", 19900),
    ("SOCK-3", "Merino socks, three pairs", 3600),
    ("BOTTLE-1L", "Steel bottle, one litre", 2900),
    ("POLE-PAIR", "Trekking poles", 7900),
    ("KAYAK-INF", "Inflatable kayak", 89900),
)
DISCONTINUED = ("LANTERN-DISC", "Oil lantern (no longer made)", 4900)


def make_orders() -> list[dict[str, JSON]]:
    """The orders, with amounts in cents."""
    draw = random.Random(SEED)
    return [_order(draw, number) for number in range(1, ORDERS + 1)]


def _order(draw: random.Random, number: int) -> dict[str, JSON]:
    first, last = draw.choice(FIRST_NAMES), draw.choice(LAST_NAMES)
    city, country = draw.choice(CITIES)
    products = draw.sample(PRODUCTS, draw.choices((1, 2, 3, 4, 5), (30, 30, 20, 12, 8))[0])
    if draw.random() < DISCONTINUED_SHARE:
        products.insert(draw.randrange(len(products) + 1), DISCONTINUED)
    lines: list[JSON] = []
    total = 0
    for sku, title, price in products:
        quantity = draw.choices((1, 2, 3), (80, 15, 5))[0]
        total += quantity * price
        lines.append({"sku": sku, "title": title, "quantity": quantity, "unit_price_cents": price})
    digits = f"{draw.randrange(10_000):04}"
    declined = draw.random() < DECLINED_SHARE
    return {
        "id": f"order-{number:04}",
        "customer": {
            "name": f"{first} {last}",
            "email": f"{first}.{last}@example.org".lower(),
            "phone": f"+49 555 {draw.randrange(10**6):06}",
        },
        "address": {
            "street": f"{draw.choice(LAST_NAMES)}gade {draw.randrange(1, 180)}",
            "city": city,
            "country": country,
        },
        "lines": lines,
        "total_cents": total,
        "currency": "EUR",
        "card": {"token": f"tok_{'declined' if declined else 'ok'}_{digits}{number:04}", "last4": digits},
        "packing_seconds": draw.choice((1, 1, 2)),
    }


if __name__ == "__main__":
    print(json.dumps(make_orders(), indent=1, ensure_ascii=False))
