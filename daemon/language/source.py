"""The text of a definition, JSON or YAML, as plain values. Duplicate keys, and what only YAML can do, are refused.

YAML is read by its JSON-like core: `true`, `null` and numbers are what they are in JSON, and everything else (dates,
`yes`, `on`) is a string. Aliases are allowed and counted for what they stand for, so that a few lines cannot grow
into a document without bound.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

import yaml

from daemon.language.definition import Fault, InvalidDefinition
from daemon.language.values import encodable
from enginekit.messages.json import JSON

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 100
MAX_VALUES: Final = 200_000
MAX_DIGITS: Final = 4_000

_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_WORDS: Final[dict[str, JSON]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGS: Final = frozenset({"str", "int", "float", "bool", "null", "map", "seq"})
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Source(NamedTuple):
    """The document, and what is wrong with how it is written: its names that are there twice are there once."""

    value: JSON
    faults: tuple[Fault, ...] = ()


def load(text: str | bytes) -> Source:
    """The one document in the text. Text that begins with `{` or `[` is JSON, all other is YAML.

    Raises InvalidDefinition for text that is neither.
    """
    if isinstance(text, bytes):
        if len(text) > MAX_BYTES:
            _refuse(f"the definition has {len(text):,} bytes; {MAX_BYTES:,} is the limit")
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            _refuse(f"the definition is not UTF-8 (byte {error.start})")
    elif len(text) > MAX_BYTES or (not text.isascii() and len(text.encode(errors="replace")) > MAX_BYTES):
        _refuse(f"the definition is longer than {MAX_BYTES:,} bytes")
    text = text.removeprefix("\ufeff")
    start = text.lstrip()[:1]
    if not start:
        _refuse("the definition is empty")
    return _load_json(text) if start in ("{", "[") else _load_yaml(text)


def _refuse(message: str, path: str = "") -> NoReturn:
    raise InvalidDefinition((Fault(path, message),))


class _Pairs(list[tuple[str, JSON]]):
    """An object of the JSON text, with every pair that was written."""


def _load_json(text: str) -> Source:
    try:
        value = json.loads(
            text, object_pairs_hook=_Pairs, parse_constant=_not_finite, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        _refuse(f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})")
    except RecursionError:
        _refuse(f"the definition nests more than {MAX_DEPTH} levels deep")
    except ValueError as error:
        _refuse(f"not valid JSON: {error}")
    faults: list[Fault] = []
    made = _settle(value, "", 0, faults)
    return Source(made, tuple(faults))


def _not_finite(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"the number {text[:40]}... has {len(text):,} digits; {MAX_DIGITS:,} is the limit")
    return int(text)


def _settle(value: object, path: str, depth: int, faults: list[Fault]) -> JSON:
    """The value with its objects made of their pairs; what is wrong with them is added to `faults`."""
    if depth > MAX_DEPTH:
        _refuse(f"nested more than {MAX_DEPTH} levels deep", path)
    if isinstance(value, _Pairs):
        made: dict[str, JSON] = {}
        for name, item in value:
            here = f"{path}.{name}" if path else name
            if not encodable(name):
                faults.append(Fault(path, "a name holds half of a surrogate pair"))
                continue
            if name in made:
                faults.append(Fault(here, "this name is there twice"))
            made[name] = _settle(item, here, depth + 1, faults)
        return made
    if isinstance(value, list):
        return [_settle(item, f"{path}[{index}]", depth + 1, faults) for index, item in enumerate(value)]
    if isinstance(value, str) and not encodable(value):
        faults.append(Fault(path, "the text holds half of a surrogate pair"))
        return ""
    assert value is None or isinstance(value, (bool, int, float, str))
    return value


def _load_yaml(text: str) -> Source:
    try:
        return _Yaml().read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        _refuse(f"not valid YAML: {error.problem or error.context or 'cannot be read'}{place}")
    except yaml.YAMLError as error:
        _refuse(f"not valid YAML: {' '.join(str(error).split())}")
    except UnicodeEncodeError:
        _refuse("the definition holds half of a surrogate pair")


class _Yaml:
    """One YAML document on its way to a value, event by event."""

    def __init__(self) -> None:
        self.anchors: dict[str, tuple[JSON, int]] = {}
        self.faults: list[Fault] = []
        self.count = 0

    def read(self, text: str) -> Source:
        """The one document in the text."""
        events = yaml.parse(text, Loader=_LOADER)
        value: JSON = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse("the YAML text holds more than one document")
                value = self._value(next(events), events, "", 0)
        return Source(value, tuple(self.faults))

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: str, depth: int) -> JSON:
        if depth > MAX_DEPTH:
            _refuse(f"nested more than {MAX_DEPTH} levels deep", path)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                _refuse(f'no anchor "{event.anchor}" stands before this alias', path)
            value, size = self.anchors[event.anchor]
            self._add(size)
            return value
        before = self.count
        self._add(1)
        value = self._fresh(event, events, path, depth)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = (value, self.count - before)
        return value

    def _add(self, count: int) -> None:
        self.count += count
        if self.count > MAX_VALUES:
            _refuse(
                f"the definition holds more than {MAX_VALUES:,} values, its aliases counted for what they stand for"
            )

    def _fresh(self, event: yaml.Event, events: Iterator[yaml.Event], path: str, depth: int) -> JSON:
        tag = getattr(event, "tag", None)
        kind = _tag(tag, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, kind, path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[JSON] = []
            while not isinstance(following := next(events), yaml.SequenceEndEvent):
                items.append(self._value(following, events, f"{path}[{len(items)}]", depth + 1))
            return items
        made: dict[str, JSON] = {}
        while not isinstance(following := next(events), yaml.MappingEndEvent):
            if not isinstance(following, yaml.ScalarEvent):
                _refuse("a key of a YAML mapping must be plain text", path)
            name = following.value
            here = f"{path}.{name}" if path else name
            if name == "<<" and following.implicit[0]:
                self.faults.append(Fault(here, "merge keys are not supported; write the fields out"))
            if name in made:
                self.faults.append(Fault(here, "this name is there twice"))
            self._add(1)
            made[name] = self._value(next(events), events, here, depth + 1)
        return made

    def _scalar(self, event: yaml.ScalarEvent, kind: str | None, path: str) -> JSON:
        text: str = event.value
        if kind == "str" or (kind is None and not event.implicit[0]):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if len(text) <= MAX_DIGITS and _INTEGER.fullmatch(text):
            return int(text)
        if len(text) <= MAX_DIGITS and _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return number
            self.faults.append(Fault(path, f"the number {text[:40]} is too large"))
        return text


def _tag(tag: str | None, path: str) -> str | None:
    """The kind an explicit tag names, None without one."""
    if tag is None:
        return None
    if tag == "!":
        return "str"
    name = tag.removeprefix("tag:yaml.org,2002:")
    if name == tag or name not in _TAGS:
        _refuse(f'the YAML tag "{tag}" is not supported', path)
    return name
