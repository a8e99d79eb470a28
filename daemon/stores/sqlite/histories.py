"""How the events of one commit of one run become the bytes of a row of `events`, and the other way round.

A row is either plain (`dictionary` 0: the events as a MessagePack array of byte strings) or compressed: the events one
after another with SEPARATOR between them, in those of its start a mark for each name of the run that its row of
`executions` has anyway, as one zstd frame made with the dictionary of that number. Neither the separator nor what a
mark begins with can be in JSON; events that have them all the same, and those that compressing makes no smaller, are
written plain.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from daemon.stores.sqlite.keys import Key, unpacked
from daemon.stores.sqlite.vocabulary import EVENTS, VOCABULARY, samples

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN: Final = 0
SEPARATOR: Final = b"\x1e"
MARK: Final = b"\x1f"
_MARKS: Final = tuple(MARK + letter for letter in (b"r", b"w", b"d", b"q", b"p"))
_SHORTEST_NAME: Final = 8
_LEVEL: Final = 1
_ENTROPY_BYTES: Final = 2048
_OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: _LEVEL,
    zstd.CompressionParameter.checksum_flag: 0,
    zstd.CompressionParameter.dict_id_flag: 0,
}

Names: TypeAlias = Sequence[str | None]
"""Of a run, in the order of their marks: run_id, workflow_id, definition_hash, request_id, parent; for a row with no
marks, none."""

_plain = msgspec.msgpack.Encoder()
_plainly = msgspec.msgpack.Decoder(list[bytes])


class Unreadable(Exception):
    """A row of `events` that cannot be read; says why."""


def prepare(connection: sqlite3.Connection) -> None:
    """See to it that the store has the dictionary that this engine writes with."""
    if connection.execute("SELECT 1 FROM dictionaries WHERE id = ?", (VOCABULARY,)).fetchone() is None:
        row = (VOCABULARY, _make_dictionary())
        connection.execute("INSERT INTO dictionaries (id, data) VALUES (?, ?)", row)


def _make_dictionary() -> bytes:
    """The vocabulary, and how often which byte comes in histories that use it: some milliseconds' work."""
    text = zstd.ZstdDict(_joined(EVENTS), is_raw=True)
    size = len(text.dict_content) + _ENTROPY_BYTES
    return zstd.finalize_dict(text, [_joined(sample) for sample in samples()], size, _LEVEL).dict_content


def _joined(events: Sequence[str]) -> bytes:
    return SEPARATOR.join(event.encode() for event in events)


class HistoryWriter:
    """Compresses; for one thread. The store has been prepared. Raises Unreadable."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        dictionary = _dictionary(connection, VOCABULARY)
        try:
            self._compressor = zstd.ZstdCompressor(options=_OPTIONS, zstd_dict=dictionary.as_digested_dict)
        except zstd.ZstdError as error:
            raise Unreadable(f"dictionary {VOCABULARY} is none: {error}") from error

    def row(self, events: list[bytes], names: Names) -> tuple[int, bytes]:
        """The columns `dictionary` and `data`."""
        text = SEPARATOR.join(events)
        size = len(text)
        if text.count(SEPARATOR) != len(events) - 1 or MARK in text:
            return PLAIN, _plain.encode(events)
        for mark, name in zip(_MARKS, names, strict=False):
            if name is not None and len(name) >= _SHORTEST_NAME and name.isprintable():
                text = text.replace(name.encode(), mark)
        data = self._compressor.compress(text, zstd.ZstdCompressor.FLUSH_FRAME)
        return (VOCABULARY, data) if len(data) < size else (PLAIN, _plain.encode(events))


class HistoryReader:
    """Reads rows that any engine has written; for one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._dictionaries: dict[int, zstd.ZstdDict] = {}

    def events(self, dictionary: int, data: bytes, names: Callable[[], Names]) -> list[bytes]:
        """The events of a row. `names` is asked where the row has marks. Raises Unreadable."""
        try:
            if dictionary == PLAIN:
                return _plainly.decode(data)
            if dictionary not in self._dictionaries:
                self._dictionaries[dictionary] = _dictionary(self._connection, dictionary)
            text = zstd.decompress(data, zstd_dict=self._dictionaries[dictionary])
        except (zstd.ZstdError, msgspec.DecodeError) as error:
            raise Unreadable(str(error)) from error
        if MARK in text:
            for mark, name in zip(_MARKS, names(), strict=True):
                if name is not None:
                    text = text.replace(mark, name.encode())
        return text.split(SEPARATOR)


def names_of(connection: sqlite3.Connection, run_id: Key) -> Names:
    """The names of a run that is there."""
    row = connection.execute(
        "SELECT e.workflow_id, n.name, e.request_id, e.parent FROM executions e JOIN names n ON n.id = e.definition "
        "WHERE e.run_id = ?",
        (run_id,),
    ).fetchone()
    if row is None:
        raise Unreadable(f"the run {unpacked(run_id)} of some events is not there")
    workflow_id, definition_hash, request_id, parent = row
    return (
        unpacked(run_id),
        None if workflow_id is None else unpacked(workflow_id),
        definition_hash,
        request_id,
        None if parent is None else unpacked(parent),
    )


def _dictionary(connection: sqlite3.Connection, number: int) -> zstd.ZstdDict:
    """Raises Unreadable."""
    row = connection.execute("SELECT data FROM dictionaries WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise Unreadable(f"events were compressed with dictionary {number}, which is not in the table `dictionaries`")
    try:
        return zstd.ZstdDict(row[0])
    except (ValueError, TypeError) as error:
        raise Unreadable(f"dictionary {number} is none: {error}") from error
