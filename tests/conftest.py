"""Options of the suite as a whole."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=6, help="how often the chaos tests kill the daemon or its store")
    parser.addoption("--chaos-seed", type=int, default=None, help="when and whom; printed by every run")
