"""The page in a real browser at the width of a phone: nothing overflows, nothing complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from toolkit.report.html import render
from toolkit.runs import Manifest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
)
PROBE = """<!doctype html><title>waiting</title><iframe src="report.html" style="width:{width}px;height:900px;border:0">
</iframe><script>addEventListener('load', () => {{
const page = document.querySelector('iframe').contentDocument, root = page.documentElement, body = page.body;
const sorter = page.querySelector('.origin th:nth-child(3) button'); if (sorter) sorter.click();
const column = [...page.querySelectorAll('.origin tbody tr')].map(row => row.cells[2].dataset.value).map(Number);
const wide = [...page.querySelectorAll('main *')].filter(each => !each.closest('.scroll, svg, .spoken') &&
  each.getBoundingClientRect().right > {width} + 1).map(each => each.className);
const out = {{scroll: Math.max(root.scrollWidth, body.scrollWidth), wide,
  charts: [...page.querySelectorAll('svg.chart')].filter(each => each.getBoundingClientRect().height > 50).length,
  sorted: column.every((value, place) => !place || !(column[place - 1] > value)), rows: column.length}};
document.title = JSON.stringify(out); }});</script>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


def _dump(folder: Path, page: str) -> tuple[str, str]:
    """The page's DOM after its scripts ran, and what the browser's console said."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / page).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


KINDS = ["sample", "hostile", "bare", "logits", "sigmoids", "embedding", "regression"]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", KINDS)
def test_page_fits_and_is_quiet(tmp_path: Path, samples: Any, answered: Any, kind: str, width: int) -> None:
    manifest: Manifest = getattr(samples, kind)() if hasattr(samples, kind) else answered(kind)
    (tmp_path / "report.html").write_text(render(manifest), encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    dom, console = _dump(tmp_path, "probe.html")
    title = re.search(r"<title>(\{.*?\})</title>", dom)
    assert title, dom[:500]
    found = json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert console == ""
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["sorted"]
    assert found["rows"] == len(manifest.measurements)
    if kind == "sample":
        assert found["charts"] == 4  # two scatters, two sets of curves
    if kind == "logits":
        assert found["charts"] == 4 + 2 + 9  # reliability, ROC, and three matrices of each of three files


def test_console_would_be_heard(tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text("<script>nothing.at.all</script>", encoding="utf-8")
    _, console = _dump(tmp_path, "loud.html")
    assert "nothing is not defined" in console
