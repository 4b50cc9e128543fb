"""Whoever sees little, sees no colours, or has no mouse: names of controls, contrast, focus, heads of tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from console.conftest import Garden, Tab, Yard
from console.drifting import Drifting

#: Everything that can be worked with and is seen, but says to nobody what it is.
_UNNAMED = """() => {
  const named = each => (each.ariaLabel || each.title || each.alt || "").trim()
    || [...(each.labels || [])].some(label => label.innerText.trim() || label.ariaLabel)
    || (each.getAttribute("aria-labelledby") || "").split(" ").some(id => document.getElementById(id)?.innerText.trim())
    || each.innerText?.trim();
  const controls = "a[href], button, input, textarea, [role=button], [role=combobox], [role=checkbox], [role=img]";
  const drawn = [...document.querySelectorAll(controls)].filter(each => each.checkVisibility() && !named(each));
  const heads = [...document.querySelectorAll("table")].filter(each =>
    [...each.querySelectorAll("thead th")].some(head => !head.textContent.trim()) || !each.querySelector("thead th"));
  return [...drawn, ...heads].map(each => each.outerHTML.slice(0, 200));
}"""

#: Texts whose contrast with what lies behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3), by the colours computed.
_FAINT = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const read = colour => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (front, back) => [0, 1, 2].map(i => front[i] * front[3] + back[i] * (1 - front[3])).concat(1);
  const light = colour => { const [r, g, b] = colour.slice(0, 3).map(c => (c /= 255) <= 0.04045 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = each => {
    const layers = [];
    for (let at = each; at; at = at.parentElement) layers.push(read(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255, 1]);
  };
  const clear = each => { let a = 1; for (let at = each; at; at = at.parentElement) a *= getComputedStyle(at).opacity;
    return a; };
  const faint = [];
  for (const each of document.querySelectorAll("body *")) {
    const own = [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !each.checkVisibility({ visibilityProperty: true }) || each.closest("[disabled], option")) continue;
    if (each.matches(".q-icon")) continue;  // symbols have names beside them
    const style = getComputedStyle(each), back = behind(each);
    const ink = read(each instanceof SVGElement ? style.fill : style.color);
    ink[3] *= clear(each);
    const [a, b] = [light(over(ink, back)), light(back)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const classes = each.getAttribute("class"), name = `${each.tagName} .${classes}: ${each.textContent.trim()}`;
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${name}`);
  }
  return faint;
}"""

#: Whether what has the focus can be told from what has not: a ring, or Quasar's shade or line.
_SHOWS_FOCUS = """() => {
  const each = document.activeElement, style = getComputedStyle(each);
  const control = each.closest(".q-field__control") || each;
  const drawn = [each, ...control.querySelectorAll(".q-focus-helper")].concat(control);
  return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2)
    || drawn.some(part => ["::before", "::after"].map(side => getComputedStyle(part, side))
      .some(look => look.content !== "none" && parseFloat(look.borderWidth) >= 2));
}"""

_DRIFTING = (
    "/", "/models/churn", "/models/churn/endpoint", "/models/churn/monitoring?hours=3", "/models/fraud/monitoring",
    "/findings/1", "/predictions", "/predictions/odd", "/alerts", "/alerts/2", "/jobs", "/settings", "/findings/999",
)  # fmt: skip
_GARDEN = ("/models/garden", "/models/garden/endpoint", "/models/garden/try")


def is_there(page: Any) -> None:
    """Wait until a page has loaded what it shows. From then on nothing moves, so that colours are what they will be."""
    page.wait_for_function("document.querySelector('main .y-card') && !document.querySelector('[aria-busy=true]')")
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")


@pytest.mark.parametrize("dark", [False, True])
def test_everything_has_a_name_and_can_be_read(
    tab: Callable[..., Tab], drifting: tuple[Yard, Drifting], garden: Garden, dark: bool
) -> None:
    found = {}
    for url, paths in ((drifting[0].url, _DRIFTING), (garden.url, _GARDEN)):
        look = tab(dark=dark, url=url)
        for path in paths:
            page = look.open(path)
            is_there(page)
            faults = page.evaluate(_UNNAMED) + page.evaluate(_FAINT)
            if faults:
                found[path] = faults
    assert not found, found


@pytest.mark.parametrize("path", ["/models/garden/endpoint", "/models/garden/try"])
def test_focus_is_seen_wherever_it_goes(tab: Callable[..., Tab], garden: Garden, path: str) -> None:
    page = tab(url=garden.url).open(path)
    is_there(page)
    page.locator("body").click(position={"x": 2, "y": 400})  # a browser in no window has to be given the focus
    seen = []
    for _ in range(25):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        if not page.evaluate(_SHOWS_FOCUS):
            seen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
    assert not seen, seen


def test_dialogs_have_names_and_can_be_read(tab: Callable[..., Tab], garden: Garden) -> None:
    for dark in (False, True):
        page = tab(dark=dark, url=garden.url).open("/models/garden/endpoint")
        is_there(page)
        page.get_by_role("button", name="Start a rollout").click()
        asking = page.get_by_role("dialog", name="Start a rollout of garden@production")
        asking.get_by_text("More", exact=True).click()
        asking.get_by_label("Chance of a false rollback, %").wait_for()
        # what lies below the dialog is shaded, and not to be read
        page.evaluate("document.querySelectorAll('.q-layout').forEach(each => { each.style.display = 'none'; })")
        assert page.evaluate(_UNNAMED) + page.evaluate(_FAINT) == []
