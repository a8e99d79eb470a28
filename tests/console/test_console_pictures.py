"""Every page as it looks, kept as pictures: at 80×24, at 160×50, and where there is no room.

What has changed on purpose is taken over with `pytest tests/console/test_console_pictures.py --snapshot-update`, after
a look at it.
"""

from __future__ import annotations

import pytest
import still

PAGES = {
    "services": ["1"],
    "queues": ["2"],
    "executions": ["3"],
    "execution": ["3", "enter"],
    "letters": ["4"],
    "letter": ["4", "enter"],
    "discard": ["4", "d"],
    "schedules": ["5"],
    "help": ["3", "question_mark"],
}
SIZES = {"80x24": (80, 24), "160x50": (160, 50)}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever terminal the tests are run in."""
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("page", PAGES)
def test_page(snap_compare, page: str, size: str) -> None:
    assert snap_compare(still.still(still.state()), press=PAGES[page], terminal_size=SIZES[size])


@pytest.mark.parametrize("size", SIZES)
def test_a_split_engine(snap_compare, size: str) -> None:
    assert snap_compare(still.still(still.split()), terminal_size=SIZES[size])


def test_events_in_80_columns(snap_compare) -> None:
    assert snap_compare(still.still(still.state()), press=["3", "enter", "v", "down", "down"], terminal_size=(80, 24))


@pytest.mark.parametrize("seen", ["state", "lost", "refused"])
def test_60x15(snap_compare, seen: str) -> None:
    assert snap_compare(still.still(getattr(still, seen)()), terminal_size=(60, 15))


@pytest.mark.parametrize("seen", ["lost", "refused"])
def test_trouble(snap_compare, seen: str) -> None:
    assert snap_compare(still.still(getattr(still, seen)()), press=["3"], terminal_size=(80, 24))
