"""A page in headless chromium: its title after its scripts ran, where tests leave what they found out, as JSON."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

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
)
DARK = ("--blink-settings=preferredColorScheme=0",)  # 0: dark, 1: light
LIGHT = ("--blink-settings=preferredColorScheme=1",)


FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><title>waiting</title>
<iframe src="{page}" style="width:{width}px;height:900px;border:0"></iframe><script>
const ask = () => {{ const told = document.querySelector('iframe').contentDocument.title;
  if (told.startsWith('{{')) document.title = told; else setTimeout(ask, 50); }};
addEventListener('load', ask);</script>"""


def dump(folder: Path, page: str, *, dark: bool = False, ms: int = 3000) -> tuple[str, str]:
    """The page's DOM after its scripts ran, and what the browser's console said."""
    more = (f"--virtual-time-budget={ms}", f"--user-data-dir={folder / 'profile'}", "--window-size=1500,1000")
    command = [str(CHROMIUM), *FLAGS, *(DARK if dark else LIGHT), *more, "--dump-dom", (folder / page).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def title(folder: Path, page: str, *, width: int = 1280, dark: bool = False) -> Any:
    """What the page's scripts left in its title, as JSON. In a frame, since a window is never narrower than 500."""
    (folder / "frame.html").write_text(FRAME.format(page=page, width=width), encoding="utf-8")
    dom, console = dump(folder, "frame.html", dark=dark, ms=20000)
    assert console == ""
    found = re.search(r"<title>(\{.*?\})</title>", dom, re.DOTALL)
    assert found, dom[:300]
    return json.loads(html.unescape(found[1]))
