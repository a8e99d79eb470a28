"""Length-prefixed MessagePack frames: what the daemon and a driver process say to each other is made of these.

Both ends are always of the same version: the daemon starts its own drivers. Imports no Trio.
"""

from __future__ import annotations

import struct

import msgspec

HEADER = struct.Struct(">I")
"""The length of what follows, in bytes."""


class Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base of all that is sent."""


_encoder = msgspec.msgpack.Encoder()


def frame(message: Frame) -> bytearray:
    """The message with its length before it."""
    buffer = bytearray(HEADER.size)
    _encoder.encode_into(message, buffer, HEADER.size)
    HEADER.pack_into(buffer, 0, len(buffer) - HEADER.size)
    return buffer
