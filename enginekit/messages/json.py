"""JSON as the engine moves it: values, and the bytes they arrive and leave as.

A payload (an input, an output, an item) is encoded once, where it is made, and travels as `msgspec.Raw` from then
on: through links, into the store, out of the WebSocket. Only what evaluates it decodes it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()

NULL = msgspec.Raw(b"null")
EMPTY_OBJECT = msgspec.Raw(b"{}")


class NotJSON(ValueError):
    """The bytes are not one JSON document, or nest too deeply to be read."""


def encode(value: JSON) -> msgspec.Raw:
    """The value as compact JSON bytes.

    Raises NotJSON for a value that has no JSON form or nests too deeply.
    """
    try:
        return msgspec.Raw(_encoder.encode(value))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotJSON(f"not a JSON value: {error}") from error


def decode(raw: msgspec.Raw | bytes) -> JSON:
    """The value of one JSON document. Raises NotJSON."""
    try:
        value: JSON = _decoder.decode(raw)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotJSON(f"not a JSON document: {error}") from error
    return value


def size(raw: msgspec.Raw) -> int:
    """Length in bytes."""
    return len(raw)
