"""Ports for servers that listen on the same one whenever they run."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST, BEYOND = 10_000, 32_768


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on now. While its server is down nobody else gets it: it is none of those
    that the kernel gives to whoever connects, or asks for any port."""
    others = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    beyond = others if others > FIRST else BEYOND
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(FIRST, beyond)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
