"""axe-core in a real browser: nothing serious in the page, light and dark, at the width of a desk and of a phone.

The script is not part of Edgekit: `make axe` fetches it. EDGEKIT_AXE names another copy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.report import browser
from toolkit.report.html import render
from toolkit.runs import Manifest

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("EDGEKIT_AXE") or ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js")


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not there: `make axe`, or EDGEKIT_AXE"),
]
RUN = """addEventListener('load', () => axe.run(document, {resultTypes: ['violations']}).then(found => {
const bad = found.violations.map(each => [each.impact, each.id, each.nodes.length, each.nodes[0].html.slice(0, 200),
  each.nodes[0].failureSummary]);
const dark = matchMedia('(prefers-color-scheme: dark)').matches;
document.title = JSON.stringify({dark, wide: innerWidth, ran: found.passes.length, bad}); }));
"""


def examined(page: str, folder: Path, *, width: int = 1280, dark: bool = False) -> dict[str, Any]:
    """What axe says of `page`, which is opened as it is but for its policy, that would keep axe out."""
    whole = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert whole != page
    script = f"<script>{AXE.read_text(encoding='utf-8')}</script><script>{RUN}</script></body>"
    (folder / "axe.html").write_text(whole.replace("</body>", script), encoding="utf-8")
    found: dict[str, Any] = browser.title(folder, "axe.html", width=width, dark=dark)
    assert (found["dark"], found["wide"]) == (dark, width)
    assert found["ran"] > 20  # rules that had something to look at
    return found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["sample", "logits", "hostile"])
def test_page_has_nothing_serious(
    tmp_path: Path, samples: Any, answered: Any, kind: str, width: int, dark: bool
) -> None:
    manifest: Manifest = getattr(samples, kind)() if hasattr(samples, kind) else answered(kind)
    found = examined(render(manifest, samples.pictures(manifest)), tmp_path, width=width, dark=dark)
    assert found["bad"] == []  # nothing at all, not only nothing serious


def test_axe_would_be_heard(tmp_path: Path, sample: Manifest) -> None:
    bad = '<p style="color:#888;background:#999">pale</p><svg role="img"></svg></main>'
    found = examined(render(sample).replace("</main>", bad), tmp_path)
    assert {each[1] for each in found["bad"]} == {"color-contrast", "svg-img-alt"}
