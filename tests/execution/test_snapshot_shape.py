"""A snapshot's fingerprint names the shape of everything that a state is made of."""

from __future__ import annotations

from daemon.execution.snapshot import parts


def test_what_a_map_and_a_parent_are_is_part_of_it():
    names = {struct.__name__ for struct in parts()}
    assert names >= {
        "Run",
        "Node",
        "Task",
        "Mapping",
        "Plan",
        "ReadPlan",
        "WritePlan",
        "Parent",
        "ParentTask",
        "Failure",
    }
