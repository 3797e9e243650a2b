"""The DexYCB reader: its splits, the numbers of its result files, parts of a download, and the
truth of a layout.
"""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_scenes import FakeScene
from labelled_truth import assert_recovers, brightest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.datasets.dexycb import SPLITS, DexYCB, in_split
from handclr_cli.datasets.labelled import Importer, Invalid
from handclr_cli.datasets.yaml_file import read_yaml
from handclr_cli.synth.layouts import write_dexycb

SUBJECTS = ("20200709-subject-01", "20200928-subject-07")
SERIALS = (
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
)
FRAMES = 3


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sequences of one frame, by subjects 1 (right hand), 2 (left) and 3 (right)."""
    root = tmp_path_factory.mktemp("dexycb") / "set"
    assert write_dexycb(root, FakeScene, 24, lambda _: None) == 24
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Names without content: two subjects, ten sequences each, eight cameras, the middle frame
    missing.
    """
    intrinsics = tmp_path / "calibration" / "intrinsics"
    intrinsics.mkdir(parents=True)
    for serial in SERIALS:
        (intrinsics / f"{serial}_640x480.yml").write_text(
            "color:\n  fx: 600\n  fy: 601.5\n  ppx: 320\n  ppy: 240.25\n"
        )
    meta = "serials:\n" + "".join(f"- '{serial}'\n" for serial in SERIALS[::-1])
    for subject in SUBJECTS:
        for order in range(10):
            sequence = tmp_path / subject / f"{subject[:8]}_1500{order:02d}"
            for serial in SERIALS:
                (sequence / serial).mkdir(parents=True)
                for frame in range(0, FRAMES, 2):
                    (sequence / serial / f"color_{frame:06d}.jpg").touch()
            (sequence / "meta.yml").write_text(
                f"{meta}num_frames: {FRAMES}\nmano_sides:\n- right\n"
            )
    return tmp_path


@pytest.mark.slow
def test_a_layout_is_recovered_left_hands_too(layout: Path) -> None:
    data = DexYCB(layout, "all")
    importer = Importer(data, measure=True)
    reasons: Counter[str] = Counter()
    assert len(data) == 24
    for number in range(24):
        made = importer.make(number)
        scene, camera = divmod(number, 8)
        side = ("right", "left", "right")[scene]
        shot = FakeScene(scene, (640, 480), (side,)).shoot(0, camera)
        reasons[made.invalid or made.side] += 1
        if made.sample is None or made.measured is None:
            continue
        assert_recovers(made.sample, shot.hands[0].keypoints3d, shot.intrinsics, side)
        np.testing.assert_allclose(brightest(made.sample), made.sample.keypoints2d[0], atol=0.5)
        assert made.measured.error_px.max() < 1e-3 and len(made.measured.error_px) == 21
        info = made.sample.info
        assert (info["index"], info["camera"], info["frame"]) == (number, SERIALS[camera], 0)
        assert info["subject"].endswith(f"subject-{scene + 1:02d}")
        assert info["sample"] == f"dexycb-{info['subject']}-{info['subject'][:8]}_141754-000000"
    # The last camera looks away, and every 21st image is without labels.
    assert reasons == {"right": 13, "left": 7, Invalid.UNLABELLED: 4}


def transcribed(split: str, subject: int, order: int, camera: int) -> bool:
    setup, part = split.split("-")
    if setup == "s0":
        subjects, cameras = (
            {"train": range(10), "val": (0, 1), "test": range(2, 10)}[part],
            range(8),
        )
        orders = [i for i in range(100) if (i % 5 != 4) == (part == "train")]
    elif setup == "s1":
        subjects = {"train": (0, 1, 2, 3, 4, 5, 9), "val": (6,), "test": (7, 8)}[part]
        cameras, orders = range(8), list(range(100))
    elif setup == "s2":
        subjects, cameras = range(10), {"train": range(6), "val": (6,), "test": (7,)}[part]
        orders = list(range(100))
    else:
        subjects, cameras = range(10), range(8)
        held = {"val": (3, 19), "test": (7, 11, 15)}
        wanted = held.get(part, tuple(set(range(20)) - {3, 7, 11, 15, 19}))
        orders = [i for i in range(100) if i // 5 in wanted]
    return subject in subjects and order in orders and camera in cameras


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.slow
def test_splits_are_those_of_the_toolkit(split: str) -> None:
    places = [
        (subject, order, camera)
        for subject in range(10)
        for order in range(100)
        for camera in range(0, 8)
    ]
    mine = [place for place in places if in_split(split, *place)]
    assert mine == [place for place in places if transcribed(split, *place)] and mine


def test_the_parts_of_a_setup_share_nothing_and_leave_nothing_out() -> None:
    for setup in range(4):
        for subject, order, camera in np.ndindex(10, 100, 8):
            assert (
                sum(
                    in_split(f"s{setup}-{part}", subject, order, camera)
                    for part in ("train", "val", "test")
                )
                == 1
            )


@pytest.mark.parametrize(
    ("split", "views"),
    [
        ("all", 160),
        ("s0-train", 128),
        ("s0-val", 16),
        ("s0-test", 16),
        ("s1-val", 80),
        ("s2-test", 20),
        ("s3-train", 160),
    ],
)
@pytest.mark.slow
def test_items_follow_subject_sequence_camera_frame(tree: Path, split: str, views: int) -> None:
    data = DexYCB(tree, split)
    paths = [Path(str(data[number][1])) for number in range(len(data))]  # type: ignore[index]
    assert len(paths) == 2 * views and paths == sorted(paths)
    assert all(data[number] == (Invalid.BAD_LABELS, paths[number]) for number in range(len(data)))
    # The missing frame is counted as the toolkit counts it.
    assert data._rows[:, 2].tolist() == [
        FRAMES * view + frame for view in range(views) for frame in (0, 2)
    ]


def test_a_partial_download_is_told(tree: Path) -> None:
    notes = DexYCB(tree, "s0-train").notes
    assert (
        "10 of 100 sequences" in notes[0]
        and "not the official split" in notes[0]
        and len(notes) == 3
    )
    assert "256 of the 384 images of s0-train" in notes[2]
    assert len(DexYCB(tree, "all").notes) == 1
    shutil.rmtree(tree / SUBJECTS[0] / "20200709_150000" / SERIALS[3])
    assert len(DexYCB(tree, "all")) == 318


def test_pixel_centres_move_by_half_a_pixel(tree: Path) -> None:
    labels = {
        "joint_3d": np.full((1, 21, 3), 0.5, np.float32),
        "joint_2d": np.full((1, 21, 2), 7, np.float32),
    }
    labels["joint_2d"][0, 3] = -1
    np.savez(tree / SUBJECTS[0] / "20200709_150000" / SERIALS[0] / "labels_000000.npz", **labels)
    hand = DexYCB(tree, "all")[0]
    assert not isinstance(hand, tuple)
    np.testing.assert_array_equal(hand.intrinsics, [[600, 0, 320.5], [0, 601.5, 240.75], [0, 0, 1]])
    assert hand.keypoints2d is not None and hand.keypoints2d[0].tolist() == [7.5, 7.5]
    assert np.isnan(hand.keypoints2d[3]).all()


def _rezip(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the members of an NPZ file, whose checksums are then right."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"PK"),
        lambda path: path.write_bytes(path.read_bytes()[:400]),
        lambda path: np.savez(path, joint_3d=np.zeros((1, 20, 3)), joint_2d=np.zeros((1, 21, 2))),
        lambda path: np.savez(path, joint_3d=np.zeros((1, 21, 3))),
        lambda path: np.savez(path, joint_3d=np.array([{}]), joint_2d=np.zeros((1, 21, 2))),
        lambda path: _rezip(path, lambda data: data[8:]),
    ],
)
@pytest.mark.slow
def test_damaged_labels_are_a_reason_not_an_exception(
    damage: Callable[[Path], object], layout: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(layout, root)
    path = next(iter(sorted(root.glob("*/*/*/labels_000000.npz"))))
    damage(path)
    made = Importer(DexYCB(root, "all")).make(0)
    assert made.invalid is Invalid.BAD_LABELS and made.path == path


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root / "calibration"), r"836212060125_640x480\.yml is missing"),
        (
            lambda root: [shutil.rmtree(root / subject) for subject in SUBJECTS],
            "holds no subject, expected 20200709",
        ),
        (
            lambda root: (root / SUBJECTS[0] / "20200709_150003/meta.yml").unlink(),
            r"150003/meta\.yml is missing",
        ),
        (
            lambda root: (root / SUBJECTS[0] / "20200709_150003/meta.yml").write_text(
                "num_frames: 3\n"
            ),
            r"meta\.yml: expected serials, num_frames and mano_sides",
        ),
        (
            lambda root: (root / SUBJECTS[0] / "20200709_150003/meta.yml").write_text("a: {b: 1\n"),
            r"meta\.yml: line 2: did not find expected ',' or '}'; unpack it again",
        ),
        (
            lambda root: (root / f"calibration/intrinsics/{SERIALS[1]}_640x480.yml").write_text(
                "color:\n  fx: 1\n"
            ),
            "has no color with fx, fy, ppx and ppy",
        ),
        (
            lambda root: (
                root / SUBJECTS[0] / "20200709_150000" / SERIALS[0] / "color_000003.jpg"
            ).touch(),
            "has frame 3, but meta.yml counts 3",
        ),
    ],
)
@pytest.mark.slow
def test_a_wrong_download_is_one_line(
    damage: Callable[[Path], object], words: str, tree: Path
) -> None:
    damage(tree)
    with pytest.raises(HandclrError, match=words) as caught:
        DexYCB(tree, "all")
    assert "\n" not in str(caught.value)


def test_a_split_without_images_says_what_there_is(tree: Path) -> None:
    with pytest.raises(
        HandclrError, match="no image of s1-test; it holds 20200709-subject-01, 20200928-subject-07"
    ):
        DexYCB(tree, "s1-test")
    with pytest.raises(HandclrError, match="not a folder"):
        DexYCB(tree / "nowhere", "all")
    with pytest.raises(HandclrError, match="no split 's4-train'"):
        DexYCB(tree, "s4-train")


@pytest.mark.parametrize("number", [".nan", "0", "'614.8'", "", "1.2"])
@pytest.mark.slow
def test_a_wrong_number_of_a_lens_costs_the_images_of_its_camera(
    number: str, layout: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(layout, root)
    for path in sorted((root / "calibration" / "intrinsics").iterdir())[:2]:
        path.write_text(
            f"color:\n  fx: 600\n  fy: {number}\n  ppx: 320\n  ppy: 240\nextrinsics: [.nan]\n"
        )
    importer = Importer(DexYCB(root, "all"))
    made = [importer.make(row) for row in range(24)]
    bad = {row for row, one in enumerate(made) if one.invalid is Invalid.BAD_CAMERA}
    unlabelled = {row for row, one in enumerate(made) if one.invalid is Invalid.UNLABELLED}
    assert bad == {0, 1, 8, 9, 16, 17} - unlabelled and Invalid.BAD_CAMERA.broken
    assert sum(one.sample is not None for one in made) == 24 - len(bad) - len(unlabelled)


def test_an_image_of_another_size_is_skipped(layout: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(layout, root)
    data = DexYCB(root, "all")
    hand = data[0]
    assert not isinstance(hand, tuple)
    cv2.imwrite(str(hand.path), np.zeros((240, 320, 3), np.uint8))
    assert Importer(data).make(0).invalid is Invalid.OTHER_SIZE


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda joints: joints[0, 4].fill(np.nan), Invalid.BAD_LABELS),
        (lambda joints: joints.fill(0.7), Invalid.NO_HAND),
        (lambda joints: joints[..., 0].__iadd__(3), Invalid.OUTSIDE),
    ],
)
@pytest.mark.slow
def test_labels_that_no_crop_can_be_made_of(
    edit: Callable[[np.ndarray], object], reason: Invalid, layout: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(layout, root)
    data = DexYCB(root, "all")
    hand = data[0]
    assert not isinstance(hand, tuple)
    path = hand.path.with_name("labels_000000.npz")
    with np.load(path, allow_pickle=False) as labels:
        arrays = dict(labels)
    edit(arrays["joint_3d"])
    np.savez(path, **arrays)
    assert Importer(data).make(0).invalid is reason


def test_a_camera_that_is_named_twice_is_an_error(tree: Path) -> None:
    path = tree / SUBJECTS[0] / "20200709_150003" / "meta.yml"
    path.write_text(path.read_text().replace(SERIALS[3], SERIALS[2]))
    with pytest.raises(HandclrError, match=r"meta\.yml: names a camera twice"):
        DexYCB(tree, "all")


YAML = """# a comment
---
serials:
- '836212060125'
- "839512060362"
- 836212060125
- 0123
num_frames: 72
name: 20200709-subject-01_right  # with a comment
empty:
lens:
  color:
    fx: 614.8
    k: [0.5, -1e-3, .25, 1e-3, 1E5, -2e+3]
none: []
extrinsics:
  '836212060125': !!python/tuple
  - -0.25
  - 1
  apriltag: !!python/tuple [1, [2, 3]]
nested:
  - - 0
    - 2
  -   - 3
  - [4, 5]
words: [on, yes, no, null, 2020-07-09, 0x10, 1_000, '1', .inf]
time: 1:30
map: {1: 2}
last: 1
"""


def test_yaml_is_read_as_other_readers_do_but_for_words_that_look_like_more(tmp_path: Path) -> None:
    path = tmp_path / "meta.yml"
    path.write_text(YAML)
    expected = {
        "serials": ["836212060125", "839512060362", 836212060125, 123],
        "num_frames": 72,
        "name": "20200709-subject-01_right",
        "empty": None,
        "lens": {"color": {"fx": 614.8, "k": [0.5, -0.001, 0.25, 0.001, 100000.0, -2000.0]}},
        "none": [],
        "extrinsics": {"836212060125": [-0.25, 1], "apriltag": [1, [2, 3]]},
        "nested": [[0, 2], [3], [4, 5]],
        "words": ["on", "yes", "no", "null", "2020-07-09", "0x10", "1_000", "1", ".inf"],
        "time": "1:30",
        "map": {"1": 2},
        "last": 1,
    }
    assert read_yaml(path) == expected
    assert all(isinstance(number, float) for number in read_yaml(path)["lens"]["color"]["k"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "line 2: the key a comes twice"),
        ("1: 1\n'1': 2\n", "line 2: the key 1 comes twice"),
        ("a: &x 1\nb: *x\n", "line 2: has an alias"),
        ("a: &x [*x]\n", "line 1: has an alias"),
        ("a: !!python/object:os.system 1\n", "line 1: could not determine a constructor"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        ("a: !!python/tuple 1\n", "line 1: expected a sequence"),
        ("a: 1\n  b: 2\n", "line 2: "),
        ("- a: 1\n", "holds no mapping"),
        ("just words and no key\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("a: 'open\n", "line 2: "),
        ("a: 1\n- 2\n", "line 2: "),
        ("[a]: 1\n", "line 1: a key is not text"),
        ("a: 1\n---\nb: 2\n", "line 2: "),
        ("a: \x01\n", "not allowed"),
        (f"a: {'[' * 100_000}", "line 1: nested too deeply"),
        (f"a: {'9' * 5_000}", "4300 digits"),
    ],
)
def test_what_is_no_plain_yaml_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "meta.yml"
    path.write_text(text)
    with pytest.raises(HandclrError, match=f"meta.yml: .*{words}.*; unpack it again") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.real
def test_the_real_set_has_165_labelled_images_of_176(real_data: Path) -> None:
    data = DexYCB(real_data / "dexycb", "all")
    items = [data[number] for number in range(len(data))]
    hands = [item for item in items if not isinstance(item, tuple)]
    assert len(items) == 176 and len(hands) == 165
    assert {item[0] for item in items if isinstance(item, tuple)} == {Invalid.UNLABELLED}
    for hand in hands:
        projected = hand.keypoints3d @ hand.intrinsics.T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], hand.keypoints2d, atol=0.01)
    assert len({hand.info["index"] for hand in hands}) == 165
    assert len({hand.info["sample"] for hand in hands}) == 22
