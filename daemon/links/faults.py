"""Why links do not carry: what passes, and what somebody must see to."""

from __future__ import annotations


class ExchangeAway(Exception):
    """The exchange cannot be reached, or does not answer. How far what was under way came is not known."""


class ExchangeUnusable(Exception):
    """The exchange cannot be used as it is, and waiting does not help. The message says what to do."""
