"""`python -m tests.support.screenshots` takes the pictures of the page for the README."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, async_playwright

from tests.support.browser import FLAGS, FixedModel, chromium, served
from tests.support.overviews import good, holed, view_of
from tests.support.product import ROOT

DIRECTORY: Final = ROOT / "docs" / "images"
PICTURES: Final = {
    "page": (good, {"viewport": {"width": 1120, "height": 720}, "color_scheme": "light"}),
    "page-dark": (holed, {"viewport": {"width": 1120, "height": 860}, "color_scheme": "dark"}),
    "page-phone": (holed, {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}),
}


async def take(browser: Browser, directory: Path) -> list[str]:
    """All pictures; answers what the browser had to object to."""
    objections: list[str] = []
    model = FixedModel(view_of(good()))
    async with served(model) as url:
        for name, (overview, options) in PICTURES.items():
            model.shown = view_of(overview())
            chosen: dict[str, Any] = dict(options)
            context = await browser.new_context(**chosen)
            page = await context.new_page()
            page.on("console", lambda message: objections.append(message.text))
            page.on("pageerror", lambda error: objections.append(str(error)))
            await page.goto(url)
            await page.screenshot(path=directory / f"{name}.png")
            await context.close()
    return objections


async def _main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        await take(browser, DIRECTORY)
        await browser.close()


def main() -> int:
    """Write them to docs/images."""
    asyncio.run(_main())
    return 0


if __name__ == "__main__":
    sys.exit(main())
