"""Who sends and who receives, in tests of exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.links.exchange import Exchange
from daemon.links.interface import Caller

ME = Caller(tenant="acme", subject="me")


@dataclass
class Both:
    """Who sends and who receives; over Redis these are two processes' exchanges, as far as either can tell."""

    near: Exchange
    far: Exchange
