"""The headless browser of the tests sees what a reader would see."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import browser, needs_browser

PAGE = """<!doctype html><title>one</title>
<canvas id="it" width="300" height="200" style="display:block"></canvas>
<script>
const seen = [];
for (const kind of ["pointerdown", "pointermove", "pointerup", "keydown"])
  addEventListener(kind, (event) => seen.push(event.key || kind));
</script>"""


@needs_browser
@pytest.mark.slow
def test_a_page_is_opened_used_and_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a page.html"
    path.write_text(PAGE)
    with browser() as page:
        page.open(path)
        assert page.value("document.title") == "one"
        assert page.value("new Promise((done) => setTimeout(done, 10, {a: [1, null]}))") == {
            "a": [1, None]
        }
        page.drag(page.place("#it", 0, 0), page.place("#it", 0.5, 0.5))
        page.key("ArrowLeft")
        kinds = ["pointermove", "pointerdown", "pointermove", "pointerup", "ArrowLeft"]
        assert page.value("seen") == kinds
        assert page.screenshot().startswith(b"\x89PNG")
        assert page.errors == [] and page.requests == [path.as_uri()]
        page.value("void console.error('so', 1)")
        page.value("void setTimeout(() => { throw new Error('late'); })")
        page.value("new Promise((done) => setTimeout(done, 50))")
        assert page.errors[0] == "['so', 1]" and page.errors[1].startswith("Error: late")
        with pytest.raises(AssertionError, match="wrong"):
            page.value("wrong")
