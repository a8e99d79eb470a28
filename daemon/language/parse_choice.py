"""Reading and compiling the rules of a Choice state."""

from __future__ import annotations

from typing import Final

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
from daemon.language.template import read_path
from daemon.language.timestamps import parse_timestamp

_JOINS: Final = ("And", "Or", "Not")
_WITH_PATH: Final = {f"{name}Path": test for name, test in COMPARISONS.items()}
OPERATORS: Final = (*_JOINS, *COMPARISONS, *_WITH_PATH, *TYPE_TESTS, "IsPresent", "StringMatches")
REFUSED_IN_RULES: Final = {
    "Assign": "variables (Assign) are not available in this version",
    "Condition": "belongs to JSONata; only JSONPath is available in this version",
    "Output": "belongs to JSONata; only JSONPath is available in this version",
}


def parse_rule(rule: Fields, *, top: bool) -> Rule | None:
    """Read one rule; None when it was reported. `top`: it stands in Choices itself, where Next belongs."""
    refused = False
    for name in rule.values:
        if name in REFUSED_IN_RULES:
            rule.fault(name, REFUSED_IN_RULES[name])
            refused = True
        elif name == "Next" and not top:
            rule.fault(name, "only a rule directly in Choices has a Next")
        elif name not in OPERATORS and name not in ("Variable", "Next", "Comment"):
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
        return comparison_with_path(variable, _WITH_PATH[operator], other, rule.where, operator)
    if operator == "IsPresent":
        wanted = rule.flag(operator)
        return presence(variable, wanted, rule.where) if variable is not None and wanted is not None else None
    if operator == "StringMatches":
        text = rule.text(operator)
        pieces = pattern(text) if text is not None else None
        if text is not None and pieces is None:
            rule.fault(operator, r"a backslash may stand before * and \ only")
        return comparison(variable, matching(pieces), None, rule.where) if variable and pieces else None
    if not _fits(rule, operator) or variable is None:
        return None
    test = COMPARISONS.get(operator) or TYPE_TESTS[operator]
    return comparison(variable, test, rule.values[operator], rule.where)


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
    return read_path(text, rule.path(name), rule.findings.fault) if text is not None else None
