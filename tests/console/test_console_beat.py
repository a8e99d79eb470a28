"""The beat that draws the page may come at any moment of a page's life, also while the page is being taken apart."""

from __future__ import annotations

import asyncio

import pytest
import still

from console.pages.page import Page


@pytest.mark.parametrize("first_to_go", ["Top", "Trouble", "#body > *", "#body", "Bottom"])
def test_a_page_that_is_being_taken_apart_is_not_drawn(first_to_go: str) -> None:
    async def look() -> None:
        app = still.still(still.state())
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("3")
            page = app.screen
            assert isinstance(page, Page)
            page.draw()
            await page.query(first_to_go).remove()
            page.draw()

    asyncio.run(look())


def test_the_beat_may_come_once_more_when_the_last_page_has_gone() -> None:
    async def look() -> None:
        app = still.still(still.state())
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("3")
            app._beat()
        app._beat()

    asyncio.run(look())
