"""The page in a real browser, as wide as a phone: nothing overflows, nothing complains, marks tell what they are."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.report import browser
from toolkit.report.html import render
from toolkit.runs import Manifest

PROBE = """<script>addEventListener('load', () => {
const root = document.documentElement, wide = innerWidth;
const sorter = document.querySelector('.origin th:nth-child(3) button'); if (sorter) sorter.click();
const column = [...document.querySelectorAll('.origin tbody tr')].map(row => row.cells[2].dataset.value).map(Number);
const far = [...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll, svg, .spoken') &&
  each.getBoundingClientRect().right > wide + 1).map(each => each.className);
const mark = document.querySelector('#tradeoffs .mark[tabindex]'), tip = document.querySelector('.tip');
const told = [];
const tell = () => { const shown = document.querySelector('.tip:not([hidden])');
  told.push(shown && shown.getBoundingClientRect().height > 10 ? shown.textContent : ''); };
if (mark) {
  mark.focus(); tell(); mark.blur(); tell();
  mark.dispatchEvent(new MouseEvent('click', {bubbles: true})); tell();
  document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'})); tell();
  mark.dispatchEvent(new PointerEvent('pointerover', {bubbles: true})); tell();
}
const out = {scroll: Math.max(root.scrollWidth, document.body.scrollWidth), far, told,
  label: mark ? mark.getAttribute('aria-label') : '',
  charts: [...document.querySelectorAll('svg.chart')].filter(each => each.getBoundingClientRect().height > 50).length,
  folds: [...document.querySelectorAll('details')].filter(each => each.open).length,
  unfold: (() => { const all = document.querySelector('nav button'); if (all) all.click();
    return [...document.querySelectorAll('details')].every(each => each.open); })(),
  requests: performance.getEntriesByType('resource').map(each => each.name),
  sorted: column.every((value, place) => !place || !(column[place - 1] > value)), rows: column.length};
document.title = JSON.stringify(out); });</script></body>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")]


def probed(page: str, folder: Path, width: int) -> Any:
    """What the probe finds in the page as it is delivered; only the policy's script hash lets the probe in as well."""
    script = PROBE.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    whole = page.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ", 1).replace("</body>", PROBE)
    (folder / "report.html").write_text(whole, encoding="utf-8")
    return browser.title(folder, "report.html", width=width)


KINDS = ["sample", "hostile", "bare", "logits", "sigmoids", "embedding", "regression"]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", KINDS)
def test_page_fits_and_is_quiet(tmp_path: Path, samples: Any, answered: Any, kind: str, width: int) -> None:
    manifest: Manifest = getattr(samples, kind)() if hasattr(samples, kind) else answered(kind)
    found = probed(render(manifest, samples.pictures(manifest)), tmp_path, width)
    assert found["scroll"] <= width
    assert found["far"] == []
    assert found["requests"] == []
    assert (found["folds"], found["unfold"]) == (0, True)
    assert found["sorted"]
    assert found["rows"] == len(manifest.measurements)
    if kind == "sample":
        assert found["charts"] == 6  # two scatters, two sets of curves, the layers of two files
        label = found["label"]  # focus, blur, tap, Escape, hover
        assert label.startswith("tiny.tflite: 0.00610\xa0ms")
        assert found["told"] == [label, "", label, "", label]
    if kind == "logits":
        assert found["charts"] == 6 + 2 + 9  # reliability, ROC, and three matrices of each of three files


def test_console_would_be_heard(tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text("<script>nothing.at.all</script>", encoding="utf-8")
    _, console = browser.dump(tmp_path, "loud.html")
    assert "nothing is not defined" in console
