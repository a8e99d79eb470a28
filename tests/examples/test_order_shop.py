"""The example's shop: performs once a key, remembers over a restart, and fails as it promises."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.nodes.http import HttpNode
from daemon.settings import HttpSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall, NodeFailure
from examples.orders.ledger import Entry, Ledger, LedgerDamaged
from examples.orders.shop import FAULTLESS_FROM, Shop
from examples.orders.stage import StageError, open_shop, running, shop_report
from examples.orders.web import Answer, HangUp, Request, serve


@asynccontextmanager
async def open_ledger(path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        yield ledger
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def calm_shop(path: Path) -> AsyncIterator[Shop]:
    async with open_ledger(path) as ledger:
        yield Shop(ledger, slow=0.0, faults=False)


def post(kind: str, key: str = "k", /, **body: JSON) -> Request:
    return Request(method="POST", path=f"/{kind}", headers={"idempotency-key": key}, body={"order": "order-1", **body})


CHARGE: dict[str, JSON] = {"amount_cents": 500, "card": "tok_ok_1"}


def kinds(shop: Shop) -> Counter[str]:
    performed = shop.report()["performed"]
    assert isinstance(performed, list)
    return Counter(str(entry["kind"]) for entry in performed if isinstance(entry, dict))


# --- what it performs --------------------------------------------------------------------------------------------


async def test_a_key_is_performed_once_and_answered_the_same(tmp_path: Path) -> None:
    async with calm_shop(tmp_path / "l") as shop:
        first = await shop.handle(post("charge", "k1", **CHARGE))
        again = await shop.handle(post("charge", "k1", **CHARGE))
        other = await shop.handle(post("charge", "k2", **CHARGE))
        report = msgspec.convert(shop.report(), dict[str, object])
    assert first == again == Answer(status=200, body={"charge": "C-1", "amount_cents": 500})
    assert other.status == 200
    assert report["performed"] == [
        {"key": "k1", "kind": "charge", "order": "order-1", "amount_cents": 500, "sku": "", "repeats": 1},
        {"key": "k2", "kind": "charge", "order": "order-1", "amount_cents": 500, "sku": "", "repeats": 0},
    ]


async def test_the_same_key_at_the_same_time_is_performed_once(tmp_path: Path) -> None:
    async with calm_shop(tmp_path / "l") as shop:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(shop.handle, post("charge", **CHARGE))
        assert kinds(shop) == {"charge": 1}


async def test_a_declined_card_and_a_product_of_the_past_are_refused(tmp_path: Path) -> None:
    async with calm_shop(tmp_path / "l") as shop:
        declined = await shop.handle(post("charge", amount_cents=1, card="tok_declined_1"))
        gone = await shop.handle(post("reserve", sku="LANTERN-DISC", quantity=1))
        assert (declined.status, gone.status) == (402, 409)
        assert kinds(shop) == {}


async def test_nothing_is_reserved_once_the_order_is_released(tmp_path: Path) -> None:
    """An attempt that is still on its way when the workflow has given up must not keep goods."""
    async with calm_shop(tmp_path / "l") as shop:
        assert (await shop.handle(post("reserve", "a", sku="TENT", quantity=1))).status == 200
        assert (await shop.handle(post("release", "b"))).body == {"released": 1}
        assert (await shop.handle(post("reserve", "c", sku="MAT", quantity=1))).status == 409
        assert (await shop.handle(post("reserve", "a", sku="TENT", quantity=1))).status == 200
        assert kinds(shop) == {"reserve": 1, "release": 1}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("charge", "", **CHARGE), 400),
        (post("charge"), 400),
        (post("charge", amount_cents=True, card="tok"), 400),
        (Request(method="POST", path="/charge", headers={"idempotency-key": "k"}, body=[]), 400),
        (post("teleport"), 404),
        (Request(method="GET", path="/charge", headers={}, body=None), 404),
    ],
)
async def test_bad_requests_perform_nothing(tmp_path: Path, request_: Request, status: int) -> None:
    async with calm_shop(tmp_path / "l") as shop:
        assert (await shop.handle(request_)).status == status
        assert kinds(shop) == {}


# --- its faults --------------------------------------------------------------------------------------------------


async def met(path: Path, seed: int) -> list[str]:
    """What each of many calls met, each repeated until it is performed."""
    seen: list[str] = []
    async with open_ledger(path) as ledger:
        shop = Shop(ledger, seed=seed, slow=0.0)
        for number in range(200):
            for _ in range(FAULTLESS_FROM + 1):
                try:
                    answer = await shop.handle(
                        post("charge", f"k{number}", order=f"order-{number}", amount_cents=1, card="tok_ok")
                    )
                except HangUp:
                    seen.append("cut")
                else:
                    seen.append(str(answer.status))
                    if answer.status == 200:
                        break
        assert kinds(shop) == {"charge": 200}
    return seen


async def test_faults_come_from_the_seed_and_end(tmp_path: Path) -> None:
    seen = await met(tmp_path / "a", seed=1)
    assert set(seen) == {"200", "503", "cut"}
    assert seen.count("200") == 200
    assert await met(tmp_path / "b", seed=1) == seen
    assert await met(tmp_path / "c", seed=2) != seen


# --- the ledger on disk ------------------------------------------------------------------------------------------


def entry(key: str) -> Entry:
    return Entry(key=key, kind="charge", order="order-1", answer={"charge": "C-1"}, amount_cents=5)


async def test_what_was_acknowledged_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append((tmp_path / "l").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    async with open_ledger(tmp_path / "l") as ledger:
        await ledger.perform(entry("k1"))
        assert b'"k1"' in synced[-1]
    assert Ledger(tmp_path / "l").entries == {"k1": entry("k1")}


async def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "l"
    async with open_ledger(path) as ledger:
        await ledger.perform(entry("k1"))
        await ledger.perform(entry("k2"))
    path.write_bytes(path.read_bytes()[:-5])
    async with open_ledger(path) as ledger:
        assert set(ledger.entries) == {"k1"}
        await ledger.perform(entry("k3"))
    assert set(Ledger(path).entries) == {"k1", "k3"}


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_text("hello\n")
    with pytest.raises(LedgerDamaged, match="line 1"):
        Ledger(path)


# --- over HTTP ---------------------------------------------------------------------------------------------------


async def script(request: Request) -> Answer:
    if request.path == "/hang-up":
        raise HangUp
    return Answer(status=503 if request.path == "/busy" else 200, body={"path": request.path, "got": request.body})


async def called(port: int, path: str, body: JSON) -> JSON:
    node = HttpNode(HttpSettings(allow=["127.0.0.0/8"]))
    try:
        return await node.run(
            NodeCall(
                tenant="t",
                workflow_id="w",
                run_id="r",
                node="N",
                path="N",
                resource="http",
                input={"Method": "POST", "ApiEndpoint": f"http://127.0.0.1:{port}{path}", "RequestBody": body},
                attempt=1,
                timeout_seconds=60.0,
                idempotency_key="k",
            )
        )
    finally:
        await node.aclose()


async def test_the_node_sees_answers_refusals_and_hang_ups(nursery: trio.Nursery) -> None:
    port = await nursery.start(serve, script, "127.0.0.1", 0)
    result = await called(port, "/fine?x=1", {"a": "ö"})
    assert isinstance(result, dict)
    assert result["ResponseBody"] == {"path": "/fine", "got": {"a": "ö"}}
    with pytest.raises(NodeFailure, match=r"States\.Http\.StatusCode\.503"):
        await called(port, "/busy", None)
    with pytest.raises(NodeFailure, match=r"Http\.ConnectionLost"):
        await called(port, "/hang-up", None)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{bad}", b"HTTP/1.1 400 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"1" * 100_000, b"HTTP/1.1 413 "),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 "),
        (b"", b""),
    ],
)
async def test_odd_clients_do_not_stop_the_server(nursery: trio.Nursery, sent: bytes, answered: bytes) -> None:
    port = await nursery.start(serve, script, "127.0.0.1", 0)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with trio.fail_after(60):
        async with stream:
            if sent:
                await stream.send_all(sent)
            else:
                await stream.send_eof()
            assert (await stream.receive_some()).startswith(answered)
    assert isinstance(await called(port, "/still-there", None), dict)


async def test_the_program_survives_a_kill_with_its_ledger(tmp_path: Path) -> None:
    async with open_shop(tmp_path, slow=0.0) as (program, url):
        port = int(url.rpartition(":")[2])
        performed = 0
        for _ in range(FAULTLESS_FROM + 1):
            try:
                await called(port, "/charge", {"order": "order-1", "amount_cents": 7, "card": "tok_ok"})
                performed += 1
            except NodeFailure:
                continue
        assert performed
        program.process.kill()
        await program.process.wait()
    async with open_shop(tmp_path, port=port) as (program, again):
        assert again == url
        (entry,) = (await shop_report(url)).performed
        assert (entry.kind, entry.key, entry.amount_cents) == ("charge", "k", 7)
        await program.stop()


async def test_a_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "shop.jsonl").write_text("hello\n")
    with pytest.raises(StageError, match=r"the shop did not start(?s:.*)shop\.jsonl, line 1"):
        async with open_shop(tmp_path):
            raise AssertionError("not reached")


async def test_a_program_is_not_left_behind(tmp_path: Path) -> None:
    async with running("a sleeper", ["sleep", "60"], tmp_path / "log") as program:
        pass
    assert program.process.returncode == -9
