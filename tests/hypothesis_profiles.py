"""How many examples a property test tries: few in the suite, many with `--hypothesis-profile thorough` (`make
properties`).

A test says with `examples` how many it is worth under Hypothesis's own default of a hundred; each profile has its share
of that. No example is held to a time.
"""

from __future__ import annotations

from hypothesis import settings

DEFAULT_EXAMPLES = 100
SUITE, THOROUGH = "suite", "thorough"

settings.register_profile(SUITE, max_examples=DEFAULT_EXAMPLES * 2 // 5, deadline=None)
settings.register_profile(THOROUGH, max_examples=DEFAULT_EXAMPLES * 5, deadline=None)
settings.load_profile(SUITE)


def examples(count: int) -> int:
    """So many, by the measure of the profile that is loaded."""
    return count * settings().max_examples // DEFAULT_EXAMPLES
