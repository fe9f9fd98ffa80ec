"""The page in a real browser: Chromium without a window, with the page opened from the disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
WIDTHS = {"phone": 375, "desktop": 1280}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=WIDTHS)
def opened(request: pytest.FixtureRequest, chromium: Any, digits_report: Path) -> Iterator[Any]:
    """The page with everything unfolded, and what it said and asked for."""
    tab = chromium.new_page(viewport={"width": WIDTHS[request.param], "height": 800})
    tab.said, tab.asked = [], []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.on("request", lambda asked: tab.asked.append(asked.url))
    tab.goto((digits_report / "report.html").as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    tab.wait_for_load_state("networkidle")
    yield tab
    tab.close()


def test_the_browser_has_nothing_to_complain_of(opened: Any) -> None:
    assert opened.said == []


def test_no_request_leaves_the_page(opened: Any, digits_report: Path) -> None:
    elsewhere = [url for url in opened.asked if not url.startswith("data:")]
    assert elsewhere == [(digits_report / "report.html").as_uri()]


def test_the_page_is_as_wide_as_the_screen(opened: Any) -> None:
    widths = opened.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] == widths[1]


def test_nothing_but_tables_and_commands_is_cut_off(opened: Any) -> None:
    cut = opened.evaluate(
        """[...document.querySelectorAll('main *, header *')]
        .filter(e => !e.closest('.scroll, pre, svg'))
        .filter(e => e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert cut == []


def test_every_picture_is_drawn(opened: Any) -> None:
    drawn = opened.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert drawn == [True] * len(drawn)
    figures, photographs = opened.evaluate(
        """['.drawing', '.panels img'].map(kind => [...document.querySelectorAll(kind)]
        .map(i => i.getBoundingClientRect()).map(r => [r.width, r.height]))"""
    )
    assert len(photographs) == 20 + 16
    assert len(figures) > 20
    assert all(width >= 200 and height >= 60 for width, height in figures)


def test_no_two_words_of_a_figure_cover_each_other(opened: Any) -> None:
    words, covering = opened.evaluate(
        """let words = 0;
        const covering = [...document.querySelectorAll('img.drawing')].flatMap(image => {
          const text = decodeURIComponent(image.src.slice(image.src.indexOf(',') + 1));
          const parsed = new DOMParser().parseFromString(text, 'image/svg+xml');
          const svg = document.importNode(parsed.documentElement, true);
          svg.style.width = `${image.clientWidth}px`;
          svg.style.height = 'auto';
          image.after(svg);
          const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent,
            t.getBoundingClientRect()]);
          svg.remove();
          words += boxes.length;
          return boxes.flatMap(([a, r], i) => boxes.slice(i + 1).filter(([b, s]) =>
            Math.min(r.right, s.right) - Math.max(r.left, s.left) > 2 &&
            Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 4).map(([b]) => [a, b]));
        });
        [words, covering]"""
    )
    assert covering == []
    assert words > 200


def test_a_section_is_reached_by_its_link(opened: Any) -> None:
    opened.click("nav a[href='#cost']")
    assert opened.evaluate("document.querySelector('#cost').getBoundingClientRect().top < 400")


def test_the_answer_is_on_the_first_screen(opened: Any) -> None:
    place = "document.querySelector('.verdict').getBoundingClientRect().bottom + scrollY"
    assert opened.evaluate(place) < 800


def test_the_contents_stay_in_view(opened: Any) -> None:
    opened.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    top, bottom = opened.evaluate(
        "(r => [r.top, r.bottom])(document.querySelector('nav').getBoundingClientRect())"
    )
    opened.evaluate("scrollTo(0, 0)")
    assert 0 <= top < bottom <= 800


def test_a_table_says_that_it_scrolls_where_it_does(opened: Any) -> None:
    said = opened.evaluate(
        """[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility()).map(e =>
        [e.scrollWidth > e.clientWidth,
        getComputedStyle(e.querySelector('caption'), '::after').display !== 'none'])"""
    )
    assert said
    assert all(scrolls == hint for scrolls, hint in said)


@pytest.mark.long
def test_words_of_a_figure_can_be_read_on_a_phone(opened: Any) -> None:
    sizes = opened.evaluate(
        """[...document.querySelectorAll('img.drawing')].map(i => {
          const text = decodeURIComponent(i.src.slice(i.src.indexOf(',') + 1));
          const points = Number(/<svg[^>]* width="([0-9.]+)pt"/.exec(text)[1]);
          const sizes = [...text.matchAll(/font: ([0-9.]+)px/g)].map(m => Number(m[1]));
          return Math.min(...sizes) * i.clientWidth / points;
        })"""
    )
    assert min(sizes) >= 7.5  # CSS pixels


@pytest.mark.long
def test_it_prints_with_what_was_folded(chromium: Any, digits_report: Path) -> None:
    tab = chromium.new_page()
    tab.goto((digits_report / "report.html").as_uri())
    tab.emulate_media(media="print")
    assert tab.evaluate("document.querySelectorAll('details:not([open])').length > 1")
    hidden = tab.evaluate(
        "[...document.querySelectorAll('figure, table, pre')]"
        ".filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert hidden == 0
    assert tab.pdf()[:4] == b"%PDF"
