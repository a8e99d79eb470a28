"""Every case of the table comes to what the reference service makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conformance import RECORDED, SOURCES, Case, expanded, faults_of, load, run

CASES = list(load())


@pytest.mark.parametrize(("file", "case"), CASES, ids=[f"{file.stem}: {case.name}" for file, case in CASES])
def test_case(file: Path, case: Case) -> None:
    faults = faults_of(case)
    if "faults" in case.expected:
        assert faults == case.expected["faults"]
        return
    assert faults is None, faults
    outcome = run(case)
    if "error" in case.expected:
        assert (outcome.error, outcome.cause) == (case.expected["error"], case.expected["cause"])
    else:
        assert outcome.error is None, (outcome.error, outcome.cause)
        assert "gives" in case.expected, "the case says nothing of what it comes to"
        assert outcome.output == case.expected["gives"]
        assert type(outcome.output) is type(case.expected["gives"])
    if "seconds" in case.expected:
        assert outcome.seconds == pytest.approx(case.expected["seconds"])


def test_the_table_is_whole() -> None:
    """Every section is there, and no case twice."""
    names = Counter((file.stem, case.name) for file, case in CASES)
    assert [name for name, times in names.items() if times > 1] == []
    assert len(CASES) >= 400


def test_the_documentation_counts_where_the_causes_are_from() -> None:
    """docs/language.md says how many causes are the reference service's, and how many are ours."""
    text = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
    failing = [case for _, case in CASES if "error" in case.expected]
    by_source = Counter(case.expected["cause_source"] for case in failing)
    for source in SOURCES:
        assert f"| `{source}` | {by_source[source]} |" in text
    recorded = sum(by_source[source] for source in RECORDED)
    assert f"So {recorded} of {len(failing)} causes are the service's own words" in text
    refused = sum("faults" in case.expected for _, case in CASES)
    assert f"has {len(CASES)} runs. {refused} are of definitions that are refused, {len(failing)} fail" in text


def test_a_case_that_fails_says_where_its_cause_is_from() -> None:
    with pytest.raises(AssertionError, match="needs a cause_source"):
        list(expanded({"path": "$.a", "error": "States.Runtime", "cause": "why"}))
