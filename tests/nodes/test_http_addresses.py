"""Server-side request forgery: what calls may not reach, by whatever name, answer or redirect they are led there."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
import trio
from http_peers import LOOPBACK, Peer, answer_of, failure, local_node, request, resolving, serving
from hypothesis import given
from hypothesis import strategies as st

from daemon.nodes.web.addresses import AddressRule
from daemon.nodes.web.network import AddressRefused, GuardedBackend, NotConnected
from daemon.settings import HttpSettings

NAMES = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize(
    ("address", "sort"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.1", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.1", "shared (carrier-grade NAT)"),
        ("100.127.255.255", "shared (carrier-grade NAT)"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.0.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.170", "reserved"),
        ("192.0.2.1", "reserved"),
        ("192.88.99.1", "reserved"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "reserved"),
        ("203.0.113.7", "reserved"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
        ("fd00:ec2::254", "metadata"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "reserved"),
        ("2001::1", "reserved"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        # IPv4 in IPv6's clothes: mapped, compatible, 6to4, NAT64, NAT64 of one's own, Teredo
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:10.0.0.1", "private"),
        ("::127.0.0.1", "reserved"),
        ("2002:7f00:1::", "reserved"),
        ("2002:a9fe:a9fe::", "reserved"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b:1::a00:1", "reserved"),
        ("2001:0:7f00:1::", "reserved"),
    ],
)
def test_what_is_not_public_is_refused(address: str, sort: str) -> None:
    assert AddressRule([]).refusal(address) == sort


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:2800:21f:cb07::1", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_what_is_public_is_not(address: str) -> None:
    assert AddressRule([]).refusal(address) is None


@given(st.ip_addresses())
def test_whatever_is_not_global_to_the_standard_library_is_refused(address: object) -> None:
    """Its list is not ours, so each checks the other: what it calls private, no call reaches."""
    found = ip_address(str(address))
    found = getattr(found, "ipv4_mapped", None) or found
    if not found.is_global or found.is_multicast:
        assert AddressRule([]).refusal(str(address)) is not None


def test_networks_that_are_allowed_are_open_however_they_are_written() -> None:
    rule = AddressRule(["10.1.0.0/16", "127.0.0.1", "::1", "fd00::/8"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "127.0.0.1", "::1", "fd12::1", "64:ff9b::a01:203"):
        assert rule.refusal(address) is None
    for address in ("10.2.0.1", "127.0.0.2", "fe80::1", "192.168.0.1"):
        assert rule.refusal(address) is not None


async def listening(nursery: trio.Nursery) -> Peer:
    peer = Peer(nursery, serving(lambda asked: (200, {}, b"inside")))
    await peer.listen()
    return peer


@pytest.mark.parametrize("host", NAMES)
async def test_this_machine_is_not_reached_by_any_of_its_names(nursery: trio.Nursery, host: str) -> None:
    peer = await listening(nursery)
    failed = await failure(local_node(allow=[]), request(ApiEndpoint=f"http://{host}:{peer.port}/"))
    assert failed.error in ("Http.AddressRefused", "Http.InvalidArguments", "Http.ConnectError")
    assert failed.error == "Http.AddressRefused" or host not in ("127.0.0.1", "localhost")
    assert peer.connections == 0
    assert failed.unhealthy is (True if failed.error == "Http.ConnectError" else None)


async def test_a_name_that_leads_inside_is_refused(nursery: trio.Nursery) -> None:
    peer = await listening(nursery)
    http = local_node(allow=[], resolve=resolving(["127.0.0.1"]))
    failed = await failure(http, request(ApiEndpoint=f"http://shop.test:{peer.port}/"))
    assert failed.error == "Http.AddressRefused"
    assert "a loopback address" in failed.cause
    assert "127.0.0.1" not in failed.cause
    assert peer.connections == 0


async def test_of_several_addresses_the_public_ones_are_tried(nursery: trio.Nursery) -> None:
    peer = await listening(nursery)
    http = local_node(resolve=resolving(["10.0.0.1", "127.0.0.1", "169.254.169.254"]))
    result = await answer_of(http, request(ApiEndpoint=f"http://shop.test:{peer.port}/"))
    assert result["ResponseBody"] == "inside"
    await http.aclose()


async def test_an_address_that_does_not_answer_is_not_waited_for(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The first is a listener whose queue is full: no answer at all, as from behind a wall."""
    with trio.socket.socket() as wall:
        await wall.bind(("127.0.0.3", 0))
        port = wall.getsockname()[1]
        wall.listen(0)
        fillers = [trio.socket.socket() for _ in range(4)]
        for filler in fillers:
            with trio.move_on_after(0.01):
                await filler.connect(("127.0.0.3", port))
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.4")
        nursery.start_soon(trio.serve_listeners, serving(lambda asked: (200, {}, b"second")), [listener])
        http = local_node(resolve=resolving(["127.0.0.3", "127.0.0.4"]))
        result = await answer_of(http, request(ApiEndpoint=f"http://shop.test:{port}/"))
        assert result["ResponseBody"] == "second"
        await http.aclose()
        for filler in fillers:
            filler.close()


async def test_a_name_that_changes_its_answer_gains_nothing(nursery: trio.Nursery) -> None:
    """DNS rebinding: public at the check, inside at the connection. There is one look-up, and it is both."""
    peer = await listening(nursery)
    looked_up = 0

    async def resolve(host: str, port: int) -> list[str]:
        nonlocal looked_up
        looked_up += 1
        return ["127.0.0.1"] if looked_up == 1 else ["127.0.0.2"]

    http = local_node(allow=["127.0.0.1"], resolve=resolve)
    assert (await answer_of(http, request(ApiEndpoint=f"http://shop.test:{peer.port}/")))["ResponseBody"] == "inside"
    assert looked_up == 1
    # A connection that is kept is one to the address that was judged; a new one is judged anew.
    assert (await answer_of(http, request(ApiEndpoint=f"http://shop.test:{peer.port}/")))["ResponseBody"] == "inside"
    assert (looked_up, peer.connections) == (1, 1)
    await http.aclose()
    failed = await failure(http, request(ApiEndpoint=f"http://shop.test:{peer.port}/"))
    assert (failed.error, looked_up, peer.connections) == ("Http.AddressRefused", 2, 1)


@pytest.mark.parametrize("inside", ["http://inside.test:{port}/", "http://127.0.0.2:{port}/", "//127.0.0.2:{port}/"])
async def test_a_redirect_inside_is_refused(nursery: trio.Nursery, inside: str) -> None:
    target = await listening(nursery)
    location = inside.format(port=target.port)
    url = await Peer(nursery, serving(lambda asked: (307, {"Location": location}, b""))).listen()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2"] if host == "inside.test" else [host]

    failed = await failure(local_node(allow=["127.0.0.1"], resolve=resolve), request(ApiEndpoint=url))
    assert failed.error == "Http.AddressRefused"
    assert target.connections == 0


async def test_a_host_without_an_address() -> None:
    failed = await failure(local_node(resolve=resolving([])), request())
    assert failed.error == "Http.ConnectError"
    assert "the host has no address" in failed.cause


def test_the_default_lets_nothing_inside() -> None:
    assert HttpSettings().allow == []
    assert AddressRule(HttpSettings().allow).refusal("127.0.0.1") == "loopback"
    assert AddressRule(LOOPBACK).refusal("127.0.0.1") is None


async def test_a_connections_host_is_trusted_at_its_port_only() -> None:
    backend = GuardedBackend(AddressRule([]), resolving(["127.0.0.1"]), ("shop.test", 1))
    with pytest.raises(NotConnected):
        await backend.connect_tcp("shop.test", 1)
    for host, port in (("shop.test", 2), ("other.test", 1)):
        with pytest.raises(AddressRefused):
            await backend.connect_tcp(host, port)
