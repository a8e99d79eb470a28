"""A batch's rows as columns: arrays in PostgreSQL's binary form, one parameter each, unpacked there by `unnest`.

Their types are always the same, whatever is in them, so that each statement is parsed and planned once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import psycopg
from psycopg import pq
from psycopg.adapt import Dumper
from psycopg.types.numeric import Int8BinaryDumper

from daemon.stores.faults import BatchRefused

Value: TypeAlias = str | int | bytes | None

_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NULL = struct.pack(">i", -1)
_HEAD = struct.Struct(">iiIii")
_length = struct.Struct(">i").pack
_int = struct.Struct(">iq").pack
_TRUE, _FALSE = struct.pack(">i?", 1, True), struct.pack(">i?", 1, False)


class Column:
    """An array that is ready to be sent."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Texts(Column):
    __slots__ = ()


class Ints(Column):
    __slots__ = ()


class Blobs(Column):
    __slots__ = ()


class RunIds(Column):
    __slots__ = ()


class Flags(Column):
    __slots__ = ()


@lru_cache(maxsize=8192)
def run_id_bytes(run_id: str) -> bytes | None:
    """None for what is no run_id: a UUID of version 7, as it is written."""
    return bytes.fromhex(run_id.replace("-", "")) if _RUN_ID.fullmatch(run_id) else None


def legible(text: str) -> str:
    """PostgreSQL's text has no U+0000: what people may write anywhere shows its symbol instead."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def _text(value: Value) -> bytes:
    if value is None:
        return _NULL
    data = str(value).encode()
    return _length(len(data)) + data


def _number(value: Value) -> bytes:
    return _NULL if value is None else _int(8, value)


def _blob(value: Value) -> bytes:
    if not isinstance(value, bytes):
        return _NULL
    return _length(len(value)) + value


def _run_id(value: Value) -> bytes:
    if value is None:
        return _NULL
    name = str(value)
    data = run_id_bytes(name)
    if data is None:
        raise BatchRefused(f"run {name}: a run_id is a UUID of version 7")
    return _length(16) + data


def _flag(value: Value) -> bytes:
    return _TRUE if value else _FALSE


_KINDS: dict[str, tuple[type[Column], int, Callable[[Value], bytes]]] = {
    "t": (Texts, 25, _text),
    "i": (Ints, 20, _number),
    "b": (Blobs, 17, _blob),
    "r": (RunIds, 2950, _run_id),
    "f": (Flags, 16, _flag),
}
"""By the letter that names it: the column's class, the oid of its elements, and how one is written."""

_ARRAY_OIDS: dict[type[Column], int] = {Texts: 1009, Ints: 1016, Blobs: 1001, RunIds: 2951, Flags: 1000}


def columns(kinds: str, rows: Sequence[Sequence[Value]]) -> list[Column]:
    """The columns of these rows, of which there is at least one. `kinds` has a letter for each: `t`ext, `i`nteger,
    `b`ytes, `r`un_id, `f`lag.

    Raises BatchRefused for an integer of more than 64 bits, and for a run_id that is none.
    """
    return [_column(kind, values) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)]


def _column(kind: str, values: Sequence[Value]) -> Column:
    made, oid, write = _KINDS[kind]
    try:
        elements = b"".join(map(write, values))
    except (struct.error, UnicodeEncodeError) as error:
        raise BatchRefused(f"a value of this batch is too large for the store, or no text: {error}") from error
    return made(_HEAD.pack(1, 1, oid, len(values), 1) + elements)


def register(connection: psycopg.Connection) -> None:
    """Let the connection send columns, and every integer as one of 64 bits."""
    for column, oid in _ARRAY_OIDS.items():
        connection.adapters.register_dumper(column, type(f"{column.__name__}Dumper", (_ColumnDumper,), {"oid": oid}))
    connection.adapters.register_dumper(int, Int8BinaryDumper)


class _ColumnDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Column) -> bytes:
        return obj.data
