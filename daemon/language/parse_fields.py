"""Reading and compiling the fields that several types of state share: paths, templates, retriers, catchers."""

from __future__ import annotations

from collections.abc import Callable

from daemon.language.causes import (
    Phrase,
    Refusal,
    no_text_at,
    not_in_range,
    not_in_range_at,
    not_of_type,
    of_path,
    of_selection,
)
from daemon.language.definition import Catcher, Placement, Quantity, Retrier
from daemon.language.errors import ALL, HTTP_STATUS, RESERVED
from daemon.language.evaluation import Evaluation, Expression
from daemon.language.fields import LONGEST_SECONDS, Fields
from daemon.language.graph import Graph
from daemon.language.jsonpath import Path
from daemon.language.placement import compile_placement, discard
from daemon.language.query import ERROR_OUTPUT, compile_query_template, compile_text, is_query
from daemon.language.retry import MAX_DELAY_SECONDS
from daemon.language.template import compile_template, compile_value, constant, placed, read_path
from daemon.language.values import kind
from daemon.language.variables import name_fault
from enginekit.messages.json import JSON


def selection(fields: Fields, name: str) -> Expression | None:
    """InputPath, OutputPath: a path, or null for an empty object. None for `$`."""
    if name in fields and fields.values[name] is None:
        return constant({})
    text = fields.text(name)
    if text is None or text == "$":
        return None
    where = fields.path(name)
    path = read_path(text, where, fields.findings)
    return placed(path.read, of_selection(text)) if path is not None else None


def template(fields: Fields, name: str, also: str | None = None) -> Expression | None:
    """Parameters, ResultSelector, ItemSelector: a template in the state's language, None where there is none. `also`
    is what `$states` has in it beside the input and the context."""
    if name not in fields:
        return None
    value = fields.values[name]
    if fields.jsonata:
        return compile_query_template(value, fields.path(name), fields.label(name), fields.findings, also)
    if not isinstance(value, dict):
        fields.fault(name, f"must be an object, not {kind(value)}")
        return None
    return compile_template(value, fields.path(name), fields.label(name), fields.findings)


def assignment(fields: Fields, also: str | None = None) -> Expression | None:
    """Assign: an object of variables, None where there is none."""
    given = fields.object("Assign")
    if given is None:
        return None
    for written in given.values:
        name = written if fields.jsonata else written.removesuffix(".$")
        fault = name_fault(name)
        if fault is not None:
            given.fault(written, fault)
        else:
            fields.findings.variables.assign(name, given.path(written))
    return template(fields, "Assign", also)


def result_path(fields: Fields) -> Placement | None:
    """ResultPath: a reference path, or null to drop the result. None for `$`."""
    if "ResultPath" in fields and fields.values["ResultPath"] is None:
        return discard
    path = reference(fields, "ResultPath")
    if path is None or path.reference is None:
        return None
    if path.root != "$":
        fields.fault("ResultPath", f"a result is put into the input ($), not into {path.root}")
    elif any(isinstance(step, int) and step < 0 for step in path.reference):
        fields.fault("ResultPath", "a result cannot be put at a place counted from the end")
    elif path.reference:
        return compile_placement(path.reference)
    return None


def reference(fields: Fields, name: str) -> Path | None:
    """A reference path: one that can lead to one place only."""
    text = fields.text(name)
    path = read_path(text, fields.path(name), fields.findings) if text is not None else None
    if path is not None and path.reference is None:
        fields.fault(
            name, f'"{text}" must be a reference path: names and single indices, without * .. , : ? or functions'
        )
        return None
    return path


def looked_up(
    fields: Fields, name: str, check: Callable[[JSON], JSON], refusal: Refusal, phrase: Phrase | None = None
) -> Expression | None:
    """A reference path to a value that `check` accepts and may convert; it answers None to refuse it. `phrase` says
    that it leads nowhere, where the field has words of its own for that."""
    path = reference(fields, name)
    if path is None:
        return None
    return _checked(placed(path.read, phrase or of_path(name)), check, refusal, path.text)


def _checked(read: Expression, check: Callable[[JSON], JSON], refusal: Refusal, source: str) -> Expression:
    """What is read, as far as `check` accepts it. `source` is the path or expression, for the cause."""

    def apply(value: JSON, evaluation: Evaluation) -> JSON:
        found = read(value, evaluation)
        checked = check(found)
        if checked is None:
            raise refusal(source, found)
        return checked

    return apply


def query(fields: Fields, name: str, check: Callable[[JSON], JSON], refusal: Refusal) -> Expression | None:
    """An expression in a JSONata state's field, for a value that `check` accepts and may convert (None refuses it).
    None where there is none."""
    text = fields.values.get(name)
    if not fields.jsonata or not isinstance(text, str) or not is_query(text):
        return None
    read = compile_text(text, fields.path(name), fields.label(name), fields.findings)
    if read is None:
        return constant(None)
    return _checked(read, check, refusal, text[2:-2].strip())


def whole_in(least: int, most: int) -> Callable[[JSON], int | None]:
    """A check for whole numbers in a range."""

    def check(value: JSON) -> int | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        return None

    return check


def quantity(
    fields: Fields,
    name: str,
    least: int,
    most: int,
    refusal: Refusal | None = None,
    phrase: Phrase | None = None,
) -> Quantity:
    """A whole number, or what gives it: an expression in its place, or a reference path in the field with `Path`.
    `refusal` and `phrase` are the words for a path, where the field has its own."""
    queried = query(fields, name, whole_in(least, most), not_in_range(fields.label(name), least, most))
    if queried is not None or fields.jsonata:
        return queried if queried is not None else fields.whole(name, least, most)
    by_path = f"{name}Path"
    written = fields.whole(name, least, most)
    read = looked_up(fields, by_path, whole_in(least, most), refusal or not_in_range_at(name, least, most), phrase)
    if name in fields and by_path in fields:
        fields.fault(by_path, f"stands beside {name}; only one of them can be")
    return written if read is None else read


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def text_or_path(fields: Fields, name: str) -> str | Expression:
    """A string, or what gives it: an expression in its place, or a path or intrinsic function in the field with
    `Path`."""
    queried = query(fields, name, _text, not_of_type(fields.label(name), "string"))
    if queried is not None or fields.jsonata:
        return queried if queried is not None else fields.text(name) or ""
    by_path = f"{name}Path"
    written = fields.text(name)
    text = fields.text(by_path)
    if name in fields and by_path in fields:
        fields.fault(by_path, f"stands beside {name}; only one of them can be")
    if text is None:
        return written or ""
    refusal = no_text_at(by_path)
    if text.startswith("$"):
        return looked_up(fields, by_path, _text, refusal) or ""
    read = compile_value(text, fields.path(by_path), by_path, fields.findings)
    return "" if read is None else _checked(read, _text, refusal, text)


def _errors(fields: Fields, last: bool) -> tuple[str, ...]:
    """ErrorEquals."""
    names = fields.values.get("ErrorEquals")
    if not isinstance(names, list) or not names:
        if "ErrorEquals" not in fields:
            fields.findings.fault(fields.where, "needs ErrorEquals, the names of the errors it is for")
        else:
            fields.fault("ErrorEquals", "must be an array of error names, with one at least")
        return ()
    made: list[str] = []
    for index, name in enumerate(names):
        here = f"ErrorEquals[{index}]"
        if not isinstance(name, str):
            fields.fault(here, f"must be a string, not {kind(name)}")
            continue
        made.append(name)
        if name.startswith("States.") and name not in RESERVED and not HTTP_STATUS.fullmatch(name):
            hint = fields.findings.suggest(name, RESERVED)
            fields.findings.warn(fields.path(here), f'no error is named "{name}"{hint}')
    if ALL in made:
        if len(made) > 1:
            fields.fault("ErrorEquals", f"{ALL} must stand alone")
        if not last:
            fields.fault("ErrorEquals", f"{ALL} must stand in the last entry, since nothing after it is ever used")
    return tuple(made)


_RETRIER = (
    "ErrorEquals",
    "IntervalSeconds",
    "MaxAttempts",
    "BackoffRate",
    "MaxDelaySeconds",
    "JitterStrategy",
    "Comment",
)
_CATCHER = ("ErrorEquals", "Next", "Assign", "Comment")


def retriers(fields: Fields) -> tuple[Retrier, ...]:
    """Retry."""
    made: list[Retrier] = []
    written = fields.objects("Retry", empty=True)
    for each in written:
        each.only(_RETRIER, "a retrier")
        each.text("Comment")
        interval = each.whole("IntervalSeconds", 1, LONGEST_SECONDS)
        attempts = each.whole("MaxAttempts", 0, LONGEST_SECONDS)
        rate = each.number("BackoffRate", 1, 1e6)
        delay = each.whole("MaxDelaySeconds", 1, MAX_DELAY_SECONDS)
        if delay is not None and delay < (interval or 1):
            each.fault("MaxDelaySeconds", f"must not be less than IntervalSeconds ({interval or 1})")
        jitter = each.text("JitterStrategy")
        if jitter not in (None, "FULL", "NONE"):
            each.fault("JitterStrategy", f'must be "FULL" or "NONE", not "{jitter}"')
        made.append(
            Retrier(
                errors=_errors(each, each is written[-1]),
                interval_seconds=1 if interval is None else interval,
                max_attempts=3 if attempts is None else attempts,
                backoff_rate=2.0 if rate is None else rate,
                max_delay_seconds=delay,
                jitter=jitter == "FULL",
            )
        )
    return tuple(made)


def catchers(fields: Fields, graph: Graph, name: str) -> tuple[Catcher, ...]:
    """Catch, of the state with this name."""
    made: list[Catcher] = []
    written = fields.objects("Catch", empty=True)
    for each in written:
        mine, other = ("Output", "ResultPath") if each.jsonata else ("ResultPath", "Output")
        if other in each:
            each.fault(other, f"belongs to the other query language; here it is {mine}")
        each.only((*_CATCHER, mine, other), "a catcher")
        each.text("Comment")
        target = each.text("Next")
        if target is not None:
            graph.link(name, each.path("Next"), target)
        else:
            graph.unknown()
            if "Next" not in each:
                each.findings.fault(each.where, "needs Next, the state to go to")
        errors = _errors(each, each is written[-1])
        made.append(
            Catcher(
                errors=errors,
                next=target or "",
                place=None if each.jsonata else result_path(each),
                output=template(each, "Output", ERROR_OUTPUT) if each.jsonata else None,
                assign=assignment(each, ERROR_OUTPUT),
            )
        )
    return tuple(made)


def transition(fields: Fields, name: str, graph: Graph) -> tuple[str | None, bool]:
    """Next and End."""
    following = fields.text("Next")
    end = fields.flag("End") or False
    if following is not None:
        graph.link(name, fields.path("Next"), following)
        if end:
            fields.fault("Next", "stands beside End; a state has one of them")
    elif "Next" in fields:
        graph.unknown()
    elif not end:
        fields.findings.fault(fields.where, 'needs Next, the state to go to, or "End": true')
        graph.unknown()
    if end:
        graph.end(name)
    return following, end
