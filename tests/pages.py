"""Pages in tests: what is in them, and what they do in a browser."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import HANG_S

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH (Debian: apt-get install chromium)")


class Page(html.parser.HTMLParser):
    """Elements, attributes that could load something, and ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.labelled: set[str] = set()
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        for name, value in attributes:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            if name in ("aria-labelledby", "aria-label"):
                self.labelled.add(value)
            if value.startswith(("#", "data:")):
                continue
            if name in ("src", "srcset", "data", "action", "href"):
                self.loads.append((tag, value))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts.append(text)


_HOLDER = """<!doctype html><body><pre id="result"></pre>
<iframe src="page.html" style="width:390px;height:800px"></iframe>
<script>window.addEventListener("message", (event) => {
  document.getElementById("result").textContent = JSON.stringify(event.data);
});</script></body>"""


def in_browser(page: str, check: str, folder: Path) -> dict[str, Any]:
    """Open a page, 390 pixels wide, run a script in it, and return what that has put into its object `found`.

    Args:
        page: HTML.
        check: statements that make `found`; errors of the page before are in `window.wrong`. They may await.
        folder: for the page and the browser's profile.
    """
    catch = "<script>window.wrong = []; window.onerror = (words) => window.wrong.push(String(words));</script><title>"
    check = (
        f'<script>\nwindow.addEventListener("load", () => setTimeout(async () => {{\n{check}\n'
        'parent.postMessage(found, "*");\n}, 300));\n</script></body>'
    )
    # Pages without scripts forbid them; the check needs one.
    page = re.sub(r"script-src [^;]*; ", "", page, count=1).replace(
        "style-src 'unsafe-inline';", "style-src 'unsafe-inline'; script-src 'unsafe-inline';", 1
    )
    page = page.replace("<title>", catch, 1).replace("</body>", check, 1)
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "holder.html").write_text(_HOLDER, encoding="utf-8")
    options = (
        "--no-first-run",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-component-update",
    )
    shown = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
            *(*options, "--virtual-time-budget=8000", "--dump-dom", (folder / "holder.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    dumped = re.search(r'<pre id="result">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert dumped and dumped[1], shown.stderr[-2000:]
    return json.loads(html.unescape(dumped[1]))
