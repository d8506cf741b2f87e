"""Look at the page of 'energysim report' in a real browser: sorting, widths, keyboard, contrast.

Needs Playwright and a Chromium: pip install playwright, and either 'playwright install chromium' or
a browser of the system's (--browser /usr/bin/chromium). For each page that is given it checks

- that nothing is asked for over the network, and that the console stays silent;
- at 400 and 1600 pixels, light and dark: nothing overflows sideways, and all words have enough
  contrast with what is behind them (WCAG 2 AA), as the browser has drawn them;
- every column of every table sorts, by mouse and by keyboard, both ways, and says so (aria-sort);
- all that can be used is reached with the tabulator key, and is seen to be reached;
- a link to a mapping opens it; without JavaScript all rows are there.

    python benchmarks/report_page.py --browser /usr/bin/chromium --shots shots page.html ...

Exit status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

WIDTHS = (400, 1600)
SCHEMES = ("light", "dark")
SHOWN = 20

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip

CONTRAST = """
() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (part) => {
    const x = part / 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  };
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = luminance(numbers(style.color)), ground = luminance(behind(element));
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push([element.tagName, element.textContent, ratio]);
  }
  return found;
}
"""

OVERFLOW = """
() => {
  const page = document.documentElement;
  const wide = [...document.querySelectorAll("body *:not(svg *)")].filter((each) =>
    !each.closest(".scroll") && !each.matches(".skip") && each.checkVisibility()
    && each.getBoundingClientRect().right > innerWidth + 1);
  return [page.scrollWidth, innerWidth, wide.map((each) => `${each.tagName}.${each.className}`)];
}
"""

# Cells of a column as they should be sorted by: numbers, or words.
CELLS = """
([table, column]) => {
  const all = document.querySelectorAll("table[data-sorts]")[table];
  const numeric = all.tHead.rows[0].cells[column].classList.contains("number");
  return [numeric, all.tHead.rows[0].cells[column].getAttribute("aria-sort"),
          [...all.tBodies[0].rows].map((row) => numeric
            ? row.cells[column].dataset.key ?? null : row.cells[column].textContent.trim())];
}
"""

TABLES = """
() => [...document.querySelectorAll("table[data-sorts]")]
  .map((each) => each.tHead.rows[0].cells.length)
"""

REACHABLE = """
() => [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")]
  .filter((each) => each.checkVisibility()).length
"""

FOCUSED = """
() => {
  const each = document.activeElement;
  if (!each || each === document.body) return null;
  const style = getComputedStyle(each);
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return [each.tagName, each.textContent.slice(0, 30), seen];
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--browser", help="executable; by default Playwright's own Chromium")
    parser.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.browser, args=FLAGS)
        for path in asked.pages:
            problems = list(check(browser, path.resolve(), asked.shots))
            wrong += len(problems)
            print(f"{path}: {f'{len(problems)} problems' if problems else 'all is well'}")
            for problem in problems[:SHOWN]:
                print(f"  {problem}")
        browser.close()
    return 1 if wrong else 0


def check(browser: Any, path: Path, shots: Path | None) -> Iterator[str]:
    """Everything that is wrong with one page."""
    for scheme in SCHEMES:
        for width in WIDTHS:
            size = {"width": width, "height": 900}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page, heard = context.new_page(), []
            page.on("console", lambda each, heard=heard: heard.append(f"console: {each.text}"))
            page.on("pageerror", lambda each, heard=heard: heard.append(f"error: {each}"))
            page.on("request", lambda each, heard=heard: heard.append(f"request: {each.url}"))
            page.goto(path.as_uri())
            heard.remove(f"request: {path.as_uri()}")
            if shots is not None:
                shots.mkdir(exist_ok=True)
                page.screenshot(path=shots / f"{path.stem}_{scheme}_{width}.png", full_page=True)
            page.evaluate(
                "() => document.querySelectorAll('details').forEach((e) => e.open = true)"
            )
            where = f"{scheme} {width}"
            scroll, inner, wide = page.evaluate(OVERFLOW)
            if scroll > inner or wide:
                yield f"{where}: {scroll} pixels wide, {wide[:3]}"
            for tag, text, ratio in page.evaluate(CONTRAST)[:3]:
                yield f"{where}: contrast {ratio:.2f} of {tag} '{text[:30]}'"
            if scheme == SCHEMES[0] and width == WIDTHS[-1]:
                yield from check_sorting(page)
            yield from (f"{where}: {each}" for each in heard)
            context.close()
    yield from check_keyboard(browser, path)
    yield from check_links(browser, path)
    yield from check_without_script(browser, path)


def check_sorting(page: Any) -> Iterator[str]:
    """Sort each column by a click, and by Enter and the space bar."""
    for table, columns in enumerate(page.evaluate(TABLES)):
        heads = page.locator("table[data-sorts]").nth(table).locator("thead th")
        for column in range(columns):
            rows = sorted(map(str, page.evaluate(CELLS, [table, column])[2]))
            button = heads.nth(column).locator("button")
            found = {}
            for act in (
                button.click,
                partial(button.press, "Enter"),
                partial(button.press, "Space"),
            ):
                last = next(reversed(found), None)
                act()
                numeric, order, cells = page.evaluate(CELLS, [table, column])
                if order == last:
                    yield f"table {table}, column {column}: {order} twice"
                found.pop(order, None)
                found[order] = cells
            problem = disorder(rows, found, numeric=numeric)
            if problem:
                yield f"table {table}, column {column}: {problem}"
        sorts = page.locator("table[data-sorts]").nth(table).locator("th[aria-sort]").count()
        if sorts != 1:
            yield f"table {table}: {sorts} columns say that they are sorted"


def disorder(rows: list[str], found: dict[str, list[str | None]], *, numeric: bool) -> str:
    """Say what is wrong with a column that was sorted both ways; nothing if all is well."""
    if set(found) != {"ascending", "descending"}:
        return f"says that it is {' and '.join(map(str, found))}"
    if any(sorted(map(str, cells)) != rows for cells in found.values()):
        return "loses rows"
    if not numeric:
        # words in the browser's own order: equal ones stand together, and one way mirrors the other
        up, down = ([word for word, _ in groupby(cells)] for cells in found.values())
        return "" if up == down[::-1] and len(up) == len(set(up)) else "words are not in order"
    for order, cells in found.items():
        present = [float(each) for each in cells if each is not None]
        ordered = sorted(present, reverse=order == "descending")
        if present != ordered or any(each is not None for each in cells[len(present) :]):
            return f"is not {order}, with missing numbers last"
    return ""


def check_keyboard(browser: Any, path: Path) -> Iterator[str]:
    """Walk through the page with the tabulator key."""
    page = browser.new_page()
    page.goto(path.as_uri())
    expected, reached, unseen = page.evaluate(REACHABLE), 0, []
    for _ in range(expected + 1):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found is None:
            break
        reached += 1
        if not found[2]:
            unseen.append(found[:2])
    if reached != expected:
        yield f"keyboard: {reached} of {expected} places reached"
    if unseen:
        yield f"keyboard: focus is not seen on {unseen[:3]}"
    page.close()


def check_links(browser: Any, path: Path) -> Iterator[str]:
    """Follow the first layer to its mapping, and sort a table that is scrolled."""
    page = browser.new_page()
    page.goto(path.as_uri())
    link = page.locator("#run-1 tbody a").first
    target = link.get_attribute("href")
    link.click()
    if not page.locator(f"{target}[open]").count():
        yield f"{target} is not opened by its link"
    page.close()
    page = browser.new_page()  # where nothing is open yet
    page.goto(path.as_uri())
    page.locator("[data-folds] .tools button").first.click()
    folds = page.locator("[data-folds]").first
    if folds.locator("details[open]").count() != folds.locator("details").count():
        yield "'Open all' does not"
    page.close()


def check_without_script(browser: Any, path: Path) -> Iterator[str]:
    """See that the page is readable without JavaScript."""
    counts = []
    for on in (True, False):
        context = browser.new_context(java_script_enabled=on)
        page = context.new_page()
        page.goto(path.as_uri())
        counts.append((page.locator("tbody tr").count(), page.locator("svg").count()))
        if not on and page.locator("button").count():
            yield "there are buttons that do nothing without JavaScript"
        context.close()
    if counts[0] != counts[1]:
        yield f"without JavaScript there are {counts[1]} rows and pictures of {counts[0]}"


if __name__ == "__main__":
    sys.exit(main())
