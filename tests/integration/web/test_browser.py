"""The page in a real browser: it renders without a complaint, keeps itself fresh, fits a phone, can
be read in the dark and with a screen reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.support.browser import FLAGS, FixedModel, chromium, served
from tests.support.overviews import good, holed, view_of
from tests.support.screenshots import PICTURES, take

CONTRAST = """
() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *:not(svg *)")) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !one.offsetParent) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(one.textContent.trim().slice(0, 40) + " " + ratio.toFixed(1));
  }
  return poor;
}
"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield found
        await found.close()


async def opened(browser: Browser, url: str, *, width: int = 1100, dark: bool = False) -> Page:
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
    )
    page = await context.new_page()
    await page.goto(url)
    return page


async def test_the_browser_objects_to_nothing(browser: Browser, tmp_path: Path) -> None:
    assert await take(browser, tmp_path) == []
    for name in PICTURES:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


async def test_the_page_keeps_itself_fresh(browser: Browser) -> None:
    model = FixedModel(view_of(good()))
    async with served(model) as url:
        page = await opened(browser, url)
        await page.get_by_role("heading", name="You are safe", exact=True).wait_for()
        model.shown = view_of(holed())
        await page.get_by_role("heading", name="look at this").wait_for(timeout=15_000)
        assert "look at this" in await page.title()
        assert await page.get_by_role("progressbar").count() == 1
        await page.get_by_text("1 hole").click()
        details = page.locator("#gaps")
        assert await details.get_attribute("open") is not None
        model.shown = view_of(holed(), age_s=3.0)
        await page.wait_for_timeout(3500)
        assert await details.get_attribute("open") is not None


async def test_a_page_whose_agent_is_gone_says_so(browser: Browser) -> None:
    async with served(FixedModel(view_of(good()))) as url:
        page = await opened(browser, url)
        await page.route("**/api/**", lambda route: route.abort())
    await page.get_by_text("no answer for").wait_for(timeout=20_000)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_fits_a_phone_and_can_be_read(browser: Browser, dark: bool) -> None:
    async with served(FixedModel(view_of(holed()))) as url:
        for width in (360, 1100):
            page = await opened(browser, url, width=width, dark=dark)
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} pixels on a screen of {width}"
            assert await page.evaluate(CONTRAST) == []


async def test_it_has_a_structure_for_those_who_do_not_see_it(browser: Browser) -> None:
    async with served(FixedModel(view_of(holed()))) as url:
        page = await opened(browser, url)
        assert await page.locator("html[lang=en]").count() == 1
        assert await page.get_by_role("heading", level=1).count() == 1
        assert await page.get_by_role("main").count() == 1
        assert await page.get_by_role("img", name="Timeline").count() == 1
        assert await page.locator("img:not([alt])").count() == 0
        for table in await page.get_by_role("table").all():
            assert await table.locator("thead th[scope=col]").count() >= 5
            assert await table.locator("tbody th[scope=row]").count() >= 1
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
