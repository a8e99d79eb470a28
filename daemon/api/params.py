"""Parameters: their bytes become a method's struct, or a refusal that names the field and says what is wrong with it.

What the struct leaves as raw bytes (inputs, outputs, details, definitions) is read once here, so that nothing that is
not JSON, is too large or nests too deeply gets past the Frontend. Pure.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw, inspect

from enginekit.messages import calls
from enginekit.messages import json as payloads
from enginekit.messages.json import NotJSON
from enginekit.messages.status import ErrorStatus, Refused

DEFINITION_BYTES: Final = 1024 * 1024
"""The longest definition that is taken."""
NESTING: Final = 128
"""How deep a payload may nest: whatever evaluates it later needs room on the stack for each level."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")

_LOCATED = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_ENUM = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_PATTERN = re.compile(r"Expected `str` matching regex (.*)")

_PATTERNS: Final[dict[str, str]] = {
    repr(r"^[A-Za-z0-9._:@/-]+\Z"): "must be 1 to 255 characters of A-Z a-z 0-9 . _ : @ / -",
    repr(r"^~?[A-Za-z0-9._:@/-]+\Z"): "must be 1 to 255 characters of A-Z a-z 0-9 . _ : @ / -",
    repr(
        r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*\Z"
    ): "must be 1 to 255 characters of A-Z a-z 0-9 _ . : / -, as `signal:NAME` has",
    repr(r"^[A-Za-z0-9._:@/-]{1,200}\Z"): "must be 1 to 200 characters of A-Z a-z 0-9 . _ : @ / -",
    repr(r"^[0-9a-f-]{36}/[0-9]{1,18}\Z"): "must be a dead letter's id, RUN_ID/NUMBER",
    repr(r"^(executions|queues|services|history:~?[A-Za-z0-9._:@/-]+)\Z"): (
        "must be executions, queues, services or history:WORKFLOW_ID"
    ),
    repr(r"^[^=]+="): "must be `key=value`",
}


class Shape:
    """How one method's parameters are decoded and which of their fields are payloads."""

    def __init__(self, params: type[calls.Call]) -> None:
        self.params = params
        self._decoder = msgspec.json.Decoder(params)
        self._payloads = _raw_fields(params)
        self._lists: list[tuple[str, list[str]]] = []
        for field in msgspec.structs.fields(params):
            item = _item_struct(field.type)
            if item is not None and (raws := _raw_fields(item)):
                self._lists.append((field.name, raws))

    def decode(self, text: Raw | bytes, payload_bytes: int) -> calls.Call:
        """The parameters. Raises Refused (INVALID_ARGUMENT, with `field` in its data where one is to blame)."""
        try:
            call: calls.Call = self._decoder.decode(text)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(ErrorStatus.INVALID_ARGUMENT, f"params: not a JSON document: {error}") from error
        for path, raw in self._raws(call):
            check_payload(path, raw, DEFINITION_BYTES if path == "definition" else payload_bytes)
        if isinstance(call, calls.StartWorkflow):
            _check_start(call)
        return call

    def _raws(self, call: calls.Call) -> Iterator[tuple[str, Raw]]:
        for name in self._payloads:
            value = getattr(call, name)
            if isinstance(value, Raw):
                yield name, value
        for name, raws in self._lists:
            for index, item in enumerate(getattr(call, name)):
                for raw in raws:
                    yield f"{name}[{index}].{raw}", getattr(item, raw)

    def _explain(self, text: str) -> Refused:
        located = _LOCATED.fullmatch(text)
        what, path = (located["what"], located["path"] or "") if located is not None else (text, "")
        if (found := _UNKNOWN.fullmatch(what)) is not None:
            name = found[1]
            near = difflib.get_close_matches(name, _field_names(_type_at(self.params, path)), n=1)
            suggestion = f"; did you mean `{near[0]}`?" if near else ""
            field = f"{path}.{name}" if path else name
            return _refusal(field, f"unknown parameter `{_short(field)}`{suggestion}")
        if (found := _MISSING.fullmatch(what)) is not None:
            field = f"{path}.{found[1]}" if path else found[1]
            return _refusal(field, f"missing parameter `{field}`")
        if not path:
            return _refusal(None, "params: must be an object: parameters go by name")
        key = "a key " if located is not None and located["key"] else ""
        if (found := _ENUM.fullmatch(what)) is not None:
            known = ", ".join(_enum_values(_type_at(self.params, path)))
            return _refusal(path, f"{path}: {_short(found[1])} is not one of {known}")
        if (found := _PATTERN.fullmatch(what)) is not None and found[1] in _PATTERNS:
            return _refusal(path, f"{path}: {key}{_PATTERNS[found[1]]}")
        return _refusal(path, f"{path}: {key}{what[:1].lower()}{what[1:]}")


def check_payload(path: str, raw: Raw, limit: int) -> None:
    """Raises Refused unless the bytes are one JSON document of at most `limit` bytes that everybody can read."""
    size = payloads.size(raw)
    if size > limit:
        raise Refused(
            ErrorStatus.INVALID_ARGUMENT,
            f"{path}: {size:,} bytes; at most {limit:,} are taken",
            {"field": path, "size_bytes": size, "limit_bytes": limit},
        )
    text = bytes(raw)
    # Brackets inside strings count too, so few of them prove that nothing nests deeply; many prove nothing.
    if text.count(b"[") + text.count(b"{") > NESTING and _nests_deeper(text, NESTING):
        raise _refusal(path, f"{path}: nests more than {NESTING} levels deep")
    try:
        payloads.decode(text)
    except NotJSON as error:
        raise _refusal(path, f"{path}: {error}") from error


def _check_start(call: calls.StartWorkflow) -> None:
    if call.workflow is None and call.definition is msgspec.UNSET:
        raise _refusal("workflow", "name a registered `workflow`, or send a `definition`")
    if call.workflow is not None and call.definition is not msgspec.UNSET:
        raise _refusal("definition", "send either `workflow` or `definition`, not both")
    if call.version is not None and call.workflow is None:
        raise _refusal("version", "version: goes with `workflow`; an inline `definition` has none")


def _refusal(field: str | None, message: str) -> Refused:
    return Refused(ErrorStatus.INVALID_ARGUMENT, message, None if field is None else {"field": _short(field)})


def _short(text: str) -> str:
    """Somebody else's text, quoted in an answer: not all of a frame of it."""
    return text if len(text) <= 200 else text[:200] + "…"


def _nests_deeper(text: bytes, levels: int) -> bool:
    """Whether a document whose syntax was checked nests deeper. Innermost pairs are taken away level by level, each
    in one sweep over what is left: a tenth of what going through it bracket by bracket costs."""
    left = _STRINGS.sub(b"", text).translate(_ALIKE, delete=_NO_BRACKETS)
    for _ in range(levels):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return bool(left)


def _raw_fields(struct: type[msgspec.Struct]) -> list[str]:
    """Names of the fields that hold a payload."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return [field.name for field in info.fields if _is_raw(field.type)]


def _is_raw(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return any(_is_raw(member) for member in info.types)
    return isinstance(info, inspect.RawType)


def _item_struct(annotation: object) -> type[msgspec.Struct] | None:
    info = inspect.type_info(annotation)
    if isinstance(info, inspect.ListType) and isinstance(info.item_type, inspect.StructType):
        return info.item_type.cls
    return None


def _type_at(struct: type[msgspec.Struct], path: str) -> inspect.Type | None:
    """The type that msgspec's path (`tasks[0].token`) leads to."""
    info: inspect.Type | None = inspect.type_info(struct)
    for step in _STEP.findall(path):
        if isinstance(info, inspect.ListType):
            info = info.item_type
        elif isinstance(info, inspect.DictType):
            info = info.value_type
        elif isinstance(info, inspect.StructType):
            info = next((field.type for field in info.fields if field.encode_name == step), None)
        if isinstance(info, inspect.UnionType):
            info = next((member for member in info.types if not isinstance(member, inspect.NoneType)), None)
    return info


def _field_names(info: inspect.Type | None) -> list[str]:
    return [field.encode_name for field in info.fields] if isinstance(info, inspect.StructType) else []


def _enum_values(info: inspect.Type | None) -> list[str]:
    if isinstance(info, inspect.EnumType) and issubclass(info.cls, enum.Enum):
        return [str(member.value) for member in info.cls]
    return []
