"""The functions that Step Functions adds, and the one that it takes away.

Source: Step Functions developer guide, "Transforming data with JSONata", JSONata functions provided by Step Functions.
"""

from __future__ import annotations

import hashlib
from typing import Final

from daemon.language.errors import Failed
from daemon.language.evaluation import MAX_STEPS
from daemon.language.jsonata.run import MEMORY, Run
from daemon.language.jsonata.values import UNDEFINED, Sequence, Value, number
from enginekit.messages.json import NotJSON, decode

_ALGORITHMS: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_STATE: Final = (1 << 48) - 1
MAX_HASHED: Final = 256 * 1024


def _partition(run: Run, items: Value, size: Value) -> Value:
    if items is UNDEFINED or not items:
        return UNDEFINED
    length = len(items) if size is UNDEFINED else int(size)
    if length < 0:
        raise Failed("D3137: Second argument must be zero or greater")
    if length == 0:
        return UNDEFINED
    run.spend(2 * len(items))
    return [list(items[start : start + length]) for start in range(0, len(items), length)]


def _range(run: Run, first: Value, last: Value, step: Value) -> Value:
    if UNDEFINED in (first, last, step):
        return UNDEFINED
    begin, end, by = int(first), int(last), int(step)
    count = (end - begin) // by + 1 if by else 0
    if count < 1:
        return UNDEFINED
    if count > MAX_STEPS:
        raise Failed(MEMORY)
    run.spend(count)
    return Sequence(number(begin + by * each) for each in range(count))


def _hash(run: Run, value: Value, algorithm: Value) -> Value:
    if value is UNDEFINED or algorithm is UNDEFINED:
        return UNDEFINED
    name = _ALGORITHMS.get(algorithm)
    if name is None:
        raise Failed(f"D3137: Hash algorithm '{algorithm[:20]}' must be one of SHA-1, SHA-384, SHA-256, SHA-512, MD5")
    if len(value) > MAX_HASHED:
        raise Failed(f"$hash: the text has more than {MAX_HASHED:,} characters")
    run.spend(len(value) >> 4)
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise Failed("$hash: the text holds half of a surrogate pair") from None
    return hashlib.new(name, data, usedforsecurity=False).hexdigest()


def _random(run: Run, seed: Value) -> Value:
    return run.evaluation.scope.random() if seed is UNDEFINED else _seeded(int(seed))


def _seeded(seed: int) -> float:
    """The first double of a java.util.Random with this seed, which is what the reference service answers. Source: the
    algorithm in Java's documentation of that class."""
    state = (seed ^ 0x5DEECE66D) & _STATE
    state = (state * 0x5DEECE66D + 0xB) & _STATE
    high = state >> 22
    state = (state * 0x5DEECE66D + 0xB) & _STATE
    return ((high << 27) + (state >> 21)) / (1 << 53)


def _uuid(run: Run) -> Value:
    return run.evaluation.scope.uuid()


def _parse(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 2)
    try:
        return decode(value.encode())
    except (NotJSON, UnicodeEncodeError):
        raise Failed("D3137: Invalid JSON") from None


def _eval(run: Run, expression: Value, context: Value) -> Value:
    raise Failed("T1006: Attempted to invoke a non-function")


TABLE: Final = {
    "partition": ("<an?:a>", _partition, 2),
    "range": ("<nnn?:a>", _range, 3),
    "hash": ("<s-s?:s>", _hash, 2),
    "random": ("<n?:n>", _random, 0),
    "uuid": ("<:s>", _uuid, 0),
    "parse": ("<s-:x>", _parse, 1),
    "eval": ("<sx?:x>", _eval, 1),
}
