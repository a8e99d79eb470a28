"""The shop that the order workflow calls: stock, payments, shipping, messages. It fails on purpose.

    python -m examples.orders.shop --port 0 --ledger shop.jsonl

prints `{"url": "http://127.0.0.1:PORT"}` once it listens. What it answers:

| call            | body                            | performs                     | refuses                          |
| --------------- | ------------------------------- | ---------------------------- | -------------------------------- |
| `POST /reserve` | `order`, `sku`, `quantity`      | sets goods aside             | 409: no longer made, or released |
| `POST /release` | `order`                         | gives back what is set aside |                                  |
| `POST /screen`  | `order`, `amount_cents`         | looks twice at a large order |                                  |
| `POST /charge`  | `order`, `amount_cents`, `card` | takes the money              | 402: the card is declined        |
| `POST /ship`    | `order`, `city`                 | hands it to the carrier      |                                  |
| `POST /email`   | `order`, `to`                   | sends the confirmation       |                                  |
| `POST /sms`     | `order`, `to`                   | sends the confirmation       |                                  |
| `GET /ledger`   |                                 | tells what was performed     |                                  |

Every POST needs an `Idempotency-Key`; a key that was performed gets its first answer again. Of the others, some get a
503, some a slow answer, some no answer at all, and some are performed and hung up on before the answer. Which, is
drawn from the seed, the order, the call and how often it was made: the same orders meet the same faults. From the
sixth time on, a call meets none.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from enginekit.messages.json import JSON
from examples.orders.ledger import Entry, Ledger, LedgerDamaged
from examples.orders.web import Answer, HangUp, Request, serve

FAULTLESS_FROM = 5
LATENCY_SECONDS = (0.005, 0.04)
SLOW_SECONDS = (0.4, 1.2)

V = TypeVar("V", str, int)


class Fault(str, Enum):
    NONE = "none"
    UNAVAILABLE = "unavailable"
    SLOW = "slow"
    CUT = "cut"
    CUT_AFTERWARDS = "cut_afterwards"


SHARES = {Fault.UNAVAILABLE: 10, Fault.SLOW: 5, Fault.CUT: 3, Fault.CUT_AFTERWARDS: 3}
"""Percent of the calls; the rest meets none."""


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(status=status, body={"error": message})


class Shop:
    """The shop's behaviour. `slow` multiplies every delay; `faults` off: nothing fails but what must."""

    def __init__(self, ledger: Ledger, *, seed: int = 1, slow: float = 1.0, faults: bool = True) -> None:
        self._ledger = ledger
        self._seed = seed
        self._slow = slow
        self._faults = faults
        self._asked: Counter[str] = Counter()
        self._met: Counter[str] = Counter()

    async def handle(self, request: Request) -> Answer:
        """Raises HangUp where the fault drawn is to give no answer."""
        try:
            if (request.method, request.path) == ("GET", "/ledger"):
                return Answer(status=200, body=self.report())
            if request.method != "POST" or request.path.lstrip("/") not in PERFORM:
                raise Refusal(404, f"there is no {request.method} {request.path} here")
            return await self._serve(request)
        except Refusal as refusal:
            self._met[f"refused {refusal.answer.status}"] += 1
            return refusal.answer

    def report(self) -> dict[str, JSON]:
        """What `GET /ledger` answers: `performed`, one entry a key with its `repeats`; `faults`, how many were met."""
        performed: list[JSON] = [
            {
                "key": entry.key,
                "kind": entry.kind,
                "order": entry.order,
                "amount_cents": entry.amount_cents,
                "sku": entry.sku,
                "repeats": self._ledger.repeats.get(entry.key, 0),
            }
            for entry in self._ledger.entries.values()
        ]
        return {"performed": performed, "faults": dict(self._met)}

    async def _serve(self, request: Request) -> Answer:
        key = request.headers.get("idempotency-key", "")
        if not key:
            raise Refusal(400, "Idempotency-Key is missing")
        body = request.body
        if not isinstance(body, dict):
            raise Refusal(400, "the body must be a JSON object")
        kind = request.path.lstrip("/")
        fault, delay = self._draw(f"{kind}/{_field(body, 'order', str)}/{body.get('sku', '')}")
        if fault is not Fault.NONE:
            self._met[fault.value] += 1
        await trio.sleep(delay * self._slow)
        if fault is Fault.UNAVAILABLE:
            return Answer(status=503, body={"error": "too busy, try again"}, headers={"Retry-After": "1"})
        if fault is Fault.CUT:
            raise HangUp
        known = self._ledger.entries.get(key)
        entry = known if known is not None else PERFORM[kind](self._ledger, key, body)
        done = await self._ledger.perform(entry)
        if fault is Fault.CUT_AFTERWARDS:
            raise HangUp
        return Answer(status=200, body=dict(done.answer))

    def _draw(self, call: str) -> tuple[Fault, float]:
        """The fault of this call and its delay in seconds."""
        self._asked[call] += 1
        draw = random.Random(f"{self._seed}/{call}/{self._asked[call]}")
        delay = draw.uniform(*LATENCY_SECONDS)
        if not self._faults or self._asked[call] > FAULTLESS_FROM:
            return Fault.NONE, delay
        kinds = [Fault.NONE, *SHARES]
        fault = draw.choices(kinds, [100 - sum(SHARES.values()), *SHARES.values()])[0]
        return fault, draw.uniform(*SLOW_SECONDS) if fault is Fault.SLOW else delay


# --- what each call does -----------------------------------------------------------------------------------------


def _field(body: dict[str, JSON], name: str, kind: type[V]) -> V:
    value = body.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Refusal(400, f"{name} must be a {'text' if kind is str else 'whole number'}")
    return value


def _number(prefix: str, order: str, rest: str = "") -> str:
    return f"{prefix}-{order.removeprefix('order-')}{rest}"


def _reserve(ledger: Ledger, key: str, body: dict[str, JSON]) -> Entry:
    order, sku, quantity = _field(body, "order", str), _field(body, "sku", str), _field(body, "quantity", int)
    if sku.endswith("-DISC"):
        raise Refusal(409, f"{sku} is no longer made")
    if ledger.of_order(order, "release"):
        raise Refusal(409, f"{order} was released")
    answer: dict[str, str | int] = {"reservation": _number("R", order, f"-{sku}"), "quantity": quantity}
    return Entry(key=key, kind="reserve", order=order, sku=sku, answer=answer)


def _release(ledger: Ledger, key: str, body: dict[str, JSON]) -> Entry:
    order = _field(body, "order", str)
    released = len(ledger.of_order(order, "reserve"))
    return Entry(key=key, kind="release", order=order, answer={"released": released})


def _screen(ledger: Ledger, key: str, body: dict[str, JSON]) -> Entry:
    order, amount = _field(body, "order", str), _field(body, "amount_cents", int)
    return Entry(key=key, kind="screen", order=order, answer={"verdict": "fine", "score": amount // 10_000})


def _charge(ledger: Ledger, key: str, body: dict[str, JSON]) -> Entry:
    order, amount, card = _field(body, "order", str), _field(body, "amount_cents", int), _field(body, "card", str)
    if card.startswith("tok_declined"):
        raise Refusal(402, "the card is declined: insufficient funds")
    answer: dict[str, str | int] = {"charge": _number("C", order), "amount_cents": amount}
    return Entry(key=key, kind="charge", order=order, amount_cents=amount, answer=answer)


def _ship(ledger: Ledger, key: str, body: dict[str, JSON]) -> Entry:
    order, city = _field(body, "order", str), _field(body, "city", str)
    return Entry(key=key, kind="ship", order=order, answer={"tracking": _number("T", order), "to": city})


def _message(kind: str, ledger: Ledger, key: str, body: dict[str, JSON]) -> Entry:
    order, to = _field(body, "order", str), _field(body, "to", str)
    return Entry(key=key, kind=kind, order=order, answer={"sent": _number(kind[0].upper(), order), "to": to})


PERFORM: dict[str, Callable[[Ledger, str, dict[str, JSON]], Entry]] = {
    "reserve": _reserve,
    "release": _release,
    "screen": _screen,
    "charge": _charge,
    "ship": _ship,
    "email": partial(_message, "email"),
    "sms": partial(_message, "sms"),
}


# --- the program -------------------------------------------------------------------------------------------------


async def run(arguments: argparse.Namespace) -> None:
    ledger = Ledger(arguments.ledger)
    shop = Shop(ledger, seed=arguments.seed, slow=arguments.slow, faults=not arguments.no_faults)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            port = await nursery.start(serve, shop.handle, arguments.host, arguments.port)
            print(json.dumps({"url": f"http://{arguments.host}:{port}"}), flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.orders.shop", description="A shop that fails on purpose.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one (default)")
    parser.add_argument("--ledger", type=Path, required=True, help="the file that keeps what was performed")
    parser.add_argument("--seed", type=int, default=1, help="which calls meet which faults")
    parser.add_argument("--slow", type=float, default=1.0, help="multiplies every delay")
    parser.add_argument("--no-faults", action="store_true", help="refuse only what must be refused")
    try:
        trio.run(run, parser.parse_args())
    except* (OSError, LedgerDamaged) as group:
        for error in group.exceptions:
            print(f"shop: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
