"""When garbage is collected: in a process of its own, because it is the process that is tuned."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from console.collecting import ALL_BEATS, QUIET_SECONDS, collecting

class Ring:
    def __init__(self):
        self.myself = self

before = len(gc.get_objects())
between = collecting()
print("walked through later", len(gc.get_objects()) < before / 10)

def rings(many):
    made = [Ring() for _ in range(many)]
    return weakref.ref(made[0])

young = rings(10_000)
print("while a picture is made", young() is None)
between(0.0)
print("between two", young() is None)

held = [Ring()]
old = weakref.ref(held[0])
between(0.0)  # it has lived through one
held.clear()
for _ in range(ALL_BEATS):
    between(0.0)
print("old, while keys are pressed", old() is None)
between(QUIET_SECONDS)
print("old, while nobody does", old() is None)
"""


def test_between_two_pictures_and_all_of_it_only_while_nobody_presses_a_key() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "walked through later True",
        "while a picture is made False",
        "between two True",
        "old, while keys are pressed False",
        "old, while nobody does True",
    ]
