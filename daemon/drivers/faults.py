"""Why a server that a driver speaks to cannot be used: what passes, and what somebody must see to."""

from __future__ import annotations


class ServerAway(Exception):
    """It cannot be reached, or does not answer. How far what was under way came is not known."""


class DriverGone(ServerAway):
    """Nobody knows how the server is: the driver process has gone, or does not answer."""


class ServerUnusable(Exception):
    """It cannot be used as it is, and waiting does not help. The message says what to do."""
