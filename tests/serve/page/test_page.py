"""The page in a browser: what it shows, by mouse and keyboard, narrow and dark, with keys, and when the server is gone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from edgewise.host import Refused
from edgewise.serve.page import HEADERS, document


@pytest.fixture
def filled(served: Any, minute: Callable[[Any], Any]) -> Any:
    return minute(served)


def rows(page: Any) -> list[str]:
    page.wait_for_selector("#rows tr")
    return page.locator("#rows tr").all_inner_texts()


def row(page: Any, name: str) -> Any:
    return page.locator("#rows tr", has=page.locator("th", has_text=name))


def test_it_shows_models_and_figures(filled: Any, visit: Any) -> None:
    page = visit()
    names = ["<b>bold</b>", "coming", "digits", "minilm-sentiment-classification-6x", "resnet14", "spare", "torn"]
    assert [re.split(r"[\n\t]", text)[0] for text in rows(page)] == names
    assert "ready" in row(page, "digits").inner_text() and "its outputs aren't those of version 1" in row(page, "digits").inner_text()
    assert "is cut short" in row(page, "torn").inner_text()
    figures = row(page, "digits").locator("td.number span").all_inner_texts()
    assert 100 < float(figures[0]) < 140 and 1 < float(figures[1].removesuffix(" ms")) < 1.5
    tiles = page.locator("#tiles").inner_text()
    assert "151 MB" in tiles and "of 256 MB" in tiles and "refused" in tiles
    assert page.evaluate("document.querySelector('meter').value") == pytest.approx(0.59, abs=0.01)
    assert page.locator("#live").inner_text() == "live"
    assert page.said == []


def test_names_are_text_and_nothing_else(filled: Any, visit: Any) -> None:
    page = visit()
    rows(page)
    assert page.locator("#rows b", has_text="bold").count() == 0


def test_it_is_live(filled: Any, visit: Any) -> None:
    page = visit()
    rows(page)
    before = page.locator(".plot path").first.get_attribute("d")
    filled.now += 5
    for _ in range(400):
        filled.vitals.finished("digits", "1", "success", 0.5)
    page.wait_for_function("before => document.querySelector('.plot path').getAttribute('d') !== before", arg=before)
    page.get_by_role("button", name="Pause").click()
    assert page.locator("#live").inner_text() == "paused"
    paused = page.locator("#tiles").inner_text()
    filled.now += 30
    page.wait_for_timeout(1500)
    assert page.locator("#tiles").inner_text() == paused
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("text => document.getElementById('tiles').innerText !== text", arg=paused)


def test_loading_and_unloading_by_keyboard(filled: Any, visit: Any) -> None:
    page = visit()
    rows(page)
    page.get_by_role("button", name="Load spare", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Unload spare").wait_for()
    assert filled.asked == ["POST /v2/repository/models/spare/load"]
    assert page.get_by_role("status").inner_text() == "spare was loaded."
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Unload spare"  # the focus stays
    page.get_by_role("button", name="Unload digits").click()
    page.get_by_role("button", name="Load digits").wait_for()
    page.get_by_role("button", name="Unload coming").click(force=True)
    assert len(filled.asked) == 2  # it is loading: there is nothing to be done


def test_what_failed_is_told(filled: Any, visit: Any) -> None:
    page = visit()
    rows(page)
    filled.fails = Refused("no room for spare: it takes 90 MB of 64")
    page.get_by_role("button", name="Load spare").click()
    page.get_by_text("spare was not loaded: no room for spare: it takes 90 MB of 64").wait_for()


def test_a_key_is_asked_for_and_used(filled: Any, visit: Any) -> None:
    filled.key = "ew_secret"
    page = visit()
    rows(page)
    page.get_by_role("button", name="Load spare").click()
    page.get_by_label("Key", exact=True).fill("ew_secret")
    page.keyboard.press("Enter")
    page.get_by_text("The key is used from now on").wait_for()
    page.get_by_role("button", name="Load spare").click()
    page.get_by_text("spare was loaded.").wait_for()
    assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0


def test_figures_behind_a_key(filled: Any, visit: Any) -> None:
    filled.key, filled.closed = "ew_secret", True
    page = visit()
    page.get_by_text("shows its figures to those with a key").wait_for()
    assert page.locator("#rows tr").count() == 0
    page.get_by_role("button", name="Key").click()
    page.keyboard.type("ew_secret")
    page.keyboard.press("Enter")
    assert len(rows(page)) == 7
    page.get_by_role("button", name="Key").click()
    page.keyboard.press("Escape")
    assert not page.locator("#ask").is_visible()


def test_a_server_that_is_gone_and_comes_back(filled: Any, visit: Any) -> None:
    page = visit()
    rows(page)
    filled.broken = True
    page.get_by_text("no answer; trying again").wait_for()
    filled.broken = False
    page.locator("#live.good").wait_for()
    assert page.locator("#live").inner_text() == "live"


def test_no_models(served: Any, visit: Any) -> None:
    served.memory = None
    page = visit()
    page.get_by_text("There is no model here").wait_for()
    assert "not measured" in page.locator("#tiles").inner_text()
    assert page.said == []


@pytest.mark.parametrize("width", [320, 390, 800, 1024, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over(filled: Any, visit: Any, width: int, scheme: str) -> None:
    page = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    rows(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if width >= 1280:
        assert page.evaluate("(box => box.scrollWidth <= box.clientWidth)(document.querySelector('.scroll'))")
    background, ink = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    dark = sum(map(int, re.findall(r"\d+", background)[:3])) < sum(map(int, re.findall(r"\d+", ink)[:3]))
    assert dark == (scheme == "dark")
    assert page.screenshot(full_page=True)[:4] == b"\x89PNG"
    assert page.said == []


def test_what_a_screen_reader_finds(filled: Any, visit: Any) -> None:
    page = visit()
    rows(page)
    assert page.get_by_role("heading", level=1).inner_text() == "The last minute"
    assert page.get_by_role("img").count() == 2
    assert all("over the last minute" in label for label in page.eval_on_selector_all("[role=img]", "all => all.map(e => e.ariaLabel)"))
    names = page.eval_on_selector_all("button", "all => all.map(button => button.ariaLabel ?? button.textContent)")
    assert len(set(names)) == len(names)
    assert page.locator("thead th:not([scope=col])").count() == page.locator("tbody th:not([scope=row])").count() == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the models"


def test_the_policy_allows_this_script_and_style_and_no_other() -> None:
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    text = document().decode()
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text) and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("<script>") == text.count("<style>") == 1 and "/*style*/" not in text
