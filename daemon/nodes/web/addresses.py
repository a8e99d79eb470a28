"""Which addresses calls may reach: every public one, and what engine.toml allows besides. Pure.

A definition says where its calls go, and often takes that from its input; the daemon stands where much can be reached
that the network's edge keeps from everybody else: neighbours, itself, a cloud's metadata service with the machine's own
credentials. So what is not on the public internet is refused, by the registries of special-purpose addresses (RFC
6890 and IANA's pages, "IPv4/IPv6 Special-Purpose Address Registry").
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

_REFUSED: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    # 169.254.169.254 and its kin are link-local; Azure's, alone, looks like a public address.
    ("metadata", ("169.254.169.254/32", "169.254.170.2/32", "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("shared (carrier-grade NAT)", ("100.64.0.0/10",)),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    (
        "reserved",
        (
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
        ),
    ),
)
_NAMED: Final[tuple[tuple[str, Network], ...]] = tuple(
    (sort, ip_network(text)) for sort, texts in _REFUSED for text in texts
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


class AddressRule:
    """`allow`: networks (CIDR, or single addresses) that calls may reach although they are not public. Raises
    ValueError for what is none."""

    def __init__(self, allow: Iterable[str]) -> None:
        self._allowed: list[Network] = [ip_network(text) for text in allow]

    def refusal(self, text: str) -> str | None:
        """What sort of address it is that keeps calls from it, or None when they may reach it. Raises ValueError: it is
        no address."""
        address = _meant(ip_address(text.partition("%")[0]))
        if any(address in network for network in self._allowed):
            return None
        for sort, network in _NAMED:
            if address in network:
                return sort
        if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
            return "reserved"
        return None


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where a kernel or a translator (NAT64) would take it for that."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
