"""The page of a film and its hands, in a browser."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browser, needs_browser
from posed_helpers import HEIGHT, WIDTH, crop_of, hands_of

from handclr_cli.hand.film import FINE, encoded
from handclr_cli.prediction.hands import FilmFrame, PosedHands
from handclr_cli.prediction.page import HandsPage, write_page

pytestmark = [pytest.mark.slow, needs_browser]
FPS, FRAMES = 10.0, 20
HOSTILE = '</script><img src=x onerror="window.taken=1">\u202e"\'<!-- {{ 7*7 }}'


def film(folder: Path) -> bytes:
    """Frames of 320 x 240, each a little brighter than the one before."""
    path = folder / "film.mp4"
    with encoded(str(path), (320, 240), FINE) as write:
        for number in range(FRAMES):
            write(np.full((240, 320, 3), 12 * number, np.uint8), number / FPS)
    return path.read_bytes()


def posed() -> PosedHands:
    """A right hand on all frames but for a gap, a left one on the first half."""
    crops = []
    for number in range(FRAMES):
        if not 12 <= number < 15:
            crops.append(crop_of(number, track=1, time_s=number / FPS))
        if number < 10:
            crops.append(crop_of(number, hand="left", track=5, time_s=number / FPS))
    return hands_of(crops)


def made(folder: Path) -> HandsPage:
    frames = [FilmFrame(number, number / FPS, number / FPS) for number in range(FRAMES)]
    about = [("predicted by", "model.pt"), ("camera", "assumed")]
    return HandsPage("clips/a.mp4", film(folder), (WIDTH, HEIGHT), frames, posed(), about)


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def opened(page: Browser, path: Path, shown: HandsPage, fragment: str = "") -> None:
    write_page(str(path), shown)
    page.open(path.as_uri() + fragment)


def clock(page: Browser) -> str:
    return page.value("document.getElementById('clock').textContent")


def pixels(page: Browser, canvas: str) -> str:
    return page.value(f"document.getElementById('{canvas}').toDataURL()")


def rows(page: Browser) -> list[list[str]]:
    return page.value(
        "[...document.querySelectorAll('#readout tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )


LOADED = "document.getElementById('film').readyState >= 2"
LIGHT = """(() => {
const at = document.createElement('canvas').getContext('2d');
at.drawImage(document.getElementById('film'), 0, 0, 8, 8);
return at.getImageData(4, 4, 1, 1).data[0];
})()"""


def test_it_loads_with_nothing_from_elsewhere_and_plays(tmp_path: Path, page: Browser) -> None:
    opened(page, tmp_path / "hands.html", made(tmp_path))
    page.wait_until(LOADED)
    assert page.value("document.getElementById('film').videoWidth") == 320
    assert page.errors == [] and [each.partition(":")[0] for each in page.requests] == [
        *("file", "blob"),
    ]
    assert clock(page) == "frame 0, 0.000 s"
    page.click("#play")
    page.wait_until(
        "document.getElementById('film').ended || !document.getElementById('film').paused"
    )
    page.wait_until("document.getElementById('clock').textContent.startsWith('frame 19')")
    page.wait_until("document.getElementById('play').textContent == 'Play'")
    assert page.errors == []


def test_play_before_the_film_is_loaded_and_over_a_damaged_end(tmp_path: Path) -> None:
    whole = made(tmp_path)
    kept = (whole.film.index(b"mdat") + len(whole.film)) // 2
    damaged = whole.film[:kept] + bytes([255]) * (len(whole.film) - kept)
    begun = "addEventListener('DOMContentLoaded', () => document.getElementById('play')?.click())"
    with browser() as page:
        page.send("Page.addScriptToEvaluateOnNewDocument", source=begun)
        for name, data in (("whole", whole.film), ("damaged", damaged)):
            opened(page, tmp_path / f"{name}.html", replace(whole, film=data))
            page.wait_until("document.getElementById('clock').textContent.startsWith('frame 19')")
            page.wait_until("document.getElementById('play').textContent == 'Play'")
            assert page.value("document.getElementById('silent').hidden") == (name == "whole")
            assert page.errors == []


def test_film_readout_and_3d_scrub_together(tmp_path: Path, page: Browser) -> None:
    shown = made(tmp_path)
    opened(page, tmp_path / "hands.html", shown)
    page.wait_until(LOADED)
    before = {canvas: pixels(page, canvas) for canvas in ("space", "line", "drawing")}
    page.drag(page.place("#line", 0.1), page.place("#line", 0.62))
    assert clock(page) == "frame 12, 1.200 s" and rows(page) == []
    page.wait_until(f"Math.abs({LIGHT} - 144) < 6")
    for canvas, was in before.items():
        assert pixels(page, canvas) != was
    page.key("ArrowLeft")
    assert clock(page) == "frame 11, 1.100 s" and [row[0] for row in rows(page)] == ["R 1"]
    page.key("Home")
    page.click("#next")
    page.wait_until(f"Math.abs({LIGHT} - 12) < 6")
    told = rows(page)
    assert [row[:2] for row in told] == [["R 1", "0.90"], ["L 2", "0.90"]]
    row = int(np.flatnonzero((shown.hands.frame == 1) & (shown.hands.hand == "left"))[0])
    wrist = 1000 * shown.hands.placed.source3d[row, 0]
    assert [int(text.replace("\u2212", "-")) for text in told[1][2:]] == wrist.round().tolist()


def test_the_3d_view_turns_zooms_and_comes_back(tmp_path: Path, page: Browser) -> None:
    opened(page, tmp_path / "hands.html", made(tmp_path))
    page.wait_until(LOADED)
    first = pixels(page, "space")
    page.drag(page.place("#space"), page.place("#space", 0.7, 0.6))
    turned = pixels(page, "space")
    page.wheel(page.place("#space"), -200)
    page.wait_until(f"document.getElementById('space').toDataURL() != {json.dumps(turned)}")
    views = {}
    for view in ("camera", "top", "side", "tilted"):
        page.click(f"[data-view={view}]")
        views[view] = pixels(page, "space")
    assert len({first, turned, *views.values()}) == 5 and views["tilted"] == first


SEEN = """(() => {
const {width, height} = document.getElementById('space').getBoundingClientRect();
const points = hands.frame.flatMap((_, row) => data.fingers.flatMap(
  (finger) => [0, ...finger.joints].map((number) => joint(row, number))));
const shown = points.map(projector(width, height));
const margins = shown.map(([x, y]) => Math.min(x, y, width - x, height - y));
return [Math.max(...points.map((point) => point[1])), floorAt, Math.min(...margins)];
})()"""


def test_the_first_view_holds_a_whole_hand_above_the_floor(tmp_path: Path, page: Browser) -> None:
    """One that points down, and dips on one frame only."""
    shown = replace(made(tmp_path), hands=hands_of([crop_of(number) for number in range(FRAMES)]))
    space = shown.hands.placed.source3d
    space[:] = space[0]
    space[:, :, 1] = 0.2 - (space[:, :, 1] - space[:, :1, 1])
    space[7, :, 1] += 0.12
    path = tmp_path / "down.html"
    write_page(str(path), shown)
    text = path.read_text(encoding="utf-8")
    assert text.count("\nstart();\n") == 1
    path.write_text(text.replace("\nstart();\n", f"\nwindow.seen = {SEEN};\nstart();\n"), "utf-8")
    page.open(path)
    page.wait_until(LOADED)
    lowest, floor, margin = page.value("window.seen")
    assert lowest < floor and margin > 0, (lowest, floor, margin)


def labelled_area(page: Browser) -> int:
    """The pixels over the film in the colour of right hands, which only their labels have."""
    return page.value(
        "(() => { const it = document.getElementById('drawing'), colour = [0, 114, 178];"
        "const all = it.getContext('2d').getImageData(0, 0, it.width, it.height).data;"
        "let count = 0; for (let at = 0; at < all.length; at += 4)"
        "count += colour.every((value, part) => Math.abs(all[at + part] - value) < 4);"
        "return count; })()"
    )


def test_the_label_of_a_hand_at_the_edge_is_seen(tmp_path: Path, page: Browser) -> None:
    shown = replace(made(tmp_path), hands=hands_of([crop_of(0, track=1)]))
    places, areas = shown.hands.placed.source2d, []
    for corner in ((WIDTH / 2, HEIGHT / 2), (WIDTH / 2, HEIGHT), (0, 0), (WIDTH, HEIGHT)):
        # Fingers lead away from the edge, so that the label is wanted beyond it.
        inwards = np.array([WIDTH / 2, HEIGHT / 2]) - corner
        places[:] = corner + np.linspace(0, 0.4, 21)[:, None] * inwards
        opened(page, tmp_path / "edge.html", shown)
        page.wait_until(LOADED)
        areas.append(labelled_area(page))
    assert areas[0] > 100 and min(areas) > 0.9 * areas[0], areas


def test_hands_placed_very_far_away_do_not_stop_the_page(tmp_path: Path, page: Browser) -> None:
    shown = made(tmp_path)
    shown.hands.placed.source3d[::3] = 1e7
    opened(page, tmp_path / "far.html", shown)
    page.wait_until(LOADED)
    page.key("End")
    assert page.errors == [] and clock(page) == "frame 19, 1.900 s"


def test_hostile_names_do_nothing(tmp_path: Path, page: Browser) -> None:
    shown = replace(made(tmp_path), title=HOSTILE, about=[(HOSTILE, HOSTILE)])
    shown.hands.key[:] = HOSTILE
    opened(page, tmp_path / "hands.html", shown)
    page.wait_until(LOADED)
    assert page.value("window.taken") is None and page.value("document.images.length") == 0
    assert page.value("document.querySelector('h1').textContent").startswith("</script><img")
    assert page.errors == [] and rows(page)


def test_no_hands_no_film_and_images(tmp_path: Path, page: Browser) -> None:
    whole = made(tmp_path)
    opened(page, tmp_path / "none.html", replace(whole, hands=hands_of([])))
    page.wait_until(LOADED)
    page.key("End")
    assert page.errors == [] and clock(page) == "frame 19, 1.900 s" and rows(page) == []
    images = [FilmFrame(7 * place, None, place / 10) for place in range(FRAMES)]
    silent = replace(whole, film=b"no film", frames=images)
    opened(page, tmp_path / "images.html", silent, "#t=0.1")
    page.wait_until("!document.getElementById('silent').hidden")
    assert clock(page) == "frame 7" and [row[0] for row in rows(page)] == ["R 1", "L 2"]
    page.click("#play")
    page.wait_until("document.getElementById('clock').textContent == 'frame 133'")
    opened(page, tmp_path / "nothing.html", replace(silent, frames=[]))
    assert clock(page) == "no frames"
    page.key("ArrowRight")
    page.click("#play")
    assert page.errors == []


def test_the_numbers_of_the_page_are_those_given(tmp_path: Path) -> None:
    shown = made(tmp_path)
    for path in (tmp_path / "a.html", tmp_path / "b.html"):
        write_page(str(path), shown)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert match and "http" not in text.replace('http-equiv="Content', "")
    data = json.loads(match[1])
    assert base64.b64decode(data["film"]) == shown.film
    for name, array in (("space", "source3d"), ("image", "source2d")):
        found = np.frombuffer(base64.b64decode(data["hands"][name]), "<f4")
        np.testing.assert_array_equal(found, getattr(shown.hands.placed, array).ravel())
    assert data["hands"]["frame"] == shown.hands.frame.tolist()
