"""The functions of texts. Source: docs.jsonata.org/string-functions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from daemon.language.errors import Failed
from daemon.language.jsonata.calls import Matcher
from daemon.language.jsonata.patterns import Match
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.values import UNDEFINED, Function, Sequence, Value, text


def _string(run: Run, value: Value, pretty: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    return text(value, run.spend, 2 if pretty is True else None)


def _length(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else len(value)


def _substring(run: Run, value: Value, start: Value, count: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    size = len(value)
    first = 0 if start is UNDEFINED else int(start)
    if size + first < 0:
        first = 0
    if count is UNDEFINED:
        return value[first:]
    if count <= 0:
        return ""
    end = first + int(count) if first >= 0 else size + first + int(count)
    return value[first : max(end, 0)]


def _substring_before(run: Run, value: Value, mark: Value) -> Value:
    if value is UNDEFINED or mark is UNDEFINED:
        return value
    return value.partition(mark)[0] if mark else ""


def _substring_after(run: Run, value: Value, mark: Value) -> Value:
    if value is UNDEFINED or mark is UNDEFINED:
        return value
    if not mark:
        return value
    _, found, after = value.partition(mark)
    return after if found else value


def _uppercase(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else value.upper()


def _lowercase(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else value.lower()


def _trim(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 4)
    return " ".join(part for part in value.replace("\t", " ").replace("\n", " ").replace("\r", " ").split(" ") if part)


def _pad(run: Run, value: Value, width: Value, filling: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    missing = int(abs(width)) - len(value)
    if missing <= 0:
        return value
    run.spend((missing >> 4) + 1)
    unit = " " if filling is UNDEFINED or filling == "" else filling
    padding = (unit * (missing // len(unit) + 1))[:missing]
    return value + padding if width > 0 else padding + value


def _matches(run: Run, value: str, pattern: Function) -> Iterator[Match]:
    if not isinstance(pattern, Matcher):
        raise Failed(
            "T1010: The matcher function argument passed to function does not return the correct object structure"
        )
    return pattern.pattern.find(value, run.spend)


def _contains(run: Run, value: Value, wanted: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 6)
    if isinstance(wanted, str):
        return wanted in value
    return next(_matches(run, value, wanted), None) is not None


_MOST: Final = 2**31


def _limit(limit: Value, code: str, what: str, which: str = "Third") -> int | None:
    if limit is UNDEFINED:
        return None
    if limit < 0:
        raise Failed(f"{code}: {which} argument of {what} function must evaluate to a positive number")
    return int(min(limit, _MOST))


def _match(run: Run, value: Value, pattern: Value, limit: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    most = _limit(limit, "D3040", "match")
    found = Sequence()
    for match in islice(_matches(run, value, pattern), most):
        found.append({"match": match.text, "index": match.start, "groups": match.groups})
    return found


def _split(run: Run, value: Value, separator: Value, limit: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    most = _limit(limit, "D3020", "split")
    if isinstance(separator, str):
        run.spend(value.count(separator) if separator else len(value))
        parts = value.split(separator) if separator else list(value)
    else:
        parts = []
        start = 0
        for match in _matches(run, value, separator):
            if match.start == match.end:
                raise Failed("D1004: Regular expression matches zero length string")
            parts.append(value[start : match.start])
            start = match.end
        parts.append(value[start:])
    return parts if most is None else parts[:most]


def _join(run: Run, items: Value, separator: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    between = "" if separator is UNDEFINED else separator
    run.spend(len(items) + ((sum(map(len, items)) + len(between) * len(items)) >> 4))
    return between.join(items)


def _replace(run: Run, value: Value, pattern: Value, replacement: Value, limit: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if pattern == "":
        raise Failed("Second argument of replace function cannot be an empty string")
    most = _limit(limit, "D3011", "replace", "Fourth")
    if isinstance(pattern, str):
        if not isinstance(replacement, str):
            raise Failed("D3012: Attempted to replace a matched string with a non-string value")
        times = value.count(pattern)
        times = times if most is None else min(times, most)
        run.spend((len(value) + times * len(replacement)) >> 4)
        return value.replace(pattern, replacement, times)
    parts: list[str] = []
    position = 0
    for match in islice(_matches(run, value, pattern), most):
        if match.start == match.end:
            raise Failed("D1004: Regular expression matches zero length string")
        made = _filled(replacement, match) if isinstance(replacement, str) else _made(replacement, match)
        run.spend(1 + ((len(made) + match.start - position) >> 4))
        parts += (value[position : match.start], made)
        position = match.end
    parts.append(value[position:])
    return "".join(parts)


def _made(replacement: Function, match: Match) -> str:
    made = replacement.call([{"match": match.text, "index": match.start, "groups": match.groups}], UNDEFINED)
    if not isinstance(made, str):
        raise Failed("D3012: Attempted to replace a matched string with a non-string value")
    return made


def _filled(template: str, match: Match) -> str:
    """`$0` is the match, `$1` … its groups (as many digits as there is a group for), `$$` a dollar sign."""
    made: list[str] = []
    position = 0
    while (at := template.find("$", position)) >= 0:
        made.append(template[position:at])
        position = at + 1
        if template.startswith("$", position):
            made.append("$")
            position += 1
            continue
        digits = ""
        while template[position : position + 1].isdecimal():
            digits += template[position]
            position += 1
        if not digits:
            made.append("$")
            continue
        if int(digits[:9]) == 0:
            made.append(match.text)
            continue
        known = len(str(len(match.groups)))
        taken = digits[:known]
        while len(taken) > 1 and int(taken) > len(match.groups):
            taken = taken[:-1]
        position -= len(digits) - len(taken)
        number = int(taken)
        if 0 < number <= len(match.groups):
            made.append(match.groups[number - 1] or "")
    made.append(template[position:])
    return "".join(made)


def _base64encode(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 4)
    return base64.b64encode(_encoded(value)).decode()


def _base64decode(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 4)
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise Failed("$base64decode: the text is not the base64 of a text") from None


def _encoded(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Failed("D3140: the text holds half of a surrogate pair") from None


def _encode_url(run: Run, value: Value) -> Value:
    return _quoted(run, value, "-_.!~*'();/?:@&=+$,#")


def _encode_component(run: Run, value: Value) -> Value:
    return _quoted(run, value, "-_.!~*'()")


def _quoted(run: Run, value: Value, safe: str) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 3)
    return quote(_encoded(value), safe=safe)


def _decode_url(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(len(value) >> 3)
    try:
        return unquote_to_bytes(value).decode()
    except ValueError:
        raise Failed("D3140: the text is no encoded URL") from None


TABLE: Final = {
    "string": ("<x-b?:s>", _string, 1),
    "length": ("<s-:n>", _length, 1),
    "substring": ("<s-nn?:s>", _substring, 3),
    "substringBefore": ("<s-s:s>", _substring_before, 2),
    "substringAfter": ("<s-s:s>", _substring_after, 2),
    "uppercase": ("<s-:s>", _uppercase, 1),
    "lowercase": ("<s-:s>", _lowercase, 1),
    "trim": ("<s-:s>", _trim, 1),
    "pad": ("<s-ns?:s>", _pad, 3),
    "contains": ("<s-(sf):b>", _contains, 2),
    "split": ("<s-(sf)n?:a<s>>", _split, 3),
    "join": ("<a<s>s?:s>", _join, 2),
    "match": ("<s-f<s:o>n?:a<o>>", _match, 3),
    "replace": ("<s-(sf)(sf)n?:s>", _replace, 4),
    "base64encode": ("<s-:s>", _base64encode, 1),
    "base64decode": ("<s-:s>", _base64decode, 1),
    "encodeUrl": ("<s-:s>", _encode_url, 1),
    "encodeUrlComponent": ("<s-:s>", _encode_component, 1),
    "decodeUrl": ("<s-:s>", _decode_url, 1),
    "decodeUrlComponent": ("<s-:s>", _decode_url, 1),
}
