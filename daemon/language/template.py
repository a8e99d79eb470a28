"""Payload templates and single expressions, compiled: what stands in the fields of a state that may hold them.

Compiling reports what is wrong to the findings and goes on, so that all of it is found. What is compiled raises
StateError, in the words of `causes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from daemon.language.causes import Phrase, of_function, of_path, of_template
from daemon.language.errors import RUNTIME, Failed, Malformed, Missing
from daemon.language.evaluation import Evaluation, Expression
from daemon.language.fields import Findings
from daemon.language.intrinsics import compile_intrinsic
from daemon.language.jsonpath import Path, compile_path
from daemon.language.values import kind
from enginekit.messages.json import JSON

_MANY: Final = 16
"""More references than this in a template, and what it builds is weighed: each may be as large as a payload."""


def constant(value: JSON) -> Expression:
    """The expression that is always this value."""
    return lambda _, __: value


def read_path(text: str, where: str, findings: Findings) -> Path | None:
    """Compile a path, or report why it is none."""
    patterns = text.count("=~")
    if patterns and not findings.room_for(text, where):
        return None
    findings.count_patterns(patterns, where)
    try:
        path = compile_path(text)
    except Malformed as malformed:
        findings.fault(where, f'"{_short(text)}" is not a path: {malformed.reason} (character {malformed.position})')
        return None
    if path.variables:
        findings.variables.refer(path.variables, where)
    return path


def placed(read: Callable[[JSON, Evaluation], JSON], phrase: Phrase) -> Expression:
    """The same, with its failures made errors of a field."""

    def apply(value: JSON, evaluation: Evaluation) -> JSON:
        try:
            return read(value, evaluation)
        except Failed as failed:
            raise phrase(failed, value) from None

    return apply


def compile_value(text: str, where: str, field: str, findings: Findings) -> Expression | None:
    """Compile what a `field` ending in `.$` or `Path` holds: a path or an intrinsic function. None when it was
    reported."""
    if text.startswith("$"):
        path = read_path(text, where, findings)
        return None if path is None else _path_value(path, field)
    patterns = text.count("=~")
    if patterns and not findings.room_for(text, where):
        return None
    findings.count_patterns(patterns, where)
    try:
        call, variables = compile_intrinsic(text)
    except Malformed as malformed:
        if not text.startswith("States."):
            findings.fault(where, f'"{_short(text)}" is neither a path (beginning with "$") nor an intrinsic function')
        else:
            findings.fault(where, f'"{_short(text)}": {malformed.reason} (character {malformed.position})')
        return None
    findings.variables.refer(variables, where)
    return placed(_weighed(call), of_function(text))


def _path_value(path: Path, field: str) -> Expression:
    """A path's value; null for the item of an array that has not so many, as in the reference service, where every
    other path that leads nowhere is an error."""
    read = path.read
    phrase = of_path(field)

    def apply(value: JSON, evaluation: Evaluation) -> JSON:
        try:
            return read(value, evaluation)
        except Missing as missing:
            if missing.past_the_end:
                return None
            raise phrase(missing, value) from None
        except Failed as failed:
            raise phrase(failed, value) from None

    return apply


def compile_template(value: JSON, where: str, label: str, findings: Findings) -> Expression:
    """Compile a payload template: any JSON, in which a field `name.$` is computed and becomes `name`. `label` is where
    it stands in its state."""
    return PathTemplate(findings, label).expression(value, where, RUNTIME)


def _weighed(read: Callable[[JSON, Evaluation], JSON]) -> Expression:
    """The same, bounded in what it builds."""

    def apply(value: JSON, evaluation: Evaluation) -> JSON:
        built = read(value, evaluation)
        if isinstance(built, (list, dict)):
            evaluation.weigh(built)
        return built

    return apply


class Template:
    """One compilation of JSON in which some values are computed; which ones, the query language says."""

    def __init__(self, findings: Findings, label: str) -> None:
        self.findings = findings
        self.label = label
        """Where in its state what is being compiled stands, as causes name it: `Output/lines[0]/price`."""
        self.leaves = 0
        """How much in it is computed."""

    def expression(self, value: JSON, where: str, error: str) -> Expression:
        """The whole template. `error` is the name of its failure to stay within bounds."""
        build = self.compile(value, where)
        if build is None:
            return constant(value)
        return build if self.leaves <= _MANY else placed(_weighed(build), of_template(self.label, error))

    def compile(self, value: JSON, where: str) -> Expression | None:
        """The value's builder, or None for a value in which nothing is computed."""
        if isinstance(value, dict):
            return self._object(value, where)
        if isinstance(value, list):
            return self._array(value, where)
        return self.text(value, where) if isinstance(value, str) else None

    def text(self, value: str, where: str) -> Expression | None:
        """The builder of a string, or None for one that stands for itself."""
        return None

    def field(self, name: str, value: JSON, where: str) -> tuple[str, Expression | None]:
        """The name that a field gets in what is built, and its value's builder."""
        return name, self.compile(value, where)

    def _object(self, fields: dict[str, JSON], where: str) -> Expression | None:
        base: dict[str, JSON] = {}
        computed: list[tuple[str, Expression]] = []
        label = self.label
        for name, value in fields.items():
            here = f"{where}.{name}"
            self.label = f"{label}/{name}"
            target, build = self.field(name, value, here)
            if target in base:
                self.findings.fault(
                    here, f'"{target}" and "{target}.$" are both there; only one of them can be the field'
                )
            base[target] = value
            if build is not None:
                base[target] = None
                computed.append((target, build))
        self.label = label
        if not computed:
            return None
        if len(computed) == len(base):
            return _all_computed(tuple(computed))

        def build_object(value: JSON, evaluation: Evaluation) -> JSON:
            made = base.copy()
            for name, build in computed:
                made[name] = build(value, evaluation)
            return made

        return build_object

    def _array(self, items: list[JSON], where: str) -> Expression | None:
        computed: list[tuple[int, Expression]] = []
        label = self.label
        for index, item in enumerate(items):
            self.label = f"{label}[{index}]"
            build = self.compile(item, f"{where}[{index}]")
            if build is not None:
                computed.append((index, build))
        self.label = label
        if not computed:
            return None

        def build_array(value: JSON, evaluation: Evaluation) -> JSON:
            made = items.copy()
            for index, build in computed:
                made[index] = build(value, evaluation)
            return made

        return build_array


_LOOKS_LIKE_PATH: Final = re.compile(r"\$\$?[.\[][\w'\"*.]|States\.[A-Z]\w*\(")


def looks_like_path(text: str) -> bool:
    """Whether a text could be a path or an intrinsic function that was meant to be evaluated."""
    return _LOOKS_LIKE_PATH.match(text) is not None


class PathTemplate(Template):
    """JSONPath: the fields whose names end in `.$` are computed."""

    def text(self, value: str, where: str) -> Expression | None:
        if looks_like_path(value):
            self.findings.warn(where, 'is text: what is to be evaluated stands in a field whose name ends in ".$"')
        elif value.startswith("{%") and value.endswith("%}"):
            self.findings.warn(where, "is text: this state is JSONPath, which has no {% %}")
        return None

    def field(self, name: str, value: JSON, where: str) -> tuple[str, Expression | None]:
        target = name.removesuffix(".$")
        if target == name:
            return name, self.compile(value, where)
        if not isinstance(value, str):
            self.findings.fault(where, f"must be a path or an intrinsic function in a string, not {kind(value)}")
            return target, None
        self.leaves += 1
        return target, compile_value(value, where, name, self.findings)


def _all_computed(computed: tuple[tuple[str, Expression], ...]) -> Expression:
    def build(value: JSON, evaluation: Evaluation) -> JSON:
        return {name: each(value, evaluation) for name, each in computed}

    return build


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
