"""Every case of the table comes to what the reference service makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conformance import Case, faults_of, load, run

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
