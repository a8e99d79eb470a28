"""The functions that Step Functions adds, and the one that it takes away.

Source: Step Functions developer guide, "Transforming data with JSONata", JSONata functions provided by Step Functions.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

from daemon.language.errors import Failed
from daemon.language.evaluation import seeded
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.values import UNDEFINED, Value, number
from enginekit.messages.json import NotJSON, decode

_ALGORITHMS: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
MAX_RANGE: Final = 1_000
MAX_HASHED: Final = 256 * 1024


def _partition(run: Run, items: Value, size: Value) -> Value:
    if items is UNDEFINED or size is UNDEFINED:
        return UNDEFINED
    length = math.floor(size)
    if length < 1:
        raise Failed(f"$partition: the size of a part must be at least 1, not {size}")
    run.spend(2 * len(items))
    return [list(items[start : start + length]) for start in range(0, len(items), length)]


def _range(run: Run, first: Value, last: Value, step: Value) -> Value:
    if UNDEFINED in (first, last, step):
        return UNDEFINED
    begin, end, by = math.floor(first), math.floor(last), math.floor(step)
    if by == 0:
        raise Failed("$range: the step must not be 0")
    count = max(0, (end - begin) // by + 1)
    if count > MAX_RANGE:
        raise Failed(f"$range: a range holds {MAX_RANGE:,} numbers at most, and this one has {count:,}")
    run.spend(count)
    return [number(begin + by * each) for each in range(count)]


def _hash(run: Run, value: Value, algorithm: Value) -> Value:
    if value is UNDEFINED or algorithm is UNDEFINED:
        return UNDEFINED
    name = _ALGORITHMS.get(algorithm)
    if name is None:
        raise Failed(f'$hash: "{algorithm[:20]}" is no algorithm; there are {", ".join(_ALGORITHMS)}')
    if len(value) > MAX_HASHED:
        raise Failed(f"$hash: the text has more than {MAX_HASHED:,} characters")
    run.spend(len(value) >> 4)
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise Failed("$hash: the text holds half of a surrogate pair") from None
    return hashlib.new(name, data, usedforsecurity=False).hexdigest()


def _random(run: Run, seed: Value) -> Value:
    return run.evaluation.scope.random() if seed is UNDEFINED else seeded(seed)


def _uuid(run: Run) -> Value:
    return run.evaluation.scope.uuid()


def _parse(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 2)
    try:
        return decode(value.encode())
    except (NotJSON, UnicodeEncodeError) as error:
        raise Failed(f"$parse: {error}") from None


def _eval(run: Run, expression: Value, context: Value) -> Value:
    raise Failed("$eval is not available, as in Step Functions: use $parse to read JSON")


TABLE: Final = {
    "partition": ("<an:a>", _partition, 2),
    "range": ("<nnn:a>", _range, 3),
    "hash": ("<s-s:s>", _hash, 2),
    "random": ("<n?:n>", _random, 0),
    "uuid": ("<:s>", _uuid, 0),
    "parse": ("<s-:x>", _parse, 1),
    "eval": ("<sx?:x>", _eval, 1),
}
