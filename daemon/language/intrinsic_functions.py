"""What each intrinsic function does: plain functions of their arguments' values.

They raise Failed: without a reason for arguments that they cannot take, since the reference service says no more of
those than the function's name, which the caller adds. Randomness and identifiers come from the evaluation's scope.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from daemon.language.errors import DATA_LIMIT_EXCEEDED, Failed
from daemon.language.evaluation import Evaluation, seeded
from daemon.language.values import MAX_BYTES, encodable, identity, same, weigh
from enginekit.messages.json import JSON, NotJSON, decode, encode

Function: TypeAlias = Callable[[list[JSON], Evaluation], JSON]

MAX_RANGE: Final = 1_000
MAX_TEXT: Final = 10_000
MAX_SHOWN_DEPTH: Final = 100
_LARGEST: Final = 2**63 - 1
_NO_BASE64: Final = re.compile("[^A-Za-z0-9+/]")
_ALGORITHMS: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


def interpolate(pieces: Sequence[str], values: list[JSON], evaluation: Evaluation) -> str:
    """The pieces with the values between them. Objects and arrays are written as the reference service does it, which
    is no JSON: `{a=1, b=[x, y]}`."""
    made = [pieces[0]]
    length = len(pieces[0])
    for value, piece in zip(values, pieces[1:], strict=True):
        text = value if isinstance(value, str) else _shown(value, evaluation)
        made.append(text)
        made.append(piece)
        length += len(text) + len(piece)
        if length > MAX_BYTES:
            raise Failed(f"the text it builds is longer than {MAX_BYTES:,} characters", DATA_LIMIT_EXCEEDED)
    evaluation.spend(length >> 4)
    return "".join(made)


def _shown(value: JSON, evaluation: Evaluation, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        evaluation.spend(2 * len(value) + 2)
        if depth == MAX_SHOWN_DEPTH:
            raise Failed(f"a value for the template is nested more than {MAX_SHOWN_DEPTH} levels deep")
    if isinstance(value, list):
        return f"[{', '.join([_shown(each, evaluation, depth + 1) for each in value])}]"
    if isinstance(value, dict):
        parts = [f"{key}={_shown(each, evaluation, depth + 1)}" for key, each in value.items()]
        return f"{{{', '.join(parts)}}}"
    return _written(value, evaluation)


def _written(value: JSON, evaluation: Evaluation) -> str:
    """The value as JSON text."""
    evaluation.spend(weigh(value) >> 2)
    try:
        return bytes(encode(value)).decode()
    except NotJSON as error:
        raise Failed(str(error)) from None


def _array_of(value: JSON) -> list[JSON]:
    if not isinstance(value, list):
        raise Failed
    return value


def _text_of(value: JSON, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise Failed
    return value


def _number_of(value: JSON) -> int | float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -_LARGEST <= value <= _LARGEST:
        raise Failed
    return value


def _cut(value: JSON) -> int:
    """A whole number; what a fraction has behind the point is cut off, as the reference service does."""
    return int(_number_of(value))


def _rounded(value: JSON) -> int:
    """A whole number; a fraction is rounded, half up, as the reference service does for sums."""
    number = _number_of(value)
    return math.floor(number + 0.5) if isinstance(number, float) else number


def _array(values: list[JSON], evaluation: Evaluation) -> JSON:
    return values


def _array_contains(values: list[JSON], evaluation: Evaluation) -> JSON:
    items, wanted = _array_of(values[0]), values[1]
    evaluation.spend(len(items))
    text = _bare(wanted)
    return any(same(item, wanted, evaluation.spend) or (text is not None and _bare(item) == text) for item in items)


def _bare(value: JSON) -> str | None:
    """How a text, a number or a truth value is written without quotes: by that the reference service finds a number
    among texts."""
    if isinstance(value, str):
        return value
    return bytes(encode(value)).decode() if isinstance(value, (bool, int, float)) else None


def _array_get_item(values: list[JSON], evaluation: Evaluation) -> JSON:
    """Of an array without items null, whatever the index, as the reference service does."""
    items, index = _array_of(values[0]), _cut(values[1])
    if not items:
        return None
    if not 0 <= index < len(items):
        raise Failed
    return items[index]


def _array_length(values: list[JSON], evaluation: Evaluation) -> JSON:
    return len(_array_of(values[0]))


def _array_partition(values: list[JSON], evaluation: Evaluation) -> JSON:
    items, size = _array_of(values[0]), _cut(values[1])
    if size < 1:
        raise Failed
    evaluation.spend(len(items))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _array_range(values: list[JSON], evaluation: Evaluation) -> JSON:
    first, last, step = map(_cut, values)
    if step == 0:
        raise Failed
    numbers = range(first, last + (1 if step > 0 else -1), step)
    count = max(0, (last - first) // step + 1)
    if count > MAX_RANGE:
        raise Failed
    evaluation.spend(count)
    return list(numbers)


def _array_unique(values: list[JSON], evaluation: Evaluation) -> JSON:
    items = _array_of(values[0])
    evaluation.spend(2 * len(items))
    evaluation.weigh(items)
    unique: dict[bytes, JSON] = {}
    for item in items:
        unique.setdefault(_identity(item), item)
    return list(unique.values())


def _identity(value: JSON) -> bytes:
    try:
        return identity(value)
    except (UnicodeEncodeError, RecursionError, OverflowError):
        raise Failed from None


def _base64_encode(values: list[JSON], evaluation: Evaluation) -> JSON:
    text = _text_of(values[0], MAX_TEXT)
    if not encodable(text):
        raise Failed
    return base64.b64encode(text.encode()).decode()


def _base64_decode(values: list[JSON], evaluation: Evaluation) -> JSON:
    """As the reference service does it: what is no base64 is passed over, padding ends it or is not there at all."""
    text = _text_of(values[0], MAX_TEXT).partition("=")[0]
    digits = _NO_BASE64.sub("", text.replace("-", "+").replace("_", "/"))
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return base64.b64decode(digits + "=" * (-len(digits) % 4)).decode(errors="replace")


def _hash(values: list[JSON], evaluation: Evaluation) -> JSON:
    data, algorithm = values
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise Failed
    text = _text_of(data if isinstance(data, str) else _written(data, evaluation), MAX_TEXT)
    if not encodable(text):
        raise Failed
    return hashlib.new(_ALGORITHMS[algorithm], text.encode(), usedforsecurity=False).hexdigest()


def _json_merge(values: list[JSON], evaluation: Evaluation) -> JSON:
    left, right, deep = values
    if not isinstance(left, dict) or not isinstance(right, dict):
        raise Failed
    if deep is True:
        raise Failed
    evaluation.spend(len(left) + len(right))
    return {**left, **right}


def _json_to_string(values: list[JSON], evaluation: Evaluation) -> JSON:
    return _written(values[0], evaluation)


def _string_to_json(values: list[JSON], evaluation: Evaluation) -> JSON:
    text = _text_of(values[0], MAX_BYTES)
    if not encodable(text):
        raise Failed
    if not text:
        return None
    evaluation.spend(len(text) >> 4)
    try:
        return decode(text.encode())
    except NotJSON as error:
        raise Failed(f"Cannot convert String to Json in States.StringToJson, caused by: {error}") from None


def _math_add(values: list[JSON], evaluation: Evaluation) -> JSON:
    return _rounded(_number_of(_rounded(values[0]) + _rounded(values[1])))


def _math_random(values: list[JSON], evaluation: Evaluation) -> JSON:
    start, end = _cut(values[0]), _cut(values[1])
    if start >= end:
        raise Failed
    fraction = evaluation.scope.random() if len(values) == 2 else seeded(_cut(values[2]))
    return min(start + int(fraction * (end - start)), end - 1)


def _string_split(values: list[JSON], evaluation: Evaluation) -> JSON:
    text, delimiters = _text_of(values[0], MAX_BYTES), _text_of(values[1], MAX_TEXT)
    if not delimiters:
        return [text]
    evaluation.spend(len(text) >> 4)
    parts = re.split("[" + re.escape(delimiters) + "]", text)
    evaluation.spend(len(parts))
    return [part for part in parts if part]


def _uuid(values: list[JSON], evaluation: Evaluation) -> JSON:
    return evaluation.scope.uuid()


FUNCTIONS: Final[dict[str, Function]] = {
    "States.Array": _array,
    "States.ArrayContains": _array_contains,
    "States.ArrayGetItem": _array_get_item,
    "States.ArrayLength": _array_length,
    "States.ArrayPartition": _array_partition,
    "States.ArrayRange": _array_range,
    "States.ArrayUnique": _array_unique,
    "States.Base64Decode": _base64_decode,
    "States.Base64Encode": _base64_encode,
    "States.Hash": _hash,
    "States.JsonMerge": _json_merge,
    "States.JsonToString": _json_to_string,
    "States.MathAdd": _math_add,
    "States.MathRandom": _math_random,
    "States.StringSplit": _string_split,
    "States.StringToJson": _string_to_json,
    "States.UUID": _uuid,
}
