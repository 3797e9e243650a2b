"""Further looks at a frame: when there are some, and what counts of what they show."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from handclr_cli.choices import LookName
from handclr_cli.footage.frames import Frame, Hand
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.looks import Search
from handclr_cli.footage.model_file import model_file

WIDTH, HEIGHT = 640, 480


class Scene:
    """A picture of squares as hands, and a landmarker that finds those of certain shares of it.

    A hand's grey is its number; it is found where its side is from `least` to `most` of the
    picture's longer side and is not cut off. `looks` are the shapes of the pictures looked at.
    """

    def __init__(
        self, hands: Sequence[tuple[int, int, int]], least: float = 0.12, most: float = 0.6
    ) -> None:
        self.least, self.most = least, most
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.hands = hands
        for number, (x, y, side) in enumerate(hands, 1):
            self.image[max(y, 0) : y + side, max(x, 0) : x + side] = number
        self.looks: list[tuple[int, ...]] = []

    def find(self, picture: np.ndarray) -> list[Hand]:
        self.looks.append(picture.shape[:2])
        found = []
        for number, (_, _, side) in enumerate(self.hands, 1):
            rows, columns = np.nonzero(picture[..., 0] == number)
            if len(rows) == 0:
                continue
            points = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
            share = np.ptp(points, axis=0).max() / max(picture.shape)
            whole = np.ptp(points, axis=0).min() >= side
            if self.least <= share <= self.most and whole:
                found.append(Hand(points.astype(float), "right", 0.9))
        return found

    def boxes(
        self, look: LookName, hands: int = 2, times: Sequence[float | None] = (None,)
    ) -> list[list[list[float]]]:
        """The boxes found at each time, in the order found."""
        search, found = Search(self.find, look, hands), []
        for number, time in enumerate(times):
            hands_found = search.hands(Frame(number, time, self.image))
            found.append([hand.keypoints.ravel().tolist() for hand in hands_found])
        return found


def test_a_large_hand_takes_no_further_look() -> None:
    scene = Scene([(200, 150, 200)])
    for look in ("once", "border"):
        assert scene.boxes(look) == [[[200, 150, 400, 350]]]
    assert len(scene.looks) == 2


def test_a_hand_that_fills_the_frame_is_found_with_a_border() -> None:
    scene = Scene([(100, 30, 430)])
    assert scene.boxes("once") == [[]]
    assert scene.boxes("border") == [[[100, 30, 530, 460]]]
    assert scene.looks == [(480, 640), (480, 640), (1120, 1280)]


def test_a_mirrored_look_where_the_border_shows_nothing() -> None:
    scene, mirrored = Scene([(300, 200, 150)]), []

    def find(picture: np.ndarray) -> list[Hand]:
        mirrored.append(np.array_equal(picture, scene.image[:, ::-1]))
        return scene.find(picture) if mirrored[-1] else []

    [hand] = Search(find, "border", 2).hands(Frame(0, None, scene.image))
    assert mirrored == [False, False, True]
    assert hand.keypoints.min(axis=0).tolist() == [300, 200]
    assert hand.side == "left", "what looks like a right hand in the mirror"


def test_small_hands_are_found_in_tiles() -> None:
    scene = Scene([(40, 50, 60), (520, 400, 50)])
    assert scene.boxes("border") == [[]]
    found = scene.boxes("tiles")[0]
    assert sorted(found) == [[40, 50, 100, 110], [520, 400, 570, 450]]


def test_the_whole_frame_first_and_no_hand_twice() -> None:
    scene = Scene([(40, 50, 60), (300, 200, 200)])
    assert scene.boxes("tiles") == [[[300, 200, 500, 400], [40, 50, 100, 110]]]


def test_no_more_hands_than_asked_for() -> None:
    scene = Scene([(40, 50, 60), (300, 200, 200)])
    assert scene.boxes("tiles", hands=1) == [[[300, 200, 500, 400]]]
    assert len(scene.looks) == 1, "nothing is missing"


def test_what_is_not_found_again_is_no_hand() -> None:
    scene = Scene([(40, 50, 60)])

    def find(picture: np.ndarray) -> list[Hand]:
        # The surroundings of a proposal are three of its sizes.
        return [] if picture.shape[:2] == (180, 180) else scene.find(picture)

    assert Search(find, "tiles", 2).hands(Frame(0, None, scene.image)) == []


def test_keypoints_are_those_of_the_surroundings() -> None:
    scene = Scene([(40, 50, 60)])

    def find(picture: np.ndarray) -> list[Hand]:
        hands = scene.find(picture)
        off = 0 if picture.shape[:2] == (180, 180) else 5
        return [Hand(hand.keypoints + off, hand.side, hand.score) for hand in hands]

    [hand] = Search(find, "tiles", 2).hands(Frame(0, None, scene.image))
    # The square around the shifted proposal has its corner where 5 px are no change.
    assert hand.keypoints.ravel().tolist() == [40, 50, 100, 110]


def test_film_is_searched_once_a_second_and_followed_between() -> None:
    scene = Scene([(40, 50, 60)])
    found = scene.boxes("tiles", times=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert found == [[[40, 50, 100, 110]]] * 6
    whole = [index for index, shape in enumerate(scene.looks) if shape == (HEIGHT, WIDTH)]
    counts = np.diff([*whole, len(scene.looks)]).tolist()
    # The first look, border and mirror, 2 and 6 tiles, and the proposal; then the first look, and
    # one where the hand was.
    first = [1, 2 + 8 + 1]
    assert sum(counts[:2]) == sum(first)
    assert counts[2:6] == [2, 2, 2, 2]


def test_images_are_searched_each_and_not_followed() -> None:
    scene = Scene([(40, 50, 60)])
    scene.boxes("tiles", times=[None])
    once = len(scene.looks)
    scene.boxes("tiles", times=[None, None])
    assert len(scene.looks) == 3 * once


def test_a_hand_gone_for_longer_is_not_looked_for() -> None:
    scene = Scene([(300, 200, 150)])
    search = Search(scene.find, "border", 1)
    assert search.hands(Frame(0, 0.0, scene.image))
    empty = np.zeros_like(scene.image)
    scene.looks.clear()
    assert search.hands(Frame(1, 0.5, empty)) == []
    assert (450, 450) in scene.looks
    scene.looks.clear()
    assert search.hands(Frame(2, 0.9, empty)) == []
    assert (450, 450) not in scene.looks


@pytest.mark.parametrize("look", ["once", "border", "tiles"])
def test_an_empty_frame(look: LookName) -> None:
    assert Scene([]).boxes(look) == [[]]
    for size in ((1, 2), (1, 5000)):
        scene, strip = Scene([]), np.zeros((*size, 3), np.uint8)
        assert Search(scene.find, look, 2).hands(Frame(0, None, strip)) == []
        assert len(scene.looks) <= 3


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.landmarker
def test_real_hands_that_one_look_misses(real_data: Path) -> None:
    found, false = {"once": 0, "border": 0}, 0
    folder = real_data / "ti1k_images"
    with Landmarker(model_file(None, print)) as landmarker, (folder / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            image = cv2.cvtColor(cv2.imread(str(folder / row["image"])), cv2.COLOR_BGR2RGB)
            low, high = np.reshape([float(row[name]) for name in ("x0", "y0", "x1", "y1")], (2, 2))
            for look in found:
                hands = Search(landmarker.find, look, 2).hands(Frame(0, None, image))
                points = [hand.keypoints for hand in hands]
                middles = [(one.min(axis=0) + one.max(axis=0)) / 2 for one in points]
                inside = [bool(np.all(one >= low) and np.all(one <= high)) for one in middles]
                found[look] += any(inside)
                false += inside.count(False)
    # 137 and 163 of 167 when it was measured; processors differ.
    assert found["once"] < 145 and found["border"] >= 160
    assert false == 0
