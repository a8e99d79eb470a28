"""Reading and compiling the rules of a Choice state."""

from __future__ import annotations

from typing import Final

from daemon.language.causes import not_of_type
from daemon.language.choice import (
    COMPARISONS,
    TYPE_TESTS,
    all_of,
    any_of,
    comparison,
    comparison_with_path,
    matching,
    opposite,
    pattern,
    presence,
)
from daemon.language.definition import Rule
from daemon.language.fields import Fields
from daemon.language.jsonpath import Path
from daemon.language.parse_fields import query
from daemon.language.template import read_path
from daemon.language.timestamps import parse_timestamp

_JOINS: Final = ("And", "Or", "Not")
_WITH_PATH: Final = {f"{name}Path": test for name, test in COMPARISONS.items()}
OPERATORS: Final = (*_JOINS, *COMPARISONS, *_WITH_PATH, *TYPE_TESTS, "IsPresent", "StringMatches")
_OUTERMOST: Final = ("Next", "Assign")


def parse_condition(rule: Fields) -> Rule | None:
    """Read what one entry of Choices asks, in the state's query language; None when it was reported."""
    return _query(rule) if rule.jsonata else parse_rule(rule, top=True)


def _query(rule: Fields) -> Rule | None:
    """Condition: an expression that gives true or false."""
    if any(name in OPERATORS or name == "Variable" for name in rule.values):
        rule.findings.fault(rule.where, "operators belong to JSONPath, and this state is JSONata: use Condition")
        return None
    rule.only(("Condition", "Next", "Assign", "Output", "Comment"), "a choice rule")
    rule.text("Comment")
    if "Condition" not in rule:
        rule.findings.fault(rule.where, "needs Condition, an expression that gives true or false")
        return None
    refusal = not_of_type(rule.label("Condition"), "boolean")
    read = query(rule, "Condition", lambda value: value if isinstance(value, bool) else None, refusal)
    if read is None:
        written = rule.flag("Condition")
        return None if written is None else lambda value, evaluation: bool(written)
    return lambda value, evaluation: read(value, evaluation) is True


def parse_rule(rule: Fields, *, top: bool) -> Rule | None:
    """Read one rule; None when it was reported. `top`: it stands in Choices itself, where Next belongs."""
    refused = False
    for name in rule.values:
        if name in ("Condition", "Output"):
            rule.fault(name, "belongs to JSONata, and this state is JSONPath")
            refused = True
        elif name in _OUTERMOST:
            if not top:
                rule.fault(name, f"only a rule directly in Choices has {name}")
        elif name not in OPERATORS and name not in ("Variable", "Comment"):
            rule.fault(name, f"not an operator of a choice rule{rule.findings.suggest(name, OPERATORS)}")
            refused = True
    rule.text("Comment")
    operators = [name for name in rule.values if name in OPERATORS]
    if len(operators) != 1:
        if operators:
            rule.findings.fault(rule.where, f"a rule has one operator, and here are {', '.join(operators)}")
        elif not refused:
            rule.findings.fault(rule.where, "a rule needs an operator, such as StringEquals")
        return None
    operator = operators[0]
    if operator in _JOINS:
        if "Variable" in rule:
            rule.fault("Variable", f"{operator} has no Variable of its own")
        return _joined(rule, operator)
    return _compared(rule, operator)


def _joined(rule: Fields, operator: str) -> Rule | None:
    if operator == "Not":
        inner = rule.object("Not")
        negated = parse_rule(inner, top=False) if inner is not None else None
        return opposite(negated) if negated is not None else None
    parsed = [parse_rule(each, top=False) for each in rule.objects(operator)]
    rules = tuple(each for each in parsed if each is not None)
    return all_of(rules) if operator == "And" else any_of(rules)


def _compared(rule: Fields, operator: str) -> Rule | None:
    variable = _path(rule, "Variable")
    if "Variable" not in rule:
        rule.findings.fault(rule.where, f"{operator} needs a Variable")
    if operator in _WITH_PATH:
        other = _path(rule, operator)
        if variable is None or other is None:
            return None
        return comparison_with_path(variable, _WITH_PATH[operator], other)
    if operator == "IsPresent":
        wanted = rule.flag(operator)
        return presence(variable, wanted) if variable is not None and wanted is not None else None
    if operator == "StringMatches":
        text = rule.text(operator)
        pieces = pattern(text) if text is not None else None
        if text is not None and pieces is None:
            rule.fault(operator, r"a backslash may stand before * and \ only")
        return comparison(variable, matching(pieces), None) if variable and pieces else None
    if not _fits(rule, operator) or variable is None:
        return None
    test = COMPARISONS.get(operator) or TYPE_TESTS[operator]
    return comparison(variable, test, rule.values[operator])


def _fits(rule: Fields, operator: str) -> bool:
    """Whether the value written is of the operator's type; it is reported when it is not."""
    if operator.startswith("String"):
        return rule.text(operator) is not None
    if operator.startswith("Numeric"):
        return rule.number(operator, -1.7e308, 1.7e308) is not None
    if operator.startswith("Timestamp"):
        text = rule.text(operator)
        if text is not None and parse_timestamp(text) is None:
            rule.fault(operator, f'"{text[:60]}" is not a timestamp like 2016-03-14T01:59:00Z')
            return False
        return text is not None
    return rule.flag(operator) is not None


def _path(rule: Fields, name: str) -> Path | None:
    text = rule.text(name)
    return read_path(text, rule.path(name), rule.findings) if text is not None else None
