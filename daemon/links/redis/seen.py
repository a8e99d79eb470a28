"""Which envelopes have been taken already: a window over the numbers of each sender, bounded in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

WINDOW: Final = 16_384
"""Numbers of one sender that are remembered, up to its highest. A sender repeats what it had under way when it lost its
connection, which is less."""

SENDERS: Final = 256

_MASK: Final = (1 << WINDOW) - 1


class _Window:
    __slots__ = ("bits", "highest")

    def __init__(self, number: int) -> None:
        self.highest = number
        self.bits = 1


class Seen:
    """At most SENDERS windows of WINDOW bits: half a megabyte."""

    def __init__(self) -> None:
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()

    def first(self, sender: bytes, number: int) -> bool:
        """Whether it comes for the first time, and remember it. What is older than the window counts as new: everybody
        bears repeats, nobody a loss that is not one."""
        window = self._windows.get(sender)
        if window is None:
            self._windows[sender] = _Window(number)
            if len(self._windows) > SENDERS:
                self._windows.popitem(last=False)
            return True
        self._windows.move_to_end(sender)
        ahead = number - window.highest
        if ahead > 0:
            window.bits = ((window.bits << ahead) | 1) & _MASK if ahead < WINDOW else 1
            window.highest = number
            return True
        if -ahead >= WINDOW:
            return True
        bit = 1 << -ahead
        if window.bits & bit:
            return False
        window.bits |= bit
        return True
